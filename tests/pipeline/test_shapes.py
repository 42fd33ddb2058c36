"""Pipelines in pipelines, and who may be in which."""

from collections.abc import Callable

import anyio
import pytest

from support.pipelines import UP, Spy, flowing, run_through, texts, worker_of
from workerbus import NotInitializedError, PipelineWorker, WorkerRunner
from workerbus.errors import ProcessorInUseError
from workerbus.pipeline import Frame, FrameDirection, FrameProcessor, ParallelPipeline, Pipeline, StopFrame, TextFrame


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
    with pytest.raises(ProcessorInUseError, match="'spy' stands in a pipeline already"):
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


def test_pipelines_that_are_equal_are_not_the_same() -> None:
    """N6, P1"""

    class Equal(Pipeline):
        __hash__ = None  # type: ignore[assignment]  # as of a dataclass

        def __eq__(self, other: object) -> bool:
            return True

    assert len(Pipeline([Equal([Spy()]), Equal([Spy()])]).processors) == 2


@pytest.mark.parametrize("shape", [Pipeline, ParallelPipeline])
def test_what_is_refused_together_with_something_in_use_stays_free(shape: Callable[..., object]) -> None:
    """P1: all parts or none belong to a pipeline."""
    used, first, last = Pipeline([Spy()]), Pipeline([Spy()]), Pipeline([Spy()])
    Pipeline([used])
    parts = [first, used, last]
    with pytest.raises(ProcessorInUseError):
        shape(parts) if shape is Pipeline else shape(*parts)
    with pytest.raises(TypeError):
        Pipeline([first, last, "no processor"])  # type: ignore[list-item]  # the mistake
    assert Pipeline([first, last])


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
    with pytest.raises(NotInitializedError, match=r"Careless .* has to call super\(\).__init__\(\)"):
        Pipeline([Careless()])
    with pytest.raises(ValueError, match="at least one branch"):
        ParallelPipeline()


def test_a_pipeline_shows_what_is_in_it() -> None:
    pipeline = Pipeline([FrameProcessor("a"), ParallelPipeline([FrameProcessor("b")], [FrameProcessor("c")])])
    b, c = "Pipeline([<FrameProcessor 'b'>])", "Pipeline([<FrameProcessor 'c'>])"
    assert repr(pipeline) == f"Pipeline([<FrameProcessor 'a'>, ParallelPipeline({b}, {c})])"


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


async def test_a_branch_is_free_for_another_parallel_pipeline_after_a_stop() -> None:
    """P2: as single processors are."""
    spy = Spy()
    branch = Pipeline([spy])
    await run_through(worker_of(ParallelPipeline(branch)), *texts("a"), StopFrame())
    await run_through(worker_of(ParallelPipeline(branch, [Spy()])), *texts("b"))
    assert spy.heard == ["a", "b"]


async def test_a_processor_is_free_after_a_stop_when_its_tasks_have_ended() -> None:
    """P2: what unwinds in the first pipeline does not meet the second."""

    class Lingering(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                self.create_task(self.linger)

        async def linger(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with pytest.raises(ProcessorInUseError):
                    Pipeline([self])
                self.log.append("unwound")

    spy = Lingering()
    await run_through(worker_of(spy), TextFrame("a"), StopFrame())
    assert spy.log[-1] == "unwound"
    Pipeline([spy])
