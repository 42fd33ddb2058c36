"""What a program must not leave behind: tasks, signal handlers, subscribers, registry entries, open jobs (L1).

It looks into what the library keeps, and asks nothing of the program under test.
"""

import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from anyio import TaskInfo, get_running_tasks

from workerbus._registry import WorkerRegistry
from workerbus._slot import core_of
from workerbus.bus._bus import WorkerBus
from workerbus.diagnosis._waiting import Waiter, describe
from workerbus.runner._runner import WorkerRunner
from workerbus.worker._base import BaseWorker

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Owner = WorkerRunner | BaseWorker | WorkerBus
"""What `nothing_left` can look into."""

_TABLES: Final = {
    "_local": "the workers {}",
    "_remote": "the workers {} of other runners",
    "_watchers": "watches for {}",
    "_departure_watchers": "watches for the departure of {}",
    "_waiting": "somebody who waits for {}",
    "_restarting": "restarts of {}",
}


def assert_no_jobs(*owners: BaseWorker | WorkerRunner) -> None:
    """Raise an `AssertionError` if a job is open, a job group is not over, or a job's handler is still running.

    ::

        async def test_an_echo_keeps_no_job():
            echo = EchoWorker("echo")
            async with WorkerRunner() as runner:
                await runner.add_workers(echo)
                await runner.job("echo")
                assert_no_jobs(runner, echo)

    Args:
        *owners: The workers and runners to look at; a runner's workers are looked at, too.

    Raises:
        AssertionError: There are such jobs; the text says which.
        TypeError: An owner is neither a worker nor a runner.
    """
    _check(owners, (BaseWorker, WorkerRunner), "assert_no_jobs looks at workers and runners")
    _fail("jobs are left", _jobs_of(_with_workers(owners)))


@asynccontextmanager
async def nothing_left(*owners: Owner, stays: Iterable[str] = ()) -> AsyncIterator[None]:
    """Raise an `AssertionError` if the block leaves anything behind; an exception of its own goes through instead.

    ::

        async def test_a_run_leaves_nothing():
            runner = WorkerRunner()
            async with nothing_left(runner):
                await runner.add_workers(EchoWorker("echo"))
                async with runner:
                    await runner.job("echo", payload={"n": 1})

    It always checks tasks and signal handlers; for a runner, its bus (subscribers, and whether it is open), registry,
    workers and jobs; for a bus, its subscribers and whether it is open; for a worker, its jobs.

    Args:
        *owners: The runners, workers and buses to look at; by default only tasks and signal handlers are looked at.
        stays: Names of subscribers that may stay.

    Raises:
        AssertionError: Something is left; the text says what, and where tasks wait.
        TypeError: An owner is neither a runner nor a worker nor a bus.

    Guarantees: L1.
    """
    _check(owners, (BaseWorker, WorkerRunner, WorkerBus), "nothing_left looks at runners, workers and buses")
    tasks = {task.id for task in get_running_tasks()}
    handlers = signal_handlers()
    known = _with_workers(owners)
    opened = {bus: bus.is_open for bus in _buses(owners)}
    yield
    left = [_task(task) for task in get_running_tasks() if task.id not in tasks]
    left += _handlers(handlers)
    left += [line for owner in owners if isinstance(owner, WorkerRunner) for line in _of_runner(owner)]
    left += [line for bus, was_open in opened.items() for line in _of_bus(bus, was_open, set(stays))]
    left += _jobs_of(_with_workers((*known, *owners)))
    _fail("something is left", left)


def signal_handlers() -> list[Any]:
    """Return the handlers, now, of the signals that runners handle."""
    return [signal.getsignal(number) for number in SIGNALS]


def left_in(registry: WorkerRegistry) -> dict[str, Any]:
    """Return the tables of a registry that are not empty, by name: workers, watches, and those that wait."""
    return {name: table for name, table in vars(registry).items() if isinstance(table, dict) and table}


def _check(owners: Iterable[object], kinds: tuple[type, ...], what: str) -> None:
    for owner in owners:
        if not isinstance(owner, kinds):
            raise TypeError(f"{what}, each an argument of its own, not at {owner!r}")


def _fail(what: str, left: list[str]) -> None:
    if left:
        raise AssertionError("\n- ".join((f"{what}:", *left)))


def _task(task: TaskInfo) -> str:
    paragraphs = describe([Waiter(task.name or "", task.coro)], jobs=False)
    named = f"task {task.name!r}"
    if not paragraphs or paragraphs[0].startswith("idle"):
        return f"{named}, which is idle"
    described = paragraphs[0]
    return described if described.startswith(named) else f"{named}: {described}"


def _handlers(before: list[Any]) -> list[str]:
    return [
        f"a handler of {number.name}, {after!r}, where {earlier!r} was"
        for number, earlier, after in zip(SIGNALS, before, signal_handlers(), strict=True)
        if after != earlier
    ]


def _of_runner(runner: WorkerRunner) -> list[str]:
    held = left_in(runner.registry)
    left = [
        f"in the registry of runner {runner.name!r}: {_TABLES.get(table, f'{table} of {{}}').format(_names(names))}"
        for table, names in held.items()
    ]
    if workers := runner.known_workers():
        left.append(f"runner {runner.name!r} hosts {_names(workers)}")
    return left


def _of_bus(bus: WorkerBus, was_open: bool, stays: set[str]) -> list[str]:
    left = []
    if subscribers := bus.statistics().subscribers.keys() - stays:
        left.append(f"on bus {bus.name!r} are subscribed {_names(subscribers)}")
    if bus.is_open is not was_open:
        left.append(f"bus {bus.name!r} is {'open' if bus.is_open else 'closed'}, and was not before")
    return left


def _buses(owners: Iterable[object]) -> list[WorkerBus]:
    found = [owner.bus if isinstance(owner, WorkerRunner) else owner for owner in owners]
    return list(dict.fromkeys(bus for bus in found if isinstance(bus, WorkerBus)))


def _with_workers(owners: Iterable[object]) -> list[BaseWorker | WorkerRunner]:
    found: dict[BaseWorker | WorkerRunner, None] = {}
    for owner in owners:
        if isinstance(owner, BaseWorker | WorkerRunner):
            found[owner] = None
        if isinstance(owner, WorkerRunner):
            workers = [owner.get_worker(name) for name in owner.known_workers()]
            found.update(dict.fromkeys(worker for worker in workers if worker is not None))
    return list(found)


def _jobs_of(owners: Iterable[BaseWorker | WorkerRunner]) -> list[str]:
    left: list[str] = []
    for owner in owners:
        for group in core_of(owner).job_client.groups.values():
            whom = _names(group.pending) if group.pending else "nobody any more"
            left.append(f"{owner.name!r} keeps job {group.job_id}, {group.state.value}, and waits for {whom}")
        if isinstance(owner, WorkerRunner):
            continue
        server = core_of(owner).job_server
        answered = [job for job in server.pool.busy.values() if job.request.job_id not in server.jobs]
        left += [f"worker {owner.name!r} has {_title(job)}, {job.state.value}" for job in server.jobs.values()]
        left += [f"worker {owner.name!r} has answered {_title(job)}, and its handler still runs" for job in answered]
    return left


def _title(job: Any) -> str:
    request = job.request
    name = "without a name" if request.job_name is None else repr(request.job_name)
    return f"job {name} ({request.job_id}) for {request.source!r}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
