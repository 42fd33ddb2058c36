"""P3, P4, P5: frames between pipelines and the bus; W3: handing them over."""

import copy
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.buses import Wire
from support.pipelines import (
    DOWN,
    UP,
    Alert,
    Gate,
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
from workerbus import (
    BaseWorker,
    BusBridgeProcessor,
    BusFrameMessage,
    BusMessage,
    BusTTSSpeakMessage,
    MemoryBus,
    PipelineWorker,
    WorkerBus,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FramePushed,
    InterruptionFrame,
    Observer,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
    TTSSpeakFrame,
)
from workerbus.testing import Faults, FaultyBus, RecordingBus, nothing_left, settle

BUSES = pytest.mark.parametrize("make_bus", [MemoryBus, Wire, lambda: MemoryBus(max_buffer_size=1)])


def sent(bus: RecordingBus, source: str | None = None) -> list[str]:
    messages = bus.messages(BusFrameMessage, source=source)
    return [getattr(message.frame, "text", type(message.frame).__name__) for message in messages]


def over_the_bus(frame: Any, direction: Any = DOWN, bridge: str | None = None, **kwargs: Any) -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, **{"source": "somebody", **kwargs})


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


# --- P3: the edges of a bridged worker


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


async def test_what_a_worker_makes_of_a_frame_from_the_bus_goes_out() -> None:
    """P3"""
    bus = RecordingBus()
    async with running(worker_of(Reply(), bridged=(), name="w"), bus=bus):
        await bus.send(over_the_bus(TextFrame("x")))
        while len(bus.messages(BusFrameMessage)) < 2:
            await settle()
    assert sent(bus) == ["x", "w: x"]


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


async def test_observers_see_what_comes_over_a_bridge() -> None:
    """P4"""
    pushed: list[tuple[str, str | None]] = []

    class Sees(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            if isinstance(data.frame, TextFrame):
                pushed.append((data.source.name, None if data.destination is None else data.destination.name))

    bus, after = MemoryBus(), Spy(name="after")
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge")
    async with running(worker_of(bridge, after, observers=[Sees()], name="front"), bus=bus):
        await bus.send(over_the_bus(TextFrame("x")))
        await after.until()
    assert pushed == [("bridge", "after"), ("after", None)]


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


async def test_a_worker_that_starts_inactive_lets_nothing_out() -> None:
    """W4, P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=(), active=False, name="w")
    await worker.queue_frames(texts("a", "b"))
    async with running(worker, bus=bus):
        await spy.until(2)
        await settle()
    assert sent(bus) == []


@BUSES
async def test_frames_from_the_bus_keep_their_order(make_bus: Any) -> None:
    """P3"""
    spy, bus = Spy(slow(0.001)), make_bus()
    source, sink = worker_of(Spy(), bridged=(), name="source"), worker_of(spy, bridged=(), name="sink")
    async with running(source, sink, bus=bus):
        await source.queue_frames(texts(*range(200)))
        await spy.until(200)
    assert spy.heard == [str(n) for n in range(200)]


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


# --- W3, W4: activation


async def test_an_inactive_worker_takes_no_frames_and_sends_none() -> None:
    """W4, P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=(), active=False, name="w")
    async with running(worker, bus=bus):
        await bus.send(over_the_bus(TextFrame("too early")))
        await worker.queue_frame(TextFrame("local"))
        await spy.until(1)
        await worker.activate_worker("w")
        await bus.send(over_the_bus(TextFrame("taken")))
        await worker.queue_frame(TextFrame("local, too"))
        await spy.until(3)
        await worker.deactivate_worker("w")
        await bus.send(over_the_bus(TextFrame("too late")))
        await settle()
        await worker.queue_frame(TextFrame("stays"))
        await spy.until(4)
    assert spy.heard == ["local", "taken", "local, too", "stays"]
    assert sent(bus, "w") == ["local, too"]


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_what_was_taken_before_a_deactivation_still_goes_out(way: FrameDirection) -> None:
    """W3"""
    bus = RecordingBus()
    gate = Gate()
    front, back = (Spy(for_texts(gate)), Spy()) if way is DOWN else (Spy(), Spy(for_texts(gate)))
    worker = worker_of(front, Reply(), back, bridged=(), name="w")
    async with running(worker, bus=bus):
        for frame in texts("a", "b", "c"):
            await bus.send(over_the_bus(frame, way))
        await gate.reached.wait()
        await worker.deactivate_worker("w")
        assert not worker.active
        await settle()
        gate.open()
        while len(sent(bus, "w")) < 3:
            await settle()
        await worker.queue_frame(TextFrame("late"), way)
        await settle()
    assert sent(bus, "w") == ["w: a", "w: b", "w: c"]


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_a_system_frame_that_was_taken_before_a_deactivation_still_goes_out(way: FrameDirection) -> None:
    """W3"""

    async def take_time(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await anyio.sleep(1)

    bus, spies = RecordingBus(), [Spy(take_time) for _ in range(3)]
    worker = worker_of(*spies, bridged=(), name="w")
    async with running(worker, bus=bus):
        await worker.queue_frame(Alert("!"), way)
        await worker.deactivate_worker("w")
        await worker.queue_frame(TextFrame("held back by nobody"), way)
        await (spies[-1] if way is DOWN else spies[0]).until(1)
        assert anyio.current_time() < 1
        await anyio.sleep(4)
        await worker.queue_frame(Alert("too late"), way)
        await anyio.sleep(4)
    assert "!" in sent(bus, "w")
    assert "too late" not in sent(bus, "w")


class TurnsOnce(FrameProcessor):
    """Sends back what comes in one direction."""

    def __init__(self, *, turns: FrameDirection) -> None:
        super().__init__()
        self.turns = turns

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TextFrame) and direction is self.turns and not frame.text.endswith("!!"):
            await anyio.sleep(0.1)
            frame, direction = TextFrame(f"{frame.text}!"), UP if direction is DOWN else DOWN
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_what_goes_there_and_back_before_it_goes_out_still_does(way: FrameDirection) -> None:
    """W3"""
    bus = RecordingBus()
    out: list[str] = []
    parts = [TurnsOnce(turns=UP if way is DOWN else DOWN), Spy(), TurnsOnce(turns=way)]
    worker = worker_of(*(parts if way is DOWN else reversed(parts)), bridged=(), name="w")
    async with running(worker, bus=bus):
        for frame in texts("a", "b", "c"):
            await bus.send(over_the_bus(frame, way))
        await worker.deactivate_worker("w")
        while len(out) < 3:
            await anyio.sleep(1)
            out = sent(bus, "w")
    assert out == ["a!!", "b!!", "c!!"]


