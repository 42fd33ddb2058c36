"""A pipeline that runs: its tasks, its two ends, and how it starts and ends (P2, P6, L1, L4, W4).

It does not know why it is to end: `PipelineSession` decides that, and calls these in this order:

1. **set up** the processors, one after the other;
2. **start**: send the `StartFrame`; when that has reached the sink and the worker has started, open every inbox;
3. **drain**: when an `EndFrame` has come through, wait for frames that are on their way upstream, and for system
   frames;
4. **cancel**, instead of 3: drop everything, send a `CancelFrame`, and wait for it half of the wind-down's time at
   most;
5. **close**, in any case: cancel all tasks, wait for them, and clean the processors up, until the deadline of the
   wind-down.
"""

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from anyio import Event, move_on_after, sleep
from attrs import frozen

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lifetime import CLEANUP_SECONDS, CleanUp, TaskHost
from workerbus._concurrency.own_tasks import OwnTask
from workerbus._concurrency.waiting import counted, names_of
from workerbus._log import about
from workerbus.errors import NotRunningError, PipelineStartTimeoutError
from workerbus.pipeline._frames import CancelFrame, ErrorFrame, Frame, FrameDirection, Marker, StartFrame
from workerbus.pipeline._owner import FrameProcessorSetup, FrameWorker
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, Entry, Piece, Port, Running, Waiting, Watcher
from workerbus.pipeline._processor_inbox import ProcessorInbox

logger = logging.getLogger("workerbus.pipeline")

Left = Callable[[Frame, FrameDirection, bool], Waiting | None]


class Processor(Protocol):
    """A processor, as the running pipeline sees it."""

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Get ready; see `FrameProcessor.setup`."""

    async def cleanup(self) -> None:
        """Release what the processor holds; see `FrameProcessor.cleanup`."""


class Row(Piece, Protocol):
    """Processors in their order, and how they are connected: what a `Pipeline` is while it runs."""

    @property
    def inboxes(self) -> list[ProcessorInbox]:
        """The inboxes of all processors, in their order."""

    def join(self, running: Running) -> None:
        """Make the processors part of a running pipeline."""

    def release(self) -> None:
        """Let the processors be put into another pipeline."""


class FrameTask(OwnTask):
    """A task of a pipeline; see `TaskHandle`.

    Attributes:
        owner: The name of the processor or the worker that it belongs to, for logs.
    """

    __slots__ = ("owner",)

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(name)
        self.owner: str = owner


class Edge:
    """An end of a pipeline, where frames leave it, in the step of whoever pushes them.

    Args:
        left: Called with each frame that leaves, but for the `StartFrame`; returns what the pusher has to wait for.
        started: Called when the `StartFrame` leaves.

    Attributes:
        got_start: Whether the `StartFrame` has left here.
    """

    owner: Any = None

    def __init__(self, left: Left, started: Callable[[StartFrame], None]) -> None:
        self._left = left
        self._started = started
        self._open = False
        self._halted = False
        self._early: list[Entry] = []
        self.got_start: bool = False

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Let a frame out, or keep it until the start; what comes after a cancel, but for its frame, is dropped."""
        if self._open:
            return self._left(frame, direction, may_wait)
        if self._halted:
            return self._left(frame, direction, may_wait) if isinstance(frame, CancelFrame) else None
        if isinstance(frame, StartFrame) and direction is DOWNSTREAM:
            self.got_start = True
            self._started(frame)
        else:
            self._early.append((frame, direction))
        return None

    def open(self) -> None:
        """Let out what has come before the start."""
        self._open = True
        early, self._early = self._early, []
        for frame, direction in early:
            self._left(frame, direction, False)

    def halt(self) -> None:
        """Let out nothing but a `CancelFrame`."""
        self._open, self._halted = False, True


@frozen
class Tellers:
    """What a running pipeline calls, and asks, when something happens in it.

    Args:
        left: Called with each frame that leaves the pipeline.
        started: Called when the `StartFrame` has reached the sink, before any other frame is handled.
        fatal: Called with a fatal error that comes up before the start.
        takes_frames: Returns whether frames may come in from the bus.
    """

    left: Left
    started: Callable[[StartFrame], None]
    fatal: Callable[[ErrorFrame], None]
    takes_frames: Callable[[], bool]


