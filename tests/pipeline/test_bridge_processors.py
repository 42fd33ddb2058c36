"""P4: the bridge in the middle of a pipeline."""

import contextlib
from typing import Any

import anyio
import pytest

from support.bridges import BUSES, Reply, bridged_front, over_the_bus, sent
from support.buses import Wire
from support.pipelines import DOWN, UP, Alert, Gate, Spy, StartsWith, for_texts, hang, texts, worker_of
from support.subscribers import Plain
from support.workers import running
from workerbus import (
    BaseWorker,
    BusBridgeProcessor,
    BusFrameMessage,
    BusMessage,
    BusSubscriber,
    MemoryBus,
    PipelineWorker,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StopFrame,
    TextFrame,
)
from workerbus.testing import Faults, FaultyBus, RecordingBus, nothing_left, settle


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


async def test_each_bridge_that_hears_a_worker_takes_its_frame() -> None:
    """P4: by one name, by the other, or by both; none takes it twice."""
    bus = MemoryBus()
    sender = worker_of(Spy(), bridged=("one", "two"), name="sender")
    spies, workers = [], []
    for tag in ("one", "two", None):
        spies.append(spy := Spy())
        bridge = BusBridgeProcessor(bus=bus, worker_name=f"hears {tag}", bridge=tag)
        workers.append(worker_of(bridge, spy, name=f"hears {tag}"))
    async with running(sender, *workers, bus=bus):
        for text in ("a", "b"):
            await sender.queue_frame(TextFrame(text))
            await settle()
    assert [spy.heard for spy in spies] == [["a", "b"]] * 3


async def test_an_interruption_that_comes_by_a_bridge_in_a_branch_empties_the_other_branches() -> None:
    """P1, P4: as one that was made there."""
    bus, stuck, last = MemoryBus(), Spy(for_texts(hang)), Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="w")
    async with running(worker_of(ParallelPipeline([bridge], [stuck]), last, name="w"), bus=bus) as runner:
        worker: Any = runner.get_worker("w")
        await worker.queue_frames(texts("a", "b"))
        await stuck.until(1)
        stuck.on = None
        await bus.send(over_the_bus(InterruptionFrame()))
        await last.until(1, InterruptionFrame)
        await worker.queue_frame(TextFrame("c"))
        await stuck.until(2)
    assert stuck.heard == ["a", "c"]


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


@pytest.mark.parametrize("spelling", ["target_task", "target_worker"])
async def test_a_bridge_with_a_target_exchanges_frames_with_it_alone(spelling: str) -> None:
    """P4, N1"""
    bus, after = RecordingBus(), Spy()
    front, _ = await bridged_front(bus, after, **{spelling: "agent"})
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


async def test_the_target_of_a_bridge_is_spelt_in_one_way_only() -> None:
    """N1, N8"""
    with pytest.raises(TypeError, match="target_worker is target_task in a later spelling"):
        BusBridgeProcessor(bus=MemoryBus(), worker_name="front", target_task="a", target_worker="a")


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


