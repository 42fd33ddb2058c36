"""What observers see of a pipeline, and that they hold nothing up."""

import anyio
import pytest
from anyio import sleep

from support.bridges import over_the_bus
from support.pipelines import Gate, Spy, Watches, flowing, for_texts, run_through, texts, worker_of
from support.workers import running
from workerbus import BusBridgeProcessor, MemoryBus
from workerbus.pipeline import FrameProcessed, FramePushed, Observer, TextFrame
from workerbus.testing import nothing_left, settle


async def test_an_observer_sees_what_happens_in_its_order() -> None:
    observer, frame = Watches(), TextFrame("x")
    await run_through(worker_of(Spy(name="a"), Spy(name="b"), observers=[observer]), frame)
    assert [(what, where) for what, where, seen in observer.seen if seen is frame] == [
        ("process", "a"),
        ("push", "a"),
        ("process", "b"),
        ("push", "b"),
    ]
    assert set(observer.to) == {("a", "b"), ("b", None)}
    assert len(observer.seen) == 12  # the start, the frame and the end


async def test_a_slow_observer_slows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Observer):
        seen = 0

        async def on_push_frame(self, data: FramePushed) -> None:
            await anyio.sleep(100)

    class Quick(Observer):
        seen = 0

        async def on_process_frame(self, data: FrameProcessed) -> None:
            self.seen += 1

    quick, spy = Quick(), Spy()
    before = anyio.current_time()
    async with nothing_left(), flowing(spy, observers=[Slow(), quick]) as worker:
        await worker.queue_frames(texts(*range(100)))
        await spy.until(100)
        await settle()
        assert quick.seen == 101
        assert anyio.current_time() == before
    assert not caplog.records


async def test_an_observer_that_raises_is_logged_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Watches):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            await super().on_process_frame(data)
            raise ValueError("it went wrong")

    observer = Fails()
    await run_through(worker_of(Spy(), observers=[observer], name="w"), *texts("a", "b"))
    assert sum(what == "process" for what, *_ in observer.seen) == 4
    assert "observer Fails of worker 'w' failed" in caplog.text


async def test_an_observer_is_told_when_things_happened() -> None:
    times: list[float] = []

    class Clock(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            await anyio.sleep(1)
            times.append(data.timestamp)

    gate = Gate()
    spy = Spy(for_texts(gate))
    async with flowing(spy, observers=[Clock()]) as worker:
        begun = anyio.current_time()
        await worker.queue_frame(TextFrame("x"))
        await anyio.sleep(5)
        gate.open()
        await anyio.sleep(2)
    assert times[:2] == [begun, begun + 5]


async def test_at_an_end_who_watches_pushes_alone_has_seen_them_all() -> None:
    """P2, L4"""
    seen: list[str] = []

    class Slow(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            await sleep(0.01)
            seen.append(type(data.frame).__name__)

    await run_through(worker_of(Spy(), observers=[Slow()]), *texts("a", "b"))
    assert seen == ["StartFrame", "TextFrame", "TextFrame", "EndFrame"]


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
