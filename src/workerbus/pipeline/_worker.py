"""`PipelineWorker`: a worker whose work is a pipeline.

Here is what its user calls, and what it does with messages. The course of the pipeline is in `_course`; what crosses
between its ends and the bus, in `_crossing`.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint

from workerbus._registry import WorkerRegistry
from workerbus._vocabulary import BATCH
from workerbus._worker_types import WorkerParams
from workerbus.abc import RunnerLike
from workerbus.bus import WorkerBus
from workerbus.messages import BusFrameMessage, BusMessage, BusTTSSpeakMessage
from workerbus.pipeline._course import Course
from workerbus.pipeline._crossing import Crossing, checked_types
from workerbus.pipeline._frames import Frame, FrameDirection, StartFrame, TTSSpeakFrame
from workerbus.pipeline._hooks import PipelineEvents, PipelineHooks
from workerbus.pipeline._inlet import Visitor
from workerbus.pipeline._observers import Observer
from workerbus.pipeline._owner import FrameWorker
from workerbus.pipeline._pipeline import Pipeline, claim
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM


class PipelineWorker(PipelineHooks, FrameWorker):
    """A worker that runs a pipeline.

    It starts when the `StartFrame` has come through, and ends when an `EndFrame`, a `StopFrame` or a `CancelFrame` has.
    An end (R2, `stop_when_done`, or an `EndFrame` that you queue) drains the pipeline; a cancel (R2, a fatal error, or
    a `CancelFrame`) does not, and takes no longer than the deadline of the wind-down (P2, L4). A processor asks the
    worker for its end by pushing an `EndFrame` or a `CancelFrame` upstream.

    A ``bridged`` worker exchanges frames with the bus at both ends of its pipeline, while it is active (P3). DOWNSTREAM
    frames from the bus come in at the first processor, UPSTREAM ones at the last; what leaves at an end goes out to the
    bus, too, except for lifecycle and excluded frames and for those that came in over the bus. A worker that is
    deactivated takes nothing more from that moment on. What it had taken, and what its processors make of that in their
    handlers, still goes out; what they do in tasks of their own does not. So a hand-over (W3) in one process loses no
    frame, doubles none, and sends none late. Where a bus takes time to deliver, frames that arrive between the two
    steps of a hand-over meet nobody.

    Besides the hooks of every worker there are those below; they run in a queue of their own, one at a time.

    Args:
        pipeline: The pipeline.
        name: Unique on the bus; made up by default.
        active: Whether it is active from its start on.
        bridged: With which bridges it exchanges frames: None, with none; ``()``, with all; names, with those. What it
            sends goes out once for each name.
        exclude_frames: Classes of frames that never cross.
        observers: Who watches the frames.
        idle_timeout: After how many seconds without a frame it is idle; None for never.
        cancel_on_idle_timeout: Whether it is cancelled then, after `on_idle_timeout` has been queued.
    """

    EVENTS = FrameWorker.EVENTS | PipelineHooks.EVENTS

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        name: str | None = None,
        active: bool = True,
        bridged: tuple[str, ...] | None = None,
        exclude_frames: tuple[type[Frame], ...] | None = None,
        observers: Iterable[Observer] = (),
        idle_timeout: float | None = None,
        cancel_on_idle_timeout: bool = True,
    ) -> None:
        super().__init__(name, active=active)
        if not isinstance(pipeline, Pipeline):
            raise TypeError(f"a PipelineWorker runs a Pipeline, not {pipeline!r}")
        if isinstance(bridged, str) or not all(isinstance(bridge, str) for bridge in bridged or ()):
            raise TypeError(f"bridged is None, or a tuple of names, empty for all; not {bridged!r}")
        if idle_timeout is not None and not idle_timeout > 0:
            raise ValueError(f"idle_timeout is a number of seconds, more than 0, or None; not {idle_timeout!r}")
        excluded = checked_types("exclude_frames", exclude_frames)
        watching = tuple(observers)
        if strangers := [each for each in watching if not isinstance(each, Observer)]:
            raise TypeError(f"observers are Observers, not {strangers[0]!r}")
        claim([pipeline])
        self._pipeline = pipeline
        self._crossing = None if bridged is None else Crossing(self.name, tuple(bridged), excluded)
        self._pipeline_events = PipelineEvents(self, self.name)
        self._course = Course(
            self,
            pipeline,
            self._crossing,
            self._pipeline_events,
            observers=watching,
            idle_timeout=idle_timeout,
            cancel_on_idle_timeout=cancel_on_idle_timeout,
        )
        self._frames_queued = 0

    # --- what it is

    @property
    def pipeline(self) -> Pipeline:
        """Its pipeline."""
        return self._pipeline

    @property
    def bridged(self) -> bool:
        """Whether its pipeline exchanges frames with the bus."""
        return self._crossing is not None

    @property
    def takes_frames(self) -> bool:
        """Whether frames may come in from the bus: it is active, or will be as soon as it has started (W4, P2)."""
        return self._course.active

    def set_reached_upstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Say which frames `on_frame_reached_upstream` is for; all by default.

        Args:
            types: Classes of frames.
        """
        self._pipeline_events.filters[UPSTREAM] = checked_types("types", types)

    def set_reached_downstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Say which frames `on_frame_reached_downstream` is for; all by default.

        Args:
            types: Classes of frames.
        """
        self._pipeline_events.filters[DOWNSTREAM] = checked_types("types", types)

    # --- frames

    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Let a frame into the pipeline. What is queued before the start waits for it (P2).

        Waits only for room, where the first processor is bounded; every 64th call lets other tasks run.

        Args:
            frame: The frame. An `EndFrame` ends the worker behind what was queued before it, a `CancelFrame` at once.
            direction: DOWNSTREAM frames enter at the first processor, UPSTREAM frames at the last.

        Raises:
            NotRunningError: The pipeline is over, or an end is queued, behind which no frame would be handled; a
                `RuntimeError`.
        """
        if not isinstance(frame, Frame) or not isinstance(direction, FrameDirection):
            raise TypeError(f"a Frame is queued, in a FrameDirection; not {frame!r}, {direction!r}")
        if isinstance(frame, StartFrame):
            raise ValueError("a pipeline is started by its worker, and once: do not queue a StartFrame")
        waiting = self._course.queue(frame, direction)
        if waiting is not None:
            await waiting.wait()
        self._frames_queued += 1
        if not self._frames_queued % BATCH:
            await checkpoint()

    async def queue_frames(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Let frames into the pipeline, one after the other; see `queue_frame`.

        Args:
            frames: The frames; from an async iterable, as they come.
            direction: The way in which they travel.
        """
        if isinstance(frames, AsyncIterable):
            async for frame in frames:
                await self.queue_frame(frame, direction)
        else:
            for frame in frames:
                await self.queue_frame(frame, direction)

    async def stop_when_done(self) -> None:
        """End when everything that was queued so far has been handled. Does not wait for that; again is a no-op."""
        self._course.end()

    # --- messages, handled in the step of whoever sends them

    def _frame_came(self, message: BusFrameMessage) -> None:
        frame = None if self._crossing is None else self._crossing.incoming(message)
        if frame is not None:
            self._course.came(frame, message.direction)

    def _speak(self, message: BusTTSSpeakMessage) -> None:
        if message.source != self.name or message.target == self.name:
            self._course.came(TTSSpeakFrame(message.text, message.append_to_context), DOWNSTREAM)

    handled_at_once: ClassVar[Mapping[type[BusMessage], Callable[[Any, Any], None]]] = {
        BusFrameMessage: _frame_came,
        BusTTSSpeakMessage: _speak,
    }

    def active_changed(self, active: bool) -> None:
        """Let frames out to the bus, or soon no more (W3)."""
        self._course.active_changed(active)

    def became_ready(self) -> None:
        """Let its processors handle frames: from now on they may ask for jobs, too (P2, J14)."""
        self._course.worker_started()

    # --- its life

    async def attach(
        self, *, registry: WorkerRegistry, bus: WorkerBus, worker_runner: RunnerLike | None = None
    ) -> None:
        """Attach to a bus and a registry; see `BaseWorker.attach`. Its bridges are subscribed, too, when it returns."""
        await super().attach(registry=registry, bus=bus, worker_runner=worker_runner)
        for visitor in self._visitors:
            await visitor.attached()

    async def depart(self) -> None:
        """Leave the bus; see `BaseWorker.depart`."""
        try:
            for visitor in self._visitors:
                await visitor.departed()
        finally:
            await super().depart()

    @property
    def _visitors(self) -> list[Visitor]:
        inlets = [processor.inlet for processor in self._pipeline.processors]
        return [inlet.visitor for inlet in inlets if inlet.visitor is not None]

    async def run(self, params: WorkerParams) -> None:
        """Run the pipeline; see `BaseWorker.run`."""
        await self._course.run()
