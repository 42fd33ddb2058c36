"""Bridges, ends and interruptions of pipelines, once more: faults that were planted there had turned no test red."""

import contextlib
import gc
import time
from typing import Any

import anyio
import pytest
from anyio import current_time, sleep
from anyio.lowlevel import checkpoint

from support.buses import Wire
from support.pipelines import DOWN, UP, Alert, Gate, Spy, flowing, for_texts, run_through, slow, texts, worker_of
from support.workers import running
from workerbus import (
    BusBridgeProcessor,
    BusFrameMessage,
    BusMessage,
    BusSubscriber,
    MemoryBus,
    PipelineWorker,
    WorkerRunner,
)
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FramePushed,
    InterruptionFrame,
    Observer,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.pipeline._crossing import Crossing, Sending
from workerbus.testing import settle


def over_the_bus(
    frame: Frame, direction: FrameDirection = DOWN, bridge: str | None = None, late_since: float | None = None
) -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, late_since, source="somebody")


class Doing(FrameProcessor):
    """Passes on what it gets, after ``do`` has been awaited; what that returns True for, goes no further."""

    def __init__(self, do: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.do = do

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame) or not await self.do(self, frame, direction):
            await self.push_frame(frame, direction)


# --- what crosses


async def test_what_has_been_sent_is_kept_by_nothing() -> None:
    """L1: though each frame was pushed while the one before it was still being sent."""
    crossing = Crossing("w", (), ())
    crossing.opened()
    async with Wire() as bus, anyio.create_task_group() as group:
        for frame in texts(*range(20)):
            waiting = crossing.outgoing(frame, DOWN, bus, may_wait=True)
            assert waiting is not None
            group.start_soon(waiting.wait)
        del waiting
        await settle()
        gc.collect()
        assert len([each for each in gc.get_objects() if type(each) is Sending]) == 1
    assert len(bus.published) == 20


class Failing(Wire):
    """A bus that cannot publish frames that say ``fails``."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusFrameMessage) and getattr(message.frame, "text", "") == "fails":
            raise OSError("connection lost")
        await super().publish(message)


async def test_a_frame_that_cannot_be_sent_holds_up_none_behind_it() -> None:
    """P1, P3: it is an error, and no dead pipeline."""
    bus = Failing()
    worker = worker_of(Spy(), bridged=(), name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames(texts("fails", "goes out"))
        await settle()
        published = [each.frame for each in bus.published if isinstance(each, BusFrameMessage)]
        assert [frame.text for frame in published] == ["goes out"]


async def test_a_frame_that_is_sent_again_over_one_of_two_bridges_is_another() -> None:
    """P3: one copy of its first sending was dropped as the second of two, and that is all."""
    spy, frame = Spy(), TextFrame("again")
    worker = worker_of(spy, bridged=("x", "y"), name="w")
    async with running(worker) as runner:
        for bridge in ("x", "y", "y"):
            await runner.bus.send(over_the_bus(frame, bridge=bridge))
            await settle()
        assert spy.heard == ["again", "again"]


async def test_a_frame_that_is_late_since_this_very_moment_is_not_for_the_one_that_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """W3: clocks are coarse, and a hand-over is one step."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    spy = Spy()
    async with running(worker_of(spy, bridged=(), name="w")) as runner:
        for late_since in (999.0, 1000.0, 1001.0):
            await runner.bus.send(over_the_bus(TextFrame(str(late_since)), late_since=late_since))
        await settle()
    assert spy.heard == ["1001.0"]


# --- bridges in the middle


async def test_a_bridge_has_left_the_bus_when_its_pipeline_has_been_cleaned_up() -> None:
    """P4, L1: before the worker cleans up."""
    subscribed: list[bool] = []

    class Asking(PipelineWorker):
        async def cleanup(self) -> None:
            subscribed.append(bus.has_subscriber("bridge"))

    bus = MemoryBus()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge")
    async with running(Asking(Pipeline([bridge]), name="front"), bus=bus):
        assert bus.has_subscriber("bridge")
    assert subscribed == [False]


async def test_what_came_before_the_start_is_pushed_once() -> None:
    """P2, P4: and not into the next pipeline of the bridge again."""
    async with MemoryBus() as bus:
        spy = Spy()
        bridge = BusBridgeProcessor(bus=bus, worker_name="front")
        for word in ("first", "second"):
            worker = worker_of(bridge, spy, name=word)
            async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
                await runner.add_workers(worker)
                await bus.send(over_the_bus(TextFrame(word)))
                await runner.registry.wait_for(word)
                await settle()
                await worker.queue_frame(StopFrame())
                await worker.wait()
    assert spy.heard == ["first", "second"]


