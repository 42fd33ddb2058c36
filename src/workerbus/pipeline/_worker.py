"""`PipelineWorker`: a worker whose work is a pipeline (P1-P6).

Here is what its user calls, and what it does with messages. When the pipeline starts and ends is decided in `_session`;
what crosses between its ends and the bus, in `_bus_edge`.
"""

from collections.abc import AsyncIterable, Iterable

from anyio import move_on_after
from anyio.lowlevel import checkpoint

from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._methods import is_default
from workerbus._registry import WorkerRegistry
from workerbus._values import BATCH, check_number
from workerbus.abc import RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.errors import FlushTimeoutError
from workerbus.messages import BusFrameMessage, BusTTSSpeakMessage
from workerbus.pipeline._bus_edge import BusEdge, checked_types
from workerbus.pipeline._flush import FlushRound, flushable
from workerbus.pipeline._frames import EndFrame, Frame, FrameDirection, StartFrame, TTSSpeakFrame
from workerbus.pipeline._observers import Observer, Watch
from workerbus.pipeline._owner import FrameWorker
from workerbus.pipeline._params import START_TIMEOUT_SECONDS, PipelineParams, SessionOptions
from workerbus.pipeline._pipeline import Pipeline, claim
from workerbus.pipeline._pipeline_hooks import PIPELINE_HOOK_ARGUMENTS, PIPELINE_HOOKS, PipelineEvents, PipelineHooks
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, Visitor
from workerbus.pipeline._session import PipelineSession
from workerbus.worker._base import BaseWorker
from workerbus.worker._core import core_of
from workerbus.worker._types import Phase, WorkerParams


