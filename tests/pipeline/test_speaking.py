"""P5: requests to speak."""

from support.bridges import bridged_front
from support.pipelines import Spy, flowing, worker_of
from support.workers import running
from workerbus import BusTTSSpeakMessage, MemoryBus, WorkerRunner
from workerbus.pipeline import TTSSpeakFrame


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
