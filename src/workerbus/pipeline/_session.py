"""The session of a worker's pipeline: what comes in, what leaves, why it ends, and who is told (P2, P3).

A `PipelineSession` is there before the pipeline runs and after it, when it keeps or refuses frames. How a pipeline
starts and ends is in `_running`; when it does is here:

1. It starts; what was queued before waits for that. Then the worker starts, too.
2. It ends when an `EndFrame` or a `StopFrame` has come through, or when somebody cancels: the first one decides, and is
   the **verdict**.
3. The wind-down is the same for all, under one deadline; a cancel sends its `CancelFrame` through first.
"""

import logging
from functools import partial
from typing import Final

from anyio import CancelScope, Event, current_time, move_on_after, sleep_until

from workerbus.errors import NotRunningError
from workerbus.pipeline._bus_edge import BusEdge
from workerbus.pipeline._frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    Marker,
    StartFrame,
    StopFrame,
    SystemFrame,
)
from workerbus.pipeline._owner import FrameWorker
from workerbus.pipeline._pipeline_hooks import PipelineEvents
from workerbus.pipeline._ports import DOWNSTREAM, Entry, Waiting, Watcher
from workerbus.pipeline._running import Row, RunningPipeline, Tellers
from workerbus.worker._core import core_of

logger = logging.getLogger("workerbus")

START_SECONDS: Final = 5.0
"""After how many seconds the log names the processors that keep a pipeline from starting."""


