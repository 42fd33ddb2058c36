"""P1: branches that take one frame at a time."""

from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from support.pipelines import (
    DOWN,
    UP,
    Alert,
    Firm,
    Gate,
    ScriptedProcessor,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    hang,
    run_through,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameOrder,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StopFrame,
    SyncParallelPipeline,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


def saying(prefix: str, seconds: float = 0, times: int = 1) -> ScriptedProcessor:
    """Makes new texts of each text, and takes its time."""

    async def do(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if not isinstance(frame, TextFrame):
            return False
        await sleep(seconds)
        for n in range(times):
            await processor.push_frame(TextFrame(f"{prefix}{n or ''} {frame.text}"), direction)
        return True

    return ScriptedProcessor(do)


@pytest.mark.parametrize("order", FrameOrder)
@pytest.mark.parametrize("way", [DOWN, UP])
async def test_what_the_branches_make_of_a_frame_goes_on_together_in_the_order_that_is_asked_for(
    way: FrameDirection, order: FrameOrder
) -> None:
    """P1: however long each of them takes; in that of arrival, unless another is given."""
    first, last = Spy(), Spy()
    kept: dict[str, Any] = {} if order is FrameOrder.ARRIVAL else {"frame_order": order}
    fork = SyncParallelPipeline([saying("slow", 2, 2)], [Spy(), saying("quick")], **kept)
    async with flowing(first, fork, last) as worker:
        for frame in texts("a", "b"):
            await worker.queue_frame(frame, way)
        spy = last if way is DOWN else first
        begin = current_time()
        await spy.until(3)
        assert current_time() == begin + 2
        await spy.until(6)
        assert current_time() == begin + 4
    for text in "a", "b":
        slow, quick = [f"slow {text}", f"slow1 {text}"], [f"quick {text}"]
        expected = slow + quick if order is FrameOrder.PIPELINE else quick + slow
        assert [said for said in spy.heard if said.endswith(f" {text}")] == expected


@pytest.mark.parametrize("order", FrameOrder)
async def test_what_one_branch_makes_of_a_frame_keeps_its_order(order: FrameOrder) -> None:
    """P1: that in which it has come out, whichever was made first."""
    last, (first, *others) = Spy(), texts(2, 1, 0)

    async def backwards(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        for each in (*reversed(others), first) if isinstance(frame, TextFrame) else ():
            await processor.push_frame(each)
        return isinstance(frame, TextFrame)

    fork = SyncParallelPipeline([saying("first")], [ScriptedProcessor(backwards)], frame_order=order)
    async with flowing(fork, last) as worker:
        await worker.queue_frame(TextFrame("a"))
        await last.until(4)
    assert [text for text in last.heard if text != "first a"] == ["0", "1", "2"]


def test_an_order_is_one_of_two() -> None:
    """N8"""
    order: Any = "pipeline"
    with pytest.raises(TypeError, match="frame_order is a FrameOrder, not 'pipeline'"):
        SyncParallelPipeline([Spy()], frame_order=order)


async def test_the_next_frame_waits_until_all_branches_have_handled_the_one_before() -> None:
    """P1"""
    gate = Gate()
    stuck, free = Spy(for_texts(gate)), Spy()
    async with flowing(SyncParallelPipeline([stuck], [free])) as worker:
        await worker.queue_frames(texts("a", "b"))
        await gate.reached.wait()
        await settle()
        assert free.heard == ["a"]
        gate.open()
        await free.until(2)


async def test_a_frame_that_several_branches_let_out_goes_on_once() -> None:
    """P1"""
    last = Spy()
    await run_through(worker_of(SyncParallelPipeline([Spy(slow(1))], [Spy()]), last), *texts("a", "b"))
    assert last.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]
    assert last.heard == ["a", "b"]


async def test_frames_that_are_equal_are_not_the_same() -> None:
    """P1: nor are they one of the library's own."""

    class Equal(TextFrame):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    last = Spy()
    async with flowing(SyncParallelPipeline([Spy()], [Spy()]), ParallelPipeline([Spy()], [Spy()]), last) as worker:
        await worker.queue_frames([Equal("a"), Equal("b")])
        await worker.flush()
    assert last.heard == ["a", "b"]


async def test_system_frames_take_no_turns() -> None:
    """P1"""
    gate, last = Gate(), Spy()
    async with flowing(SyncParallelPipeline([Spy(for_texts(gate))], [Spy()]), last) as worker:
        await worker.queue_frames(texts("a", "b"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("!"))
        await last.until(1, Alert)
        assert last.heard == ["!"]
        gate.open()
        await last.until(2)


async def test_an_interruption_drops_what_waits_for_its_turn() -> None:
    """P1: here and at the end of the turn, in both directions; what is uninterruptible stays."""
    first, last, stuck = Spy(), Spy(), Spy(for_texts(hang))
    async with flowing(
        first, SyncParallelPipeline([saying("made of")], [stuck], frame_order=FrameOrder.PIPELINE), last
    ) as worker:
        await worker.queue_frames([TextFrame("a"), TextFrame("b"), Firm("firm")])
        await last.push_frame(TextFrame("up"), UP)
        await last.push_frame(TextFrame("up too"), UP)
        await stuck.until(1)
        await settle()
        stuck.on = None
        await worker.queue_frame(InterruptionFrame())
        await last.until(1, InterruptionFrame)
        await worker.queue_frame(TextFrame("behind it"))
        await last.until(4)
    assert last.heard == ["made of firm", "firm", "made of behind it", "behind it"]
    assert "up too" not in first.heard


async def test_an_interruption_ends_no_turn_of_a_frame_that_it_spares() -> None:
    """P1: the next frame waits until all branches have handled it."""
    last = Spy()
    async with flowing(SyncParallelPipeline([Spy(slow(2))], [saying("quick")]), last) as worker:
        begin = current_time()
        await worker.queue_frame(Firm("firm"))
        for text in ("a", "b"):
            await sleep(0.5)
            await worker.queue_frame(InterruptionFrame())
            await worker.queue_frame(TextFrame(text))
        await last.until(1)
        assert (last.heard, current_time()) == (["firm"], begin + 2)
        await last.until(3)
        assert (last.heard, current_time()) == (["firm", "quick b", "b"], begin + 4)


async def test_an_interruption_spares_what_a_branch_has_made_that_is_uninterruptible() -> None:
    """P1: it goes on when the turn is over, which the interruption brings about."""

    async def make(processor: Any, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, TextFrame):
            await processor.push_frame(Firm(f"firm {frame.text}"))
            await processor.push_frame(TextFrame(f"soft {frame.text}"))
        return isinstance(frame, TextFrame)

    last, stuck = Spy(), Spy(for_texts(hang))
    async with flowing(SyncParallelPipeline([ScriptedProcessor(make)], [stuck]), last) as worker:
        await worker.queue_frame(TextFrame("a"))
        await stuck.until(1)
        await settle()
        assert last.heard == []
        stuck.on = None
        await worker.queue_frame(InterruptionFrame())
        await last.until(1)
        await settle()
    assert last.heard == ["firm a"]


async def test_an_interruption_that_a_branch_makes_drops_what_waits_too() -> None:
    """P1"""
    last, stuck = Spy(), Spy(for_texts(hang))

    async def interrupt(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await spy.broadcast_interruption()

    async with flowing(SyncParallelPipeline([Spy(interrupt)], [stuck]), last) as worker:
        await worker.queue_frames(texts("a", "b"))
        await stuck.until(1)
        stuck.on = None
        await worker.queue_frame(Alert("!"))
        await last.until(1, InterruptionFrame)
        await worker.queue_frame(TextFrame("c"))
        await last.until(1)
        await settle()
    assert [text for text in last.heard if text != "!"] == ["c"]


@pytest.mark.parametrize("made_in_a_branch", [False, True], ids=["it comes", "made in another branch"])
async def test_an_interruption_drops_at_once_what_waits_for_its_turn_in_branches_of_branches(
    made_in_a_branch: bool,
) -> None:
    """P1: however long it takes to get there itself, behind a system frame that is being handled."""
    gate = Gate()

    async def wait(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await gate(spy, frame)

    async def interrupt(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await spy.broadcast_interruption()

    stuck, last = Spy(for_texts(hang)), Spy()
    inner = ParallelPipeline([SyncParallelPipeline([stuck], [Spy()])])
    async with flowing(
        ParallelPipeline([Spy(wait), inner], [Spy(interrupt if made_in_a_branch else None)]), last
    ) as worker:
        await worker.queue_frames([TextFrame("a"), TextFrame("b"), Firm("firm"), TextFrame("c")])
        await stuck.until(1)
        await settle()
        stuck.on = None
        del last.got[:]
        await worker.queue_frame(Alert("!"))
        await gate.reached.wait()
        if not made_in_a_branch:
            await worker.queue_frame(InterruptionFrame())
        await settle()
        assert stuck.heard == ["a", "firm"]
        gate.open()
        await last.until(1, InterruptionFrame)
        await worker.queue_frame(TextFrame("d"))
        await stuck.until(3)
    assert stuck.heard == ["a", "firm", "!", "d"]


async def test_an_end_waits_for_its_turn_and_for_all_branches() -> None:
    """P2"""
    last = Spy()
    begin = anyio.current_time()
    await run_through(worker_of(SyncParallelPipeline([Spy(slow(1))], [Spy(slow(2))]), last), *texts("a", "b"))
    assert anyio.current_time() == begin + 4
    assert last.log[-2:] == ["EndFrame", "cleanup"]


async def test_a_cancel_waits_for_no_turn() -> None:
    """P2, L1"""
    spy = Spy(for_texts(hang))
    async with nothing_left(), flowing(SyncParallelPipeline([spy], [Spy()])) as worker:
        await worker.queue_frames(texts("a", "b"))
        await spy.until(1)
        begin = current_time()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
        assert current_time() == begin
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_what_comes_before_the_start_waits_for_it_and_keeps_its_order() -> None:
    """P2"""
    may_start, last = anyio.Event(), Spy()
    branches = [StartsWith(lambda _: may_start.wait())], [saying("made of")]
    fork = SyncParallelPipeline(*branches, frame_order=FrameOrder.PIPELINE)
    worker = worker_of(fork, last, name="w")
    await worker.queue_frames(texts("a", "b"))
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await settle()
        assert last.heard == []
        may_start.set()
        await last.until(4)
    assert last.heard == ["a", "made of a", "b", "made of b"]


async def test_what_a_task_pushes_between_turns_goes_on_at_once() -> None:
    """P1"""
    spy, last = Spy(), Spy()
    async with flowing(SyncParallelPipeline([spy], [Spy()]), last):
        await settle()
        await spy.push_frame(TextFrame("by the way"))
        await last.until(1)


async def test_synchronized_branches_may_stand_in_branches_and_in_another_pipeline_afterwards() -> None:
    """P1"""
    last = Spy()
    inner = SyncParallelPipeline([Spy(slow(1))], [saying("inner")], frame_order=FrameOrder.PIPELINE)
    outer = ParallelPipeline([inner], [Pipeline([saying("outer")])])
    for n in range(2):
        worker = worker_of(outer, last, name=f"w{n}")
        async with running(worker):
            await worker.queue_frame(TextFrame("x"))
            await last.until(3 * (n + 1))
            await worker.queue_frame(StopFrame() if not n else EndFrame())
            await worker.wait()
    assert last.heard == ["outer x", "x", "inner x"] * 2


async def test_a_turn_that_a_stop_has_cut_off_is_not_waited_for_in_the_next_pipeline() -> None:
    """P1, P2"""

    class Late(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            await self.push_frame(frame, direction)
            if isinstance(frame, StopFrame):
                for frame in texts("late", "too late", "and later still"):
                    await self.push_frame(frame)

    late, fork, last = Late(), SyncParallelPipeline([Spy(slow(1))], [Spy()]), Spy()
    for n in range(2):
        worker = worker_of(late, fork, last, name=f"w{n}")
        async with running(worker):
            await worker.queue_frames([*texts(n), StopFrame()])
            await worker.wait()
    assert last.heard == ["0", "late", "1", "late"]


async def test_a_flush_goes_through_synchronized_branches() -> None:
    """P6"""
    last = Spy()
    async with flowing(SyncParallelPipeline([Spy(slow(1))], [Spy()]), last) as worker:
        await worker.queue_frames(texts("a", "b"))
        begin = current_time()
        await worker.flush()
        assert current_time() == begin + 2
        assert last.heard == ["a", "b"]


def test_there_is_at_least_one_branch() -> None:
    kind: Any = SyncParallelPipeline
    with pytest.raises(ValueError, match="at least one branch"):
        kind()
