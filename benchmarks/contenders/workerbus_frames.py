"""Frames through workerbus's pipelines, by its public interface, as users write it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects
from workerbus import PipelineWorker, WorkerRunner
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, Pipeline, TextFrame


class Pass(FrameProcessor):
    """Passes everything on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass it on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Count(FrameProcessor):
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
    count = Count()
    worker = PipelineWorker(Pipeline([*(Pass() for _ in range(size - 1)), count]), name="pipeline")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await runner.registry.wait_for("pipeline")
        yield worker, count


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