class PipelineSession:
    """The session of one worker's pipeline.

    Args:
        worker: The worker.
        row: What runs.
        bus_edge: Its bridge to the bus, if it has one.
        events: Who is told what.
        watch: Who watches the frames, if anybody does.
        idle_timeout: After how many seconds without a frame it is idle; None for never.
        cancel_on_idle_timeout: Whether it is cancelled then.
    """

    def __init__(
        self,
        worker: FrameWorker,
        row: Row,
        bus_edge: BusEdge | None,
        events: PipelineEvents,
        *,
        watch: Watcher | None,
        idle_timeout: float | None,
        cancel_on_idle_timeout: bool,
    ) -> None:
        self._worker = worker
        self._core = core_of(worker)
        self._state = self._core.state
        self._row = row
        self._bus_edge = bus_edge
        self._events = events
        self._watch = watch
        self._idle_timeout = idle_timeout
        self._cancel_on_idle_timeout = cancel_on_idle_timeout
        self._early: list[Entry] = []
        self._running: RunningPipeline | None = None
        self._body: CancelScope | None = None
        self._active: bool | None = None
        self._started = False
        self._opened = False
        self._shutdown = False
        self._verdict: EndFrame | StopFrame | CancelFrame | None = None
        self._through = Event()

    # --- frames come in

    def queue(self, frame: Frame, direction: FrameDirection) -> Waiting | None:
        """Let a frame of the user's in; returns what to wait for.

        Raises:
            NotRunningError: It would never be handled; a `RuntimeError`.
        """
        worker = self._worker
        if self._verdict is not None:
            raise NotRunningError(f"worker {worker.name!r} takes no frames any more: its pipeline is over")
        if isinstance(frame, CancelFrame):
            self.cancel(frame)
            return None
        ends = isinstance(frame, EndFrame | StopFrame)
        if direction is DOWNSTREAM and not isinstance(frame, SystemFrame):
            if self._shutdown and not ends:
                raise NotRunningError(f"worker {worker.name!r} is ending: {frame.name} would never be handled")
            if self._shutdown:
                return None
            self._shutdown = ends
        waiting = self._put(frame, direction, may_wait=not ends)  # one that is cancelled while it waits would be none
        if ends:
            self._mind_the_end()
        return waiting

    def came(self, frame: Frame, direction: FrameDirection) -> None:
        """Let a frame in that nobody waits for; one that would come behind the end is dropped."""
        if self._verdict is None and not (self._shutdown and direction is DOWNSTREAM):
            self._put(frame, direction, may_wait=False)

    def end(self, reason: str | None = None) -> None:
        """Let the `EndFrame` in, behind all that was queued so far; again is a no-op."""
        self._end_with(EndFrame(reason))

    def _end_with(self, frame: EndFrame | StopFrame) -> None:
        if not self._shutdown and self._verdict is None:
            self._shutdown = True
            self._put(frame, DOWNSTREAM, may_wait=False)
            self._mind_the_end()

    def _mind_the_end(self) -> None:
        state, running = self._state, self._running
        if running is not None and self._opened:
            args = (max(1.0, sum(state.graces)), partial(self._decide, EndFrame(state.reason)))
            running.start(running.mind_the_end, args, name=f"{state.name} end of frames", owner=state.name)

    def _put(self, frame: Frame, direction: FrameDirection, *, may_wait: bool) -> Waiting | None:
        if self._running is None:
            self._early.append((frame, direction))
            return None
        if self._watch is not None:
            self._watch.touched = current_time()
        entry = self._running.down_entry if direction is DOWNSTREAM else self._running.up_entry
        return entry.put(frame, direction, may_wait)

    @property
    def active(self) -> bool:
        """Whether the worker is active, or will be as soon as it has started."""
        return self._state.will_be_active if self._active is None else self._active

    def active_changed(self, active: bool) -> None:
        """Let frames out to the bus, or soon no more (W3)."""
        self._active = active
        if self._bus_edge is None:
            return
        if active:
            self._bus_edge.opened()
        elif self._running is not None and self._running.is_open:
            self._bus_edge.closing(self._put_marker)

    def _put_marker(self, marker: Marker, direction: FrameDirection) -> None:
        self._put(marker, direction, may_wait=False)

    def worker_started(self) -> None:
        """The worker has started, in this step: frames are handled from now on (P2)."""
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
            self._lifecycle(frame, direction)
        self._events.left(frame, direction)
        if self._bus_edge is None:
            return None
        return self._bus_edge.outgoing(frame, direction, self._worker.bus, may_wait)

    def _lifecycle(self, frame: Frame, direction: FrameDirection) -> None:
        assert self._running is not None
        if isinstance(frame, ErrorFrame):
            self._failed(frame)
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
            logger.error("the pipeline of worker %r has failed: %s", self._worker.name, text)
            self._core.presence.report_error(text)
            self.cancel(CancelFrame(frame.error))

    def cancel(self, frame: CancelFrame) -> None:
        """End at once."""
        self._decide(frame)
        if self._body is not None:
            self._body.cancel()

    def _decide(self, frame: EndFrame | StopFrame | CancelFrame) -> None:
        if self._verdict is None:
            self._verdict = frame
            self._through.set()

    # --- it runs

    async def run(self) -> None:
        """Run the pipeline to its end, in the worker's own tasks.

        The cancellation of a worker's ``run()`` does not reach those, so that a `CancelFrame` can still get through.
        """
        if self._verdict is not None:
            return
        state = self._state
        self._events.begin(state.hooks.run)
        if self._watch is not None:
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
        await running.set_up()
        self._running = running
        running.send_start()
        early, self._early = self._early, []
        for frame, direction in early:
            self._put(frame, direction, may_wait=False)
        await running.settled.wait()
        if running.error is not None:
            raise running.error
        # Not before: a handler may ask for jobs, which takes a worker that runs.
        self._events.let_run(self._state.tasks)
        await self._state.worker.start()
        running.start(self._end_when_asked, (), name=f"{worker.name} end of pipeline", owner=worker.name)
        if self._idle_timeout is not None:
            args = (self._idle_timeout,)
            running.start(self._watch_idle, args, name=f"{worker.name} idle timeout", owner=worker.name)

    def _started_at_sink(self, frame: StartFrame) -> None:
        self._active = self._state.will_be_active  # it starts right after this, and what goes on in between counts
        if self._bus_edge is not None and self._active:
            self._bus_edge.opened()
        self._started = True
        self._events.emit("on_pipeline_started", frame)
        self._events.left(frame, DOWNSTREAM)

    async def _end_when_asked(self) -> None:
        await self._core.lifecycle.until_stopped()
        self.end(self._state.reason)

    async def _watch_idle(self, seconds: float) -> None:
        assert self._watch is not None
        while True:
            await sleep_until(self._watch.touched + seconds)
            if self._watch.touched + seconds > current_time():
                continue
            self._watch.touched = current_time()
            self._events.emit("on_idle_timeout")
            if self._cancel_on_idle_timeout:
                logger.warning("worker %r is cancelled: no frame for %g seconds", self._worker.name, seconds)
                self.cancel(CancelFrame(f"idle for {seconds:g} seconds"))

    def _tell_finished(self) -> None:
        if self._started:
            self._started = False
            self._events.emit("on_pipeline_finished", self._verdict)

    async def _wind_down(self, running: RunningPipeline) -> None:
        state, events = self._state, self._events
        self._decide(CancelFrame(state.reason))  # if nothing else has
        events.let_run(state.tasks)
        deadline = state.clean_up.begin()
        try:
            with state.clean_up.shield(deadline):
                if isinstance(self._verdict, CancelFrame):
                    await running.cancel(self._verdict)
                self._tell_finished()
                with move_on_after((deadline - current_time()) / 2):
                    await events.quiet()
                    if self._watch is not None and not isinstance(self._verdict, CancelFrame):
                        await self._watch.quiet()
        finally:
            events.close()
            if self._watch is not None:
                self._watch.close()
            await running.close(deadline, clean=not isinstance(self._verdict, StopFrame))
            if isinstance(self._verdict, StopFrame):
                self._row.release()