async def test_an_activation_while_frames_come_through_keeps_the_way_open() -> None:
    """W3"""
    bus, gate = RecordingBus(), Gate()
    worker = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="w")
    async with running(worker, bus=bus):
        await bus.send(over_the_bus(TextFrame("a")))
        await gate.reached.wait()
        for _ in range(3):
            await worker.deactivate_worker("w")
            await worker.activate_worker("w")
        gate.open()
        await settle()
        await bus.send(over_the_bus(TextFrame("b")))
        while len(sent(bus, "w")) < 2:
            await settle()
    assert sent(bus, "w") == ["w: a", "w: b"]


@pytest.mark.parametrize("steps", range(12))
async def test_an_activation_at_any_step_of_a_deactivation_keeps_the_way_open(steps: int) -> None:
    """W3"""
    bus, spies = RecordingBus(), [Spy() for _ in range(3)]
    worker = worker_of(*spies, bridged=(), name="w")
    async with running(worker, bus=bus):
        await worker.deactivate_worker("w")
        for _ in range(steps):
            await checkpoint()
        await worker.activate_worker("w")
        await settle()
        for way in (DOWN, UP):
            await worker.queue_frame(TextFrame(way.name), way)
        while len(sent(bus, "w")) < 2:
            await settle()


async def test_what_goes_out_late_is_not_for_the_worker_that_has_taken_over() -> None:
    """W3, P3: for everybody else, whether or not it has ever sent something."""
    bus, gate, front, successor, listener = RecordingBus(), Gate(), Spy(), Spy(), Spy()
    agent = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="agent")
    next_one = worker_of(successor, bridged=(), active=False, name="next")
    silent = worker_of(listener, bridged=(), name="silent")
    async with running(worker_of(front, bridged=(), name="front"), agent, next_one, silent, bus=bus):
        await bus.send(over_the_bus(TextFrame("question"), source="front"))
        await gate.reached.wait()
        await agent.activate_worker("next", deactivate_self=True)
        await settle()
        gate.open()
        await front.until()
        await bus.send(over_the_bus(TextFrame("another"), source="front"))
        await successor.until()
    assert front.heard == ["agent: question"]
    assert successor.heard == ["another"]
    assert listener.heard == ["question", "agent: question", "another"]
    [late] = bus.messages(BusFrameMessage, source="agent")
    assert late.late_since is not None


