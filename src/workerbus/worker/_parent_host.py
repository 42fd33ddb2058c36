"""A parent as the host of supervised children (S1). Its restarts are tasks of its own, which end with it."""

from collections.abc import Awaitable, Callable
from typing import Any

from workerbus._values import WorkerErrorData, WorkerRestartedData
from workerbus.abc import HookCall
from workerbus.errors import describe
from workerbus.messages import BusWorkerLocalErrorMessage
from workerbus.worker._state import WorkerState


class ParentHost:
    """A parent, as the host of supervised children.

    Args:
        state: The parent's state.
        add: Adds a child.
        create_task: Starts a task of the parent's own: a function, its arguments, and a name.
    """

    def __init__(
        self, state: WorkerState, add: Callable[..., Awaitable[None]], create_task: Callable[..., object]
    ) -> None:
        self._state = state
        self._add = add
        self._create_task = create_task

    @property
    def runner_name(self) -> str:
        """The name of the runner; empty before there is one."""
        runner = self._state.runner
        return "" if runner is None else runner.name

    @property
    def takes_workers(self) -> bool:
        """Whether neither the parent nor the runner is ending."""
        state = self._state
        return state.takes_children and state.runner is not None and not state.runner.is_ending

    async def add(self, worker: Any) -> None:
        """Add a child."""
        await self._add(worker)

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task that ends with the parent."""
        self._create_task(function, (), name)

    def restarting(self, name: str, *, is_so: bool) -> None:
        """Note that a child is being restarted, or no more."""
        state = self._state
        if not state.is_connected:
            return
        starts = state.runner is not None and state.runner.get_worker(name) is not None and name not in state.registry
        if is_so or not starts:  # else others cannot know it yet
            state.registry.note_restarting(name, is_so=is_so)

    def restarted(self, data: WorkerRestartedData) -> None:
        """Tell of a restart."""
        state = self._state
        if state.runner is not None:
            state.runner.worker_restarted(data)
        if state.hooks.wants("on_worker_restarted"):
            state.hooks.add(HookCall("on_worker_restarted", (data,)), system=False)

    def given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a child is not restarted any more."""
        if self._state.runner is not None:
            self._state.runner.worker_given_up(name, error)

    def escalate(self, name: str, error: BaseException) -> None:
        """Report a child that is given up: to the parent, and to the runner where the parent does not handle it."""
        state = self._state
        data = WorkerErrorData(name, describe(error), error, "restart", fatal=True)
        message = BusWorkerLocalErrorMessage(
            data.error, data.exception, data.origin, data.fatal, source=name, target=state.name
        )
        state.bus.post(message)
        if not state.hooks.wants("on_worker_failed") and state.runner is not None:
            state.runner.worker_error_untold(data)
