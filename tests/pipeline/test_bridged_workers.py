"""P3: frames between the ends of a pipeline and the bus."""

import copy
import gc
from typing import Any

import anyio
import pytest

from support.bridges import BUSES, Reply, over_the_bus, sent
from support.buses import Wire
from support.pipelines import (
    DOWN,
    UP,
    Alert,
    Gate,
    ScriptedProcessor,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    never,
    run_through,
    slow,
    texts,
    worker_of,
)
from support.subscribers import Plain
from support.workers import running
from workerbus import BusFrameMessage, BusMessage, MemoryBus, PipelineWorker, WorkerPool, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.pipeline._bus_edge import SENDERS, BusEdge, Deduplicator, Sending
from workerbus.testing import RecordingBus, nothing_left, settle


async def test_what_leaves_a_bridged_pipeline_goes_out_to_the_bus_and_on_locally() -> None:
    """P3"""
    bus, reached = RecordingBus(), []
    worker = worker_of(Spy(), bridged=(), name="w")
    worker.add_event_handler("on_frame_reached_downstream", lambda worker, frame: reached.append(frame))
    async with running(worker, bus=bus):
        down, up = TextFrame("down"), TextFrame("up")
        await worker.queue_frame(down)
        await worker.queue_frame(up, UP)
        while len(bus.messages(BusFrameMessage)) < 2:
            await settle()
    by_way = {message.direction: message for message in bus.messages(BusFrameMessage)}
    assert by_way[DOWN].frame is down
    assert by_way[UP].frame is up
    assert all((m.source, m.target, m.bridge) == ("w", None, None) for m in by_way.values())
    assert down in reached


@pytest.mark.parametrize("bridged", [None, ()])
async def test_the_ends_of_a_worker_are_bridged_if_it_says_so(bridged: tuple[str, ...] | None) -> None:
    """P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=bridged, name="w")
    async with running(worker, bus=bus):
        assert worker.bridged == (bridged is not None)
        await worker.queue_frame(TextFrame("local"))
        await bus.send(over_the_bus(TextFrame("remote")))
        await spy.until(1)
        await settle()
    assert spy.heard == (["local"] if bridged is None else ["local", "remote"])
    assert sent(bus, "w") == ([] if bridged is None else ["local"])


async def test_frames_from_the_bus_enter_at_the_end_that_their_direction_says() -> None:
    """P3"""
    trail: list[str] = []

    async def leave_trail(spy: Spy, frame: Frame) -> None:
        trail.append(f"{spy.name} {getattr(frame, 'text', '')}")

    first, last = Spy(leave_trail, name="first"), Spy(leave_trail, name="last")
    async with flowing(first, last, bridged=()) as worker:
        await worker.bus.send(over_the_bus(TextFrame("down"), DOWN))
        await last.until(1)
        await worker.bus.send(over_the_bus(TextFrame("up"), UP))
        await first.until(2)
    assert trail == ["first down", "last down", "last up", "first up"]


async def test_each_receiver_has_a_frame_of_its_own() -> None:
    """P3"""
    left, right = Spy(), Spy()
    bus = MemoryBus()
    frame = TextFrame("x", pts=3, metadata={"a": 1})
    async with running(worker_of(left, bridged=(), name="l"), worker_of(right, bridged=(), name="r"), bus=bus):
        await bus.send(over_the_bus(frame))
        [here], [there] = await left.until(), await right.until()
        here.metadata["seen"] = True
    assert isinstance(here, TextFrame)
    assert (here.text, here.pts, here.id) == ("x", 3, frame.id)
    assert len({id(frame), id(here), id(there)}) == 3
    assert frame.metadata == there.metadata == {"a": 1}


async def test_what_a_worker_makes_of_a_frame_from_the_bus_goes_out() -> None:
    """P3"""
    bus = RecordingBus()
    async with running(worker_of(Reply(), bridged=(), name="w"), bus=bus):
        await bus.send(over_the_bus(TextFrame("x")))
        while len(bus.messages(BusFrameMessage)) < 2:
            await settle()
    assert sent(bus) == ["x", "w: x"]


async def test_a_copy_of_a_frame_from_the_bus_goes_out() -> None:
    """P1, P3: it is another frame, and has been nowhere."""

    async def copied(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, TextFrame):
            await processor.push_frame(copy.copy(frame), direction)
        return isinstance(frame, TextFrame)

    bus = RecordingBus()
    async with running(worker_of(ScriptedProcessor(copied), bridged=(), name="w"), bus=bus):
        await bus.send(over_the_bus(TextFrame("a")))
        while not sent(bus, "w"):
            await settle()
    assert sent(bus, "w") == ["a"]


async def test_a_copy_of_a_frame_without_the_bus_bears_no_mark() -> None:
    """P3: a frame that was queued locally after it came from the bus goes out"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=(), name="w")
    async with running(worker, bus=bus):
        await bus.send(over_the_bus(TextFrame("x")))
        [frame] = await spy.until()
        assert isinstance(frame, TextFrame)
        await worker.queue_frame(TextFrame(frame.text))
        await spy.until(2)
        await settle()
    assert sent(bus, "w") == ["x"]


