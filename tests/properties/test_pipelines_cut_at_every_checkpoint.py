"""L1, L3: pipelines that are cancelled wherever they may be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from support.pipelines import Spy, StartsWith, slow, texts, work, worker_of
from workerbus import BusBridgeProcessor, MemoryBus, WorkerRunner
from workerbus.pipeline import Frame, FrameProcessor, InterruptionFrame, TextFrame
from workerbus.testing import assert_no_jobs, cancel_at_every_checkpoint


async def converse(runner: WorkerRunner) -> None:
    bus, out = runner.bus, Spy(slow(0.01))
    front = worker_of(BusBridgeProcessor(bus=bus, worker_name="front"), out, name="front")
    agent = worker_of(Spy(slow(0.01), max_buffer_size=1), bridged=(), name="agent")

    class Turn(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: Any) -> None:
            await self.push_frame(TextFrame(frame.text) if isinstance(frame, TextFrame) else frame, direction)

    other = worker_of(Turn(), bridged=(), name="other")
    await runner.add_workers(front, agent, other)
    await front.queue_frames(texts("a", "b"))
    await out.until(2)
    await front.queue_frame(InterruptionFrame())
    for worker in (front, agent, other):
        await worker.stop_when_done()
        await worker.wait()


@asynccontextmanager
async def runner_on_a_bus() -> AsyncIterator[WorkerRunner]:
    async with WorkerRunner(bus=MemoryBus(), handle_sigint=False) as runner:
        yield runner


def test_a_conversation_may_be_cut_at_every_checkpoint(backend: str) -> None:
    """L1, L3"""
    report = cancel_at_every_checkpoint(converse, set_up=runner_on_a_bus, check=assert_no_jobs, backend=backend)
    assert len(report.checkpoints) >= 3


async def one_run() -> None:
    async def pause(processor: StartsWith) -> None:
        await anyio.sleep(0.01)

    worker = worker_of(Spy(slow(0.01)), StartsWith(pause), Spy(max_buffer_size=1), name="w")
    await worker.queue_frames(texts("a", "b", "c"))
    await worker.stop_when_done()
    await work(worker)


def test_a_run_may_be_cut_at_every_checkpoint(backend: str) -> None:
    """L1, L3"""

    @asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield None

    report = cancel_at_every_checkpoint(lambda _: one_run(), set_up=nothing, backend=backend)
    assert len(report.checkpoints) >= 1
