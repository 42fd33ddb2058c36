"""The tasks that job handlers run in. They are used again, since starting one costs more than a whole job (W8).

A task serves one job at a time, in one cancel scope whose deadline is set anew for each job. What must not be shared is
not: a handler starts with the worker's context variables, and when it has left others behind that cannot be put back,
or its scope was cancelled, the task ends and the next job gets a new one.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, Generic, Protocol, TypeVar

from anyio import CancelScope, Event

from workerbus._concurrency.backend import event_class
from workerbus._concurrency.left_open import LEFT_OPEN, close_left_open
from workerbus._concurrency.waiting import Wait, waits

T = TypeVar("T")

IDLE_TASKS: Final = 256
"""How many tasks a worker keeps for the next jobs."""


class StartsTasks(Protocol):
    """Where tasks run: a `TaskHost`, or what can do this."""

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Start a task."""


class _Seat(Generic[T]):
    """Where an idle task waits for its next job.

    Attributes:
        event: Set when there is a job.
        job: The job, once there is one.
    """

    __slots__ = ("event", "job")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.job: T | None = None


class TaskPool(Generic[T]):
    """Runs jobs in tasks of a host.

    Args:
        name: The owner's name, from which the tasks get theirs.
        perform: Runs one job in the scope that it is given, and returns whether the task may run another one. It
            raises nothing but what ends the task.
        host: Returns where new tasks run.

    Attributes:
        busy: The scope of each task that runs a job, to the job.
        _idle: The tasks that wait for a job, the one that has waited least last.
        _running: How many jobs run, or are about to.
        _quiet: Set when none does; made by who waits for that.
    """

    __slots__ = ("_host", "_idle", "_name", "_perform", "_quiet", "_running", "busy")

    def __init__(
        self, name: str, perform: Callable[[T, CancelScope], Awaitable[bool]], host: Callable[[], StartsTasks]
    ) -> None:
        self._name = name
        self._perform = perform
        self._host = host
        self._idle: list[_Seat[T]] = []
        self._quiet: Event | None = None
        self._running = 0
        self.busy: dict[CancelScope, T] = {}

    @property
    def idle(self) -> bool:
        """Whether no job runs, and none is about to."""
        return not self._running

    def submit(self, job: T) -> None:
        """Run a job in an idle task, or in a new one."""
        self._running += 1
        if self._idle:
            seat = self._idle.pop()
            seat.job = job
            seat.event.set()
        else:
            self._host().start(self._work, job, name=f"{self._name} job")

    def cancel(self) -> None:
        """Cancel all that runs, jobs that are answered already included."""
        for scope in self.busy:
            scope.cancel()

    async def quiet(self) -> None:
        """Wait until no job runs."""
        while self._running:
            if self._quiet is None:
                self._quiet = Event()
            await self._quiet.wait()

    waits(quiet, lambda its: its["self"].unwinding())

    def unwinding(self) -> Wait:
        """Return what those wait for who wait until no job runs."""
        return Wait(2, f"for the job handlers of {self._name!r} to unwind")

    async def _work(self, job: T) -> None:
        base, new_event = copy_context(), event_class()
        with CancelScope() as scope:
            # The task takes another job only where the last one has left nothing in it:
            #
            # 1. `perform` says that the scope was not cancelled; nothing takes that back.
            # 2. Enough tasks are idle already: this one ends, so that a peak of jobs does not stay in memory.
            # 3. The context variables are those that the task began with, or can be put back.
            while True:
                self.busy[scope] = job
                try:
                    usable = await self._perform(job, scope)
                finally:
                    del self.busy[scope]
                    self._running -= 1
                    if not self._running and self._quiet is not None:
                        self._quiet.set()
                        self._quiet = None
                    if LEFT_OPEN:
                        await close_left_open()
                if not usable or len(self._idle) >= IDLE_TASKS or not _restore(base):
                    return
                del job  # while the task is idle, it holds nothing of the requester's
                job = await self._next(_Seat(new_event()))

    async def _next(self, seat: _Seat[T]) -> T:
        self._idle.append(seat)
        try:
            await seat.event.wait()
        except BaseException:
            if seat.job is None:
                self._idle.remove(seat)
            else:
                # Cancelled in the very step in which it got a job. That counts as running, and has nobody else to run
                # it, so another task does.
                self._host().start(self._work, seat.job, name=f"{self._name} job")
            raise
        assert seat.job is not None
        return seat.job


def _restore(base: Context) -> bool:
    """Put the task's context variables back; False where a new one was set, which nothing can take back."""
    now = copy_context()
    if len(now) != len(base):
        return False
    for variable, value in base.items():
        if now[variable] is not value:
            variable.set(value)
    return True
