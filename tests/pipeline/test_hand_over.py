"""W3, W4: frames while bridged workers are activated and deactivated."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.bridges import Reply, over_the_bus, sent
from support.clocks import CLOCKS, set_clock
from support.conditions import eventually
from support.pipelines import DOWN, UP, Alert, Gate, Spy, for_texts, texts, worker_of
from support.runners import runner_on
from support.shared_buses import Abroad, Linked
from support.workers import running
from workerbus import (
    BusActivateWorkerMessage,
    BusBridgeProcessor,
    BusFrameMessage,
    MemoryBus,
    PipelineWorker,
    WorkerRunner,
)
from workerbus._order import PROCESS
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, Pipeline, TextFrame
from workerbus.testing import RecordingBus, settle


async def test_a_worker_that_starts_inactive_lets_nothing_out() -> None:
    """W4, P3"""
    bus, spy = RecordingBus(), Spy()
    worker = worker_of(spy, bridged=(), active=False, name="w")
    await worker.queue_frames(texts("a", "b"))
    async with running(worker, bus=bus):
        await spy.until(2)
        await settle()
    assert sent(bus) == []


async def test_an_inactive_worker_takes_no_frames_and_sends_none(caplog: pytest.LogCaptureFixture) -> None:
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
    assert not caplog.records


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


async def test_what_a_deactivated_worker_was_given_here_goes_out() -> None:
    """W3, P3: also where it has not come over any bridge."""
    spy, gate = Spy(), Gate()
    a = worker_of(Spy(for_texts(gate)), bridged=(), name="a")
    async with running(a, worker_of(spy, bridged=(), name="b")):
        await a.queue_frames(texts(1, 2))
        await gate.reached.wait()
        await a.deactivate_worker("a")
        gate.open()
        await settle()
    assert spy.heard == ["1", "2"]


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


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_a_second_deactivation_cuts_off_no_more_than_the_first(way: FrameDirection) -> None:
    """W3: of what goes there and back, however soon it comes behind the first."""
    bus = RecordingBus()
    out: list[str] = []
    parts = [TurnsOnce(turns=UP if way is DOWN else DOWN), Spy(), TurnsOnce(turns=way)]
    worker = worker_of(*(parts if way is DOWN else reversed(parts)), bridged=(), name="w")
    async with running(worker, bus=bus):
        for word in "abc":
            await worker.activate_worker("w")
            await bus.send(over_the_bus(TextFrame(word), way))
            await worker.deactivate_worker("w")
            await anyio.sleep(0.15)  # the one before is on its way back
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


# --- from one worker to the next


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


async def test_a_frame_is_late_for_those_that_have_become_active_since() -> None:
    """L8, W3: by the order of events in their process; in whose order a frame is late where it does not say so."""
    spy, before = Spy(), PROCESS.next_number()
    async with running(worker_of(spy, bridged=(), name="w")) as runner:
        after = PROCESS.next_number()
        for process in (None, PROCESS.id):
            for late_since in (before, after):
                await runner.bus.send(over_the_bus(TextFrame(str(late_since)), late_since=late_since, process=process))
        await settle()
    assert spy.heard == [str(after)] * 2


@CLOCKS
@pytest.mark.parametrize("front_first", [True, False])
async def test_what_goes_out_late_reaches_those_that_have_been_active_all_along(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Callable[[], float]], front_first: bool
) -> None:
    """L8, W3: whatever the clock has done since they became active, before the other one or after it."""
    set_clock(monkeypatch, clock)
    gate, front, successor = Gate(), Spy(), Spy()
    agent = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="agent")
    next_one = worker_of(successor, bridged=(), active=False, name="next")
    client = worker_of(front, bridged=(), name="front")
    async with running(client, agent, next_one) as runner:
        await client.activate_worker("agent" if front_first else "front")
        await runner.bus.send(over_the_bus(TextFrame("question"), source="front"))
        await gate.reached.wait()
        await agent.activate_worker("next", deactivate_self=True)
        await settle()
        gate.open()
        await front.until()
        await settle()
    assert front.heard == ["agent: question"]
    assert successor.heard == []


@asynccontextmanager
async def abroad(*workers: PipelineWorker) -> AsyncIterator[list[WorkerRunner]]:
    """Run each worker in a process of its own, as far as it can tell, until all know each other."""
    network: list[Linked] = []
    async with AsyncExitStack() as stack:
        runners = [runner_on(Abroad(network), f"runner of {worker.name}") for worker in workers]
        for runner, worker in zip(runners, workers, strict=True):
            await stack.enter_async_context(runner)
            await runner.add_workers(worker)
        for runner in runners:
            for worker in workers:
                await runner.registry.wait_for(worker.name)
        yield runners


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_a_hand_over_between_processes_loses_and_doubles_no_frame(order: tuple[int, ...]) -> None:
    """L8, W3: of two agents and a front, each in a process of its own, whichever came first and has counted further."""
    gate, heard, successor = Gate(), Spy(), Spy()
    front = worker_of(heard, bridged=(), name="front")
    agent = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="agent")
    next_one = worker_of(successor, Reply(), bridged=(), active=False, name="next")
    workers = [front, agent, next_one]
    async with abroad(*(workers[place] for place in order)):
        for frame in texts("a", "b"):
            await front.bus.send(over_the_bus(frame, source="front"))
        await gate.reached.wait()
        await agent.activate_worker("next", deactivate_self=True)
        await settle()
        gate.open()
        await heard.until(2)
        await front.bus.send(over_the_bus(TextFrame("c"), source="front"))
        await heard.until(3)
        await settle()
    assert heard.heard == ["agent: a", "agent: b", "next: c"]
    assert successor.heard == ["c"]


async def test_what_is_late_stays_so_when_a_turn_is_passed_on_between_processes() -> None:
    """L8, W3: whoever takes over knows what the one before it knew; one that was active all along gets what is late."""
    gate, spies = Gate(), [Spy() for _ in range(3)]
    agent = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="agent")
    second = worker_of(spies[0], bridged=(), active=False, name="second")
    third = worker_of(spies[1], bridged=(), active=False, name="third")
    async with abroad(worker_of(spies[2], bridged=(), name="front"), agent, second, third):
        await agent.bus.send(over_the_bus(TextFrame("a"), source="front"))
        await gate.reached.wait()
        await agent.activate_worker("second", deactivate_self=True)
        await eventually(lambda: second.active)
        await second.activate_worker("third", deactivate_self=True)
        await eventually(lambda: third.active)
        gate.open()
        await spies[2].until()
        await settle()
    assert [spy.heard for spy in spies] == [[], [], ["agent: a"]]


async def test_a_turn_that_comes_back_leaves_what_was_late_before_it_alone() -> None:
    """L8, W3: it was late before the turn went on for the second time, too."""
    gate, spy, heard = Gate(), Spy(), Spy()
    agent = worker_of(Spy(for_texts(gate)), Reply(), bridged=(), name="agent")
    other = worker_of(spy, bridged=(), active=False, name="other")
    async with abroad(worker_of(heard, bridged=(), name="front"), agent, other):
        await agent.bus.send(over_the_bus(TextFrame("a"), source="front"))
        await gate.reached.wait()
        await agent.activate_worker("other", deactivate_self=True)
        await eventually(lambda: other.active)
        await other.activate_worker("agent", deactivate_self=True)
        await eventually(lambda: agent.active)
        await agent.activate_worker("other", deactivate_self=True)
        await eventually(lambda: other.active)
        gate.open()
        await heard.until()
        await settle()
    assert heard.heard == ["agent: a"]
    assert spy.heard == []


async def test_a_frame_that_is_late_in_a_process_of_which_nothing_is_known_comes_in() -> None:
    """L8, W3: except at a worker that was activated by one that knows."""
    spy, told = Spy(), Spy()
    workers = worker_of(spy, bridged=(), name="w"), worker_of(told, bridged=(), active=False, name="told")
    async with running(*workers) as runner:
        for after in ({"elsewhere": 6}, {"a third": 1}, None):  # it remembers what it was told
            await runner.bus.send(BusActivateWorkerMessage(None, after, source="somebody", target="told"))
        for late_since in (5, 6, 7):
            await runner.bus.send(over_the_bus(TextFrame("late"), late_since=late_since, process="elsewhere"))
        await settle()
    assert len(spy.heard) == 3
    assert len(told.heard) == 1


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


async def test_who_is_active_again_before_it_has_let_all_out_is_not_late() -> None:
    """P3, W3: a worker that becomes active after that takes what it sends from then on."""
    gate, spy = Gate(), Spy()
    worker = worker_of(Spy(for_texts(gate)), bridged=(), name="w")
    other = worker_of(spy, bridged=(), active=False, name="other")
    async with running(worker, other):
        await worker.queue_frame(TextFrame("under way"))
        await gate.reached.wait()
        await other.deactivate_worker("w")
        await worker.activate_worker("w")
        await worker.activate_worker("other")
        await settle()
        gate.open()
        await worker.queue_frame(TextFrame("afterwards"))
        await spy.until(2)
    assert spy.heard == ["under way", "afterwards"]
