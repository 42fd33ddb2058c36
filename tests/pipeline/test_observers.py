"""What observers see of a pipeline, and that they hold nothing up."""

import anyio
import pytest
from anyio import sleep

from support.bridges import over_the_bus
from support.pipelines import Alert, Gate, Spy, Watches, flowing, for_texts, run_through, texts, worker_of
from support.workers import running
from workerbus import BusBridgeProcessor, MemoryBus
from workerbus.pipeline import (
    EndFrame,
    Frame,
    FrameProcessed,
    FramePushed,
    InterruptionFrame,
    Observer,
    ParallelPipeline,
    StopFrame,
    TextFrame,
)
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


async def test_an_observer_sees_a_push_before_there_is_room_for_the_frame() -> None:
    """L4"""
    gate, observer = Gate(), Watches()
    frames = texts("a", "b", "c")
    async with flowing(
        Spy(name="a"), Spy(for_texts(gate), name="b", max_buffer_size=1), observers=[observer]
    ) as worker:
        await worker.queue_frames(frames)
        await gate.reached.wait()
        await settle()
        pushed = [frame for what, where, frame in observer.seen if (what, where) == ("push", "a")]
        assert pushed[1:] == frames, "the third waits for room"
        gate.open()


async def test_an_observer_may_be_told_of_the_first_push_of_each_frame_alone() -> None:
    once, always = Watches(observe_every_push=False), Pushes()
    x, y = texts("x", "y")
    await run_through(worker_of(Spy(name="a"), Spy(name="b"), observers=[once, always]), x, y)
    for frame in (x, y):
        assert [seen for seen in once.seen if seen[0] == "push" and seen[2] is frame] == [("push", "a", frame)]
        assert [(what, where) for what, where, seen in once.seen if seen is frame and what == "process"] == [
            ("process", "a"),
            ("process", "b"),
        ]
        assert [first for seen, first in always.firsts if seen is frame] == [True, False]


async def test_a_frame_that_goes_through_branches_is_pushed_for_the_first_time_once() -> None:
    once, frame = Watches(observe_every_push=False), TextFrame("x")
    await run_through(worker_of(Spy(name="a"), ParallelPipeline([Spy()], [Spy()]), observers=[once]), frame)
    assert [(what, where) for what, where, seen in once.seen if seen is frame and what == "push"] == [("push", "a")]


async def test_each_pipeline_has_first_pushes_of_its_own() -> None:
    """A `StopFrame` lets the processors go into another pipeline, and a frame may be given to that, too."""
    spy, frame = Spy(name="a"), TextFrame("x")
    observers = [Watches(observe_every_push=False), Watches(observe_every_push=False)]
    for observer, last in zip(observers, (StopFrame(), EndFrame()), strict=True):
        worker = worker_of(spy, observers=[observer])
        await worker.queue_frames([frame, last])
        async with running(worker):
            await worker.wait()
    for observer in observers:
        assert [(what, where) for what, where, seen in observer.seen if seen is frame and what == "push"] == [
            ("push", "a")
        ]


class Pushes(Observer):
    """Does not call the constructor of its base."""

    def __init__(self) -> None:
        self.firsts: list[tuple[Frame, bool]] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        self.firsts.append((data.frame, data.first_push))


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
    async with nothing_left(), flowing(spy, observers=[Slow(), quick, Slow()]) as worker:
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


