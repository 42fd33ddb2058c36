"""The session of a worker's pipeline: what comes in, what leaves, why it ends, and who is told (P2, P3, P6, W3).

A `PipelineSession` is there before the pipeline runs, when it keeps frames, and after it, when it refuses them. How a
pipeline starts and ends is in `_running`; when it does is here:

1. The pipeline starts; what was queued before waits for that. Then the worker starts, too.
2. It ends when an `EndFrame` or a `StopFrame` has come through, or when somebody cancels: the first of these decides.
   It is the **verdict**, and never changes.
3. The wind-down is the same for all, under one deadline; a cancel sends its `CancelFrame` through first.
"""

import logging
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final

from anyio import CancelScope, Event, current_time, get_current_task, move_on_after, sleep_until

from workerbus._concurrency.failures import is_panic
from workerbus._log import about
from workerbus.abc import HookCall
from workerbus.errors import FlushError, NotRunningError
from workerbus.pipeline._bus_edge import BusEdge
from workerbus.pipeline._flush import Flushes, FlushRound
from workerbus.pipeline._frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    FlushMarker,
    Frame,
    FrameDirection,
    HeartbeatFrame,
    Marker,
    StartFrame,
    StopFrame,
    TTSSpeakFrame,
)
from workerbus.pipeline._heartbeats import Heartbeats
from workerbus.pipeline._owner import FrameWorker
from workerbus.pipeline._params import SessionOptions
from workerbus.pipeline._pipeline_hooks import PipelineEvents
from workerbus.pipeline._ports import DOWNSTREAM, Entry, Waiting, Watcher
from workerbus.pipeline._running import Row, RunningPipeline, Tellers
from workerbus.worker._core import core_of

logger = logging.getLogger("workerbus.pipeline")

START_SECONDS: Final = 5.0
"""After how many seconds the log names the processors that keep a pipeline from starting."""


