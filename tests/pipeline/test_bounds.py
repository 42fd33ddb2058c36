"""P1: bounded lanes, and who waits for room."""

from typing import Any

import anyio
import pytest

from support.pipelines import (
    UP,
    Alert,
    Firm,
    Gate,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    hang,
    kept,
    never,
    run_through,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    ParallelPipeline,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_a_bound_is_at_least_one(size: float) -> None:
    with pytest.raises(ValueError, match="max_buffer_size must be at least 1"):
        FrameProcessor(max_buffer_size=size)


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


@pytest.mark.parametrize("spared", [Firm, kept])
async def test_an_interruption_lets_those_in_who_are_uninterruptible_and_wait_for_room(spared: Any) -> None:
    """P1"""
    gate = Gate()
    spy = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(spy) as worker, anyio.create_task_group() as group:
        group.start_soon(worker.queue_frames, [*texts("a", "b"), spared("c")])
        await gate.reached.wait()
        await settle()
        gate.open()
        await worker.queue_frame(InterruptionFrame())
        while "c" not in spy.heard:
            await spy.until(len(spy.heard) + 1)
    assert "b" not in spy.heard


async def enter(worker: PipelineWorker, frame: TextFrame, entered: list[str]) -> None:
    """Queue a frame, and write down when it is in."""
    await worker.queue_frame(frame)
    entered.append(frame.text)


async def test_an_interruption_lets_in_all_for_whom_it_makes_room() -> None:
    """P1"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=2)
    entered: list[str] = []

    async with flowing(sink) as worker, anyio.create_task_group() as group:
        await worker.queue_frame(Firm("being handled"))
        await gate.reached.wait()
        await worker.queue_frames(texts("goes", "goes too"))
        for word in ("stays", "stays too"):
            group.start_soon(enter, worker, Firm(word), entered)
            await settle()
        assert entered == []
        await worker.queue_frame(InterruptionFrame())
        await settle()
        assert sorted(entered) == ["stays", "stays too"]
        gate.open()
    assert sink.heard == ["being handled", "stays", "stays too"]


async def test_those_in_line_are_dropped_or_spared_each_for_its_frame() -> None:
    """P1: whoever stands before or behind them; nobody waits whose frame was dropped."""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=1)
    entered: list[str] = []

    async with flowing(sink) as worker, anyio.create_task_group() as group:
        await worker.queue_frame(Firm("being handled"))
        await gate.reached.wait()
        await worker.queue_frame(Firm("waits"))
        for frame in (
            TextFrame("goes"),
            Firm("stays"),
            TextFrame("goes too"),
            Firm("stays too"),
            TextFrame("and this"),
        ):
            group.start_soon(enter, worker, frame, entered)
            await settle()
        assert entered == []
        await worker.queue_frame(InterruptionFrame())
        await settle()
        assert sorted(entered) == ["and this", "goes", "goes too"]
        gate.open()
    assert sink.heard == ["being handled", "waits", "stays", "stays too"]


async def test_what_an_interruption_spares_still_takes_room() -> None:
    """P1: a bound holds after it as before."""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=2)
    entered: list[str] = []

    async with flowing(sink) as worker, anyio.create_task_group() as group:
        for word in ("being handled", "waits", "waits too"):
            await worker.queue_frame(Firm(word))
            await settle()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        group.start_soon(enter, worker, TextFrame("comes later"), entered)
        await settle()
        assert entered == []
        gate.open()
    assert sink.heard == ["being handled", "waits", "waits too", "comes later"]


async def test_upstream_frames_that_an_interruption_spares_take_no_room() -> None:
    """P1: an inbox that is empty has room."""
    gate = Gate()
    spy = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(spy) as worker:
        for word in ("being handled", "waits"):
            await worker.queue_frame(Firm(word), UP)
            await settle()
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("has room while they wait"))
        gate.open()
        await spy.until(3)
        await worker.queue_frames(texts("has room", "when they are gone"))
        await spy.until(5)
    assert spy.heard == ["being handled", "waits", "has room while they wait", "has room", "when they are gone"]


async def test_upstream_frames_that_an_early_interruption_spares_take_no_room() -> None:
    """P1, P2: the same before the start."""
    spy = Spy(max_buffer_size=1)
    worker = worker_of(spy)
    await worker.queue_frame(Firm("up"), UP)
    await worker.queue_frame(InterruptionFrame())
    async with running(worker):
        await worker.queue_frames(texts("a", "b", "c"))
        await spy.until(4)


async def test_upstream_frames_make_no_room_when_they_are_handled() -> None:
    """P1: what waits downstream is as much as before."""
    gate, spy = Gate(), Spy(max_buffer_size=1)
    queued: list[str] = []
    spy.on = for_texts(gate)

    async def queue() -> None:
        for frame in texts("a", "b"):
            await worker.queue_frame(frame)
            queued.append(frame.text)

    async with flowing(spy) as worker, anyio.create_task_group() as group:
        await spy.pause_processing_frames()
        await worker.queue_frame(TextFrame("up"), UP)
        group.start_soon(queue)
        await settle()
        await spy.resume_processing_frames()
        await gate.reached.wait()
        await settle()
        assert queued == ["a"]
        gate.open()
    assert spy.heard == ["up", "a", "b"]


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


async def test_an_end_comes_behind_those_who_wait_for_room() -> None:
    """P2"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(sink) as worker, anyio.create_task_group() as group:
        group.start_soon(worker.queue_frames, texts("a", "b", "c"))
        await gate.reached.wait()
        await settle()
        await worker.stop_when_done()
        gate.open()
        await worker.wait()
    assert sink.heard == ["a", "b", "c"]
    assert sink.log[-2:] == ["EndFrame", "cleanup"]


# --- before the start


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


async def test_what_waited_for_the_start_takes_no_room_when_it_has_been_handled() -> None:
    """P1, P2: whatever an interruption then counts anew."""
    spy = Spy(max_buffer_size=2)
    worker = worker_of(spy, name="w")
    await worker.queue_frames([Firm("a"), Firm("b")])
    async with running(worker):
        await spy.until(2)
        await worker.queue_frame(InterruptionFrame())
        await worker.flush()
        await spy.pause_processing_frames()
        with anyio.fail_after(1):
            await worker.queue_frames(texts("c", "d"))
        await spy.resume_processing_frames()
        await spy.until(4)


@pytest.mark.parametrize("ends", ["EndFrame", "CancelFrame", "before it has started"])
async def test_nobody_waits_for_room_in_a_pipeline_that_is_over(ends: str) -> None:
    """P1, P2: what is pushed then goes nowhere, from tasks of the program's own, too."""
    first, second, starter = Spy(), Spy(max_buffer_size=1), StartsWith(never)
    async with WorkerRunner(handle_sigint=False) as runner:
        if ends == "before it has started":
            worker = worker_of(starter, first, second, name="w")
            await runner.add_workers(worker)
            await starter.begun.wait()
            await worker.stop()
        else:
            worker = worker_of(first, second, name="w")
            await runner.add_workers(worker, wait=True)
            await worker.queue_frame(EndFrame() if ends == "EndFrame" else CancelFrame())
            await worker.wait()
    with anyio.fail_after(1):
        for frame in texts("a", "b", "c"):
            await first.push_frame(frame)
            await second.push_frame(frame, UP)
    assert first.heard == second.heard == []


async def test_whoever_gets_in_from_the_line_before_the_start_takes_room() -> None:
    """P1, P2: an interruption lets in no more than there is room for."""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=2), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    queued: list[str] = []

    async def queue(word: str) -> None:
        await worker.queue_frame(Firm(word))
        queued.append(word)

    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        await starter.begun.wait()
        await worker.queue_frames([Firm("a"), TextFrame("b")])
        for word in "c", "d":
            group.start_soon(queue, word)
            await settle()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        assert queued == ["c"]
        may_start.set()
        await spy.until(3)
    assert spy.heard == ["a", "c", "d"]


