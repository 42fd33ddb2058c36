"""Frames on the bus, and pipelines with a bridge in the middle."""

from typing import Any

import anyio
import pytest

from support.buses import Wire
from support.pipelines import DOWN, Spy, worker_of
from workerbus import BusBridgeProcessor, BusFrameMessage, MemoryBus, PipelineWorker, WorkerBus
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, TextFrame
from workerbus.testing import RecordingBus

BUSES = pytest.mark.parametrize("make_bus", [MemoryBus, Wire, lambda: MemoryBus(max_buffer_size=1)])


def over_the_bus(frame: Any, direction: Any = DOWN, bridge: str | None = None, **kwargs: Any) -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, **{"source": "somebody", **kwargs})


def sent(bus: RecordingBus, source: str | None = None) -> list[str]:
    """What the frames say that have been sent over a bus; of those that say nothing, their class."""
    messages = bus.messages(BusFrameMessage, source=source)
    return [getattr(message.frame, "text", type(message.frame).__name__) for message in messages]


class Reply(FrameProcessor):
    """Answers each text, in the direction in which it came."""

    def __init__(self, seconds: float = 0) -> None:
        super().__init__()
        self.seconds = seconds

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TextFrame):
            await anyio.sleep(self.seconds)
            frame = TextFrame(f"{self.worker.name}: {frame.text}")
        await self.push_frame(frame, direction)


async def bridged_front(bus: WorkerBus, *after: FrameProcessor, **kwargs: Any) -> tuple[PipelineWorker, Spy]:
    """A worker whose pipeline has a bridge behind its first processor, and that processor."""
    before = Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", **kwargs)
    return worker_of(before, bridge, *after, name="front"), before
