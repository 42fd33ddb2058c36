"""When a worker is idle, and when it is not."""

from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from support.pipelines import Alert, ScriptedProcessor, Spy, flowing, slow, texts, worker_of
from workerbus import PipelineWorker, WorkerRunner
from workerbus.pipeline import CancelFrame, Frame, FrameDirection, FrameProcessor, TextFrame
from workerbus.testing import nothing_left


async def test_an_idle_worker_says_so_and_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Any] = []
    spy = Spy()
    worker = worker_of(spy, idle_timeout=10, name="w")
    worker.add_event_handler("on_idle_timeout", lambda worker: events.append("idle"))
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: events.append(frame.reason))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        before = anyio.current_time()
        await runner.run()
        assert anyio.current_time() == before + 10
    assert events == ["idle", "idle for 10 seconds"]
    assert "worker 'w' is cancelled: no frame for 10 seconds" in caplog.text
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_frames_keep_a_worker_from_being_idle() -> None:
    times: list[float] = []
    async with flowing(Spy(), idle_timeout=4, cancel_on_idle_timeout=False) as worker:
        worker.add_event_handler("on_idle_timeout", lambda worker: times.append(anyio.current_time() - begun))
        begun = anyio.current_time()
        for _ in range(3):
            await anyio.sleep(3)
            await worker.queue_frame(TextFrame("x"))
        await anyio.sleep(8.5)  # the last frame came after 9 seconds
    assert times == [13, 17]


async def test_a_worker_without_a_timeout_is_never_idle() -> None:
    async with flowing(Spy()) as worker:
        await anyio.sleep(15)
        assert worker.active


def idle_times(worker: PipelineWorker) -> list[float]:
    """When a worker says that it is idle, from now on."""
    times: list[float] = []
    begin = current_time()
    worker.add_event_handler("on_idle_timeout", lambda _: times.append(current_time() - begin))
    return times


async def test_a_worker_whose_last_processor_pushes_is_not_idle() -> None:
    """P1: though nobody processes what leaves."""

    async def push(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        async def now_and_then() -> None:
            for word in range(6):
                await sleep(1)
                await processor.push_frame(TextFrame(str(word)))

        if isinstance(frame, Alert):
            processor.create_task(now_and_then)
        return isinstance(frame, Alert)

    async with flowing(ScriptedProcessor(push), idle_timeout=1.5, cancel_on_idle_timeout=False) as worker:
        times = idle_times(worker)
        await worker.queue_frame(Alert("push"))
        await sleep(7)
        assert times == []


async def test_a_worker_that_is_given_frames_is_not_idle() -> None:
    """P1: though they wait."""
    async with flowing(Spy(slow(6)), idle_timeout=1.5, cancel_on_idle_timeout=False) as worker:
        times = idle_times(worker)
        for word in range(6):
            await worker.queue_frame(TextFrame(str(word)))
            await sleep(1)
        assert times == []
        await worker.queue_frame(CancelFrame())


async def test_a_worker_that_begins_with_frames_is_not_idle() -> None:
    """P1: though it pushes nothing."""

    async def swallow(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, TextFrame):
            await sleep(1)
        return isinstance(frame, TextFrame)

    async with flowing(ScriptedProcessor(swallow), idle_timeout=1.5, cancel_on_idle_timeout=False) as worker:
        times = idle_times(worker)
        await worker.queue_frames(texts(*range(4)))
        await sleep(4)
        assert times == []
