"""Processors: links, bounded lanes, tasks, and what they refuse."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.pipelines import (
    DOWN,
    UP,
    Alert,
    Firm,
    Gate,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    never,
    run_through,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import NotRunningError, WorkerRunner
from workerbus.pipeline import (
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    FrameWorker,
    InterruptionFrame,
    Pipeline,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


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

    (kind, first), (same, second) = (Named().name.split("#") for _ in range(2))
    assert (kind, same, int(second)) == ("Named", "Named", int(first) + 1)
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


async def test_broadcast_frame_sends_one_frame_each_way() -> None:
    first, middle, last = Spy(), Spy(), Spy()
    async with flowing(first, middle, last):
        await middle.broadcast_frame(TextFrame, "x", pts=3)
        [up], [down] = await first.until(), await last.until()
    assert up is not down
    assert (up.pts, down.pts) == (3, 3)


async def test_pushing_lets_others_run_now_and_then() -> None:
    """P1: every 64th push yields, and can be cancelled there"""

    class Endless(FrameProcessor):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            self.create_task(self.produce)

        async def produce(self) -> None:
            while True:
                await self.push_frame(TextFrame("x"))

    last = Spy()
    async with nothing_left(), flowing(Endless(), last):
        await last.until(100)


@pytest.mark.parametrize("count", [63, 640])
@pytest.mark.parametrize("from_outside", [True, False])
async def test_a_push_is_no_checkpoint_while_there_is_room(count: int, from_outside: bool) -> None:
    """P1"""
    first = Spy()
    async with flowing(first, Spy()) as worker:
        put = worker.queue_frame if from_outside else first.push_frame
        first.inlet.pushed = 0
        steps = 0

        async def count_steps() -> None:
            nonlocal steps
            while True:
                steps += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count_steps)
            await settle_tasks()
            before = steps
            for frame in texts(*range(count)):
                await put(frame)
            assert (steps > before) == (count == 640)
            group.cancel_scope.cancel()


async def settle_tasks() -> None:
    for _ in range(3):
        await checkpoint()


# --- bounded lanes


async def test_a_fast_source_waits_for_a_slow_sink() -> None:
    """P1: bounded lanes"""
    gate = Gate()
    source, sink = Spy(max_buffer_size=3), Spy(for_texts(gate), max_buffer_size=2)
    queued = 0
    async with flowing(source, sink) as worker:
        async with anyio.create_task_group() as group:

            async def queue() -> None:
                nonlocal queued
                for frame in texts(*range(20)):
                    await worker.queue_frame(frame)
                    queued += 1

            group.start_soon(queue)
            await gate.reached.wait()
            await settle()
            # one in the sink's hand and two waiting there, one in the source's hand and three waiting
            assert (sink.heard, len(source.got) - 1, queued) == (["0"], 4, 7)
            gate.open()
        await sink.until(20)
    assert sink.heard == [str(n) for n in range(20)]


async def test_system_and_upstream_frames_need_no_room() -> None:
    """P1: so that two neighbours never wait for each other"""
    gate, behind = Gate(), Spy()

    async def answer(spy: Spy, frame: Frame) -> None:
        await gate(spy, frame)
        for n in range(5):
            await spy.push_frame(TextFrame(f"up {n}"), UP)

    source, sink = Spy(max_buffer_size=1), Spy(for_texts(answer), max_buffer_size=1)
    async with flowing(source, sink, behind) as worker:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.queue_frames, texts(*range(10)))
            await gate.reached.wait()
            await settle()
            await worker.queue_frame(Alert("!"))
            await behind.until(1, Alert)
            gate.open()
        await source.until(60)
    assert source.heard_going(UP) == [f"up {n}" for _ in range(10) for n in range(5)]


async def test_a_pusher_that_is_cancelled_leaves_the_line_with_its_frame() -> None:
    """P1: bounded lanes"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(sink) as worker:
        await worker.queue_frame(TextFrame("a"))
        await gate.reached.wait()
        await worker.queue_frame(TextFrame("b"))
        with anyio.move_on_after(1) as scope:
            await worker.queue_frame(TextFrame("late"))
        assert scope.cancelled_caught
        gate.open()
        await worker.queue_frame(TextFrame("c"))
        await sink.until(3)
    assert sink.heard == ["a", "b", "c"]


async def test_an_interruption_releases_those_who_wait_for_room() -> None:
    """P1"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(sink) as worker:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.queue_frames, texts("a", "b", "c"))
            await gate.reached.wait()
            await settle()
            sink.on = None
            await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("d"))
        while "d" not in sink.heard:
            await sink.until(len(sink.heard) + 1)
    assert sink.heard == ["a", "d"]


async def test_a_cancel_releases_those_who_wait_for_room() -> None:
    """P2"""
    gate = Gate()
    worker = worker_of(Spy(for_texts(gate), max_buffer_size=1), name="w")
    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        await runner.registry.wait_for("w")
        group.start_soon(worker.queue_frames, texts("a", "b", "c"))
        await gate.reached.wait()
        await settle()
        await worker.stop()


async def test_an_end_comes_through_full_lanes() -> None:
    """P2"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(Spy(max_buffer_size=1), sink) as worker:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.queue_frames, texts(*range(4)))
            await gate.reached.wait()
            await settle()
            gate.open()
        await worker.stop_when_done()
        await worker.wait()
    assert sink.heard == ["0", "1", "2", "3"]