async def test_what_an_interruption_spares_before_the_start_still_takes_room() -> None:
    """P1, P2"""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=2), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    queued: list[str] = []

    async def queue() -> None:
        for frame in texts("c", "d"):
            await worker.queue_frame(frame)
            queued.append(frame.text)

    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        await starter.begun.wait()
        await worker.queue_frames([Firm("a"), TextFrame("b"), InterruptionFrame()])
        group.start_soon(queue)
        await settle()
        assert queued == ["c"]
        may_start.set()
        await spy.until(3)
    assert spy.heard == ["a", "c", "d"]


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


async def test_an_end_before_the_start_comes_behind_those_who_wait_for_room() -> None:
    """P2: the first processor is full, and the start is still on its way."""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=1), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    async with anyio.create_task_group() as group:

        async def begin() -> None:
            await starter.begun.wait()
            group.start_soon(worker.queue_frames, texts("a", "b"))
            await settle()
            await worker.stop_when_done()
            may_start.set()

        group.start_soon(begin)
        async with running(worker):
            await worker.wait()
    assert spy.heard == ["a", "b"]
    assert spy.log[-2:] == ["EndFrame", "cleanup"]


async def test_what_was_left_lying_in_a_pipeline_that_was_stopped_takes_no_room_in_the_next() -> None:
    """P1, P2: frames that were pushed when the stop had come through."""
    first, second = Spy(), Spy(for_texts(hang), max_buffer_size=1)
    worker = worker_of(first, second)

    @worker.event_handler("on_pipeline_finished")
    async def push_more(_: PipelineWorker, frame: Frame) -> None:
        for late in texts("in hand", "waiting"):
            await first.push_frame(late)
            await settle()

    await run_through(worker, StopFrame())
    assert second.heard == ["in hand"]
    async with flowing(second) as worker:
        with anyio.fail_after(1):
            await worker.queue_frames(texts("a", "b"))
        await second.until(2)
        assert second.heard == ["in hand", "a"]
        await worker.queue_frame(InterruptionFrame())


async def test_a_pusher_waits_until_there_is_room_in_each_branch() -> None:
    """P1: and every branch gets every frame, whichever of them is the slowest."""
    one, two, three = (Spy(for_texts(slow(seconds)), max_buffer_size=1) for seconds in (1, 3, 2))
    async with flowing(ParallelPipeline([one], [two], [three])) as worker:
        await worker.queue_frames(texts(*range(6)))
        await worker.flush()
    assert one.heard == two.heard == three.heard == [str(n) for n in range(6)]
