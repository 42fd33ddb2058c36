"""What a processor sees of its worker: a worker that takes frames."""

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable

from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.worker import BaseWorker


class FrameWorker(BaseWorker):
    """A worker that frames can be queued at; see `PipelineWorker`."""

    @abstractmethod
    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Let a frame into the pipeline.

        Args:
            frame: The frame.
            direction: DOWNSTREAM frames enter at the first processor, UPSTREAM frames at the last.
        """

    @abstractmethod
    async def queue_frames(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Let frames into the pipeline, one after the other.

        Args:
            frames: The frames.
            direction: The way in which they travel.
        """