class PipelineSession:
    """The session of one worker's pipeline.

    Args:
        worker: The worker.
        row: The processors, connected.
        bus_edge: The bridge to the bus; None for a worker that is not bridged.
        events: Runs the worker's hooks.
        watch: Who watches the frames.
        options: How it is started, watched and ended.

    Attributes:
        flushes: The flushes that are under way.
        queues_itself: Returns whether the user has a `queue_frame` of their own, which the library's frames go through.
    """

    # `_shutdown` is set when an end has been let in: nothing comes in behind it. `_verdict` is set when the pipeline is
    # over: nothing comes in at all. `_started` says whether the hooks have been told of the start, and not of the end
    # yet; `_opened`, whether frames are handled.

    def __init__(
        self,
        worker: FrameWorker,
        row: Row,
        bus_edge: BusEdge | None,
        events: PipelineEvents,
        *,
        watch: Watcher,
        options: SessionOptions,
    ) -> None:
        self._worker = worker
        self._core = core_of(worker)
        self._state = self._core.state
        self._row = row
        self._bus_edge = bus_edge
        self._events = events
        self._watch = watch
        self._options = options
        self._heartbeats: Heartbeats | None = None
        self.flushes: Flushes = Flushes(self._put_flush)
        self.queues_itself: Callable[[], bool] = lambda: False
        self._early: list[Entry] = []
        self._running: RunningPipeline | None = None
        self._body: CancelScope | None = None
        self._active: bool | None = None
        self._started = False
        self._opened = False
        self._shutdown = False
        self._verdict: EndFrame | StopFrame | CancelFrame | None = None
        self._through = Event()
        self._thread: int | None = None
        events.check_thread = self.check_thread

    # --- frames come in

    def queue(self, frame: Frame, direction: FrameDirection) -> Waiting | None:
        """Let in a frame that the user has queued.

        Args:
            frame: The frame.
            direction: The way in which it travels.

        Returns:
            What the user has to wait for; None if nothing.

        Raises:
            NotRunningError: The frame would never be handled; a `RuntimeError`.
        """
        # 1. The pipeline is over: refuse everything.
        # 2. A cancel counts at once, before the start, too.
        # 3. An end is under way, and this would come in behind it: another end is not needed, anything else is refused.
        # 4. The frame is the end: it goes in without waiting for room. If whoever queues it had to wait, and was
        #    cancelled meanwhile, it would be no end, though all that came behind it was refused.
        worker = self._worker
        self.check_thread()
        if self._verdict is not None:
            raise NotRunningError(
                f"worker {worker.name!r} takes no frames any more: its pipeline is over, make another"
            )
        if isinstance(frame, CancelFrame):
            self.cancel(frame)
            return None
        ends = isinstance(frame, EndFrame | StopFrame)
        if self._meets_the_end(frame, direction):
            if self._shutdown and not ends:
                raise NotRunningError(f"worker {worker.name!r} is ending: {frame.name} would never be handled")
            if self._shutdown:
                return None
            self._shutdown = ends
        waiting = self._put(frame, direction, may_wait=not ends)
        if ends:
            self._mind_the_end()
        return waiting

    @staticmethod
    def _meets_the_end(frame: Frame, direction: FrameDirection) -> bool:
        # System frames overtake an end, and upstream frames go the other way.
        return direction is DOWNSTREAM and not frame.is_system

    def check_thread(self) -> None:
        """Raise `WrongLoopError` in another thread than the one in which the pipeline runs."""
        if get_ident() != self._thread and self._thread is not None:
            self._state.check_loop()

    def came(self, frame: Frame, direction: FrameDirection) -> None:
        """Let in a frame from the bus, for which nobody waits; one that would come in behind an end is dropped."""
        if self._verdict is None and not (self._shutdown and self._meets_the_end(frame, direction)):
            self._put(frame, direction, may_wait=False)

    def speak(self, frame: TTSSpeakFrame) -> None:
        """Let in what is to be said, by way of the user's own `queue_frame`, if there is one."""
        if not self.queues_itself():
            self.came(frame, DOWNSTREAM)
        elif not self.ending:
            self._events.call("queue_frame", frame)

    @property
    def ending(self) -> bool:
        """Whether an end has been let in, or the pipeline is over."""
        return self._shutdown or self._verdict is not None

    def end(self, reason: str | None = None) -> None:
        """Let an `EndFrame` in, behind all that was queued so far, unless an end is under way already."""
        self._end_with(EndFrame(reason))

    def _end_with(self, frame: EndFrame | StopFrame) -> None:
        if not self._shutdown and self._verdict is None:
            self._shutdown = True
            self._put(frame, DOWNSTREAM, may_wait=False)
            self._mind_the_end()

    def _mind_the_end(self) -> None:
        # From the moment when frames are handled: before it, an end that was queued waits for the start, which has a
        # warning of its own. `worker_started` calls this again.
        state, running = self._state, self._running
        if running is not None and self._opened:
            running.mind_the_end(max(1.0, sum(state.graces)), partial(self._decide, EndFrame(state.reason)))

    def _put(self, frame: Frame, direction: FrameDirection, *, may_wait: bool) -> Waiting | None:
        if self._running is None:
            self._early.append((frame, direction))
            return None
        if self._running.watcher is not None and not isinstance(frame, Marker):
            self._running.watcher.saw(frame)
        entry = self._running.down_entry if direction is DOWNSTREAM else self._running.up_entry
        return entry.put(frame, direction, may_wait)

    # --- who waits, and who watches

    async def flush(self) -> None:
        """Wait until what has been queued so far has come out at the sink.

        Raises:
            NotRunningError: The pipeline is over; a `RuntimeError`.
            WrongLoopError: It runs in another thread; a `RuntimeError`.
            FlushError: It was cancelled meanwhile, or this is called while a frame is handled, which would wait for
                itself.
        """
        # A marker behind an end may be cut off when the pipeline has ended: what was before it has come out all the
        # same.
        name = self._state.name
        self.check_thread()
        if self._verdict is not None:
            raise NotRunningError(f"worker {name!r} has nothing to flush: its pipeline is over")
        handler = None if self._running is None else self._running.runs(get_current_task().id)
        if handler is not None:
            raise FlushError(
                f"worker {name!r} is not flushed by processor {handler!r} while that handles a frame, which would wait "
                "for itself: do it in a task"
            )
        over, came_out = Event(), [False]

        def then(out: bool) -> None:
            came_out[0] = out
            over.set()

        self.flushes.send(frozenset({name}), then)
        await over.wait()
        if not came_out[0] and not isinstance(self._verdict, EndFrame | StopFrame):
            raise FlushError(f"worker {name!r} was cancelled before what had been queued came out")

    def flush_for(self, asks: FlushRound) -> None:
        """Join in the flush of another pipeline, unless this one is over."""
        if self._verdict is None:
            asks.join()
            self.flushes.send(asks.seen | {self._state.name}, lambda _: asks.leave())

    def late(self) -> str | None:
        """Return why a worker that runs is not ready, for who looks at what it does."""
        return None if self._running is None else self._running.late()

    def lines(self) -> list[str]:
        """Return what its processors do, those that have nothing to do left out."""
        return [] if self._running is None else self._running.lines()

    @property
    def busy(self) -> list[str]:
        """The names of the processors that are at work."""
        return [] if self._running is None else self._running.busy

    def watchers_changed(self) -> None:
        """Have those told who watch now, and nobody else."""
        if self._running is not None:
            self._running.watchers_changed()

    @property
    def active(self) -> bool:
        """Whether the worker is active, or will be as soon as it has started."""
        return self._state.will_be_active if self._active is None else self._active

    def active_changed(self, active: bool) -> None:
        """Let frames out to the bus, or stop that when what is in the pipeline now has come out."""
        self._active = active
        if self._bus_edge is None:
            return
        if active:
            self._bus_edge.opened(self._state.after)
        elif self._running is not None and self._running.is_open:
            self._bus_edge.closing(self._put_marker)

    def _put_flush(self, marker: FlushMarker) -> None:
        self._put(marker, DOWNSTREAM, may_wait=False)

    def _put_heartbeat(self, frame: HeartbeatFrame) -> bool:
        if self.ending:
            return False
        self._put(frame, DOWNSTREAM, may_wait=False)
        return True

    def _put_marker(self, marker: Marker, direction: FrameDirection) -> None:
        self._put(marker, direction, may_wait=False)

    def worker_started(self) -> None:
        """Let frames be handled from now on; called in the step in which the worker gets ready."""
        if self._running is not None:
            self._running.open()
            self._opened = True
            if self._shutdown:
                self._mind_the_end()

    # --- frames leave

    def _left(self, frame: Frame, direction: FrameDirection, may_wait: bool) -> Waiting | None:
        if isinstance(frame, Marker):
            frame.arrived()
            return None
        if frame.is_local:
            self.check_thread()
            self._lifecycle(frame, direction)
        self._events.left(frame, direction)
        if self._bus_edge is None:
            return None
        return self._bus_edge.outgoing(frame, direction, self._worker.bus, may_wait)

    def _lifecycle(self, frame: Frame, direction: FrameDirection) -> None:
        # 1. A `CancelFrame` at the sink: it has got through, so the wind-down need not wait for it any longer. At the
        #    source: a processor asks for it.
        # 2. An end at the sink: nothing comes in behind it, from processors of this pipeline either. It decides when
        #    what is on its way upstream has arrived.
        # 3. An end at the source: a processor asks for it. A new frame goes in, behind all that was queued.
        assert self._running is not None
        if isinstance(frame, ErrorFrame):
            self._failed(frame)
        elif isinstance(frame, HeartbeatFrame):
            if self._heartbeats is not None:
                self._heartbeats.arrived()
        elif isinstance(frame, CancelFrame):
            if direction is DOWNSTREAM:
                self._running.cancel_arrived()
            self.cancel(frame)
        elif isinstance(frame, EndFrame | StopFrame):
            if direction is DOWNSTREAM:
                self._shutdown = True
                self._running.drain_upstream(partial(self._decide, frame))
            else:
                self._end_with(EndFrame(frame.reason) if isinstance(frame, EndFrame) else StopFrame())

    def _failed(self, frame: ErrorFrame) -> None:
        self._events.emit("on_pipeline_error", frame)
        if frame.fatal:
            text = f"processor {frame.processor!r}: {frame.error}"
            logger.error(
                "the pipeline of worker %r has failed: %s",
                self._worker.name,
                text,
                extra=about(worker=self._worker.name),
            )
            if frame.exception is not None and is_panic(frame.exception):
                self._core.lifecycle.fail(frame.exception, frame.processor or "pipeline")
            else:
                self._core.presence.report_error(text)
            self.cancel(CancelFrame(frame.error))

    def cancel(self, frame: CancelFrame) -> None:
        """End at once; where the end has been decided already, do not wait for the rest of it."""
        self._decide(frame)
        if self._body is not None:
            self._body.cancel()

    def _decide(self, frame: EndFrame | StopFrame | CancelFrame) -> None:
        # The first one counts: an end that has come through stays an end, even if a cancel cuts it short.
        if self._verdict is None:
            self._verdict = frame
            self._through.set()

    # --- it runs

    async def run(self) -> None:
        """Run the pipeline to its end.

        Its tasks are the worker's own: the cancellation of the worker's ``run()`` does not reach them, so that a
        `CancelFrame` can still get through.
        """
        # The ways to the end:
        #
        # 1. It was cancelled before it could begin: nothing has run, and nobody is told.
        # 2. An end has come through: wait for system frames, run the hooks, and only then wind down.
        # 3. A cancel, from within or without, or an error at the start, leaves the body where it stands. `_wind_down`
        #    tells the hooks then.
        if self._verdict is not None:
            return
        state = self._state
        self._thread = get_ident()
        self._events.begin(state.hooks.run)
        self._watch.open(state.tasks)
        tell = Tellers(self._left, self._started_at_sink, self._failed, lambda: self.active)
        running = RunningPipeline(self._worker, self._row, state.tasks, state.clean_up, self._watch, tell)
        try:
            with CancelScope() as self._body:
                await self._start(running)
                await self._through.wait()
                await running.system_quiet()
                if not isinstance(self._verdict, CancelFrame):
                    self._tell_finished()
                    await self._events.quiet()
        finally:
            await self._wind_down(running)

    async def _start(self, running: RunningPipeline) -> None:
        worker = self._worker
        running.start(running.name_the_slow, (START_SECONDS,), name=f"{worker.name} start", owner=worker.name)
        options = self._options
        await running.begin(
            partial(self._send_start, running),
            setup_seconds=options.setup_timeout,
            start_seconds=options.start_timeout,
        )
        # Hooks run from here on, and not before: a handler may ask for jobs, which takes a worker that runs.
        self._events.let_run(self._state.tasks)
        await self._state.worker.start()
        running.start(self._end_when_asked, (), name=f"{worker.name} end of pipeline", owner=worker.name)
        if options.idle_timeout is not None:
            args = (options.idle_timeout,)
            running.start(self._watch_idle, args, name=f"{worker.name} idle timeout", owner=worker.name)
        params = options.params
        if params.enable_heartbeats:
            period, patience = params.heartbeats_period_secs, params.heartbeats_monitor_secs
            beats = Heartbeats(worker.name, period, patience, self._put_heartbeat, lambda: running.busy)
            self._heartbeats = beats
            running.start(beats.run, (), name=f"{worker.name} heartbeats", owner=worker.name)

    def _send_start(self, running: RunningPipeline) -> None:
        self._running = running
        running.send_start(self._options.params.start_metadata)
        early, self._early = self._early, []
        for frame, direction in early:
            self._put(frame, direction, may_wait=False)

    def _started_at_sink(self, frame: StartFrame) -> None:
        # The worker starts right after this, and activations in between count: they call `active_changed`.
        self._active = self._state.will_be_active
        if self._bus_edge is not None and self._active:
            self._bus_edge.opened(self._state.after)
        self._started = True
        self._events.emit("on_pipeline_started", frame)
        self._events.left(frame, DOWNSTREAM)

    async def _end_when_asked(self) -> None:
        await self._core.lifecycle.until_stopped()
        if self.queues_itself() and not self.ending:
            await self._state.hooks.run(HookCall("queue_frame", (EndFrame(self._state.reason),)))
        else:
            self.end(self._state.reason)

    async def _watch_idle(self, seconds: float) -> None:
        while True:
            await sleep_until(self._watch.touched + seconds)
            if self._watch.touched + seconds > current_time():
                continue
            self._watch.touched = current_time()
            self._events.emit("on_idle_timeout")
            if self._options.cancel_on_idle_timeout:
                reason = f"idle for {seconds:g} seconds"
                logger.warning(
                    "worker %r is cancelled: no frame for %g seconds",
                    self._worker.name,
                    seconds,
                    extra=about(worker=self._worker.name),
                )
                if self._options.cancel_runner_on_idle_timeout:
                    await self._worker.cancel(reason=reason)
                self.cancel(CancelFrame(reason))

    def _tell_finished(self) -> None:
        if self._started:
            self._started = False
            self._events.emit("on_pipeline_finished", self._verdict)

    async def _wind_down(self, running: RunningPipeline) -> None:
        # One deadline covers all of it:
        #
        # 1. If nothing has decided, the body was cancelled or has failed: that is a cancel. The hooks may run, too,
        #    where a start that was cut short had not let them.
        # 2. A cancel sends its frame through; that takes at most half of the time (see `RunningPipeline.cancel`).
        # 3. The hooks, and after an end the observers, get half of what is left.
        # 4. In any case, the pipeline is closed: its tasks are cancelled, and its processors cleaned up.
        # 5. After a `StopFrame` the processors are free for another pipeline: not before all their tasks have ended.
        state, events = self._state, self._events
        self._decide(CancelFrame(state.reason))
        events.let_run(state.tasks)
        deadline = state.clean_up.begin()
        try:
            with state.clean_up.shield(deadline):
                if isinstance(self._verdict, CancelFrame):
                    await running.cancel(self._verdict, self._options.cancel_timeout)
                self._tell_finished()
                with move_on_after((deadline - current_time()) / 2):
                    await events.quiet()
                    if not isinstance(self._verdict, CancelFrame):
                        await self._watch.quiet()
        finally:
            events.close()
            self._watch.close()
            await running.close(deadline, clean=not isinstance(self._verdict, StopFrame))
            if isinstance(self._verdict, StopFrame):
                self._row.release()