class TakesNothing(Spy):
    """Keeps all texts."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if not isinstance(frame, TextFrame):
            await super().process_frame(frame, direction)


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


@pytest.mark.parametrize("way", [DOWN, UP])
@pytest.mark.parametrize("forked", [False, True])
async def test_what_came_over_a_bridge_does_not_leave_by_the_ends_of_its_pipeline(
    way: FrameDirection, forked: bool
) -> None:
    """P3, P4: one worker that is bridged in the middle and at its ends."""
    bus, before, after = RecordingBus(), Spy(), Spy()
    bridge: Any = BusBridgeProcessor(bus=bus, worker_name="front")
    if forked:
        bridge = ParallelPipeline([bridge], [TakesNothing()])
    async with running(worker_of(before, bridge, after, bridged=("ends",), name="front"), bus=bus) as runner:
        await runner.registry.wait_for("front")
        await bus.send(over_the_bus(TextFrame("came by the bus"), way, bridge="middle"))
        await (after if way is DOWN else before).until()
        await settle()
        assert sent(bus, "front") == []
        await (after if way is DOWN else before).push_frame(TextFrame("its own"), way)
        await settle()
    assert sent(bus, "front") == ["its own"]


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


async def test_what_a_bridge_gets_is_counted() -> None:
    """B9: its own frames alone."""
    bus = MemoryBus()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge", bridge="x")
    async with running(worker_of(bridge, name="front"), bus=bus):
        for name in ("x", "y", "x"):
            await bus.send(over_the_bus(TextFrame("a"), bridge=name))
        assert bus.statistics().subscribers["bridge"].delivered == 2


# --- starts


async def test_frames_for_a_bridge_wait_for_the_start() -> None:
    """P2, P4: after the worker is on the bus, before it runs, and while it starts"""
    bus, gate, after = MemoryBus(), Gate(), Spy()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    front, before = await bridged_front(bus, StartsWith(wait), after)
    runner = WorkerRunner(handle_sigint=False, bus=bus)
    await runner.add_workers(front)
    await bus.send(over_the_bus(TextFrame("before the run")))
    await bus.send(over_the_bus(TextFrame("before it, too")))
    async with runner:
        await gate.reached.wait()
        await bus.send(over_the_bus(TextFrame("while it starts")))
        await bus.send(over_the_bus(TextFrame("up"), UP))
        await settle()
        assert before.heard == after.heard == []
        gate.open()
        await after.until(3)
        await before.until()
    assert after.heard == ["before the run", "before it, too", "while it starts"]
    assert before.heard == ["up"]


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


# --- ends


@pytest.mark.parametrize("end", [EndFrame, StopFrame, CancelFrame])
async def test_a_bridge_leaves_the_bus_with_its_worker(end: type[EndFrame | StopFrame | CancelFrame]) -> None:
    """L1: and with it each other bridge of its pipeline; they have come with its attachment."""
    names = ["bridge", "another", "third"]
    async with MemoryBus() as bus:
        others = [BusBridgeProcessor(bus=bus, worker_name="front", name=name, bridge=name) for name in names[1:]]
        front, _ = await bridged_front(bus, *others, name="bridge")
        runner = WorkerRunner(handle_sigint=False, bus=bus)
        async with nothing_left(runner, bus):
            await runner.add_workers(front)
            assert [name for name in names if bus.has_subscriber(name)] == names
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run)
                await runner.registry.wait_for("front")
                await front.queue_frame(end())
            assert not [name for name in names if bus.has_subscriber(name)]


async def test_a_worker_that_never_runs_takes_its_bridge_off_the_bus() -> None:
    """L1"""
    async with MemoryBus() as bus:
        front, _ = await bridged_front(bus, name="bridge")
        runner = WorkerRunner(handle_sigint=False, bus=bus)
        async with nothing_left(runner, bus):
            await runner.add_workers(front)
            await front.stop()


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


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
async def test_a_worker_whose_bridge_finds_no_place_on_the_bus_leaves_it(ends: str) -> None:
    """L1, W6: it had been subscribed itself; its name is free again."""

    class Slow(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "bridge" and ends == "fails":
                raise OSError("no room")
            if subscriber.name == "bridge":
                await anyio.sleep_forever()
            await super().subscribe(subscriber)

        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            await anyio.lowlevel.checkpoint()
            await super().unsubscribe(subscriber)

    bus = Slow()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    bridge = BusBridgeProcessor(bus=bus, worker_name="w", name="bridge")
    worker = PipelineWorker(Pipeline([bridge]), name="w")
    with anyio.CancelScope() as scope:
        scope.deadline = anyio.current_time() + 1
        with pytest.raises(OSError if ends == "fails" else anyio.get_cancelled_exc_class()):
            await runner.add_workers(worker)
    assert not bus.has_subscriber("w")
    assert runner.known_workers() == []


async def test_what_is_given_to_a_bridge_by_hand_comes_in() -> None:
    """P4, N7: `on_bus_message` does what the bus does, and its filters hold."""
    bus, after = MemoryBus(), Spy()
    bridge = BusBridgeProcessor(bus=bus, worker_name="front", name="bridge", target_task="somebody")
    await bridge.on_bus_message(over_the_bus(TextFrame("early")))
    async with running(worker_of(bridge, after, name="front"), bus=bus):
        for source in "somebody", "another", "front":
            await bridge.on_bus_message(over_the_bus(TextFrame(f"of {source}"), source=source))
        await bridge.on_bus_message(BusMessage(source="somebody"))
        await after.until(2)
        await settle()
    assert after.heard == ["early", "of somebody"]


@pytest.mark.parametrize("how", ["a subclass", "the object", "accepts_bus_message"])
async def test_what_a_user_puts_in_the_place_of_a_bridges_methods_is_called(how: str) -> None:
    """N7, N4: with each message of the bus; what it keeps does not come in."""

    class Picky(BusBridgeProcessor):
        async def on_bus_message(self, message: BusMessage) -> None:
            if keeps(message):
                await super().on_bus_message(message)

    class Refusing(BusBridgeProcessor):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return keeps(message)

    def keeps(message: BusMessage) -> bool:
        return not (isinstance(message, BusFrameMessage) and getattr(message.frame, "text", "") == "b")

    async def on_the_object(message: BusMessage) -> None:
        if keeps(message):
            await BusBridgeProcessor.on_bus_message(bridge, message)

    bus, after = MemoryBus(), Spy()
    kinds = {"a subclass": Picky, "accepts_bus_message": Refusing}
    bridge = kinds.get(how, BusBridgeProcessor)(bus=bus, worker_name="front", name="bridge")
    if how == "the object":
        bridge.on_bus_message = on_the_object  # type: ignore[method-assign]  # as a mock does
    async with running(worker_of(bridge, after, name="front"), bus=bus):
        for text in "a", "b", "c":
            await bus.send(over_the_bus(TextFrame(text)))
        await after.until(2)
        await settle()
    assert after.heard == ["a", "c"]
    assert not bus.has_subscriber("bridge")
