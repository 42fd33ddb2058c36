"""What an activation needs to know: that its worker is on the bus, and what this process has done before (S1, W3).

`BaseWorker.activate_worker` and ``deactivate_worker`` ask here first, so that nothing is changed for a worker that
nobody knows.
"""

from typing import Any

from workerbus._order import PROCESS, merged
from workerbus._slot import core_of
from workerbus._values import check_worker_name
from workerbus.errors import UnknownWorkerError
from workerbus.worker._state import WorkerState
from workerbus.worker._types import WorkerActivationArgs


def so_far(state: WorkerState) -> dict[str, int] | None:
    """Return how far this process is, and others of which the worker knows; None where there can be no others."""
    if state.bus.in_process:
        return None
    return merged(state.after, {PROCESS.id: PROCESS.next_number()})


def arguments_of(args: object) -> dict[str, Any] | None:
    """Return the arguments of an activation as a dict; raise `TypeError` for what cannot be arguments."""
    if args is None:
        return None
    if not isinstance(args, WorkerActivationArgs):
        raise TypeError(f"args are WorkerActivationArgs, or of a subclass, not {args!r}")
    return args.to_dict()


async def reach(state: WorkerState, worker_name: str) -> None:
    """Wait until a worker is on the bus; raise `UnknownWorkerError` where nobody knows it."""
    check_worker_name(worker_name)
    registry, runner, failure = state.registry, state.runner, None
    while registry.get(worker_name) is None and worker_name in registry.restarting:
        failure = await registry.wait_for_news(worker_name)
    if registry.get(worker_name) is not None:
        return
    worker = None if runner is None else runner.get_worker(worker_name)
    if worker is not None:
        await core_of(worker).state.until_attached()  # its runner knows it: it is on its way to the bus
        return
    known = [] if runner is None else runner.known_workers()
    failure = failure or registry.failure_of(worker_name)
    names = {*known, *registry.local_workers, *registry.remote_workers}
    raise UnknownWorkerError(worker_name, names, failure=None if failure is None else failure.error)
