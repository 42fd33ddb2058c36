"""Pipelines side by side."""

import copy
import gc

import anyio
import pytest
from anyio import sleep

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
    hang,
    never,
    run_through,
    said_done,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    StartFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


async def test_every_branch_gets_every_frame() -> None:
    left, right = Spy(), Spy()
    worker = worker_of(ParallelPipeline([left], [Spy(), right]))
    await run_through(worker, *texts("a", "b"))
    assert left.log == right.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]


class Sieve(Spy):
    """Passes on what it is told to, and all that is no text."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if not isinstance(frame, TextFrame) or frame.text in self.words:
            await super().process_frame(frame, direction)


async def test_a_frame_that_comes_out_of_several_branches_goes_on_once() -> None:
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Spy()], [Spy(), Spy()], [Sieve()]), last), *texts("a", "b"))
    assert last.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]
    assert sorted(last.heard) == ["a", "b"]


class Twin(FrameProcessor):
    """Pushes a copy of each text that says who made it."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            frame = copy.copy(frame)
            frame.text += self.name
        await self.push_frame(frame, direction)


async def test_a_frame_that_a_branch_makes_firm_goes_on_once_all_the_same() -> None:
    """P1: whichever branch lets it out first."""

    async def make_firm(spy: Spy, frame: Frame) -> None:
        frame.interruptible = False

    sink = Spy()
    branches = ParallelPipeline([Spy(for_texts(make_firm))], [Spy()], [Spy(), Spy(for_texts(make_firm))])
    async with flowing(branches, sink) as worker:
        await worker.queue_frames(texts("a", "b"))
        await worker.flush()
    assert sink.heard == ["a", "b"]


async def test_copies_that_two_branches_make_of_one_frame_are_two_frames() -> None:
    """P1: a copy has been nowhere yet."""
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Twin("1")], [Twin("2")]), last, name="w"), TextFrame("y"))
    assert sorted(last.heard) == ["y1", "y2"]


async def test_what_branches_make_goes_on_from_each() -> None:
    class Echo(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, TextFrame):
                frame = TextFrame(f"{self.name} {frame.text}")
            await self.push_frame(frame, direction)

    last = Spy()
    await run_through(worker_of(ParallelPipeline([Echo("l")], [Echo("r")]), last), *texts("a", "b"))
    assert sorted(last.heard) == ["l a", "l b", "r a", "r b"]
    assert [text for text in last.heard if text.startswith("l")] == ["l a", "l b"]


async def test_upstream_frames_go_through_every_branch_and_on_once() -> None:
    first, left, right = Spy(), Spy(), Spy()
    async with flowing(first, ParallelPipeline([left], [right]), Spy()) as worker:
        await worker.queue_frame(TextFrame("a"), UP)
        await worker.queue_frame(TextFrame("b"), UP)
        await first.until(2)
        await left.until(2)
        await right.until(2)
        await settle()
    assert first.heard_going(UP) == ["a", "b"]


async def test_a_fork_in_a_fork() -> None:
    last = Spy()
    inner = ParallelPipeline([Spy()], [Spy()])
    await run_through(worker_of(ParallelPipeline([inner, Spy()], [Sieve("b")]), last), *texts("a", "b"), Alert("!"))
    assert sorted(last.heard) == ["!", "a", "b"]
    assert last.log.count("EndFrame") == 1


async def test_an_error_in_a_branch_goes_upstream() -> None:
    """P1"""

    async def fail(spy: Spy, frame: Frame) -> None:
        raise ValueError("it went wrong")

    first = Spy()
    async with flowing(first, ParallelPipeline([Spy()], [Spy(), Spy(for_texts(fail))])) as worker:
        await worker.queue_frame(TextFrame("x"))
        await first.until(1, ErrorFrame)


async def test_the_ends_of_branches_have_no_neighbour_to_name() -> None:
    a, b, c = Spy(), Spy(), Spy()
    async with flowing(a, ParallelPipeline([b], [Spy()]), c):
        assert (a.next, b.previous, b.next, c.previous) == (None, None, None, None)


