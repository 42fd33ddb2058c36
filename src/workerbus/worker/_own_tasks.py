"""Tasks of a worker's own: they start at any time, and end with the worker at the latest (W7, W10, L1).

They run in the same group as the worker's hooks and job handlers, and are cancelled with these. An error in one is
reported as a hook's is, and ends nothing else. No end waits for them: what is to be finished is a job, or ``run()``.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import sort_failure
from workerbus._concurrency.lifetime import LazyEvent, TaskHost
from workerbus._concurrency.own_tasks import OwnTask, TaskHandle
from workerbus._concurrency.waiting import Role, serves


class OwnTasks:
    """The tasks of one worker's own.

    Args:
        owner: The worker's name.
        failed: Called with the name and the error of a task that has failed.

    Attributes:
        closed: Whether the worker winds down: what is started from now on is cancelled at once.
    """

    __slots__ = ("_failed", "_idle", "_owner", "_running", "closed")

    def __init__(self, owner: str, failed: Callable[[str, BaseException], None]) -> None:
        self._owner = owner
        self._failed = failed
        self._running: set[OwnTask] = set()
        self._idle: LazyEvent | None = None
        self.closed: bool = False

    def start(self, host: TaskHost, work: Awaitable[Any], label: str) -> TaskHandle:
        """Start a task in a host."""
        task = OwnTask(f"{self._owner} {label}")
        self._running.add(task)
        if self.closed:
            task.cancel()
        host.start(self._run, task, work, label, name=task.get_name())
        return task

    async def _run(self, task: OwnTask, work: Awaitable[Any], label: str) -> None:
        try:
            await task.run(work)
        except BaseException as exc:  # noqa: BLE001 - sorted there
            failure = sort_failure(exc)
            await failure.pass_on()
            self._failed(label, failure.error)
            await failure.let_cancel()
        finally:
            self._running.discard(task)
            if self._idle is not None and not self._running:
                self._idle.set()

    tells(_run, lambda its: its["self"].runs(its["label"]))
    serves(_run, lambda its: its["self"].role(its["label"]))

    def role(self, label: str) -> Role:
        """Return what a task is for, for who looks at its frames."""
        return Role(f"worker {self._owner!r}, task {label!r}", works=True)

    def runs(self, label: str) -> Doing:
        """Return what a task is doing, for who looks at its frames."""
        return Doing(f"task {label!r} of worker {self._owner!r}", self._owner)

    @property
    def idle(self) -> bool:
        """Whether no task runs."""
        return not self._running

    def close(self) -> None:
        """Cancel all tasks, those to come included."""
        self.closed = True
        for task in self._running:
            task.cancel()

    async def quiet(self) -> None:
        """Wait until no task runs."""
        while self._running:
            self._idle = LazyEvent()
            await self._idle.wait()
