"""Observers: they watch the frames of a pipeline without slowing them (L4).

Each observer has a queue and a task of its own. Where nobody watches, nothing of this exists.
"""

import logging
import math
from typing import Any

from anyio import current_time
from attrs import frozen

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._log import about
from workerbus.pipeline._frames import Frame, FrameDirection, HeartbeatFrame
from workerbus.pipeline._processor import FrameProcessor

logger = logging.getLogger("workerbus.pipeline")


@frozen
class FrameProcessed:
    """A processor has begun to process a frame.

    Args:
        processor: The processor.
        frame: The frame.
        direction: The way in which the frame travels.
        timestamp: When that was, in seconds, by the event loop's clock.
    """

    processor: FrameProcessor
    frame: Frame
    direction: FrameDirection
    timestamp: float


@frozen
class FramePushed:
    """A processor has pushed a frame.

    Args:
        source: The processor that has pushed the frame.
        destination: The processor that gets it; None if the frame leaves the pipeline or goes into branches.
        frame: The frame.
        direction: The way in which the frame travels.
        timestamp: When that was, in seconds, by the event loop's clock.
        first_push: Whether the frame is pushed for the first time in this pipeline, as far as observers have seen.
    """

    source: FrameProcessor
    destination: FrameProcessor | None
    frame: Frame
    direction: FrameDirection
    timestamp: float
    first_push: bool = True


class Observer:
    """Watches the frames of a pipeline; subclass it and override what is of interest.

    The methods are called from the observer's own task, one at a time, in the order of events. However slow they are,
    no frame waits for them. An exception is logged, and the observer goes on. When the pipeline ends gracefully, an
    observer that is behind is waited for within the wind-down; when it is cancelled, it is not.

    Args:
        observe_every_push: Whether `on_push_frame` is called each time that a frame is pushed, once for each processor
            that it passes; if not, only the first time. It is read when the observer is added.

    Guarantees: L4.
    """

    observe_every_push: bool = True

    def __init__(self, *, observe_every_push: bool = True) -> None:
        self.observe_every_push = observe_every_push

    async def on_process_frame(self, data: FrameProcessed) -> None:
        """Called when a processor has begun to process a frame.

        Args:
            data: The processor, the frame, and the time.
        """

    async def on_push_frame(self, data: FramePushed) -> None:
        """Called when a processor has pushed a frame.

        Args:
            data: The frame, from where to where, and the time.
        """


class Watch:
    """All observers of one pipeline, and the time of the last frame that counts; see `Watcher`.

    Args:
        name: The worker's name, for the names of their tasks.
        minded: Whether somebody wants to know the time, with observers or without.
        counts: The classes of frames that count for the time; None for all but heartbeats.

    Attributes:
        touched: When the last frame was seen that counts, in seconds, by the event loop's clock.
    """

    def __init__(self, name: str, *, minded: bool = False, counts: tuple[type[Frame], ...] | None = None) -> None:
        self.touched: float = -math.inf
        self._name = name
        self._minded = minded
        self._counts = counts
        self._host: TaskHost | None = None
        self._lanes: dict[int, Lane[FrameProcessed | FramePushed]] = {}
        self._processed: list[Lane[FrameProcessed | FramePushed]] = []
        self._pushed: list[Lane[FrameProcessed | FramePushed]] = []
        self._pushed_once: list[Lane[FrameProcessed | FramePushed]] = []

    @property
    def needed(self) -> bool:
        """Whether anybody wants to be told."""
        return self._minded or bool(self._lanes)

    def add(self, observer: Observer) -> None:
        """Let an observer see what happens from now on; one that is there already is not told twice.

        Raises:
            TypeError: It is not an observer.
        """
        if not isinstance(observer, Observer):
            raise TypeError(f"observers are Observers, not {observer!r}")
        if id(observer) in self._lanes:  # whose lane keeps it
            return
        name = self._name

        async def tell(data: FrameProcessed | FramePushed) -> None:
            try:
                if isinstance(data, FramePushed):
                    await observer.on_push_frame(data)
                else:
                    await observer.on_process_frame(data)
            except BaseException as exc:
                kind = type(observer).__name__
                logger.error(
                    "observer %s of worker %r failed",
                    kind,
                    name,
                    exc_info=await own_error(exc),
                    extra=about(worker=name),
                )

        lane = self._lanes[id(observer)] = Lane(f"{name} observer {type(observer).__name__}", tell)
        if not _is(observer.on_process_frame, Observer.on_process_frame):
            self._processed.append(lane)
        if not _is(observer.on_push_frame, Observer.on_push_frame):
            (self._pushed if observer.observe_every_push else self._pushed_once).append(lane)
        if self._host is not None:
            lane.open(self._host)

    def remove(self, observer: Observer) -> None:
        """Tell an observer nothing more, and cancel what it does; nothing happens if it is not there."""
        lane = self._lanes.pop(id(observer), None)
        if lane is not None:
            for lanes in (self._processed, self._pushed, self._pushed_once):
                if lane in lanes:
                    lanes.remove(lane)
            lane.close(cancel=True)

    def open(self, host: TaskHost) -> None:
        """Let the observers see what happens from now on.

        Args:
            host: Where their tasks run.
        """
        self._host = host
        self.touched = current_time()
        for lane in self._lanes.values():
            lane.open(host)

    def saw(self, frame: Frame) -> float:
        """Note that a frame moves; returns the time."""
        now = current_time()
        if not isinstance(frame, HeartbeatFrame) if self._counts is None else isinstance(frame, self._counts):
            self.touched = now
        return now

    def processing(self, processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> None:
        """Note that a processor begins with a frame."""
        now = self.saw(frame)
        if self._processed:
            data = FrameProcessed(processor, frame, direction, now)
            for lane in self._processed:
                lane.put(data)

    def pushing(
        self, source: FrameProcessor, destination: FrameProcessor | None, frame: Frame, direction: FrameDirection
    ) -> None:
        """Note that a processor pushes a frame."""
        now = self.saw(frame)
        if self._pushed or self._pushed_once:
            if frame.marks is None:
                frame.marks = {}
            first = self not in frame.marks
            frame.marks[self] = None
            data = FramePushed(source, destination, frame, direction, now, first)
            for lane in self._pushed:
                lane.put(data)
            if first:
                for lane in self._pushed_once:
                    lane.put(data)

    async def quiet(self) -> None:
        """Wait until the observers have been told of everything."""
        for lane in list(self._lanes.values()):
            await lane.quiet()

    def close(self) -> None:
        """Tell the observers nothing more, and cancel what they do."""
        self._host = None
        for lane in self._lanes.values():
            lane.close(cancel=True)


def _is(method: Any, function: Any) -> bool:
    return getattr(method, "__func__", None) is function