class Agent(PipelineWorker):
    """Takes its turn: hands over to the next when it is told to."""

    def __init__(self, name: str, seconds: float, way: FrameDirection, *, active: bool) -> None:
        self.spy = Spy()
        processors = [self.spy, Reply(seconds)]
        pipeline = Pipeline(processors if way is DOWN else reversed(processors))
        super().__init__(pipeline, name=name, bridged=(), active=active)


@pytest.mark.parametrize("way", [DOWN, UP])
@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_hand_over_under_load_loses_doubles_and_delays_no_frame(way: FrameDirection, seconds: float) -> None:
    """W3, P3"""
    bus = MemoryBus()
    out = Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front")
    processors = [bridge, out] if way is DOWN else [out, bridge]
    front = worker_of(*processors, name="front")
    agents = [Agent("a", seconds, way, active=True), Agent("b", 0, way, active=False)]
    async with running(front, *agents, bus=bus):
        active, total = 0, 120
        for n in range(total):
            await front.queue_frame(TextFrame(str(n)), way)
            if n % 5 == 0:
                await settle()
            if n % 10 == 9:
                await agents[active].activate_worker(agents[1 - active].name, deactivate_self=True)
                active = 1 - active
                assert [agent.active for agent in agents].count(True) == 1
            if n % 7 == 0:
                await anyio.sleep(0.005)
        await out.until(total)
        await settle()
    taken = [agent.spy.heard for agent in agents]
    assert sorted(int(text) for heard in taken for text in heard) == list(range(total))
    assert sorted(int(text.split(": ")[1]) for text in out.heard) == list(range(total))
    for agent in agents:
        own = [text.split(": ")[1] for text in out.heard if text.startswith(agent.name)]
        assert own == agent.spy.heard == sorted(own, key=int)
        assert own


# --- P4: the bridge in the middle of a pipeline


async def bridged_front(bus: WorkerBus, *after: FrameProcessor, **kwargs: Any) -> tuple[PipelineWorker, Spy]:
    before = Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", **kwargs)
    return worker_of(before, bridge, *after, name="front"), before


async def test_a_bridge_sends_frames_to_the_bus_and_not_on() -> None:
    """P4"""
    bus, after = RecordingBus(), Spy()
    front, before = await bridged_front(bus, after)
    async with running(front, bus=bus):
        await front.queue_frames([TextFrame("a"), Alert("b")])
        await front.queue_frame(TextFrame("c"), UP)
        while len(bus.messages(BusFrameMessage)) < 3:
            await settle()
    assert sorted(sent(bus, "front")) == ["a", "b", "c"]
    assert before.heard_going(UP) == []
    assert after.heard_going(DOWN) == []
    assert after.log == ["setup", "StartFrame", "TextFrame", "EndFrame", "cleanup"]  # the text came from its side


async def test_a_bridge_pushes_what_comes_in_its_direction() -> None:
    """P4"""
    bus, after = MemoryBus(), Spy()
    front, before = await bridged_front(bus, after)
    async with running(front, bus=bus):
        for n in range(10):
            await bus.send(over_the_bus(TextFrame(f"down {n}"), DOWN))
            await bus.send(over_the_bus(TextFrame(f"up {n}"), UP))
        await after.until(10)
        await before.until(10)
    assert after.heard == [f"down {n}" for n in range(10)]
    assert before.heard == [f"up {n}" for n in range(10)]


async def test_lifecycle_and_excluded_frames_pass_a_bridge_locally() -> None:
    """P4"""
    bus, after = RecordingBus(), Spy()
    front, _ = await bridged_front(bus, after, exclude_frames=(Alert,))
    async with running(front, bus=bus):
        await front.queue_frame(Alert("local"))
        await after.until(1, Alert)
        await bus.send(over_the_bus(Alert("remote")))
        await bus.send(over_the_bus(TextFrame("x")))
        await after.until(1)
    assert sent(bus, "front") == []
    assert after.heard == ["local", "x"]