async def test_frames_that_a_branch_keeps_leave_nothing_behind() -> None:
    """Memory stays flat."""

    def marked() -> int:
        gc.collect()
        return sum(isinstance(thing, TextFrame) for thing in gc.get_objects())

    out = 0

    class Count(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            nonlocal out
            out += isinstance(frame, TextFrame)
            if not isinstance(frame, TextFrame):
                await self.push_frame(frame, direction)

    class Keep(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if not isinstance(frame, TextFrame):
                await self.push_frame(frame, direction)

    async with flowing(ParallelPipeline([FrameProcessor()], [Keep()]), Count()) as worker:
        before = marked()
        for n in range(1000):
            await worker.queue_frame(TextFrame(str(n)))
        await settle()
        assert out == 1000
        assert marked() <= before + 2


# --- room


async def test_a_slow_branch_makes_the_source_wait_where_it_is_bounded() -> None:
    gate = Gate()
    left, right = Spy(), Spy(for_texts(gate), max_buffer_size=1)
    async with flowing(ParallelPipeline([left], [right])) as worker:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.queue_frames, texts(*range(9)))
            await gate.reached.wait()
            await settle()
            assert len(left.heard) == 3
            gate.open()
        await right.until(9)
        await left.until(9)


async def test_a_push_that_is_cancelled_is_withdrawn_from_branches_without_room() -> None:
    gates = Gate(), Gate()
    branches = [Spy(for_texts(gate), max_buffer_size=1) for gate in gates]
    async with flowing(ParallelPipeline([branches[0]], [branches[1]])) as worker:
        await worker.queue_frames(texts("a", "b"))
        with anyio.move_on_after(1):
            await worker.queue_frame(TextFrame("late"))
        for gate in gates:
            gate.open()
        await worker.queue_frame(TextFrame("c"))
        for branch in branches:
            await branch.until(3)
    assert [branch.heard for branch in branches] == [["a", "b", "c"]] * 2


# --- starts and ends


async def test_the_start_comes_out_when_all_branches_have_started() -> None:
    """P2"""
    gate = Gate()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    quick, last = Spy(), Spy()
    worker = worker_of(ParallelPipeline([quick], [StartsWith(wait)]), last, name="w")
    await worker.queue_frame(TextFrame("x"))
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await gate.reached.wait()
        await quick.until(1, StartFrame)
        await settle()
        assert (quick.log, last.log) == (["setup", "StartFrame"], ["setup"])
        gate.open()
        await last.until()


async def test_an_end_during_a_start_that_hangs_in_a_branch_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """P2"""
    runner = WorkerRunner(handle_sigint=False, grace_period=6)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(Spy(), ParallelPipeline([Spy()], [StartsWith(never, "sloth")]), Spy()))
    assert "it waits for 'sloth'" in caplog.text


async def test_the_end_comes_out_when_all_branches_are_done() -> None:
    """P2"""
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Sieve()], [Spy(slow(1))]), last), *texts(*range(5)))
    assert last.heard == [str(n) for n in range(5)]
    assert last.log.count("EndFrame") == 1


async def test_all_branches_end_with_one_end_each() -> None:
    spies = [Spy() for _ in range(5)]
    await run_through(worker_of(ParallelPipeline(*([spy] for spy in spies))))
    assert all(sum(isinstance(frame, EndFrame) for frame in spy.got) == 1 for spy in spies)
    assert all(way is DOWN for spy in spies for way in spy.ways)


async def test_an_end_that_a_branch_lets_out_twice_still_waits_for_the_others() -> None:
    """P2"""

    class Deduplicator(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            for _ in range(2 if isinstance(frame, EndFrame) else 1):
                await self.push_frame(frame, direction)

    async def on(spy: Spy, frame: Frame) -> None:
        await sleep(1)
        await spy.push_frame(TextFrame("slow"))

    sink = Spy()
    await run_through(worker_of(ParallelPipeline([Deduplicator()], [Spy(for_texts(on))]), sink), *texts("a"))
    assert sink.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_a_cancel_reaches_every_branch() -> None:
    """P2"""
    left, right, last = Spy(for_texts(hang)), Spy(for_texts(hang)), Spy()
    worker = worker_of(ParallelPipeline([left], [right]), last, name="w")
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(worker)
            await worker.queue_frame(TextFrame("x"))
            await left.until()
            await right.until()
            before = anyio.current_time()
            await runner.cancel()
        assert anyio.current_time() == before
    assert all(spy.log[-2:] == ["CancelFrame", "cleanup"] for spy in (left, right, last))
    assert sum(isinstance(frame, CancelFrame) for frame in last.got) == 1


# --- interruptions


async def test_an_interruption_empties_all_branches_and_goes_on_once() -> None:
    """P1"""
    left, deep, last = Spy(for_texts(hang)), Spy(for_texts(hang)), Spy()
    async with flowing(ParallelPipeline([left], [Spy(), Spy(), deep]), last) as worker:
        await worker.queue_frames(texts("a", "b"))
        await left.until()
        await deep.until()
        left.on = deep.on = None
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("c"))
        await last.until(1)
        await settle()
    assert last.heard == ["c"]
    assert sum(isinstance(frame, InterruptionFrame) for frame in last.got) == 1