@pytest.mark.parametrize("counts", [None, (Alert,)], ids=["all frames", "other frames"])
async def test_an_observer_is_told_when_things_happened(counts: tuple[type[Frame], ...] | None) -> None:
    """L4, P6: whichever frames keep the worker from being idle."""
    times: list[float] = []

    class Clock(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            await anyio.sleep(1)
            times.append(data.timestamp)

    gate = Gate()
    spy = Spy(for_texts(gate))
    async with flowing(spy, observers=[Clock()], idle_timeout_secs=1000, idle_timeout_frames=counts) as worker:
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


# --- observers come and go


async def test_an_observer_may_be_added_and_removed_while_the_pipeline_runs() -> None:
    """N1: it sees what happens in between."""
    observer, spy = Watches(), Spy(name="a")
    async with nothing_left(), flowing(spy) as worker:
        await worker.queue_frame(TextFrame("before"))
        await settle()
        worker.add_observer(observer)
        worker.add_observer(observer)
        await worker.queue_frame(TextFrame("meanwhile"))
        await settle()
        await worker.remove_observer(observer)
        await worker.remove_observer(observer)
        await worker.queue_frame(TextFrame("after"))
        await settle()
    assert [(what, frame.text) for what, _, frame in observer.seen if isinstance(frame, TextFrame)] == [
        ("process", "meanwhile"),
        ("push", "meanwhile"),
    ]
    assert len(observer.seen) == 2


async def test_an_observer_that_was_removed_may_come_again() -> None:
    """N1"""
    observer, spy = Watches(), Spy()
    async with flowing(spy) as worker:
        for text in "a", "b", "c":
            if text == "b":
                await worker.remove_observer(observer)
            else:
                worker.add_observer(observer)
            await worker.queue_frame(TextFrame(text))
            await worker.flush()
            await settle()
    seen = [frame for what, _, frame in observer.seen if what == "push" and isinstance(frame, TextFrame)]
    assert [frame.text for frame in seen] == ["a", "c"]


async def test_one_observer_goes_and_another_stays() -> None:
    """N1"""
    goes, stays = Watches(), Watches()
    worker = worker_of(Spy(), observers=[goes, stays], name="w")
    async with running(worker):
        await worker.queue_frame(TextFrame("a"))
        await settle()
        await worker.remove_observer(goes)
        await worker.queue_frame(TextFrame("b"))
        await settle()
    texts = [[f.text for what, _, f in o.seen if what == "push" and isinstance(f, TextFrame)] for o in (goes, stays)]
    assert texts == [["a"], ["a", "b"]]


async def test_each_observer_that_is_behind_at_a_graceful_end_is_waited_for() -> None:
    """L4: whichever of them is furthest behind."""

    class Behind(Watches):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            await anyio.sleep(seconds[self])
            await super().on_process_frame(data)

    observers = [Behind() for _ in range(3)]
    seconds = dict(zip(observers, (0.1, 0.3, 0.2), strict=True))
    await run_through(worker_of(Spy(), observers=observers), TextFrame("x"))
    assert [len([what for what, *_ in each.seen if what == "process"]) for each in observers] == [3, 3, 3]


async def test_an_observer_may_remove_itself_when_the_pipeline_has_ended() -> None:
    """N1, L4: while those that are behind are waited for, of whom it is one."""

    class Leaves(Watches):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            await anyio.sleep(0.1)
            await super().on_process_frame(data)
            if isinstance(data.frame, EndFrame):
                await worker.remove_observer(self)

    observers = [Leaves() for _ in range(3)]
    worker = worker_of(Spy(), observers=observers)
    await run_through(worker, TextFrame("x"))
    assert [len([what for what, *_ in each.seen if what == "process"]) for each in observers] == [3, 3, 3]


async def test_an_observer_that_is_added_before_the_start_sees_it() -> None:
    """N1"""
    observer = Watches()
    worker = worker_of(Spy())
    worker.add_observer(observer)
    await run_through(worker)
    assert observer.seen[0][2].name.startswith("StartFrame")


async def test_an_observer_that_is_added_while_an_interruption_waits_sees_it() -> None:
    """P1: it is processed when the handler that it has cancelled has unwound."""
    observer = Watches()

    async def linger(spy: Spy, frame: Frame) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await sleep(0.5)

    spy = Spy(for_texts(linger), name="spy")
    async with flowing(spy) as worker:
        await worker.queue_frame(TextFrame("a"))
        await spy.until(1)
        await worker.queue_frame(InterruptionFrame())
        await settle()
        worker.add_observer(observer)
        await spy.until(1, InterruptionFrame)
        await settle()
    assert [what for what, _, frame in observer.seen if isinstance(frame, InterruptionFrame)] == ["process", "push"]


async def test_an_observer_may_remove_itself_and_another_that_is_busy() -> None:
    """N1, L1: what it does is cancelled."""
    log: list[str] = []

    class Busy(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log.append("cancelled")

    class Leaves(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            log.append("sees")
            await worker.remove_observer(self)
            await worker.remove_observer(busy)

    busy = Busy()
    worker = worker_of(Spy(), observers=[busy], name="w")
    async with nothing_left(), running(worker):
        await settle()
        worker.add_observer(Leaves())
        await worker.queue_frames(texts("a", "b"))
        await settle()
        assert sorted(log) == ["cancelled", "sees"]


async def test_observers_that_are_equal_are_not_the_same() -> None:
    """N6"""

    class Equal(Watches):
        __hash__ = None  # type: ignore[assignment]  # as of a dataclass

        def __eq__(self, other: object) -> bool:
            return True

    one, two = Equal(), Equal()
    await run_through(worker_of(Spy(), observers=[one, two]), TextFrame("x"))
    assert len(one.seen) == len(two.seen) == 6


def test_what_is_no_observer_is_refused() -> None:
    """N8"""
    with pytest.raises(TypeError, match="observers are Observers, not 'x'"):
        worker_of(Spy()).add_observer("x")  # type: ignore[arg-type]  # as it is refused


async def test_an_observer_that_comes_late_sees_each_processor() -> None:
    """And one that goes sees none any more."""
    spies = [Spy(name=name) for name in "abc"]
    observer = Watches()
    async with flowing(*spies) as worker:
        for text in "xyz":
            await worker.queue_frame(TextFrame(text))
            await spies[-1].until(len(spies[-1].heard) + 1)
            await settle()
            if text == "x":
                worker.add_observer(observer)
            elif text == "y":
                await worker.remove_observer(observer)
    assert [(what, where) for what, where, _ in observer.seen] == [
        (what, name) for name in "abc" for what in ("process", "push")
    ]