async def test_an_interruption_crosses_a_bridge_and_goes_on_locally() -> None:
    """P4"""
    bus, after = RecordingBus(), Spy()
    front, _ = await bridged_front(bus, after)
    async with running(front, bus=bus):
        await front.queue_frame(InterruptionFrame())
        await after.until(1, InterruptionFrame)
    assert sent(bus, "front") == ["InterruptionFrame"]


async def test_a_bridge_with_a_name_exchanges_frames_under_it() -> None:
    """P4"""
    bus, after = RecordingBus(), Spy()
    front, _ = await bridged_front(bus, after, bridge="voice")
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("none")))
        await bus.send(over_the_bus(TextFrame("other"), bridge="video"))
        await bus.send(over_the_bus(TextFrame("own"), bridge="voice"))
        await after.until()
        await front.queue_frame(TextFrame("x"))
        while len(bus.messages(BusFrameMessage)) < 4:
            await settle()
    assert after.heard == ["own"]
    assert [message.bridge for message in bus.messages(BusFrameMessage, source="front")] == ["voice"]


async def test_a_bridge_without_a_name_takes_frames_of_any() -> None:
    """P4"""
    bus, after = MemoryBus(), Spy()
    front, _ = await bridged_front(bus, after)
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("x"), bridge="voice"))
        await after.until()


async def test_a_bridge_with_a_target_exchanges_frames_with_it_alone() -> None:
    """P4"""
    bus, after = RecordingBus(), Spy()
    front, _ = await bridged_front(bus, after, target_task="agent")
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("stranger")))
        await bus.send(over_the_bus(TextFrame("agent"), source="agent"))
        await bus.send(over_the_bus(TextFrame("to front"), source="agent", target="front"))
        await bus.send(over_the_bus(TextFrame("to another"), source="agent", target="another"))
        await after.until(2)
        await front.queue_frame(TextFrame("x"))
        while not sent(bus, "front"):
            await settle()
    assert after.heard == ["agent", "to front"]
    assert [message.target for message in bus.messages(BusFrameMessage, source="front")] == ["agent"]


async def test_a_bridge_skips_the_frames_of_its_own_worker() -> None:
    """P4"""
    bus, after = MemoryBus(), Spy()
    front, _ = await bridged_front(bus, after)
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("own"), source="front"))
        await bus.send(over_the_bus(TextFrame("x")))
        await after.until()
    assert after.heard == ["x"]


async def test_what_came_over_a_bridge_is_not_sent_out_by_it_again() -> None:
    """P4"""
    bus = RecordingBus()

    class TurnsBack(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, TextFrame):
                direction = UP
            await super().process_frame(frame, direction)

    turns = TurnsBack()
    front, before = await bridged_front(bus, turns)
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("x")))
        await before.until()
    assert before.heard_going(UP) == ["x"]
    assert sent(bus, "front") == []


async def test_a_frame_goes_from_one_bridge_to_another() -> None:
    """P4"""
    bus, last = RecordingBus(), Spy()
    one = BusBridgeProcessor(bus=bus, worker_name="front", bridge="one")
    two = BusBridgeProcessor(bus=bus, worker_name="front", bridge="two")
    async with running(worker_of(one, two, last, name="front"), bus=bus):
        await bus.send(over_the_bus(TextFrame("x"), bridge="one"))
        while not sent(bus, "front"):
            await settle()
        await bus.send(over_the_bus(TextFrame("y"), bridge="two"))
        await last.until()
    assert [(m.frame.text, m.bridge) for m in bus.messages(BusFrameMessage, source="front")] == [("x", "two")]
    assert last.heard == ["y"]


@BUSES
async def test_a_conversation_over_a_bridge_keeps_its_order(make_bus: Any) -> None:
    """P3, P4"""
    bus, out = make_bus(), Spy()
    front, _ = await bridged_front(bus, out)
    agent = worker_of(Reply(0.001), bridged=(), name="agent")
    async with running(front, agent, bus=bus):
        await front.queue_frames(texts(*range(100)))
        await out.until(100)
    assert out.heard == [f"agent: {n}" for n in range(100)]