class PipelineWorker(PipelineHooks, BaseWorker, FrameWorker):
    """A worker that runs a pipeline.

    It is ready when the `StartFrame` has come through, and ends when an `EndFrame`, a `StopFrame` or a `CancelFrame`
    has. An end (the runner's, `stop_when_done`, or a queued `EndFrame`) drains the pipeline. A cancel (the runner's, a
    fatal error, or a `CancelFrame`) does not, and takes no longer than the deadline of the wind-down. A processor asks
    the worker to end by pushing an `EndFrame` or a `CancelFrame` upstream.

    A ``bridged`` worker exchanges frames with the bus at both ends of its pipeline, while it is active. DOWNSTREAM
    frames from the bus come in at the first processor, UPSTREAM frames at the last. A frame that leaves at an end goes
    out to the bus, too, unless it is a lifecycle frame, is excluded, or came in over the bus. A worker that is
    deactivated takes no further frames from that moment on. Frames that it had taken, and those that its processors
    make of them in their handlers, still go out; frames from tasks of their own do not. So a hand-over in one process
    loses no frame, duplicates none, and sends none late. If a bus takes time to deliver, a frame that arrives between
    the two steps of a hand-over is taken by nobody.

    Besides the hooks of every worker it has ``on_pipeline_…``, ``on_frame_reached_…`` and ``on_idle_timeout``. They run
    in a queue of their own, one at a time.

    Args:
        pipeline: The pipeline.
        name: The name of the worker, unique on the bus; made up by default.
        active: Whether the worker is active from its start on.
        bridged: The names of the bridges to exchange frames with; ``()`` for all, None for none. A frame that leaves
            goes out once for each name.
        exclude_frames: Classes of frames that never cross.
        observers: Who watches the frames.
        params: Heartbeats, and the metadata of the `StartFrame`.
        setup_timeout_secs: How long ``setup()`` of the processors may take, in seconds, before the worker fails with an
            error that names the one that hangs; None for no limit.
        start_timeout_secs: How long the `StartFrame` may take to come through, in seconds; as above.
        idle_timeout_secs: After how many seconds without a frame the worker is idle; None for never.
        idle_timeout_frames: The classes of frames that count as activity; by default all but heartbeats.
        cancel_timeout_secs: How long a `CancelFrame` may take to come through, in seconds, before what is left is
            cancelled; at most a second, half of the wind-down's time.
        cancel_on_idle_timeout: Whether an idle worker is cancelled, after `on_idle_timeout` has been queued.
        cancel_runner_on_idle_timeout: Whether everything that its runner runs is then cancelled.
        idle_timeout: Another name for ``idle_timeout_secs``.

    Raises:
        ProcessorInUseError: The pipeline already belongs to a worker or to another pipeline; a `ValueError`.
        TypeError: An argument has the wrong type.
        ValueError: A number of seconds is not more than 0, or one is given by two names.

    Guarantees: L4, P2, P3, P6, R2, W3.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        name: str | None = None,
        active: bool = True,
        bridged: tuple[str, ...] | None = None,
        exclude_frames: tuple[type[Frame], ...] | None = None,
        observers: Iterable[Observer] = (),
        params: PipelineParams | None = None,
        setup_timeout_secs: float | None = START_TIMEOUT_SECONDS,
        start_timeout_secs: float | None = START_TIMEOUT_SECONDS,
        idle_timeout_secs: float | None = None,
        idle_timeout_frames: tuple[type[Frame], ...] | None = None,
        cancel_timeout_secs: float = CLEANUP_SECONDS / 2,
        cancel_on_idle_timeout: bool = True,
        cancel_runner_on_idle_timeout: bool = False,
        idle_timeout: float | None = None,
    ) -> None:
        super().__init__(name, active=active)
        if not isinstance(pipeline, Pipeline):
            raise TypeError(f"a PipelineWorker runs a Pipeline, not {pipeline!r}")
        if isinstance(bridged, str) or not all(isinstance(bridge, str) for bridge in bridged or ()):
            raise TypeError(f"bridged is None, or a tuple of names, empty for all; not {bridged!r}")
        if idle_timeout is not None and idle_timeout_secs is not None:
            raise ValueError("idle_timeout and idle_timeout_secs are the same: give one of them")
        options = SessionOptions(
            params=_checked_params(params),
            setup_timeout=_seconds("setup_timeout_secs", setup_timeout_secs),
            start_timeout=_seconds("start_timeout_secs", start_timeout_secs),
            cancel_timeout=_seconds("cancel_timeout_secs", cancel_timeout_secs) or 0.0,
            idle_timeout=_seconds("idle_timeout", idle_timeout) or _seconds("idle_timeout_secs", idle_timeout_secs),
            cancel_on_idle_timeout=cancel_on_idle_timeout,
            cancel_runner_on_idle_timeout=cancel_runner_on_idle_timeout,
        )
        excluded = checked_types("exclude_frames", exclude_frames)
        counts = None if idle_timeout_frames is None else checked_types("idle_timeout_frames", idle_timeout_frames)
        core = core_of(self)
        name = core.state.name
        watch = Watch(name, minded=options.idle_timeout is not None, counts=counts)
        for observer in observers:
            watch.add(observer)
        claim([pipeline])
        core.events.names |= PIPELINE_HOOKS
        core.events.arguments = {**core.events.arguments, **PIPELINE_HOOK_ARGUMENTS}
        bus_edge = None if bridged is None else BusEdge(name, tuple(bridged), excluded)
        events = PipelineEvents(self, name, core.events)
        session = PipelineSession(
            self,
            pipeline,
            bus_edge,
            events,
            watch=watch,
            options=options,
        )
        session.queues_itself = lambda: not is_default(self, "queue_frame", PipelineWorker.queue_frame)
        part = core.extension = PipelinePart(name, pipeline, bus_edge, events, session, watch)
        core.dispatch.handled_at_once = {BusFrameMessage: part.frame_came, BusTTSSpeakMessage: part.speak}
        core.dispatch.active_changed = session.active_changed
        core.became_ready = session.worker_started
        core.in_words = session
        core.presence.before_leaving = part.depart

    # --- what it is

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that the worker runs."""
        return _part_of(self).pipeline

    @property
    def bridged(self) -> bool:
        """Whether the pipeline exchanges frames with the bus at its ends."""
        return _part_of(self).bus_edge is not None

    def has_finished(self) -> bool:
        """Whether the worker has finished: its pipeline is over, and nothing of it is running."""
        return core_of(self).state.phase is Phase.FINISHED

    def set_reached_upstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Choose the frames that `on_frame_reached_upstream` is called for; by default, all.

        Args:
            types: Classes of frames.

        Raises:
            TypeError: It is something else.
        """
        _part_of(self).events.filters[UPSTREAM] = checked_types("types", types)

    def set_reached_downstream_filter(self, types: tuple[type[Frame], ...]) -> None:
        """Choose the frames that `on_frame_reached_downstream` is called for; by default, all.

        Args:
            types: Classes of frames.

        Raises:
            TypeError: It is something else.
        """
        _part_of(self).events.filters[DOWNSTREAM] = checked_types("types", types)

    # --- frames

    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Put a frame into the pipeline; a frame that is queued before the start waits for it.

        Waits only for room, if the first processor is bounded. Every 64th call lets other tasks run.

        An override also gets what the library queues: text to be spoken (`BusTTSSpeakMessage`), and the `EndFrame` of
        an end. It does not get what comes in over a bridge.

        Args:
            frame: The frame. An `EndFrame` ends the worker behind what was queued before it, a `CancelFrame` at once.
            direction: DOWNSTREAM frames enter at the first processor, UPSTREAM frames at the last.

        Raises:
            NotRunningError: The pipeline is over, or an end is queued, behind which no frame would be handled; a
                `RuntimeError`.
            TypeError: It is not a frame, or not a direction.
            ValueError: It is a `StartFrame`, which only the worker sends.
            WrongLoopError: The pipeline runs in another thread; a `RuntimeError` that says how to get in.

        Guarantees: L7, P2.
        """
        if not isinstance(frame, Frame) or not isinstance(direction, FrameDirection):
            raise TypeError(f"a Frame is queued, in a FrameDirection; not {frame!r}, {direction!r}")
        if isinstance(frame, StartFrame):
            raise ValueError("a pipeline is started by its worker, and once: do not queue a StartFrame")
        part = _part_of(self)
        waiting = part.session.queue(frame, direction)
        if waiting is not None:
            await waiting.wait()
        part.queued += 1
        if not part.queued % BATCH:
            await checkpoint()

    async def queue_frames(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Put frames into the pipeline, one after the other; see `queue_frame`.

        Args:
            frames: The frames; those of an async iterable are queued as they come.
            direction: The way in which they travel.
        """
        if isinstance(frames, AsyncIterable):
            async for frame in frames:
                await self.queue_frame(frame, direction)
        else:
            for frame in frames:
                await self.queue_frame(frame, direction)

    async def stop_when_done(self) -> None:
        """Ask the worker to end when every frame that was queued so far has been handled, and return at once.

        A second call does nothing.

        Guarantees: P2.
        """
        session = _part_of(self).session
        session.check_thread()
        if session.queues_itself() and not session.ending:
            await self.queue_frame(EndFrame())
        else:
            session.end()

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was queued before this has come out of the pipeline downstream; nothing ends.

        Frames that have gone over a `BusBridgeProcessor` have come out, too: this waits for the pipelines in this
        process that take frames from it, and for what they send back. It does not wait for frames that processors push
        from tasks of their own. A flush before the start waits for the start.

        Args:
            timeout: How long to wait, in seconds; None for no limit.

        Raises:
            FlushTimeoutError: The time is over; a `TimeoutError` that names the processors that are at work.
            FlushError: The pipeline was cancelled meanwhile; or this is called in `process_frame`, where it would wait
                for itself. A `RuntimeError`.
            NotRunningError: The pipeline is over; a `RuntimeError`.

        Guarantees: P6.
        """
        session = _part_of(self).session
        with move_on_after(timeout) as limit:
            await session.flush()
        if limit.cancelled_caught:
            assert timeout is not None
            raise FlushTimeoutError(core_of(self).state.name, session.busy, timeout)

    # --- who watches

    def add_observer(self, observer: Observer) -> None:
        """Let an observer see what happens from now on; adding one twice changes nothing.

        Args:
            observer: The observer.

        Raises:
            TypeError: It is not an `Observer`.
        """
        part = _part_of(self)
        part.watch.add(observer)
        part.session.watchers_changed()

    async def remove_observer(self, observer: Observer) -> None:
        """Remove an observer, and cancel what it is doing; does nothing if it was not added.

        Args:
            observer: The observer.
        """
        part = _part_of(self)
        part.watch.remove(observer)
        part.session.watchers_changed()

    # --- its life

    async def attach(
        self, *, registry: WorkerRegistry, bus: WorkerBus, worker_runner: RunnerLike | None = None
    ) -> None:
        """Attach to a bus and a registry; see `BaseWorker.attach`.

        Bridges in the middle of the pipeline are subscribed, too, when this returns.
        """
        await super().attach(registry=registry, bus=bus, worker_runner=worker_runner)
        await _part_of(self).arrive(bus)

    async def run(self, params: WorkerParams) -> None:
        """Run the pipeline to its end; see `BaseWorker.run`."""
        lifecycle = core_of(self).lifecycle
        lifecycle.heed_end()
        await _part_of(self).session.run()
        lifecycle.means_to_return()  # even if it was cancelled before its start


class PipelinePart:
    """What the library keeps of a pipeline worker beside what it keeps of every worker.

    Attributes:
        pipeline: The pipeline.
        bus_edge: The bridge between the ends of the pipeline and the bus; None for a worker that is not bridged.
        events: Runs the pipeline's hooks.
        session: Takes frames in, and decides when the pipeline starts and ends.
        watch: Who watches the frames.
        queued: How many frames the user has queued.
    """

    __slots__ = ("_bus", "_name", "bus_edge", "events", "pipeline", "queued", "session", "watch")

    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        bus_edge: BusEdge | None,
        events: PipelineEvents,
        session: PipelineSession,
        watch: Watch,
    ) -> None:
        self._name = name
        self.pipeline: Pipeline = pipeline
        self.bus_edge: BusEdge | None = bus_edge
        self.events: PipelineEvents = events
        self.session: PipelineSession = session
        self.watch: Watch = watch
        self.queued: int = 0
        self._bus: WorkerBus | None = None

    # --- messages, handled in the step of whoever sends them

    def frame_came(self, message: BusFrameMessage) -> None:
        """Let in the frame that a message brings, if it concerns this worker."""
        frame = None if self.bus_edge is None else self.bus_edge.incoming(message)
        if frame is not None:
            self.session.came(frame, message.direction)

    def speak(self, message: BusTTSSpeakMessage) -> None:
        """Let in a frame that asks to speak; a worker does not take its own broadcasts."""
        if message.source != self._name or message.target == self._name:
            self.session.speak(TTSSpeakFrame(message.text, message.append_to_context))

    # --- its bridges

    @property
    def visitors(self) -> list[Visitor]:
        """What processors have to do before and after the pipeline runs."""
        return [inbox.visitor for inbox in self.pipeline.inboxes if inbox.visitor is not None]

    async def arrive(self, bus: WorkerBus) -> None:
        """Let the bridges join the bus, and those of others ask for what has gone over them."""
        self._bus = bus
        flushable.setdefault(bus, {})[self._name] = self
        for visitor in self.visitors:
            await visitor.attached()

    def flush_for(self, asks: FlushRound, *, bridge: str | None, source: str, target: str | None) -> None:
        """Join in the flush of a pipeline that sends frames here over a bridge."""
        edge = self.bus_edge
        if edge is not None and self._name not in asks.seen and edge.hears(bridge=bridge, source=source, target=target):
            self.session.flush_for(asks)

    async def depart(self) -> None:
        """Let the bridges leave the bus, and whoever still waits for a flush go."""
        self.session.flushes.give_up()
        if self._bus is not None:
            flushable.get(self._bus, {}).pop(self._name, None)
        for visitor in self.visitors:
            await visitor.departed()


def _part_of(worker: PipelineWorker) -> PipelinePart:
    part: PipelinePart = core_of(worker).extension
    return part


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None:
        check_number(name, value)
    if value is not None and not value > 0:
        raise ValueError(f"{name} is a number of seconds, more than 0, or None; not {value!r}")
    return value


def _checked_params(params: PipelineParams | None) -> PipelineParams:
    if params is not None and not isinstance(params, PipelineParams):
        raise TypeError(f"params are PipelineParams, not {params!r}")
    return params or PipelineParams()