async def test_a_copy_that_an_inactive_worker_did_not_take_is_not_the_first_of_two() -> None:
    """W4, P4: the one that comes when it is active is taken."""
    bus, spy, frame = MemoryBus(), Spy(), TextFrame("a")
    bridge = BusBridgeProcessor(bus=bus, worker_name="front")
    front = worker_of(bridge, spy, active=False, name="front")
    async with running(front, bus=bus):
        await bus.send(over_the_bus(frame, bridge="x"))
        await front.activate_worker("front")
        await settle()
        await bus.send(over_the_bus(frame, bridge="y"))
        await settle()
    assert spy.heard == ["a"]


async def test_what_a_bridge_gets_is_counted() -> None:
    """B9: its own frames alone."""
    bus = MemoryBus()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge", bridge="x")
    async with running(worker_of(bridge, name="front"), bus=bus):
        for name in ("x", "y", "x"):
            await bus.send(over_the_bus(TextFrame("a"), bridge=name))
        assert bus.statistics().subscribers["bridge"].delivered == 2


async def test_a_worker_whose_bridge_cannot_leave_the_bus_leaves_it() -> None:
    """L1, W6: its name is free."""

    class Stuck(MemoryBus):
        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "bridge":
                raise OSError("connection lost")
            await super().unsubscribe(subscriber)

    async with Stuck() as bus:
        bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge")
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        with contextlib.suppress(OSError):
            async with runner:
                await runner.add_workers(worker_of(bridge, name="front"))
                await runner.registry.wait_for("front")
        assert not bus.has_subscriber("front")


# --- observers and hooks