async def test_frames_for_a_bridge_wait_for_the_start() -> None:
    """P2, P4: after the worker is on the bus, before it runs, and while it starts"""
    bus, gate, after = MemoryBus(), Gate(), Spy()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    front, before = await bridged_front(bus, StartsWith(wait), after)
    runner = WorkerRunner(handle_sigint=False, bus=bus)
    await runner.add_workers(front)
    await bus.send(over_the_bus(TextFrame("before the run")))
    async with runner:
        await gate.reached.wait()
        await bus.send(over_the_bus(TextFrame("while it starts")))
        await bus.send(over_the_bus(TextFrame("up"), UP))
        await settle()
        assert before.heard == after.heard == []
        gate.open()
        await after.until(2)
        await before.until()
    assert after.heard == ["before the run", "while it starts"]
    assert before.heard == ["up"]


async def test_a_bridge_of_an_inactive_worker_takes_nothing() -> None:
    """W4, P4"""
    bus, after = MemoryBus(), Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front")
    front = worker_of(bridge, after, active=False, name="front")
    async with running(front, bus=bus):
        await bus.send(over_the_bus(TextFrame("too early")))
        await front.activate_worker("front")
        await bus.send(over_the_bus(TextFrame("x")))
        await after.until()
    assert after.heard == ["x"]


async def test_frames_come_in_while_the_start_of_the_worker_is_announced() -> None:
    """P2, P4: a worker that is about to be active takes frames"""
    bus, announced, go_on, after = MemoryBus(), anyio.Event(), anyio.Event(), Spy()

    async def wait(data: WorkerReadyData) -> None:
        announced.set()
        await go_on.wait()

    front, _ = await bridged_front(bus, after)
    async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
        await runner.registry.watch("front", wait)
        await runner.add_workers(front)
        await announced.wait()
        await bus.send(over_the_bus(TextFrame("x")))
        go_on.set()
        await after.until()
    assert after.heard == ["x"]


@pytest.mark.parametrize("end", [EndFrame, StopFrame, CancelFrame])
async def test_a_bridge_leaves_the_bus_with_its_worker(end: type[EndFrame | StopFrame | CancelFrame]) -> None:
    """L1"""
    async with MemoryBus() as bus:
        front, _ = await bridged_front(bus, name="bridge")
        runner = WorkerRunner(handle_sigint=False, bus=bus)
        async with nothing_left(runner, bus):
            await runner.add_workers(front)
            assert bus.has_subscriber("bridge")
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run)
                await runner.registry.wait_for("front")
                await front.queue_frame(end())
            assert not bus.has_subscriber("bridge")


async def test_a_worker_that_never_runs_takes_its_bridge_off_the_bus() -> None:
    """L1"""
    async with MemoryBus() as bus:
        front, _ = await bridged_front(bus, name="bridge")
        runner = WorkerRunner(handle_sigint=False, bus=bus)
        async with nothing_left(runner, bus):
            await runner.add_workers(front)
            await front.stop()


def test_a_bridge_needs_a_bus() -> None:
    with pytest.raises(TypeError, match="bus is a WorkerBus, not None"):
        BusBridgeProcessor(bus=None, worker_name="front")  # type: ignore[arg-type]  # as it is refused


async def test_a_bridge_whose_name_is_taken_is_refused_with_its_worker() -> None:
    """B5"""
    bus = MemoryBus()
    await bus.subscribe(Plain("bridge"))
    front, _ = await bridged_front(bus, name="bridge")
    runner = WorkerRunner(handle_sigint=False, bus=bus)
    with pytest.raises(ValueError, match="the name 'bridge' is taken"):
        await runner.add_workers(front)
    assert not bus.has_subscriber("front")


async def test_a_send_that_fails_becomes_an_error_frame() -> None:
    """P1, P4"""

    class Broken(Wire):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusFrameMessage):
                raise ConnectionError("no network")
            await super().publish(message)

    bus = Broken()
    errors: list[str] = []
    front, _ = await bridged_front(bus)
    bridged = worker_of(Spy(), bridged=(), name="bridged")
    for worker in (front, bridged):
        worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame.error))
    async with running(front, bridged, bus=bus):
        await front.queue_frame(TextFrame("x"))
        await bridged.queue_frame(TextFrame("x"))
    assert errors == ["ConnectionError: no network"] * 2


