"""P6: when a worker is idle, and when it is not."""

from typing import Any

import anyio
import pytest
from anyio import create_task_group, current_time, sleep

from support.pipelines import Alert, ScriptedProcessor, Spy, flowing, slow, texts, worker_of
from workerbus import BusMessage, MemoryBus, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    ControlFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    HeartbeatFrame,
    PipelineParams,
    TextFrame,
)
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


# --- which frames count


@pytest.mark.parametrize("counting", [(Alert,), (Alert, TextFrame), (TextFrame, Alert)])
async def test_only_frames_of_the_classes_that_count_keep_a_worker_from_being_idle(counting: Any) -> None:
    """P6"""
    async with flowing(
        Spy(), idle_timeout_secs=4, idle_timeout_frames=counting, cancel_on_idle_timeout=False
    ) as worker:
        times = idle_times(worker)
        for frame in (TextFrame("a"), Alert("!"), TextFrame("b"), TextFrame("c")):
            await sleep(3)
            await worker.queue_frame(frame)
        await sleep(1)
    assert times == ([4, 10] if len(counting) == 1 else [])


@pytest.mark.parametrize("frames", [(TextFrame,), None])
async def test_heartbeats_do_not_count(frames: Any) -> None:
    """P6"""
    params = PipelineParams(enable_heartbeats=True, heartbeats_period_secs=1)
    async with flowing(
        Spy(), params=params, idle_timeout_secs=4.5, idle_timeout_frames=frames, cancel_on_idle_timeout=False
    ) as worker:
        times = idle_times(worker)
        await sleep(5)
    assert times == [4.5]


async def test_heartbeats_count_where_they_are_told_to() -> None:
    """P6"""
    params = PipelineParams(enable_heartbeats=True, heartbeats_period_secs=1)
    async with flowing(
        Spy(), params=params, idle_timeout_secs=4.5, idle_timeout_frames=(HeartbeatFrame,), cancel_on_idle_timeout=False
    ) as worker:
        times = idle_times(worker)
        await sleep(15)
    assert times == []


# --- what follows


@pytest.mark.parametrize("whole_runner", [False, True])
async def test_an_idle_worker_ends_alone_or_with_all_that_its_runner_runs(whole_runner: bool) -> None:
    """P6"""
    reasons: list[Any] = []
    idle = worker_of(Spy(), name="idle", idle_timeout_secs=3, cancel_runner_on_idle_timeout=whole_runner)
    other = worker_of(Spy(), name="other")

    def note(worker: PipelineWorker, frame: Any) -> None:
        reasons.append((worker.name, frame.reason))

    for worker in (idle, other):
        worker.add_event_handler("on_pipeline_finished", note)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(idle, other)

    async def end_after_idle() -> None:
        await idle.wait()
        if not whole_runner:
            assert [name for name, _ in reasons] == ["idle"]
            await runner.end(reason="done")

    async with create_task_group() as group:
        group.start_soon(end_after_idle)
        await runner.run()
    assert sorted(reasons) == [
        ("idle", "idle for 3 seconds"),
        ("other", "idle for 3 seconds" if whole_runner else "done"),
    ]


async def test_an_idle_worker_ends_its_runner_over_a_bus_that_takes_its_time() -> None:
    """P6: and its hook is called before that."""

    class Slow(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            await sleep(0.1)
            await super().publish(message)

    told: list[str] = []
    idle = worker_of(Spy(), name="idle", idle_timeout_secs=3, cancel_runner_on_idle_timeout=True)
    other = worker_of(Spy(), name="other")
    idle.add_event_handler("on_idle_timeout", lambda worker: told.append("idle"))
    for worker in (idle, other):
        worker.add_event_handler("on_pipeline_finished", lambda worker, frame: told.append(frame.reason))
    runner = WorkerRunner(handle_sigint=False, bus=Slow())
    await runner.add_workers(idle, other)
    await runner.run()
    assert told == ["idle", "idle for 3 seconds", "idle for 3 seconds"]


async def test_a_worker_that_is_not_cancelled_when_idle_does_not_cancel_its_runner_either() -> None:
    """P6"""
    options = {"cancel_on_idle_timeout": False, "cancel_runner_on_idle_timeout": True}
    async with flowing(Spy(), idle_timeout_secs=3, **options) as worker:
        times = idle_times(worker)
        await sleep(10)
        assert times == [3, 6, 9]


def test_what_idle_means_is_given_once_and_in_seconds() -> None:
    """N8"""
    with pytest.raises(ValueError, match="idle_timeout and idle_timeout_secs are the same"):
        worker_of(Spy(), idle_timeout=3, idle_timeout_secs=3)
    for name in ("idle_timeout", "idle_timeout_secs", "setup_timeout_secs", "start_timeout_secs"):
        with pytest.raises(ValueError, match=f"{name} is a number of seconds, more than 0, or None; not 0"):
            worker_of(Spy(), **{name: 0})
    with pytest.raises(TypeError, match="idle_timeout_frames is a tuple of classes of frames"):
        worker_of(Spy(), idle_timeout_frames=("TextFrame",))


@pytest.mark.parametrize("counting", [None, (Frame,), (ControlFrame,)])
@pytest.mark.parametrize("bridged", [None, ()])
async def test_neither_a_flush_nor_a_hand_over_keeps_a_worker_from_being_idle(counting: Any, bridged: Any) -> None:
    """P6: whoever looks again and again whether a pipeline still moves does not move it."""
    async with flowing(
        Spy(), idle_timeout_secs=4, idle_timeout_frames=counting, cancel_on_idle_timeout=False, bridged=bridged
    ) as worker:
        times = idle_times(worker)
        for _ in range(5):
            await sleep(1.5)
            await worker.flush()
            await worker.deactivate_worker(worker.name)
            await worker.flush()
            await worker.activate_worker(worker.name)
    assert times == [4]
