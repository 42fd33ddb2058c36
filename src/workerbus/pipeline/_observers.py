"""Observers: they watch the frames of a pipeline without slowing them (L4).

Each observer has a queue and a task of its own. Where nobody watches, nothing of this exists.
"""

import logging
import math
from collections.abc import Iterable

from anyio import current_time
from attrs import frozen

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.pipeline._processor import FrameProcessor

logger = logging.getLogger("workerbus")


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
        destination: The processor that gets it; None where the frame leaves the pipeline or goes into branches.
        frame: The frame.
        direction: The way in which the frame travels.
        timestamp: When that was, in seconds, by the event loop's clock.
    """

    source: FrameProcessor
    destination: FrameProcessor | None
    frame: Frame
    direction: FrameDirection
    timestamp: float


class Observer:
    """Watches the frames of a pipeline; subclass it and override what is of interest.

    The methods are called from a task of the observer's own, one call at a time, in the order of what happened. However
    slow they are, no frame waits for them. An exception is logged, and the observer goes on. When the pipeline ends
    gracefully, an observer that is behind is waited for within the wind-down; when it is cancelled, it is not.

    Guarantees: L4.
    """

    async def on_process_frame(self, data: FrameProcessed) -> None:
        """Called when a processor has begun to process a frame.

        Args:
            data: The processor, the frame, and when it was.
        """

    async def on_push_frame(self, data: FramePushed) -> None:
        """Called when a processor has pushed a frame.

        Args:
            data: The frame, from where to where, and when it was.
        """


class Watch:
    """All observers of one pipeline, and the time of the last frame; see `Watcher`.

    Args:
        observers: The observers; none where only the time is wanted.
        name: The worker's name, for the names of their tasks.

    Attributes:
        touched: When the last frame was seen, in seconds, by the event loop's clock.
    """

    def __init__(self, observers: Iterable[Observer], name: str) -> None:
        self.touched: float = -math.inf
        self._lanes: list[Lane[FrameProcessed | FramePushed]] = []
        self._processed: list[Lane[FrameProcessed | FramePushed]] = []
        self._pushed: list[Lane[FrameProcessed | FramePushed]] = []
        for observer in observers:
            self._add(observer, name)

    def _add(self, observer: Observer, name: str) -> None:
        kind = type(observer)

        async def tell(data: FrameProcessed | FramePushed) -> None:
            try:
                if isinstance(data, FramePushed):
                    await observer.on_push_frame(data)
                else:
                    await observer.on_process_frame(data)
            except BaseException as exc:
                logger.error("observer %s of worker %r failed", kind.__name__, name, exc_info=await own_error(exc))

        lane: Lane[FrameProcessed | FramePushed] = Lane(f"{name} observer {kind.__name__}", tell)
        self._lanes.append(lane)
        if kind.on_process_frame is not Observer.on_process_frame:
            self._processed.append(lane)
        if kind.on_push_frame is not Observer.on_push_frame:
            self._pushed.append(lane)

    def open(self, host: TaskHost) -> None:
        """Let the observers see what happens from now on.

        Args:
            host: Where their tasks run.
        """
        self.touched = current_time()
        for lane in self._lanes:
            lane.open(host)

    def processing(self, processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> None:
        """Note that a processor begins with a frame."""
        now = self.touched = current_time()
        if self._processed:
            data = FrameProcessed(processor, frame, direction, now)
            for lane in self._processed:
                lane.put(data)

    def pushing(
        self, source: FrameProcessor, destination: FrameProcessor | None, frame: Frame, direction: FrameDirection
    ) -> None:
        """Note that a processor pushes a frame."""
        now = self.touched = current_time()
        if self._pushed:
            data = FramePushed(source, destination, frame, direction, now)
            for lane in self._pushed:
                lane.put(data)

    async def quiet(self) -> None:
        """Wait until the observers have been told of everything."""
        for lane in self._lanes:
            await lane.quiet()

    def close(self) -> None:
        """Tell the observers nothing more, and cancel what they do."""
        for lane in self._lanes:
            lane.close(cancel=True)
