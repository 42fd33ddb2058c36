"""L1, L3: pipelines that are cancelled wherever they may be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from support.pipelines import Spy, StartsWith, Watches, slow, texts, work, worker_of
from workerbus import BusBridgeProcessor, MemoryBus, WorkerRunner
from workerbus.pipeline import (
    Frame,
    FrameProcessor,
    InterruptionFrame,
    PipelineParams,
    SyncParallelPipeline,
    TextFrame,
)
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


async def flush_a_conversation(runner: WorkerRunner) -> None:
    bus, out = runner.bus, Spy(slow(0.01))
    front = worker_of(BusBridgeProcessor(bus=bus, worker_name="front"), out, name="front")
    branches = SyncParallelPipeline([Spy(slow(0.01))], [Spy(max_buffer_size=1)])
    agent = worker_of(branches, bridged=(), name="agent", params=PipelineParams(enable_heartbeats=True))
    await runner.add_workers(front, agent)
    await front.queue_frames(texts("a", "b"))
    observer = Watches()
    agent.add_observer(observer)
    await front.flush(timeout=1)
    await out.pause_processing_frames()
    await front.queue_frame(TextFrame("c"))
    task = out.create_task(front.flush())
    await out.resume_processing_frames()
    await task.wait()
    await agent.remove_observer(observer)
    await out.cancel_task(out.create_task(anyio.sleep_forever))


def test_flushes_pauses_and_observers_may_be_cut_at_every_checkpoint(backend: str) -> None:
    """L1, L3, P6"""
    report = cancel_at_every_checkpoint(
        flush_a_conversation, set_up=runner_on_a_bus, check=assert_no_jobs, backend=backend
    )
    assert len(report.checkpoints) >= 3
