"""Pipelines in pipelines, and pipelines side by side."""

import gc
from collections.abc import Callable

import anyio
import pytest

from support.pipelines import (
    DOWN,
    UP,
    Alert,
    Gate,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    hang,
    never,
    run_through,
    slow,
    texts,
    worker_of,
)
from workerbus import PipelineWorker, WorkerRunner
from workerbus.errors import ProcessorInUseError
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


class Sieve(Spy):
    """Passes on what it is told to, and all that is no text."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if not isinstance(frame, TextFrame) or frame.text in self.words:
            await super().process_frame(frame, direction)


# --- nested


async def test_a_nested_pipeline_is_as_good_as_its_processors() -> None:
    spies = [Spy(name=name) for name in "abcd"]
    a, b, c, d = spies
    pipeline = Pipeline([a, Pipeline([b, Pipeline([c])]), d])
    assert pipeline.processors == spies
    async with flowing(pipeline) as worker:
        await worker.queue_frame(TextFrame("down"))
        await worker.queue_frame(TextFrame("up"), UP)
        await a.until(2)
        await d.until(2)
        assert [spy.next for spy in spies] == [b, c, d, None]
        assert [spy.previous for spy in spies] == [None, a, b, c]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pipeline([]),
        lambda: Pipeline([Pipeline([])]),
        lambda: Pipeline([ParallelPipeline([])]),
        lambda: Pipeline([ParallelPipeline([], [])]),
    ],
)
async def test_an_empty_pipeline_lets_everything_through(make: Callable[[], Pipeline]) -> None:
    worker = PipelineWorker(make())
    out: list[str] = []
    worker.add_event_handler("on_frame_reached_downstream", lambda worker, frame: out.append(type(frame).__name__))
    await run_through(worker, *texts("a", "b"))
    assert out == ["StartFrame", "TextFrame", "TextFrame", "EndFrame"]


def test_a_processor_has_one_place() -> None:
    """P1"""
    spy = FrameProcessor("spy")
    with pytest.raises(ProcessorInUseError, match="spy stands in a pipeline already"):
        Pipeline([spy, spy])
    pipeline = Pipeline([spy])  # the failed one has not taken it
    with pytest.raises(ValueError, match="spy"):
        Pipeline([FrameProcessor(), spy])
    Pipeline([pipeline])
    with pytest.raises(ProcessorInUseError):
        Pipeline([pipeline])
    with pytest.raises(ProcessorInUseError):
        ParallelPipeline([], pipeline)
    with pytest.raises(ProcessorInUseError):
        PipelineWorker(pipeline)


def test_a_pipeline_has_one_worker() -> None:
    """P1"""
    pipeline = Pipeline([])
    PipelineWorker(pipeline)
    with pytest.raises(ProcessorInUseError):
        PipelineWorker(pipeline)


def test_a_pipeline_is_made_of_processors() -> None:
    class Careless(FrameProcessor):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="a pipeline is made of processors and pipelines, not 'x'"):
        Pipeline(["x"])  # type: ignore[list-item]  # as it is refused
    with pytest.raises(TypeError, match=r"Careless .* must call super\(\).__init__\(\)"):
        Pipeline([Careless()])
    with pytest.raises(ValueError, match="at least one branch"):
        ParallelPipeline()


def test_a_pipeline_shows_what_is_in_it() -> None:
    pipeline = Pipeline([FrameProcessor("a"), ParallelPipeline([FrameProcessor("b")], [FrameProcessor("c")])])
    b, c = "Pipeline([<FrameProcessor 'b'>])", "Pipeline([<FrameProcessor 'c'>])"
    assert repr(pipeline) == f"Pipeline([<FrameProcessor 'a'>, ParallelPipeline({b}, {c})])"


# --- parallel


async def test_every_branch_gets_every_frame() -> None:
    left, right = Spy(), Spy()
    worker = worker_of(ParallelPipeline([left], [Spy(), right]))
    await run_through(worker, *texts("a", "b"))
    assert left.log == right.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_a_frame_that_comes_out_of_several_branches_goes_on_once() -> None:
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Spy()], [Spy(), Spy()], [Sieve()]), last), *texts("a", "b"))
    assert last.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]
    assert sorted(last.heard) == ["a", "b"]


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


async def test_a_stop_leaves_processors_of_any_shape_for_another_pipeline() -> None:
    """P2"""
    spies = [Spy(max_buffer_size=2) for _ in range(4)]
    a, b, c, d = spies
    for _ in range(2):
        inner = Pipeline([b])
        worker = worker_of(a, Pipeline([inner, ParallelPipeline([c], Pipeline([d]))]))
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await worker.queue_frames([*texts("x", "y", "z"), StopFrame()])
        await runner.run()
    assert all(spy.heard == ["x", "y", "z"] * 2 for spy in spies)
    Pipeline([inner])


async def test_the_end_comes_out_when_all_branches_are_done() -> None:
    """P2"""
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Sieve()], [Spy(slow(1))]), last), *texts(*range(5)))
    assert last.heard == [str(n) for n in range(5)]
    assert last.log.count("EndFrame") == 1


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


async def test_an_end_during_a_start_that_hangs_in_a_branch_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """P2"""
    runner = WorkerRunner(handle_sigint=False, grace_period=6)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(Spy(), ParallelPipeline([Spy()], [StartsWith(never, "sloth")]), Spy()))
    assert "it waits for 'sloth'" in caplog.text


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


async def test_an_error_in_a_branch_goes_upstream() -> None:
    """P1"""

    async def fail(spy: Spy, frame: Frame) -> None:
        raise ValueError("it went wrong")

    first = Spy()
    async with flowing(first, ParallelPipeline([Spy()], [Spy(), Spy(for_texts(fail))])) as worker:
        await worker.queue_frame(TextFrame("x"))
        await first.until(1, ErrorFrame)


async def test_a_fork_in_a_fork() -> None:
    last = Spy()
    inner = ParallelPipeline([Spy()], [Spy()])
    await run_through(worker_of(ParallelPipeline([inner, Spy()], [Sieve("b")]), last), *texts("a", "b"), Alert("!"))
    assert sorted(last.heard) == ["!", "a", "b"]
    assert last.log.count("EndFrame") == 1


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


async def test_the_ends_of_branches_have_no_neighbour_to_name() -> None:
    a, b, c = Spy(), Spy(), Spy()
    async with flowing(a, ParallelPipeline([b], [Spy()]), c):
        assert (a.next, b.previous, b.next, c.previous) == (None, None, None, None)


async def test_all_branches_end_with_one_end_each() -> None:
    spies = [Spy() for _ in range(5)]
    await run_through(worker_of(ParallelPipeline(*([spy] for spy in spies))))
    assert all(sum(isinstance(frame, EndFrame) for frame in spy.got) == 1 for spy in spies)
    assert all(way is DOWN for spy in spies for way in spy.ways)
