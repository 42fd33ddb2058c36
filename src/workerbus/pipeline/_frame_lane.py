"""One lane of a processor: a queue of frames, and the task that hands them over one at a time (P1).

It is not the bus's lane: here, frames that wait can be dropped, and the handling of one frame can be cancelled while
the lane goes on.

The rules of order:

1. A lane with a lane in ``first`` begins nothing while that one has frames waiting and is not suspended in a handler.
2. A lane that is ``held`` begins nothing, and nothing waits for what it has. An interruption holds the data lane until
   it has been passed on: what comes behind it must not get ahead of it. A processor that pauses holds a lane, too.
3. After 64 frames without a pause the task yields once, so that a flood starves nobody.
4. A handler that gets its own task cancelled natively ends that task, not the lane: another one goes on.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from threading import get_ident
from typing import Protocol

from anyio import CancelScope, Event, get_cancelled_exc_class, get_current_task, move_on_after
from anyio.lowlevel import checkpoint

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import Kind, cancelled_from_outside, sort_failure
from workerbus._concurrency.left_open import LEFT_OPEN, close_left_open
from workerbus._concurrency.own_tasks import TaskHandle
from workerbus._concurrency.waiting import Role, serves
from workerbus._values import BATCH
from workerbus.errors import WrongLoopError
from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.pipeline._ports import Entry


class Target(Protocol):
    """Who handles the frames of a lane."""

    def process_frame(self, frame: Frame, direction: FrameDirection, /) -> Awaitable[None]:
        """Handle a frame; see `FrameProcessor.process_frame`."""


class FrameLane:
    """Frames, handled one at a time in the order in which they were added.

    Args:
        name: The name of the processor, for errors.
        start: Starts a task that runs the given function.
        target: Its ``process_frame`` is awaited with each frame, and looked up for each.
        failed: Awaited with a frame and what its handling raised.
        joined: Awaited, instead of that, with each frame that has to get through whatever happens (``is_joined``).
        taken: Called with the direction of each frame that is taken out of the queue.
        first: The lane whose waiting frames go before this one's.
        title: Whose lane it is, in words; by default, the processor alone.

    Attributes:
        name: As given.
        target: Whose ``process_frame`` is awaited with each frame.
        entries: The frames that wait, each with its direction.
        current: The frame that is being handled; None while there is none.
        held: How many holds there are; while it is not 0, no frame is begun.
        unwound: Set when the handling that was cancelled last has ended; None if none was cancelled.
        task_id: The lane's task, by which anyio tells tasks apart; None before the first frame.
    """

    __slots__ = (
        "_failed",
        "_first",
        "_joined",
        "_scope",
        "_start",
        "_taken",
        "_task",
        "_thread",
        "_title",
        "_wake",
        "_when_quiet",
        "current",
        "entries",
        "held",
        "name",
        "target",
        "task_id",
        "unwound",
    )

    def __init__(
        self,
        name: str,
        start: "Callable[[FrameLane], TaskHandle]",
        target: Target,
        failed: Callable[[Frame, BaseException], Awaitable[None]],
        joined: Callable[[Frame, FrameDirection], Awaitable[None]],
        taken: Callable[[FrameDirection], None] | None = None,
        first: "FrameLane | None" = None,
        *,
        title: str = "",
    ) -> None:
        self.name: str = name
        self._thread = get_ident()
        self._start = start
        self.target: Target = target
        self._failed = failed
        self._joined = joined
        self._taken = taken
        self._first = first
        self._title = title or f"processor {name!r}"
        self._task: TaskHandle | None = None
        self._wake: Event | None = None
        self._scope: CancelScope | None = None
        self._when_quiet: list[Callable[[], object]] = []
        self.entries: deque[Entry] = deque()
        self.current: Frame | None = None
        self.held: int = 0
        self.unwound: Event | None = None
        self.task_id: int | None = None

    def add(self, entry: Entry) -> None:
        """Add a frame; the first one starts the lane's task. Another thread can neither start nor wake it."""
        if self._wake is not None:
            self._check_thread()
            self.entries.append(entry)
            self._wake.set()
            self._wake = None
        elif self._task is None:
            self._check_thread()
            self.entries.append(entry)
            self._task = self._start(self)
        else:
            self.entries.append(entry)

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise WrongLoopError(f"processor {self.name!r}", "thread")

    def release(self) -> None:
        """Take back one hold, and go on if it was the last."""
        self.held -= 1
        if not self.held and self._wake is not None:
            self._wake.set()
            self._wake = None

    def cancel_current(self) -> None:
        """Cancel the handling of the frame that is being handled; the lane goes on with the next."""
        if self.current is not None:
            assert self._scope is not None
            if self.unwound is None:
                self.unwound = Event()
            self._scope.cancel()

    def when_quiet(self, then: Callable[[], object]) -> None:
        """Call a function as soon as no frame waits and none is being handled; at once, if that is so now."""
        if self.entries or self.current is not None:
            self._when_quiet.append(then)
        else:
            then()

    async def quiet(self) -> None:
        """Wait until there is a moment in which no frame waits and none is being handled."""
        quiet = Event()
        self.when_quiet(quiet.set)
        await quiet.wait()

    async def until_unwound(self, seconds: float) -> bool:
        """Wait until the handling that was cancelled has ended, for so many seconds; returns whether it has."""
        if self.unwound is None:
            return True
        with move_on_after(seconds):
            await self.unwound.wait()
            return True
        return False

    def end(self) -> None:
        """Drop the frames that wait, cancel the handling, and begin nothing more."""
        self.entries.clear()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Handle frames until the task is cancelled."""
        # The scope is there so that the handling of one frame can be cancelled. Entering one for each frame would cost
        # 4 to 9 microseconds, so it is kept until it is cancelled, and only then replaced. No frame is taken in a
        # cancelled scope (`_take_all` returns first), hence none is lost in one.
        self.task_id = get_current_task().id
        self._wake = None
        while True:
            with CancelScope() as self._scope:
                try:
                    await self._take_all(self._scope)
                except get_cancelled_exc_class():
                    if cancelled_from_outside():
                        raise
                    self._task = self._start(self)  # rule 4
                    return
                finally:
                    if LEFT_OPEN:
                        await close_left_open()

    async def _take_all(self, scope: CancelScope) -> None:
        # The order of the steps matters:
        #
        # 1. Those who wait for a quiet lane are called before the task parks, one after the other, and not past a frame
        #    that one of them has put in: the next one would be told of a quiet that is over.
        # 2. Rule 1 looks at ``first`` before each frame: it may have got some while the last one was handled.
        # 3. ``unwound`` is set in any case, also where the handler swallowed the cancellation: an interruption waits
        #    for it. Then the task leaves the cancelled scope before it takes another frame.
        entries, first, taken = self.entries, self._first, self._taken
        batch = 0
        while True:
            if not entries or self.held:
                while self._when_quiet and not entries:
                    self._when_quiet.pop(0)()
                if entries and not self.held:
                    continue
                self._wake = Event()
                await self._wake.wait()
                batch = 0
                continue
            if first is not None and first.entries and first.current is None and not first.held:
                await checkpoint()  # rule 1
                continue
            frame, direction = entries.popleft()
            if taken is not None:
                taken(direction)
            self.current = frame
            try:
                if frame.is_joined:
                    await self._joined(frame, direction)
                else:
                    await self.target.process_frame(frame, direction)
            except BaseException as exc:  # noqa: BLE001 - raised again, unless it is the handler's own fault
                await self._sort_out(frame, exc)
            finally:
                self.current = None
                if self.unwound is not None:
                    self.unwound.set()
                    self.unwound = None
            if scope.cancel_called:
                return
            batch += 1
            if batch == BATCH:
                batch = 0
                await checkpoint()  # rule 3

    tells(_take_all, lambda its: Doing(f"processor {its['self'].name!r}, with a {type(its['frame']).__name__}"))
    serves(_take_all, lambda its: its["self"].role())

    def role(self) -> Role:
        """Return what the task of the lane is for, for who looks at its frames."""
        what = "" if self.current is None else f", with {self.current.name}"
        return Role(f"{self._title}{what}", (("lane", id(self)),), lambda: [frame.name for frame, _ in self.entries])

    async def _sort_out(self, frame: Frame, exc: BaseException) -> None:
        failure = sort_failure(exc)
        await failure.pass_on()
        await self._failed(frame, failure.error)
        if failure.kind is Kind.NATIVE:
            raise exc  # rule 4
        await failure.let_cancel()
