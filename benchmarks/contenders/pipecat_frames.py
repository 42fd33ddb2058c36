"""Frames through Pipecat's pipelines, by its public interface, with logging off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loguru import logger
from pipecat.frames.frames import Frame, StartFrame, TextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects

logger.disable("pipecat")


class Pass(FrameProcessor):  # type: ignore[misc]  # Pipecat need not be installed
    """Passes everything on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass it on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Count(FrameProcessor):  # type: ignore[misc]  # the same
    """Counts, and passes on."""

    countdown = Countdown(0)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Count texts."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.countdown.tick()
        await self.push_frame(frame, direction)


@asynccontextmanager
async def flowing(size: int) -> AsyncIterator[tuple[PipelineWorker, Count]]:
    """Run a pipeline of so many processors, of which the last one counts; it has started in the body."""
    count, started = Count(), asyncio.Event()
    pipeline = Pipeline([*(Pass() for _ in range(size - 1)), count])
    worker = PipelineWorker(pipeline, enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None)

    @worker.event_handler("on_pipeline_started")  # type: ignore[untyped-decorator]  # the same
    async def on_started(_worker: PipelineWorker, _frame: StartFrame) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    run = asyncio.create_task(runner.run())
    await started.wait()
    yield worker, count
    await worker.stop_when_done()
    await run


class Frames(Subjects):
    """What has to do with frames."""

    async def frames(self, run: Run) -> None:
        async with flowing(run.size) as (worker, counter):
            for count in run.counts:
                frames = [TextFrame("text") for _ in range(count)]
                counter.countdown = Countdown(count)
                with run.clock():
                    await worker.queue_frames(frames)
                    await counter.countdown.done.wait()

    async def frames_wake(self, run: Run) -> None:
        async with flowing(run.size) as (worker, counter):
            for count in run.counts:
                frames = [TextFrame("text") for _ in range(count)]
                with run.clock():
                    for frame in frames:
                        counter.countdown = Countdown(1)
                        await worker.queue_frame(frame)
                        await counter.countdown.done.wait()