async def test_messages_that_do_not_concern_a_bridge_cost_it_nothing() -> None:
    """P4"""
    bus = MemoryBus()
    front, _ = await bridged_front(bus, name="bridge")
    async with running(front, BaseWorker("other"), bus=bus) as runner:
        before = bus.statistics().subscribers["bridge"].delivered
        async with runner.job_group("other", cancel_on_error=False):
            pass
        after = bus.statistics().subscribers["bridge"]
    assert (after.delivered, after.depth) == (before, 0)


async def test_a_bridge_works_across_a_bad_network() -> None:
    """P3, P4"""
    faults = Faults(delay=0.05)
    out = Spy()
    whole = FaultyBus(MemoryBus(), seed=7, faults=faults, name="left")
    async with nothing_left(), whole as left, left.end("right") as right:
        front, _ = await bridged_front(left, out)
        agent = worker_of(Reply(0.01), bridged=(), name="agent")
        here = WorkerRunner(bus=left, name="here", handle_sigint=False)
        there = WorkerRunner(bus=right, name="there", handle_sigint=False)
        async with here, there:
            await here.add_workers(front)
            await there.add_workers(agent)
            await here.registry.wait_for("agent")
            await here.registry.wait_for("front")
            await there.registry.wait_for("front")
            await front.queue_frames(texts(*range(50)))
            await out.until(50)
            await anyio.sleep(1)
    assert out.heard == [f"agent: {n}" for n in range(50)]


# --- P5


async def test_a_request_to_speak_queues_a_frame() -> None:
    """P5"""
    spy = Spy()
    async with flowing(spy) as worker:
        await worker.bus.send(BusTTSSpeakMessage("hello", True, source="somebody", target="w"))
        await worker.bus.send(BusTTSSpeakMessage("all", source="somebody"))
        await worker.bus.send(BusTTSSpeakMessage("not mine", source="somebody", target="another"))
        first, second = await spy.until(2, TTSSpeakFrame)
    assert isinstance(first, TTSSpeakFrame)
    assert isinstance(second, TTSSpeakFrame)
    assert (first.text, first.append_to_context) == ("hello", True)
    assert (second.text, second.append_to_context) == ("all", None)
    assert sum(isinstance(frame, TTSSpeakFrame) for frame in spy.got) == 2


async def test_a_frame_to_be_spoken_flows_through_where_nobody_speaks() -> None:
    """P5: and out to those who do"""
    bus = MemoryBus()
    out = Spy()
    front, _ = await bridged_front(bus, out)
    async with running(front, worker_of(Spy(), bridged=(), name="agent"), bus=bus):
        await bus.send(BusTTSSpeakMessage("hello", source="somebody", target="agent"))
        [frame] = await out.until(1, TTSSpeakFrame)
    assert isinstance(frame, TTSSpeakFrame)
    assert frame.text == "hello"


async def test_an_inactive_worker_does_not_speak() -> None:
    """W4, P5"""
    spy = Spy()
    async with flowing(spy, active=False) as worker:
        await worker.bus.send(BusTTSSpeakMessage("too early", source="somebody", target="w"))
        await worker.activate_worker("w")
        await worker.bus.send(BusTTSSpeakMessage("hello", source="somebody", target="w"))
        [frame] = await spy.until(1, TTSSpeakFrame)
    assert isinstance(frame, TTSSpeakFrame)
    assert frame.text == "hello"


async def test_a_worker_that_asks_everybody_to_speak_does_not_mean_itself() -> None:
    """P5"""
    spy, other = Spy(), Spy()
    worker = worker_of(spy, name="w")
    async with running(worker, worker_of(other, name="other")):
        await worker.send_bus_message(BusTTSSpeakMessage("hello", source="w"))
        await other.until(1, TTSSpeakFrame)
        await worker.send_bus_message(BusTTSSpeakMessage("to myself", source="w", target="w"))
        [frame] = await spy.until(1, TTSSpeakFrame)
    assert isinstance(frame, TTSSpeakFrame)
    assert frame.text == "to myself"


async def test_a_request_to_speak_waits_for_the_start() -> None:
    """P2, P5"""
    spy = Spy()
    worker = worker_of(spy, name="w")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.bus.send(BusTTSSpeakMessage("hello", source="somebody", target="w"))
    async with runner:
        await spy.until(1, TTSSpeakFrame)
    assert spy.log[:2] == ["setup", "StartFrame"]


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