async def test_frames_that_wait_for_the_start_count_for_pushers() -> None:
    """P1, P2"""
    pushed = 0

    class Eager(FrameProcessor):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            self.create_task(self.produce)

        async def produce(self) -> None:
            nonlocal pushed
            for frame in texts(*range(10)):
                await self.push_frame(frame)
                pushed += 1

    class Slow(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await settle()
            self.pushed_before = pushed

    sink = Slow(max_buffer_size=3)
    async with flowing(Eager(), sink):
        await sink.until(10)
    assert sink.pushed_before == 3
    assert sink.heard == [str(n) for n in range(10)]


async def test_what_needs_no_room_is_not_counted_before_the_start_either() -> None:
    """P1, P2"""
    spy = Spy(max_buffer_size=1)
    worker = worker_of(spy)
    await worker.queue_frames([Alert("!"), Alert("?")])
    await worker.queue_frames(texts("up", "up again"), UP)
    async with running(worker):
        await worker.queue_frames(texts("a", "b", "c"))
        await spy.until(5)


async def test_a_pipeline_that_never_starts_releases_those_who_wait_for_room() -> None:
    """P2"""
    spy, starter = Spy(max_buffer_size=1), StartsWith(never)
    worker = worker_of(spy, starter)
    async with nothing_left(), WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        await starter.begun.wait()
        group.start_soon(worker.queue_frames, texts("a", "b"))
        await settle()
        await worker.stop()
    assert spy.heard == []


async def test_an_interruption_lets_those_in_who_are_uninterruptible_and_wait_for_room() -> None:
    """P1"""
    gate = Gate()
    spy = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(spy) as worker, anyio.create_task_group() as group:
        group.start_soon(worker.queue_frames, [*texts("a", "b"), Firm("c")])
        await gate.reached.wait()
        await settle()
        gate.open()
        await worker.queue_frame(InterruptionFrame())
        while "c" not in spy.heard:
            await spy.until(len(spy.heard) + 1)
    assert "b" not in spy.heard


async def test_a_flood_starves_nobody() -> None:
    """P1: a lane yields after 64 frames"""
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            steps += 1
            await checkpoint()

    spy, gate = Spy(), Gate()
    async with flowing(Spy(for_texts(gate)), spy) as worker:
        await worker.queue_frames(texts(*range(6400)))
        await gate.reached.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(count_steps)
            await checkpoint()
            worker.pipeline.processors[0].on = None  # type: ignore[attr-defined]  # it is a Spy
            gate.open()
            await spy.until(6400)
            group.cancel_scope.cancel()
    assert steps >= 100


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_a_bound_is_at_least_one(size: float) -> None:
    with pytest.raises(ValueError, match="max_buffer_size must be at least 1"):
        FrameProcessor(max_buffer_size=size)


# --- tasks


class Maker(Spy):
    """Starts what it is given as a task, with its set-up."""

    def __init__(self, function: Any, *args: Any) -> None:
        super().__init__()
        self.function = function
        self.args = args
        self.task: Any = None

    async def setup(self, setup: FrameProcessorSetup) -> None:
        self.task = self.create_task(self.function, *self.args)


async def test_a_task_ends_with_its_processor() -> None:
    """P1, L1"""
    log: list[str] = []

    async def run(word: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append(word)

    maker = Maker(run, "over")
    async with nothing_left():
        await run_through(worker_of(maker))
    assert log == ["over"]
    assert maker.log[-1] == "cleanup"


async def test_a_task_can_be_cancelled_and_waited_for() -> None:
    left = anyio.Event()

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    maker = Maker(run)
    async with flowing(maker):
        maker.task.cancel()
        await maker.task.wait()
        assert left.is_set()
        await maker.task.wait()


async def test_a_task_that_raises_becomes_an_error_frame(caplog: pytest.LogCaptureFixture) -> None:
    """P1"""

    async def fail() -> None:
        raise ValueError("it went wrong")

    first = Spy()
    async with flowing(first, Maker(fail)):
        [error] = await first.until(1, ErrorFrame)
    assert isinstance(error, ErrorFrame)
    assert error.error == "ValueError: it went wrong"
    assert "failed with a task" in caplog.text


async def test_a_task_starts_with_the_workers_context() -> None:
    """W8"""
    found: list[Any] = []

    async def look() -> None:
        found.append(anyio.get_current_task().name)

    maker = Maker(look)
    maker._name = "maker"
    async with flowing(maker):
        await maker.task.wait()
    assert "maker look" in found[0]


async def test_no_task_is_started_before_or_after_the_pipeline_runs() -> None:
    async def nothing() -> None:
        pass

    spy = Spy(name="spy")
    with pytest.raises(NotRunningError, match="'spy' is not running yet"):
        spy.create_task(nothing)
    await run_through(worker_of(spy))
    with pytest.raises(NotRunningError, match="'spy' is not running any more"):
        spy.create_task(nothing)


async def test_a_coroutine_is_no_function() -> None:
    async def nothing() -> None:
        pass

    spy = Spy()
    async with flowing(spy):
        with pytest.raises(TypeError, match="create_task takes a function and its arguments"):
            spy.create_task(nothing())  # type: ignore[arg-type]  # as it is refused


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


async def test_two_workers_run_two_pipelines_beside_each_other() -> None:
    left, right = Spy(), Spy()
    one, two = worker_of(left, name="one"), worker_of(right, name="two")
    async with running(one, two):
        await one.queue_frame(TextFrame("to one"))
        await two.queue_frame(TextFrame("to two"))
        await left.until()
        await right.until()
    assert (left.heard, right.heard) == (["to one"], ["to two"])