class Interrupts(FrameProcessor):
    """Interrupts the pipeline at an alert."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Alert):
            await self.broadcast_interruption()
        else:
            await self.push_frame(frame, direction)


async def test_an_interruption_from_one_branch_empties_the_others() -> None:
    """P1: it is for the whole pipeline."""
    gate = Gate()
    other = Spy(for_texts(gate))
    worker = worker_of(ParallelPipeline([Interrupts()], [other]), name="w")
    async with running(worker):
        await worker.queue_frames(texts(1, 2))
        await gate.reached.wait()
        await worker.queue_frame(Alert("x"))
        await settle()
        assert gate.left == 1
        gate.open()
        await settle()
        assert other.heard[:1] == ["1"]
        assert "2" not in other.heard


async def test_an_interruption_from_one_branch_empties_all_others_of_several_processors() -> None:
    """P1: the processor that has not begun with a frame loses it, wherever it is."""
    gates = [Gate() for _ in range(4)]
    spies = [Spy(for_texts(gate)) for gate in gates]
    branches: list[list[FrameProcessor]] = [
        [spies[0]],
        [Interrupts()],
        [Spy(), spies[1]],
        [spies[2], Spy()],
        [spies[3]],
    ]
    worker = worker_of(ParallelPipeline(*branches), name="w")
    async with running(worker):
        await worker.queue_frames(texts(1, 2, 3))
        for gate in gates:
            await gate.reached.wait()
        await worker.queue_frame(Alert("x"))
        await settle()
        for gate in gates:
            gate.open()
        await settle()
        for spy in spies:
            assert spy.heard[:1] == ["1"]
            assert not {"2", "3"} & set(spy.heard)


async def test_an_interruption_that_goes_upstream_alone_empties_no_other_branch() -> None:
    """P1: only what it passes."""

    async def interrupt(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(InterruptionFrame(), UP)
        return False

    gate = Gate()
    beside = Spy(for_texts(gate))
    head = Spy()
    async with flowing(head, ParallelPipeline([beside], [ScriptedProcessor(interrupt)])) as worker:
        await worker.queue_frames(texts("a", "b"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("interrupt"))
        await head.until(1, InterruptionFrame)
        await settle()
        gate.open()
        await settle()
        assert beside.heard == ["a", "interrupt", "b"]
        assert said_done(beside) == ["interrupt", "a", "b"]


async def test_an_interruption_that_goes_downstream_alone_leaves_what_comes_behind_it_in_its_branch() -> None:
    """P1: what waits in other branches is dropped."""

    async def interrupt(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(InterruptionFrame())
        return not isinstance(frame, Alert)

    before, beside = Spy(for_texts(slow(1))), Spy(for_texts(slow(1)))
    async with flowing(ParallelPipeline([before, ScriptedProcessor(interrupt)], [beside])) as worker:
        await worker.queue_frames(texts("a", "b"))
        await settle()
        await worker.queue_frame(Alert("interrupt"))
        await before.until(2)
        await worker.flush()
    assert said_done(before) == ["interrupt", "a", "b"]
    assert "b" not in beside.heard


async def test_a_branch_may_keep_an_interruption_back() -> None:
    """P1"""

    class Calm(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if not isinstance(frame, InterruptionFrame):
                await self.push_frame(frame, direction)

    last = Spy()
    async with flowing(ParallelPipeline([Calm()], [Spy()]), last) as worker:
        await worker.queue_frame(InterruptionFrame())
        await last.until(1, InterruptionFrame)


class Dawdles(FrameProcessor):
    """Takes a second for an interruption."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            await sleep(1)
        await self.push_frame(frame, direction)


async def test_an_interruption_empties_a_branch_before_it_has_come_through() -> None:
    """P1: what has come out of one branch is not followed by what was older in another."""
    last = Spy()
    async with flowing(ParallelPipeline([Spy(for_texts(hang))], [Dawdles(), Spy(slow(0.5))]), last) as worker:
        await worker.queue_frame(texts("a")[0])
        await settle()
        await worker.queue_frame(InterruptionFrame())
        await sleep(2)
    assert last.heard == []
