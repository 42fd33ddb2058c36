"""What a processor knows of its pipeline, and what it pushes."""

from typing import Any

import pytest
from anyio import fail_after

from support.pipelines import DOWN, Gate, Spy, Watches, flowing, for_texts, run_through, texts, worker_of
from support.workers import Helper
from workerbus import NotRunningError
from workerbus.pipeline import (
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    FrameWorker,
    Pipeline,
    TextFrame,
)


async def test_a_processor_knows_its_neighbours_and_its_worker() -> None:
    a, b, c = Spy(name="a"), Spy(name="b"), Spy(name="c")
    with pytest.raises(NotRunningError, match="'a' is not running yet"):
        _ = a.worker
    async with flowing(a, Pipeline([b, c])) as worker:
        assert (a.previous, a.next, b.previous, b.next, c.next) == (None, b, a, c, None)
        assert b.worker is worker
        assert isinstance(b.worker, FrameWorker)


def test_processors_have_names() -> None:
    class Named(FrameProcessor):
        pass

    names = [Named().name.split("#") for _ in range(3)]
    first = int(names[0][1])
    assert names == [["Named", str(first + n)] for n in range(3)]
    assert Named("x").name == "x"
    assert repr(Named("x")) == "<Named 'x'>"


async def test_what_cannot_be_pushed_is_refused() -> None:
    spy = Spy(name="spy")
    with pytest.raises(NotRunningError, match="'spy' cannot push yet"):
        await spy.push_frame(TextFrame("x"))
    with pytest.raises(NotRunningError, match="'spy' cannot push yet"):
        await spy.broadcast_interruption()
    async with flowing(spy):
        with pytest.raises(TypeError, match="a frame is an instance of Frame, not 'x'"):
            await spy.push_frame("x")  # type: ignore[arg-type]  # as it is refused
        with pytest.raises(TypeError, match="direction is a FrameDirection, not 'down'"):
            await spy.push_frame(TextFrame("x"), "down")  # type: ignore[arg-type]  # as it is refused


def texts_pushed_by(name: str, observer: Watches) -> list[Frame]:
    """The texts that a processor has pushed, in their order."""
    pushed = [frame for what, who, frame in observer.seen if (what, who) == ("push", name)]
    return [frame for frame in pushed if isinstance(frame, TextFrame)]


async def test_broadcast_frame_sends_one_frame_each_way() -> None:
    """N1: the one that goes down first."""
    first, middle, last, observer = Spy(name="first"), Spy(name="middle"), Spy(name="last"), Watches()
    async with flowing(first, middle, last, observers=[observer]):
        await middle.broadcast_frame(TextFrame, "x", pts=3)
        [up], [down] = await first.until(), await last.until()
    assert up is not down
    assert texts_pushed_by("middle", observer)[:2] == [down, up]
    assert (up.pts, down.pts) == (3, 3)


async def test_broadcast_frame_instance_sends_a_copy_each_way() -> None:
    """N1: the one that goes down first."""
    first, middle, last, observer = Spy(name="first"), Spy(name="middle"), Spy(name="last"), Watches()
    frame = TextFrame("x", pts=3, metadata={"by": "me"})
    async with flowing(first, middle, last, observers=[observer]):
        await middle.broadcast_frame_instance(frame)
        [up], [down] = await first.until(), await last.until()
    assert texts_pushed_by("middle", observer)[:2] == [down, up]
    assert len({frame.id, up.id, down.id}) == 3
    up.metadata["by"] = "another"
    assert (down.metadata, frame.metadata, down.pts) == ({"by": "me"}, {"by": "me"}, 3)
    assert first.heard == last.heard == ["x"]


async def test_a_frame_that_is_queued_at_a_processor_is_handled_there_in_its_turn() -> None:
    """N1, P1"""
    first, middle, last = Spy(), Spy(), Spy()
    async with flowing(first, middle, last):
        await middle.queue_frame(TextFrame("a"))
        await middle.queue_frame(TextFrame("up"), FrameDirection.UPSTREAM)
        await middle.queue_frame(TextFrame("b"))
        await last.until(2)
        await first.until()
    assert (first.heard, middle.heard, last.heard) == (["up"], ["a", "up", "b"], ["a", "b"])


async def test_queue_frame_of_a_processor_waits_for_room_as_a_push_does() -> None:
    """P1"""
    gate = Gate()
    spy = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(spy):
        await spy.queue_frame(TextFrame("being handled"))
        await gate.reached.wait()
        await spy.queue_frame(TextFrame("waits"))
        with pytest.raises(TimeoutError), fail_after(1):
            await spy.queue_frame(TextFrame("has no room"))
        gate.open()
    assert spy.heard == ["being handled", "waits"]


