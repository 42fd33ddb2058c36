"""What loops over a job or a job group get: its events, its stream, its answers, or how far it is (J7, J18-J20).

Each is an iterator over what a `JobGroup` keeps; it takes, and whoever waits for a reader is told so. Only reports of
how far it is take nothing.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, Self, TypeVar

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from workerbus._concurrency.waiting import waits
from workerbus._values import BATCH, JobStatus
from workerbus.jobs._events import JobAnswer, JobEvent, JobGroupEvent, JobProgress
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import GroupState
from workerbus.jobs._window import MARK, EventQueue

E = TypeVar("E")


class Events(Generic[E]):
    """The events of a group as an iterator; all loops over one group share its queue."""

    __slots__ = ("_events", "_group", "_queue", "_reads", "_shape", "_single", "_taken", "name")

    def __init__(self, group: JobGroup, queue: EventQueue, name: str | None, shape: Callable[..., E]) -> None:
        self._group = group
        self._queue = queue
        self._events = queue.events
        self.name: str | None = name
        self._shape = shape
        self._single = group.single
        self._taken = 0
        self._reads = False

    def __aiter__(self) -> Self:
        return self

    def _begin(self) -> None:
        self._reads = True
        self._queue.begins()

    def __del__(self) -> None:
        if self._reads and self._group.state is GroupState.OPEN:
            self._queue.ends()  # the loop was left before its end: whoever waits for it is to go on

    async def __anext__(self) -> E:
        group = self._group
        if not self._taken % BATCH:
            if self._taken:
                await checkpoint()
            else:
                self._begin()  # only now: nobody waits for a loop that was made and never run
        self._taken += 1
        events = self._events
        while not events:
            if group.state is not GroupState.OPEN:
                if group.state is not GroupState.COMPLETED:
                    await checkpoint_if_cancelled()  # the body is being cancelled: no line after the loop is to run
                raise StopAsyncIteration
            await group.changed().wait()
        kind, worker, data = events.popleft()
        if kind is MARK:
            number, (kind, worker, data) = data, events.popleft()
            self._queue.took(worker, number)
        return self._shape(kind, data) if self._single else self._shape(kind, worker, data)

    waits(__anext__, lambda its: its["group"].in_words())


class Stream(Generic[E]):
    """The chunks of a stream as an iterator, out of all events."""

    __slots__ = ("_events", "_shape")

    def __init__(self, events: Events[Any], shape: Callable[[Any], E]) -> None:
        self._events = events
        self._shape = shape

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while True:
            event = await self._events.__anext__()
            if event.type == JobEvent.STREAM_DATA:
                return self._shape(event)


class Answers:
    """The answers of a group as an iterator; all loops over one group share them."""

    __slots__ = ("_answer_of", "_arrivals", "_group", "_taken")

    def __init__(self, group: JobGroup, arrivals: deque[str], answer_of: Callable[[str], JobAnswer]) -> None:
        self._group = group
        self._answer_of = answer_of
        self._arrivals = arrivals
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobAnswer:
        group = self._group
        self._taken += 1
        if not self._taken % BATCH:
            await checkpoint()
        while True:
            if group.state not in (GroupState.OPEN, GroupState.COMPLETED):
                await checkpoint_if_cancelled()  # the body is being cancelled: no line of it is to run
            if self._arrivals:
                return self._answer_of(self._arrivals.popleft())
            if group.state is not GroupState.OPEN:
                raise StopAsyncIteration
            await group.change()

    waits(__anext__, lambda its: its["group"].in_words())


class Reports:
    """How far a group is, as an iterator: at once, and whenever something has happened since; each has its own."""

    __slots__ = ("_answered", "_event", "_failed", "_group", "_last", "_queue", "_taken")

    def __init__(self, group: JobGroup, queue: EventQueue) -> None:
        queue.watched = True
        self._group = group
        self._queue = queue
        self._answered = 0
        self._failed = 0
        self._event: object = None
        self._taken = 0
        self._last = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobProgress:
        group = self._group
        if self._last:
            raise StopAsyncIteration
        self._taken += 1
        if not self._taken % BATCH:
            await checkpoint()
        while self._taken > 1 and group.state is GroupState.OPEN and not self._has_news():
            await group.change()
        if group.state not in (GroupState.OPEN, GroupState.COMPLETED):
            await checkpoint_if_cancelled()  # the body is being cancelled: no line of it is to run
        self._last = group.state is not GroupState.OPEN
        return self.now()

    waits(__anext__, lambda its: its["group"].in_words())

    def _has_news(self) -> bool:
        return self._event is not self._queue.last or self._answered != len(self._group.responses)

    def now(self) -> JobProgress:
        """Return how far the group is now, without waiting."""
        group = self._group
        new = tuple(group.answer_of(worker) for worker in islice(group.responses, self._answered, None))
        self._answered += len(new)
        self._failed += sum(answer.status is not JobStatus.COMPLETED for answer in new)
        self._event = event = self._queue.last
        return JobProgress(
            label=group.label or group.job_name,
            total=len(group.worker_names),
            answered=self._answered,
            failed=self._failed,
            answers=new,
            event=None if event is None else JobGroupEvent(*event),
        )
