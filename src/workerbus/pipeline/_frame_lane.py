"""One lane of a processor: a queue of frames, and the parked task that hands them over one at a time.

Not the bus's lane: what waits here can be dropped, and what is being handled can be cancelled, without the lane. So the
task handles inside a cancel scope, which is used again and again until it was cancelled; no frame is taken in a
cancelled scope, hence none is lost in it.

The rules of order:

* A lane with a lane in ``first`` begins nothing while that one has frames waiting and is not suspended in a handler.
* A lane that is ``held`` begins nothing. An interruption holds the data lane until it has been passed on: what comes
  behind it must not get ahead of it.
* After 64 frames without a pause the task yields once, so that a flood starves nobody.
"""

from collections import deque
from collections.abc import Awaitable, Callable

from anyio import CancelScope, Event, get_cancelled_exc_class, get_current_task
from anyio.lowlevel import checkpoint

from workerbus._concurrency.failures import Kind, cancelled_from_outside, sort_failure
from workerbus._values import BATCH
from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.pipeline._ports import Entry, TaskHandle


class FrameLane:
    """Frames, handled one at a time in the order in which they were added.

    Args:
        start: Starts a task that runs the given function.
        handle: Awaited with each frame.
        failed: Called with a frame and what its handling raised.
        joined: Awaited with each frame that has to get through whatever happens (``is_joined``).
        taken: Called when a frame has been taken out of the queue.
        first: The lane that goes before this one.

    Attributes:
        entries: What waits.
        current: The frame that is being handled.
        held: While it is not 0, nothing is begun.
        unwound: Set when the frame that was cancelled last is no longer being handled; None if there is none.
        task_id: The task.
    """

    __slots__ = (
        "_failed",
        "_first",
        "_handle",
        "_joined",
        "_scope",
        "_start",
        "_taken",
        "_task",
        "_wake",
        "_when_quiet",
        "current",
        "entries",
        "held",
        "task_id",
        "unwound",
    )

    def __init__(
        self,
        start: "Callable[[FrameLane], TaskHandle]",
        handle: Callable[[Frame, FrameDirection], Awaitable[None]],
        failed: Callable[[Frame, Exception], None],
        joined: Callable[[Frame, FrameDirection], Awaitable[None]],
        taken: Callable[[FrameDirection], None] | None = None,
        first: "FrameLane | None" = None,
    ) -> None:
        self._start = start
        self._handle = handle
        self._failed = failed
        self._joined = joined
        self._taken = taken
        self._first = first
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
        """Add a frame; the first one starts the task."""
        self.entries.append(entry)
        if self._wake is not None:
            self._wake.set()
            self._wake = None
        elif self._task is None:
            self._task = self._start(self)

    def release(self) -> None:
        """Take back one hold."""
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
        """Call a function as soon as nothing waits and nothing is being handled, if only for a moment; now, if so."""
        if self.entries or self.current is not None:
            self._when_quiet.append(then)
        else:
            then()

    async def quiet(self) -> None:
        """Wait until nothing waits and nothing is being handled, if only for a moment."""
        quiet = Event()
        self.when_quiet(quiet.set)
        await quiet.wait()

    def end(self) -> None:
        """Drop what waits, cancel what is being handled, and begin nothing more."""
        self.entries.clear()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Handle frames until cancelled."""
        self.task_id = get_current_task().id
        self._wake = None
        while True:
            with CancelScope() as self._scope:
                try:
                    await self._take_all(self._scope)
                except get_cancelled_exc_class():
                    if cancelled_from_outside():
                        raise
                    self._task = self._start(self)  # somebody has cancelled this very task: another one goes on
                    return

    async def _take_all(self, scope: CancelScope) -> None:
        entries, first, handle, taken = self.entries, self._first, self._handle, self._taken
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
            if first is not None and first.entries and first.current is None:
                await checkpoint()
                continue
            frame, direction = entries.popleft()
            if taken is not None:
                taken(direction)
            self.current = frame
            try:
                if frame.is_joined:
                    await self._joined(frame, direction)
                else:
                    await handle(frame, direction)
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
                await checkpoint()

    async def _sort_out(self, frame: Frame, exc: BaseException) -> None:
        failure = sort_failure(exc)
        await failure.pass_on()
        self._failed(frame, failure.error)
        if failure.kind is Kind.NATIVE:
            raise exc
        await failure.let_cancel()