async def test_what_cannot_be_queued_at_a_processor_is_refused() -> None:
    """N8"""
    spy = Spy(name="spy")
    with pytest.raises(NotRunningError, match="'spy' is not running yet"):
        await spy.queue_frame(TextFrame("x"))
    async with flowing(spy):
        for args in (("x", DOWN), (TextFrame("x"), "down")):
            with pytest.raises(TypeError, match="a Frame is queued, in a FrameDirection; not"):
                await spy.queue_frame(*args)


@pytest.mark.parametrize("kind", [FrameProcessor, Spy])
@pytest.mark.parametrize("when", ["before the start", "while it runs"])
async def test_process_frame_may_be_replaced_on_the_object(kind: Any, when: str) -> None:
    """N7: as a test's patch does it."""
    got: list[str] = []
    processor, last = kind(), Spy()

    async def instead(frame: Frame, direction: FrameDirection) -> None:
        got.append(type(frame).__name__)
        await processor.push_frame(frame, direction)

    if when == "before the start":
        processor.process_frame = instead
    async with flowing(processor, last) as worker:
        await worker.queue_frame(TextFrame("x"))
        await last.until(1)
        processor.process_frame = instead
        await worker.queue_frame(TextFrame("y"))
        await last.until(2)
    assert got[-2:] == ["TextFrame", "EndFrame"]
    assert got[:2] == (["StartFrame", "TextFrame"] if when == "before the start" else ["TextFrame", "EndFrame"])


async def test_frames_pushed_after_the_end_go_nowhere() -> None:
    spy, last = Spy(), Spy()
    await run_through(worker_of(spy, last))
    await spy.push_frame(TextFrame("late"))
    assert not last.heard


async def test_a_processor_that_overrides_push_frame_sees_what_it_pushes() -> None:
    pushed: list[tuple[Frame, FrameDirection]] = []

    class Overrides(FrameProcessor):
        async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
            pushed.append((frame, direction))
            await super().push_frame(frame, direction)

    frame = TextFrame("x")
    await run_through(worker_of(Overrides()), frame)
    assert (frame, DOWN) in pushed


async def test_a_processor_that_does_not_override_process_frame_passes_everything_on() -> None:
    last = Spy()
    await run_through(worker_of(FrameProcessor(), last), *texts("x"))
    assert last.log == ["setup", "StartFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_super_may_be_forgotten() -> None:
    class Forgetful(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await self.push_frame(frame, direction)

        async def setup(self, setup: FrameProcessorSetup) -> None:
            pass

    last = Spy()
    await run_through(worker_of(Forgetful(), last), *texts("x"))
    assert last.heard == ["x"]


class Asks(FrameProcessor):
    """Asks for a job for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.answers.append(await self.worker.job("helper", name="echo", payload={"text": frame.text}))
        await self.push_frame(frame, direction)


async def test_a_processor_may_ask_for_a_job_with_the_first_frame() -> None:
    """P2, J14: no frame is handled before the worker has started."""
    asks = Asks()
    worker = worker_of(asks, name="asks")
    await worker.add_workers(Helper("helper"))
    await run_through(worker, TextFrame("1"))
    assert [answer["payload"] for answer in asks.answers] == [{"text": "1"}]


FREE = ["inlet", "inbox", "_name", "_inlet", "_core", "running", "tasks", "lanes", "queue", "state", "owner", "buffer"]


@pytest.mark.parametrize("place", ["in the class", "on the object"])
async def test_names_of_a_processor_that_are_not_documented_are_the_users(place: str) -> None:
    """N6"""
    processor: FrameProcessor = type("Mine", (FrameProcessor,), {})()
    for name in FREE:
        setattr(processor if place == "on the object" else type(processor), name, False)
    last = Spy()
    await run_through(worker_of(processor, last), *texts("x"))
    assert last.heard == ["x"]
    assert all(getattr(processor, name) is False for name in FREE)


async def test_names_of_a_pipeline_worker_that_are_not_documented_are_the_users() -> None:
    """N6"""
    last = Spy()
    worker = worker_of(last)
    for name in ("_pipeline", "_course", "_session", "session", "takes_frames", "_crossing", "edge", "frames", *FREE):
        setattr(worker, name, False)
    await run_through(worker, *texts("x"))
    assert last.heard == ["x"]
