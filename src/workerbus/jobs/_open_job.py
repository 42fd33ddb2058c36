"""A job that a worker was asked for, as the server keeps it until it is answered; nothing here decides anything."""

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from anyio import current_time

from workerbus._concurrency.waiting import Held, Key, Role, Wait, enumerated, job_title
from workerbus._values import JobStatus, Value, value
from workerbus.jobs._limiter import Limiter
from workerbus.jobs._state import JobState
from workerbus.jobs._window import SenderWindow
from workerbus.messages import BusJobRequestMessage


@value
class Route(Value):
    """What to run for a job.

    Args:
        run: Calls the handler, bound to its worker.
        name: The name of the handler's method.
        deferred: Whether the handler may return and leave the job open.
        limiter: Where the job stands in line for its turn; None for a handler without a limit.
    """

    run: Callable[[BusJobRequestMessage], Awaitable[Any]]
    name: str
    deferred: bool = False
    limiter: "Limiter[OpenJob] | None" = None


class Refused(Exception):  # noqa: N818 - nothing has failed, and it never leaves the library
    """A request is not taken.

    Attributes:
        status: What it is answered.
        payload: What its requester is told.
    """

    def __init__(self, status: JobStatus, payload: dict[str, Any]) -> None:
        super().__init__(payload["error"])
        self.status = status
        self.payload = payload


class Running(Protocol):
    """What a job runs in: the scope of its handler."""

    @property
    def deadline(self) -> float:
        """When it is cancelled by itself."""

    @deadline.setter
    def deadline(self, value: float) -> None: ...

    def cancel(self) -> None:
        """Cancel the job's handler."""


class Assignment(Protocol):
    """A job that a pool has given to one of its members, as the member sees it.

    Its requester knows the pool alone: so it is the pool that sends the answer.
    """

    @property
    def line(self) -> Iterable["OpenJob"]:
        """The jobs of the pool that stand in line behind it."""

    def over(self) -> None:
        """Note that no handler runs for it any more."""

    def answered(
        self, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool = False, stream_end: bool = False
    ) -> None:
        """Pass its answer on."""


class OpenJob:
    """A job that this worker was asked for.

    Attributes:
        request: The message that asked for it.
        route: What is run for it.
        since: When it came, on this process's event loop's clock.
        state: How far it is; the members of `JobState` say what each state means.
        deadline: When its time is up, on this process's event loop's clock; infinite without a limit.
        scope: The scope that its handler runs in, while it does.
        assignment: Told of how it goes, where a pool has given it to this worker.
        timer: The number of what will let it begin, where it was asked for with a delay.
        watch: Its number at `Deadlines`, if that looks after it.
        window: How much of its stream may be sent; None until some was.
        verdict: Status and payload of its answer, once it was cancelled and its handler has yet to unwind.
    """

    __slots__ = (
        "assignment", "deadline", "request", "route", "scope", "since", "state", "timer", "verdict", "watch", "window",
    )  # fmt: skip

    def __init__(self, request: BusJobRequestMessage, route: Route, now: float) -> None:
        self.request: BusJobRequestMessage = request
        self.route: Route = route
        self.state: JobState = JobState.QUEUED
        left = request.seconds_left
        self.since: float = now
        self.deadline: float = math.inf if left is None else self.since + left
        self.scope: Running | None = None
        self.assignment: Assignment | None = None
        self.watch: int | None = None
        self.timer: int | None = None
        self.window: SenderWindow | None = None
        self.verdict: tuple[JobStatus, dict[str, Any]] | None = None

    @property
    def deferred(self) -> bool:
        """Whether its handler has returned and left the job open."""
        return self.state is JobState.DEFERRED

    @property
    def waits(self) -> bool:
        """Whether it stands in line for its turn."""
        limiter = self.route.limiter
        return limiter is not None and limiter.waits(self)

    @property
    def title(self) -> str:
        """What it is called, for who looks at what a worker does."""
        request = self.request
        return f"worker {request.target!r}, {self.name}, asked for by {request.source!r}"

    @property
    def name(self) -> str:
        """The same, without whom it concerns."""
        return job_title(self.request.job_id, self.request.job_name)

    @property
    def keys(self) -> tuple[Key, ...]:
        """What it can be found by."""
        return (("job", self.request.job_id, self.request.target),)

    def role(self) -> Role:
        """Return what the task of its handler is for."""
        return Role(self.title, self.keys, since=self.since, deadline=self.deadline)

    def held(self) -> Held | None:
        """Return what it waits for without a task; None where it does not."""
        if self.deferred:
            wait = Wait(0, "for somebody to answer it: its handler has returned, and left it open")
        elif self.timer is not None:
            wait = Wait(1, "for its delay to pass")
        elif self.waits:
            wait = self._turn()
        else:
            return None
        return Held(self.title, wait, self.keys, self.since, self.deadline)

    def _turn(self) -> Wait:
        limiter = self.route.limiter
        assert limiter is not None
        if limiter.why is not None:
            return Wait(1, limiter.why)
        # Of several jobs that have their turn, the first one to end is enough. A `Wait` is for all that it names: so it
        # names the job if it is the only one, and otherwise none, lest a circle be found where there is none.
        others = list(limiter.holders)
        have = "has" if len(others) == 1 else "have"
        text = f"for {limiter.place}, which {enumerated([other.name for other in others])} {have}"
        return Wait(1, text, others[0].keys if len(others) == 1 else ())

    def reader_in_words(self, window: SenderWindow) -> Wait | None:
        """Return what its handler waits for when its stream is ahead of who reads it; None where it is not."""
        if window.sent < window.until:
            return None
        return Wait(1, f"for {self.request.source!r} to read the stream of {self.name}: its window is full")

    @property
    def late(self) -> bool:
        """Whether its time is up."""
        return self.deadline != math.inf and self.deadline <= current_time()


def those_in_line_first(jobs: Iterable[OpenJob]) -> list[OpenJob]:
    """Sort jobs that are about to be cancelled: those in line go first, or each place that is freed would start one."""
    return sorted(jobs, key=lambda job: not job.waits)