async def test_at_an_end_who_watches_pushes_alone_has_seen_them_all() -> None:
    """P2, L4"""
    seen: list[str] = []

    class Slow(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            await sleep(0.01)
            seen.append(type(data.frame).__name__)

    await run_through(worker_of(Spy(), observers=[Slow()]), *texts("a", "b"))
    assert seen == ["StartFrame", "TextFrame", "TextFrame", "EndFrame"]


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

    async with flowing(Doing(push), idle_timeout=1.5, cancel_on_idle_timeout=False) as worker:
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

    async with flowing(Doing(swallow), idle_timeout=1.5, cancel_on_idle_timeout=False) as worker:
        times = idle_times(worker)
        await worker.queue_frames(texts(*range(4)))
        await sleep(4)
        assert times == []


async def test_a_hook_of_the_pipeline_has_unwound_when_the_worker_cleans_up() -> None:
    """L4, W6: it is cancelled with the pipeline."""
    log: list[str] = []

    class Tidy(PipelineWorker):
        async def on_pipeline_started(self, frame: StartFrame) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log.append("hook")

        async def cleanup(self) -> None:
            log.append("cleanup")

    class Last(Spy):
        async def cleanup(self) -> None:
            await sleep(0.1)

    worker = Tidy(Pipeline([Last()]), name="w")
    async with running(worker):
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert log == ["hook", "cleanup"]


# --- the start and the end


async def test_of_two_branches_that_cannot_start_the_first_is_told() -> None:
    """L6: which one a schedule lets fail first, it is that one's error."""

    class Start(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            errors.append(ValueError(self.name))
            raise errors[-1]

    errors: list[Exception] = []
    for _ in range(10):
        errors.clear()
        with pytest.raises(ValueError, match="Start") as caught:
            await run_through(worker_of(ParallelPipeline(*([Start()] for _ in range(4)))))
        assert caught.value is errors[0]


async def test_system_frames_that_go_up_when_the_end_has_come_through_are_waited_for() -> None:
    """P2: through all processors that they have yet to pass."""

    async def take(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await sleep(float(frame.text) if processor.name == "last" else 1)
            log.append(f"{processor.name} {frame.text}")
        return False

    log: list[str] = []
    async with flowing(Doing(take, "first"), Doing(take, "last")) as worker:
        await worker.queue_frame(Alert("0.5"), UP)
        await sleep(0.6)
        await worker.stop_when_done()
        await settle()
        await worker.queue_frame(Alert("2"), UP)
        await worker.wait()
    assert log == ["last 0.5", "first 0.5", "last 2", "first 2"]


async def test_frames_that_come_over_the_bus_upstream_come_in_while_the_pipeline_drains() -> None:
    """P2, P3: they are behind no end."""
    spy, gate = Spy(), Gate()
    worker = worker_of(spy, Spy(for_texts(gate)), bridged=(), name="w")
    async with running(worker) as runner:
        await worker.queue_frame(TextFrame("slow"))
        await gate.reached.wait()
        await worker.stop_when_done()
        await runner.bus.send(over_the_bus(Alert("up"), UP))
        await settle()
        assert spy.heard_going(UP) == ["up"]
        gate.open()


async def test_a_cancel_that_was_pushed_upstream_is_waited_for_as_it_comes_down() -> None:
    """P2: it has to get through, and has not because it has left at the other end."""

    async def take(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(CancelFrame(), UP)
        elif isinstance(frame, CancelFrame) and direction is DOWN:
            await sleep(0.1)
        return False

    sink = Spy()
    async with flowing(Doing(take), sink) as worker:
        await worker.queue_frame(Alert("cancel"))
        await worker.wait()
    assert sink.log[-2:] == ["CancelFrame", "cleanup"]


async def test_a_processor_that_has_passed_the_end_on_keeps_none(caplog: pytest.LogCaptureFixture) -> None:
    """P2: it may have kept another before."""

    async def twice(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, EndFrame):
            await processor.push_frame(EndFrame())
        return False

    async def keep_one(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        ends.append(frame) if isinstance(frame, EndFrame) else None
        return ends == [frame]

    ends: list[Frame] = []
    sink = Spy(slow(3))
    worker = worker_of(Doing(twice), Doing(keep_one), sink, name="w")
    async with running(worker, grace_period=1.0):
        await worker.queue_frames(texts("a", "b"))
        await worker.stop_when_done()
        await worker.wait()
    assert len(ends) == 2
    assert [type(frame) for frame in sink.done][-3:] == [TextFrame, TextFrame, EndFrame]
    assert "has not pushed on" not in caplog.text


async def test_what_a_processor_has_kept_in_one_pipeline_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """P2: after a `StopFrame` it is as new."""

    async def end_above(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, StopFrame):
            await processor.push_frame(frame, direction)
            await processor.push_frame(EndFrame(), UP)
        return isinstance(frame, StopFrame)

    async def keep(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        return isinstance(frame, EndFrame) and direction is UP

    first, kept, sink = Spy(slow(3)), Doing(keep, "keeper"), Spy()
    await run_through(worker_of(kept, Doing(end_above)), StopFrame())
    worker = worker_of(first, kept, sink, name="again")
    async with running(worker, grace_period=1.0):
        await worker.queue_frame(TextFrame("a"))
        await worker.stop_when_done()
        await worker.wait()
    assert sink.heard == ["a"]
    assert "has not pushed on" not in caplog.text


# --- interruptions, and turns


async def test_an_interruption_that_goes_upstream_alone_empties_no_other_branch() -> None:
    """P1: only what it passes."""

    async def interrupt(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(InterruptionFrame(), UP)
        return False

    gate = Gate()
    beside = Spy(for_texts(gate))
    head = Spy()
    async with flowing(head, ParallelPipeline([beside], [Doing(interrupt)])) as worker:
        await worker.queue_frames(texts("a", "b"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("interrupt"))
        await head.until(1, InterruptionFrame)
        await settle()
        gate.open()
        await settle()
        assert beside.heard == ["a", "interrupt", "b"]
        assert said_done(beside) == ["interrupt", "a", "b"]


def said_done(spy: Spy) -> list[str]:
    return [frame.text for frame in spy.done if isinstance(frame, TextFrame | Alert)]


async def test_a_processor_that_interrupts_is_interrupted_before_the_bus_has_heard_of_it() -> None:
    """P1: itself first, though what it pushes takes its time to go out."""

    class Slow(Wire):
        async def publish(self, message: BusMessage) -> None:
            await (sleep(1) if isinstance(message, BusFrameMessage) else checkpoint())
            await super().publish(message)

    gate = Gate()

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await spy.broadcast_interruption()
        elif isinstance(frame, TextFrame):
            await gate(spy, frame)

    spy = Spy(on)
    worker = worker_of(spy, bridged=(), name="w")
    async with running(worker, bus=Slow()):
        await worker.queue_frame(TextFrame("is handled"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("interrupt"))
        await settle()
        assert gate.left == 1
        gate.open()
        await worker.queue_frame(TextFrame("comes later"))
    assert "comes later" in said_done(spy)


async def test_who_queues_frames_without_a_pause_lets_others_run_now_and_then() -> None:
    """B2: a flood starves nobody."""
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await checkpoint()

    async with flowing(Spy()) as worker, anyio.create_task_group() as group:
        group.start_soon(others)
        for frame in texts(*range(1000)):
            await worker.queue_frame(frame)
        over = True
    assert turns >= 10