async def test_a_worker_may_look_at_the_messages_itself() -> None:
    """W8, B6"""
    seen: list[BusMessage] = []

    class Looks(PipelineWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            seen.append(message)

        def accepts_bus_message(self, message: BusMessage) -> bool:
            return getattr(getattr(message, "frame", None), "text", "") != "unwanted"

    spy = Spy()
    worker = Looks(Pipeline([spy]), bridged=(), name="w")
    async with running(worker):
        await worker.bus.send(over_the_bus(TextFrame("unwanted")))
        await worker.bus.send(over_the_bus(TextFrame("x")))
        await spy.until()
        await settle()
    assert spy.heard == ["x"]
    assert [message.frame.text for message in seen if isinstance(message, BusFrameMessage)] == ["x"]


# --- what crosses, and what does not


@pytest.mark.parametrize("lifecycle", [StartFrame(), EndFrame(), StopFrame(), CancelFrame(), ErrorFrame("x")])
async def test_lifecycle_frames_never_come_in(lifecycle: Frame) -> None:
    """P3"""
    spy = Spy()
    async with flowing(spy, bridged=()) as worker:
        for way in (DOWN, UP):
            await worker.bus.send(over_the_bus(copy.copy(lifecycle), way))
        await worker.bus.send(over_the_bus(TextFrame("x")))
        await spy.until()
        assert spy.log == ["setup", "StartFrame", "TextFrame"]


async def test_lifecycle_frames_never_go_out() -> None:
    """P3"""
    bus = RecordingBus()

    async def fail_on_b(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "b":
            raise ValueError

    worker = worker_of(Spy(fail_on_b), bridged=(), name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames(texts("a", "b", "c"))
    assert sent(bus) == ["a", "c"]


async def test_excluded_frames_cross_neither_way() -> None:
    """P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=(), exclude_frames=(Alert,), name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames([Alert("local"), TextFrame("x")])
        await bus.send(over_the_bus(Alert("remote")))
        await bus.send(over_the_bus(TextFrame("y")))
        await spy.until(2)
    assert sent(bus, "w") == ["x"]
    assert sorted(spy.heard) == ["local", "x", "y"]


async def test_one_class_may_be_excluded_without_a_tuple() -> None:
    """P3"""
    bus = RecordingBus()
    alone: Any = Alert
    worker = worker_of(Spy(), bridged=(), exclude_frames=alone, name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames([Alert("local"), TextFrame("x")])
    assert sent(bus, "w") == ["x"]


async def test_an_interruption_crosses() -> None:
    """P3"""
    spy, other = Spy(), Spy()
    a, b = worker_of(spy, bridged=(), name="a"), worker_of(other, bridged=(), name="b")
    async with running(a, b):
        await a.queue_frame(InterruptionFrame())
        await other.until(1, InterruptionFrame)


@pytest.mark.parametrize(
    ("bridged", "heard", "tags"),
    [
        ((), ["none", "one", "two"], [None]),
        (("one",), ["one"], ["one"]),
        (("one", "two"), ["one", "two"], ["one", "two"]),
        (("three",), [], ["three"]),
    ],
)
async def test_a_worker_exchanges_frames_with_its_bridges(
    bridged: tuple[str, ...], heard: list[str], tags: list[str | None]
) -> None:
    """P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=bridged, name="w")
    async with running(worker, bus=bus):
        await bus.send(over_the_bus(TextFrame("none")))
        for name in ("one", "two"):
            await bus.send(over_the_bus(TextFrame(name), bridge=name))
        await spy.until(len(heard))
        await worker.queue_frame(TextFrame("local"))
        await spy.until(len(heard) + 1)
        await settle()
    assert spy.heard == [*heard, "local"]
    assert [message.bridge for message in bus.messages(BusFrameMessage, source="w")] == tags


async def test_a_frame_for_another_worker_is_not_taken() -> None:
    """P3"""
    spy = Spy()
    async with flowing(spy, bridged=()) as worker:
        await worker.bus.send(over_the_bus(TextFrame("not mine"), target="another"))
        await worker.bus.send(over_the_bus(TextFrame("mine"), target="w"))
        await spy.until()
    assert spy.heard == ["mine"]


@pytest.mark.parametrize(("frame", "direction"), [("x", DOWN), (TextFrame("x"), "down"), (None, None)])
async def test_what_is_no_frame_is_left_alone(frame: Any, direction: Any, caplog: pytest.LogCaptureFixture) -> None:
    """P3"""
    spy = Spy()
    async with flowing(spy, bridged=()) as worker:
        await worker.bus.send(over_the_bus(frame, direction))
        await worker.bus.send(over_the_bus(TextFrame("y")))
        await spy.until()
    assert spy.heard == ["y"]
    assert not caplog.records


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


# --- in order, and once


@BUSES
async def test_frames_from_the_bus_keep_their_order(make_bus: Any) -> None:
    """P3"""
    spy, bus = Spy(slow(0.001)), make_bus()
    source, sink = worker_of(Spy(), bridged=(), name="source"), worker_of(spy, bridged=(), name="sink")
    async with running(source, sink, bus=bus):
        await source.queue_frames(texts(*range(200)))
        await spy.until(200)
    assert spy.heard == [str(n) for n in range(200)]


class SlowFirst(MemoryBus):
    """The first frame takes longer than the second."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Any] = []

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusFrameMessage):
            await anyio.sleep(0.1 / int(message.frame.text))
            self.arrived.append((message.frame.text, message.bridge))
        await super().publish(message)


@pytest.mark.parametrize(("bridged", "tags"), [((), [None]), (("one", "two", "three"), ["one", "two", "three"])])
async def test_frames_from_branches_keep_their_order_on_a_slow_bus(
    bridged: tuple[str, ...], tags: list[str | None]
) -> None:
    """P1, P3: each branch pushes from a task of its own; the second frame does not get ahead of the first."""
    bus = SlowFirst()
    worker = worker_of(ParallelPipeline([Spy()], [Spy()]), bridged=bridged, name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames(texts(1, 2, 3))
        await anyio.sleep(1)
    assert bus.arrived == [(text, tag) for text in "123" for tag in tags]


async def test_what_goes_out_one_way_does_not_wait_for_what_goes_out_the_other_way() -> None:
    """P1, P3: on a bus that takes for ever with some frames."""

    class Stuck(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusFrameMessage) and message.direction is stuck:
                await anyio.sleep_forever()
            await super().publish(message)

    for stuck, free in ((UP, DOWN), (DOWN, UP)):
        one, heard = Spy(), Spy()
        async with (
            running(worker_of(one, bridged=(), name="a"), worker_of(heard, bridged=(), name="b"), bus=Stuck()),
            anyio.create_task_group() as group,
        ):
            group.start_soon(one.push_frame, TextFrame("stuck"), stuck)
            await settle()
            await one.push_frame(TextFrame("free"), free)
            await heard.until(1)
            group.cancel_scope.cancel()
        assert heard.heard == ["free"]


async def test_two_active_bridged_workers_do_not_echo() -> None:
    """P3"""
    bus = RecordingBus()
    left, right = Spy(), Spy()
    a, b = worker_of(left, bridged=(), name="a"), worker_of(right, bridged=(), name="b")
    async with running(a, b, bus=bus):
        await a.queue_frame(TextFrame("from a"))
        await b.queue_frame(TextFrame("from b"))
        await bus.send(over_the_bus(TextFrame("from outside")))
        await left.until(3)
        await right.until(3)
        await settle()
    assert sorted(left.heard) == sorted(right.heard) == ["from a", "from b", "from outside"]
    assert sorted(sent(bus)) == ["from a", "from b", "from outside"]


async def test_workers_with_two_bridges_in_common_hear_each_frame_once() -> None:
    """P3: it goes out once for each bridge; a frame that is sent twice is heard twice."""
    spy = Spy()
    a = worker_of(Spy(), bridged=("one", "two"), name="a")
    async with running(a, worker_of(spy, bridged=("one", "two"), name="b")):
        frame = TextFrame("x")
        await a.queue_frame(frame, DOWN)
        await settle()
        assert spy.heard == ["x"]
        await a.queue_frame(frame, DOWN)
        await settle()
    assert spy.heard == ["x", "x"]


async def test_a_frame_that_is_sent_again_over_one_of_two_bridges_is_another() -> None:
    """P3: one copy of its first sending was dropped as the second of two, and that is all."""
    spy, frame = Spy(), TextFrame("again")
    worker = worker_of(spy, bridged=("x", "y"), name="w")
    async with running(worker) as runner:
        for bridge in ("x", "y", "y"):
            await runner.bus.send(over_the_bus(frame, bridge=bridge))
            await settle()
        assert spy.heard == ["again", "again"]


def test_a_receiver_forgets_senders_that_come_and_go() -> None:
    """P3: what it knows of them is bounded, and nothing is kept of those that name no bridge."""
    twice = Deduplicator()
    for number in range(3 * SENDERS):
        for bridge in (None, "one", "two"):
            message = BusFrameMessage(TextFrame("x"), DOWN, bridge, source=f"w{number}")
            assert not twice.seen(message)
    assert len(twice._last) == SENDERS


async def test_what_has_been_sent_is_kept_by_nothing() -> None:
    """L1: though each frame was pushed while the one before it was still being sent."""
    bus_edge = BusEdge("w", (), ())
    bus_edge.opened({})
    async with Wire() as bus, anyio.create_task_group() as group:
        for frame in texts(*range(20)):
            waiting = bus_edge.outgoing(frame, DOWN, bus, may_wait=True)
            assert waiting is not None
            group.start_soon(waiting.wait)
        del waiting
        await settle()
        gc.collect()
        assert len([each for each in gc.get_objects() if type(each) is Sending]) == 1
    assert len(bus.published) == 20


# --- starts and ends


@BUSES
async def test_what_leaves_before_the_worker_has_started_goes_out_too(make_bus: Any) -> None:
    """P2, P3: frames that wait for the start of the pipeline do not wait for that of the worker"""

    async def push_both_ways(processor: StartsWith) -> None:
        await processor.push_frame(TextFrame("from the start"), DOWN)
        await processor.push_frame(TextFrame("from the start"), UP)

    for _ in range(5):
        listener = Plain("listener")
        bus = make_bus()
        await bus.subscribe(listener)
        worker = worker_of(StartsWith(push_both_ways), bridged=(), name="w")
        await worker.queue_frame(TextFrame("early"))
        async with running(worker, bus=bus):
            messages = await listener.until(3, BusFrameMessage)
        frames = [message.frame.text for message in messages if isinstance(message, BusFrameMessage)]
        assert sorted(frames) == ["early", "from the start", "from the start"]


async def test_a_frame_from_the_bus_waits_for_the_start() -> None:
    """P2: after the worker is on the bus, before it runs, and while it starts"""
    gate = Gate()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    spy = Spy()
    worker = worker_of(spy, StartsWith(wait), bridged=(), name="w")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.bus.send(over_the_bus(TextFrame("before the run")))
    async with runner:
        await gate.reached.wait()
        await runner.bus.send(over_the_bus(TextFrame("while it starts")))
        await settle()
        assert spy.heard == []
        gate.open()
        await spy.until(2)
    assert spy.heard == ["before the run", "while it starts"]


async def test_a_cancel_during_the_start_drops_frames_from_the_bus() -> None:
    """P2"""
    starter, spy = StartsWith(never), Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(starter, spy, bridged=(), name="w"))
        await starter.begun.wait()
        await runner.bus.send(over_the_bus(TextFrame("x")))
        await runner.cancel()
    assert spy.heard == []


async def test_frames_that_come_after_the_end_are_dropped() -> None:
    """P3"""
    gate, last = Gate(), Spy()
    worker = worker_of(Spy(for_texts(gate)), last, bridged=(), name="w")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await worker.stop_when_done()
        await gate.reached.wait()
        await runner.bus.send(over_the_bus(TextFrame("late")))
        gate.open()
        await worker.wait()
    assert last.heard == ["x"]


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


@pytest.mark.parametrize("by_bus", [False, True], ids=["queued", "over the bus"])
async def test_what_does_not_meet_an_end_comes_in_while_it_drains(by_bus: bool) -> None:
    """P1, P2, P3: system frames, so that it can be interrupted, and upstream frames; whichever way they come."""
    gate, last = Gate(), Spy()
    first = Spy(for_texts(gate))
    worker = worker_of(first, last, bridged=(), name="w")
    async with running(worker) as runner:
        await worker.queue_frames(texts("a", "b"))
        await gate.reached.wait()
        await worker.stop_when_done()
        for frame, way in ((Alert("!"), DOWN), (TextFrame("up"), UP), (InterruptionFrame(), DOWN)):
            if by_bus:
                await runner.bus.send(over_the_bus(frame, way))
            else:
                await worker.queue_frame(frame, way)
            await settle()
        await last.until(1, InterruptionFrame)
        gate.open()
        await worker.wait()
    assert sorted(last.heard) == ["!", "up"]
    assert first.heard_going(DOWN) == ["a", "!"]


async def test_a_bridged_worker_ends_with_what_it_was_given_on_the_bus() -> None:
    """P2, P3"""
    bus = RecordingBus()
    worker = worker_of(Spy(slow(0.1)), bridged=(), name="w")
    runner = WorkerRunner(handle_sigint=False, bus=bus)
    await worker.queue_frames(texts("a", "b", "c"))
    await runner.add_workers(worker)
    await runner.stop_when_done()
    await runner.run()
    assert sent(bus, "w") == ["a", "b", "c"]
    await run_through(worker_of(Spy(), bridged=(), name="w"))


async def test_a_bridged_worker_may_be_a_member_of_a_pool() -> None:
    """S2, P3, W4: while it is inactive nothing goes out, and nothing comes in."""
    bus, spy = RecordingBus(), Spy()
    pool = WorkerPool("pool", lambda name: worker_of(spy, bridged=(), name=name), size=1)
    async with running(pool, bus=bus) as runner:
        await runner.registry.wait_for("pool/1")
        [member] = pool.children
        assert isinstance(member, PipelineWorker)
        for step, text in enumerate("abc"):
            await member.queue_frame(TextFrame(text))
            await bus.send(over_the_bus(TextFrame(text.upper())))
            await settle()
            if step < 2:
                await (pool.activate_worker if step else pool.deactivate_worker)("pool/1")
                await settle()
    assert spy.heard == ["a", "A", "b", "c", "C"]
    assert sent(bus, "pool/1") == ["a", "c"]