class RunningPipeline:
    """Starts a pipeline, and ends it.

    Args:
        worker: The worker that the pipeline belongs to.
        row: The processors, connected.
        host: Where the pipeline's tasks run.
        clean_up: Gives out the shields of the worker's wind-down.
        watcher: Who watches the frames.
        tell: What to call when something happens.

    Attributes:
        worker: The worker that the pipeline belongs to.
        watcher: Who watches the frames; None if nobody does.
        inboxes: The inboxes of the processors, in their order.
        head: The end where frames leave upstream.
        tail: The end where frames leave downstream.
        down_entry: Where frames come in that travel downstream.
        up_entry: Where frames come in that travel upstream.
        settled: Set when the pipeline has started, or could not.
        is_open: Whether the pipeline has started, and is not being cancelled.
        error: What the first processor that could not start has raised; None if none has.
    """

    def __init__(
        self,
        worker: FrameWorker,
        row: Row,
        host: TaskHost,
        clean_up: CleanUp,
        watcher: Watcher,
        tell: Tellers,
    ) -> None:
        self.worker: FrameWorker = worker
        self._watcher = watcher
        self.watcher: Watcher | None = watcher if watcher.needed else None
        self._host = host
        self._clean_up = clean_up
        self._tell = tell
        self._tasks: set[FrameTask] = set()
        self._closed = False
        self.settled: Event = Event()
        self.is_open: bool = False
        self.error: BaseException | None = None
        self.inboxes: list[ProcessorInbox] = row.inboxes
        self.head = Edge(tell.left, self._start_at_sink)
        self.tail = Edge(tell.left, self._start_at_sink)
        self._cancelled = Event()
        self.down_entry: Port = row.down_entry
        self.up_entry: Port = row.up_entry
        row.join(self)
        row.connect(self.head, self.tail)

    # --- for the inboxes

    def start(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: Iterable[Any], *, name: str, owner: str
    ) -> FrameTask:
        """Start a task that ends with the pipeline.

        Args:
            function: An async function.
            args: Its arguments.
            name: The task's name.
            owner: The name of the processor or the worker that the task belongs to, for logs.

        Raises:
            NotRunningError: The pipeline is over; a `RuntimeError`.
        """
        if self._closed:
            raise NotRunningError(f"processor {owner!r} is not running any more")
        task = FrameTask(name, owner)
        self._tasks.add(task)
        self._host.start(self._run, task, function, args, name=name)
        return task

    async def _run(
        self, task: FrameTask, function: Callable[..., Coroutine[Any, Any, Any]], args: Iterable[Any]
    ) -> None:
        try:
            await task.run(function(*args))
        finally:
            self._tasks.discard(task)

    @property
    def takes_frames(self) -> bool:
        """Whether frames may come in from the bus: the worker is active, or will be when it has started."""
        return self._tell.takes_frames()

    def start_failed(self, exc: BaseException) -> None:
        """Note that a processor has raised instead of passing the `StartFrame` on: the pipeline cannot start."""
        self.error = self.error or exc
        self.settled.set()

    def fatal(self, frame: ErrorFrame) -> None:
        """Note that a fatal error has come up before the start."""
        self._tell.fatal(frame)

    def watchers_changed(self) -> None:
        """Have those told who watch now, and nobody else."""
        self.watcher = self._watcher if self._watcher.needed else None
        for inbox in self.inboxes:
            inbox.refit()

    def runs(self, task_id: int) -> str | None:
        """Return the name of the processor one of whose frames is handled in a task; None if there is none."""
        return next((inbox.name for inbox in self.inboxes if inbox.handles_in(task_id)), None)

    @property
    def busy(self) -> list[str]:
        """The names of the processors that are at work."""
        return [inbox.name for inbox in self.inboxes if inbox.at_work]

    # --- the start

    async def set_up(self) -> None:
        """Set the processors up, one after the other, in their order; what one of them raises comes out."""
        for inbox in self.inboxes:
            processor: Processor = inbox.owner
            await processor.setup(FrameProcessorSetup(self.worker))
            inbox.set_up = True

    def send_start(self, metadata: Mapping[str, Any]) -> None:
        """Send the `StartFrame`; what bridges have kept from before goes into the inboxes first, and waits there.

        Args:
            metadata: What the frame bears.
        """
        for inbox in self.inboxes:
            if inbox.visitor is not None:
                inbox.visitor.joined()
        self.down_entry.put(StartFrame(metadata=dict(metadata)), DOWNSTREAM, False)

    def _start_at_sink(self, frame: StartFrame) -> None:
        if self._closed:
            return  # by a handler that has refused to be cancelled
        self.is_open = True
        self._tell.started(frame)
        self.settled.set()

    def open(self) -> None:
        """Let frames be handled from now on: the worker has started, too, so that a processor may ask for jobs."""
        # All in one step: an inbox only fills its lanes here, so no frame is handled before every inbox is open.
        if self.is_open:
            for inbox in self.inboxes:
                inbox.open()
            self.head.open()
            self.tail.open()

    @property
    def slow_starters(self) -> list[str]:
        """The names of the processors that keep the pipeline from starting now."""
        unready = [inbox.name for inbox in self.inboxes if not inbox.set_up]
        return unready[:1] or [inbox.name for inbox in self.inboxes if inbox.late_with_start]

    def late(self) -> str:
        """Return what keeps the pipeline from starting now, in words."""
        slow = self.slow_starters
        if all(inbox.set_up for inbox in self.inboxes):
            return f"the StartFrame was not pushed on by {names_of(slow)}"
        return f"processor {slow[0]!r} is not set up"

    def lines(self) -> list[str]:
        """Return what its processors do and what waits for them, in words; those that have nothing are left out."""
        lines: list[str] = []
        for inbox in self.inboxes:
            texts = [f"handles {lane.current.name}" for lane in inbox.lanes if lane.current is not None]
            waiting = sum(len(lane.entries) for lane in inbox.lanes)
            texts += [f"has {counted(waiting, 'more frame')} waiting"] if waiting else []
            lines += [f"processor {inbox.name!r} {', and '.join(texts)}"] if texts else []
        return lines

    async def begin(
        self, send: Callable[[], None], *, setup_seconds: float | None, start_seconds: float | None
    ) -> None:
        """Set the processors up, and send the start through.

        Args:
            send: Sends the start, and what waits for it.
            setup_seconds: How long `set_up` may take; None for as long as it likes.
            start_seconds: How long the `StartFrame` may take after that; None for as long as it likes.

        Raises:
            PipelineStartTimeoutError: It has taken longer.
        """
        with move_on_after(setup_seconds) as limit:
            await self.set_up()
        if limit.cancelled_caught:
            assert setup_seconds is not None
            raise PipelineStartTimeoutError(self.worker.name, self.slow_starters, setup_seconds, setting_up=True)
        send()
        with move_on_after(start_seconds) as limit:
            await self.settled.wait()
        if limit.cancelled_caught:
            assert start_seconds is not None
            raise PipelineStartTimeoutError(self.worker.name, self.slow_starters, start_seconds, setting_up=False)
        if self.error is not None:
            raise self.error

    async def name_the_slow(self, seconds: float) -> None:
        """Log which processors keep the pipeline from starting, if it has not started in so many seconds."""
        with move_on_after(seconds):
            await self.settled.wait()
            return
        slow = self.slow_starters
        logger.warning(
            "the pipeline of worker %r has not started in %g seconds: it waits for %s; a processor must push the "
            "StartFrame on",
            self.worker.name,
            seconds,
            ", ".join(map(repr, slow)),
            extra=about(worker=self.worker.name),
        )

    # --- the end

    def mind_the_end(self, seconds: float, lost: Callable[[], None]) -> None:
        """Watch over an end that comes in now: log what it waits for, and give it up where it is lost.

        Args:
            seconds: How long to wait before each look.
            lost: Called when the frame that is to end the pipeline is lost: a processor has kept it, and does nothing
                any more that could still push it on.
        """
        for inbox in self.inboxes:
            inbox.kept = False  # of another end, which processors have made and dropped among themselves
        name = self.worker.name
        self.start(self._mind_the_end, (seconds, lost), name=f"{name} end of frames", owner=name)

    async def _mind_the_end(self, seconds: float, lost: Callable[[], None]) -> None:
        # A queued end may take as long as its frames do, so time alone decides nothing. At each look:
        #
        # 1. A processor has kept the end and is at work: it may be about to push it on, from a task of its own, say.
        # 2. A processor has kept it and is idle: the end is taken for lost, however short a time ago it was kept.
        # 3. Nobody has kept it: it waits behind frames. Those who are at work are named, once for each set of names.
        told: list[str] = []
        while True:
            await sleep(seconds)
            keepers = [inbox.name for inbox in self.inboxes if inbox.kept and not inbox.at_work]
            if keepers:
                text = "worker %r ends without the end that processor %r has not pushed on"
                logger.warning(text, self.worker.name, keepers[0], extra=about(worker=self.worker.name))
                lost()
                return
            busy = self.busy
            if busy != told:
                told = busy
                text = "the pipeline of worker %r has not ended in %g seconds: it waits for %s"
                logger.warning(
                    text,
                    self.worker.name,
                    seconds,
                    ", ".join(map(repr, busy)) or "nobody",
                    extra=about(worker=self.worker.name),
                )

    def drain_upstream(self, then: Callable[[], None]) -> None:
        """Call a function when all frames that are on their way upstream now have arrived."""
        # An end has come out downstream: nothing is before it any more on that way, but answers to what it has driven
        # on may be on their way back.
        self.up_entry.put(Marker(then), UPSTREAM, False)

    async def system_quiet(self) -> None:
        """Wait until the system frames that are on their way now, in either direction, have arrived."""
        # Along the pipeline and back: what a system frame makes a processor push, either way, is put into the next
        # inbox before its own is quiet.
        for inbox in (*self.inboxes, *reversed(self.inboxes)):
            await inbox.system_quiet()

    def cancel_arrived(self) -> None:
        """Note that the `CancelFrame` has reached the sink."""
        self._cancelled.set()

    async def cancel(self, frame: CancelFrame, seconds: float) -> None:
        """Drop everything and send a `CancelFrame` through; where the `StartFrame` has not been through, do nothing.

        Args:
            frame: The frame.
            seconds: How long to wait for it, at most half of the time of the wind-down.
        """
        # The order of the steps matters:
        #
        # 1. Close the ends: what handlers still push while they unwind must not reach the worker or the bus.
        # 2. Halt every inbox before the frame is put into the first: none may take anything else any more.
        # 3. Wait for the frame half of the time, and leave the other half to `close`. A processor that does not push it
        #    on cannot keep the worker: all tasks are cancelled then.
        if not self.is_open:
            return
        self.is_open = False
        for edge in (self.head, self.tail):
            edge.halt()
        for inbox in self.inboxes:
            inbox.halt()
        self.down_entry.put(frame, DOWNSTREAM, False)
        with move_on_after(min(seconds, CLEANUP_SECONDS / 2)) as limit:
            await self._cancelled.wait()
        if limit.cancelled_caught:
            logger.warning(
                "the CancelFrame has not got through the pipeline of worker %r in time",
                self.worker.name,
                extra=about(worker=self.worker.name),
            )

    async def close(self, deadline: float, *, clean: bool) -> None:
        """End all tasks, and clean the processors up.

        Args:
            deadline: Until when to wait, in seconds, by the event loop's clock.
            clean: Whether to clean up; not after a `StopFrame`.
        """
        # The order of the steps matters:
        #
        # 1. No task can be started from here on, not even by a handler that unwinds: the list below is complete.
        # 2. Inboxes end before their tasks are waited for: what those still push goes nowhere.
        # 3. `cleanup()` comes when the processor's tasks have ended, so that none of them uses what it releases; or
        #    when the deadline has passed, with a warning that names those who refuse to end.
        # 4. Only what has been set up is cleaned up; also where a native cancellation, as by asyncio's `timeout()`,
        #    cuts the wait off.
        self._closed = True
        for inbox in self.inboxes:
            inbox.end()
        for task in self._tasks:
            task.cancel()
        try:
            with self._clean_up.shield(deadline) as shield:
                for task in list(self._tasks):
                    await task.wait()
            if shield.cancelled_caught:
                late = ", ".join(repr(name) for name in sorted({task.owner for task in self._tasks}))
                logger.warning(
                    "worker %r waits for processors that refuse cancellation: %s",
                    self.worker.name,
                    late,
                    extra=about(worker=self.worker.name),
                )
        finally:
            for inbox in self.inboxes:
                if inbox.set_up and clean:
                    await self._clean(inbox, deadline)

    async def _clean(self, inbox: ProcessorInbox, deadline: float) -> None:
        processor: Processor = inbox.owner
        try:
            # Past the deadline, too: what cleanup() does before it first waits is still done.
            with self._clean_up.shield(deadline) as shield:
                await processor.cleanup()
            if shield.cancelled_caught:
                logger.warning(
                    "cleanup() of processor %r has not ended in time", inbox.name, extra=about(worker=self.worker.name)
                )
        except BaseException as exc:
            logger.error(
                "cleanup() of processor %r failed",
                inbox.name,
                exc_info=await own_error(exc),
                extra=about(worker=self.worker.name),
            )
