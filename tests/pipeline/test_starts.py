"""P2: how a pipeline starts, and what waits for it."""

import inspect
from typing import Any

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
    never,
    run_through,
    texts,
    worker_of,
)
from workerbus import CLEANUP_SECONDS, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.errors import PipelineStartTimeoutError
from workerbus.pipeline import (
    START_SECONDS,
    START_TIMEOUT_SECONDS,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import advance, nothing_left, settle


async def test_the_start_reaches_the_sink_before_any_other_frame_is_handled() -> None:
    """P2"""
    gate = Gate()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    first, last = Spy(), Spy()
    worker = worker_of(first, StartsWith(wait), last, name="w")
    await worker.queue_frames([TextFrame("early"), Alert("early alert")])
    await worker.queue_frame(TextFrame("early up"), UP)
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await gate.reached.wait()
        await worker.queue_frames([TextFrame("later"), Alert("later alert")])
        await settle()
        assert first.log == ["setup", "StartFrame"]
        assert last.log == ["setup"]
        gate.open()
        await last.until(3)
        await first.until(3)
    assert last.log[:2] == ["setup", "StartFrame"]
    assert [text for text in last.heard_going(DOWN) if "alert" not in text] == ["early", "later"]


async def test_what_processors_push_while_they_start_waits_for_the_start() -> None:
    """P2"""

    async def push_both_ways(processor: StartsWith) -> None:
        await processor.push_frame(TextFrame("down"), DOWN)
        await processor.push_frame(Alert("up"), UP)

    first, last = Spy(), Spy()
    worker = worker_of(first, StartsWith(push_both_ways), last)
    await run_through(worker)
    assert first.log[:2] == ["setup", "StartFrame"]
    assert last.log[:2] == ["setup", "StartFrame"]
    assert last.heard == ["down"]
    assert first.heard == ["up"]


async def test_a_start_frame_that_goes_up_starts_nothing() -> None:
    """P2"""

    async def echo(processor: StartsWith) -> None:
        await processor.push_frame(StartFrame(), UP)

    gate, spy = Gate(), Spy()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    worker = worker_of(StartsWith(echo), StartsWith(wait), spy, name="w")
    await worker.queue_frame(TextFrame("a"))
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await gate.reached.wait()
        await settle()
        assert spy.heard == []
        assert worker.started_at is None
        gate.open()
        await spy.until(1)


async def test_what_leaves_the_pipeline_while_it_starts_waits_for_the_start() -> None:
    """P2: in its order."""

    async def push_on(processor: StartsWith) -> None:
        await processor.push_frame(TextFrame("x"))
        await processor.push_frame(Alert("!"))

    worker = worker_of(StartsWith(push_on))
    seen: list[str] = []
    worker.add_event_handler("on_frame_reached_downstream", lambda worker, frame: seen.append(type(frame).__name__))
    await run_through(worker)
    assert seen == ["StartFrame", "TextFrame", "Alert", "EndFrame"]


async def test_processors_are_set_up_in_their_order_before_the_start() -> None:
    """P2"""
    log: list[str] = []

    class Logs(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            assert setup.worker.name == "w"
            await super().setup(setup)
            log.append(self.name)

    spies = [Logs(name=name) for name in "abc"]
    async with flowing(*spies):
        assert log == ["a", "b", "c"]
        assert all(spy.log[:2] == ["setup", "StartFrame"] for spy in spies)


async def test_a_worker_is_not_ready_before_its_pipeline_is() -> None:
    """P2, W2"""
    gate = Gate()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    worker = worker_of(StartsWith(wait), name="w")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await gate.reached.wait()
        await settle()
        assert runner.registry.get("w") is None
        gate.open()
        await runner.registry.wait_for("w")
        assert worker.active


# --- starts that fail


async def test_a_set_up_that_fails_ends_the_worker_and_cleans_up_what_was_set_up() -> None:
    """P2, W7, R4"""

    class Broken(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            raise ValueError("no device")

    first, broken, last = Spy(), Broken(), Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker_of(first, broken, last))
        with pytest.raises(ValueError, match="no device"):
            await runner.run()
    assert (first.log, broken.log, last.log) == (["setup", "cleanup"], [], [])


async def test_a_processor_that_fails_to_start_ends_the_worker() -> None:
    """P2, W7, R4, L6: and its error arrives as itself"""

    async def fail(processor: StartsWith) -> None:
        raise ValueError("no device")

    first = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker_of(first, StartsWith(fail)))
        with pytest.raises(ValueError, match="no device"):
            await runner.run()
    assert first.log == ["setup", "StartFrame", "cleanup"]


class Start(FrameProcessor):
    """Fails with the start, before or after it has passed it on."""

    fails_after = True
    fails_before = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame) and self.fails_before:
            raise ValueError("before")
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self.fails_after:
            await self.push_frame(TextFrame("started"))
            raise ValueError("after")


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_processor_that_fails_when_it_has_passed_the_start_on_keeps_nothing_from_starting(
    parallel: bool,
) -> None:
    """P1: it is an error like others."""
    errors: list[ErrorFrame] = []
    sink = Spy()
    worker = worker_of(ParallelPipeline([Start()]) if parallel else Start(), sink)
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame))
    await run_through(worker, *texts("a"))
    assert sink.heard == ["started", "a"]
    assert [frame.error for frame in errors] == ["ValueError: after"]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_processor_that_is_used_again_may_still_fail_to_start(parallel: bool) -> None:
    """P2: what its first pipeline has seen does not count."""
    start, following = Start(), Spy()
    start.fails_after = False
    part = ParallelPipeline([following], [Spy()]) if parallel else following
    first = worker_of(start, part)
    await run_through(first, StopFrame())
    start.fails_before = True
    with pytest.raises(ValueError, match="before"):
        await run_through(worker_of(start, part))


async def test_a_processor_that_is_used_again_and_not_set_up_is_not_cleaned_up() -> None:
    """L4, P2: nor are those behind it; of what their first pipeline has set up, nothing counts."""

    class Setting(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            if "setup" in self.log and self.name == "second":
                raise OSError("no device")
            await super().setup(setup)

    spies = [Setting(name=name) for name in ("first", "second", "third")]
    await run_through(worker_of(*spies), StopFrame())
    with pytest.raises(OSError, match="no device"):
        await run_through(worker_of(*spies))
    once = ["setup", "StartFrame", "StopFrame"]
    assert [spy.log for spy in spies] == [[*once, "setup", "cleanup"], once, once]


async def test_of_two_branches_that_cannot_start_the_first_is_told() -> None:
    """L6: which one a schedule lets fail first, it is that one's error."""

    class Start(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            errors.append(ValueError(self.name))
            raise errors[-1]

    errors: list[Exception] = []
    for _ in range(10):
        errors.clear()
        with pytest.raises(ValueError, match="Start") as caught:
            await run_through(worker_of(ParallelPipeline(*([Start()] for _ in range(4)))))
        assert caught.value is errors[0]


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_a_fatal_error_during_the_start_cancels_the_worker(way: FrameDirection) -> None:
    """P2: whichever way it takes."""

    async def give_up(processor: StartsWith) -> None:
        await processor.push_frame(ErrorFrame("no connection", fatal=True), way)
        await anyio.sleep_forever()

    errors: list[str] = []
    worker = worker_of(Spy(), StartsWith(give_up), Spy())
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame.error))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await runner.run()
    assert errors == ["no connection"]
    assert worker.started_at is None


async def test_an_activation_that_fails_ends_the_worker() -> None:
    """W2"""

    class Broken(PipelineWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise ValueError("no licence")

    spy = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(Broken(Pipeline([spy])))
        with pytest.raises(ValueError, match="no licence"):
            await runner.run()
    assert spy.log == ["setup", "StartFrame", "CancelFrame", "cleanup"]


# --- starts that take their time


async def test_a_processor_that_keeps_the_start_back_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """P2"""
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(Spy(), StartsWith(never, "sloth"), Spy(), name="w"))
        await advance(START_SECONDS - 1)
        assert "sloth" not in caplog.text
        await advance(2)
        assert "'w' has not started in 5 seconds: it waits for 'sloth';" in caplog.text
        await runner.cancel()


async def test_a_set_up_that_takes_its_time_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """P2"""

    class Sloth(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await anyio.sleep(START_SECONDS + 1)

    async with flowing(Spy(), Sloth(name="sloth"), Spy()):
        assert "it waits for 'sloth';" in caplog.text


async def test_a_start_that_comes_through_too_late_starts_nothing() -> None:
    """P2"""

    async def refuse_to_be_cancelled(processor: StartsWith) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    starter, told = StartsWith(refuse_to_be_cancelled), []
    worker = worker_of(starter, name="w")
    for event in ("on_pipeline_started", "on_pipeline_finished"):
        worker.add_event_handler(event, lambda worker, frame: told.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await starter.begun.wait()
        await runner.cancel()
    assert told == []
    assert starter.log == ["StartFrame", "cleanup"]


# --- ends before the start


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_an_end_before_the_start_ends(how: str) -> None:
    """P2"""
    spy = Spy()
    worker = worker_of(spy)
    await worker.queue_frames(texts("a", "b"))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await getattr(runner, how)()
        await runner.run()
    assert spy.log in ([], ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"])


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_an_end_during_the_start_ends_in_bounded_time(how: str) -> None:
    """P2"""
    first, slow_one, last = Spy(), StartsWith(never), Spy()
    worker = worker_of(first, slow_one, last)
    await worker.queue_frames(texts("a", "b"))
    runner = WorkerRunner(handle_sigint=False, grace_period=3)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await slow_one.begun.wait()
            before = anyio.current_time()
            await getattr(runner, how)()
        assert anyio.current_time() - before <= (3 if how == "end" else 0) + CLEANUP_SECONDS
    assert first.log == ["setup", "StartFrame", "cleanup"]  # nothing but the start was handled, not even a cancel
    assert slow_one.log == ["StartFrame", "cleanup"]
    assert last.log == ["setup", "cleanup"]


async def test_an_end_during_a_start_that_comes_in_time_drains() -> None:
    """P2"""

    async def take_a_second(processor: StartsWith) -> None:
        await anyio.sleep(1)

    starter, last = StartsWith(take_a_second), Spy()
    worker = worker_of(starter, last)
    await worker.queue_frames(texts("a", "b"))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await starter.begun.wait()
        await runner.end()
    assert last.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_a_cancel_during_the_set_up_ends() -> None:
    """P2"""
    begun = anyio.Event()

    class Hangs(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            begun.set()
            await anyio.sleep_forever()

    first = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker_of(first, Hangs()))
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await begun.wait()
            await runner.cancel()
    assert first.log == ["setup", "cleanup"]


class Late(FrameProcessor):
    """Pushes the end on twelve seconds later."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            await anyio.sleep(12)
        await self.push_frame(frame, direction)


async def test_an_end_that_comes_while_the_worker_starts_is_watched_once(caplog: pytest.LogCaptureFixture) -> None:
    """P2: between the start of the pipeline and that of its worker; the log says once for whom it waits."""
    worker = worker_of(Late("late"), name="w")

    async def end(_: object) -> None:
        await worker.stop_when_done()

    runner = WorkerRunner(handle_sigint=False)
    await runner.registry.watch("w", end)
    async with runner:
        await runner.add_workers(worker)
        await worker.wait()
    assert caplog.messages == ["the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'late'"]


async def test_a_cancel_frame_before_the_run_is_the_end_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """P2: which is nothing to warn of."""
    spy = Spy()
    worker = worker_of(spy)
    await worker.queue_frame(CancelFrame())
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await runner.run()
    assert spy.log == []
    assert caplog.messages == []
    with pytest.raises(NotRunningError):
        await worker.queue_frame(TextFrame("x"))


async def test_a_cancel_frame_in_the_set_up_is_the_end_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """P2: which is nothing to warn of."""

    class Cancels(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await super().setup(setup)
            await setup.worker.queue_frame(CancelFrame())

    spy = Cancels()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker_of(spy))
        await runner.run()
    assert spy.log[0] == "setup"
    assert caplog.messages == []


async def test_stop_when_done_before_the_run_waits_for_what_was_queued() -> None:
    """P2"""
    spy = Spy()
    worker = worker_of(spy)
    await worker.queue_frame(TextFrame("x"))
    await worker.stop_when_done()
    with pytest.raises(NotRunningError, match="is ending"):
        await worker.queue_frame(TextFrame("y"))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    assert spy.heard == ["x"]


# --- starts that hang


class SetsUp(FrameProcessor):
    """Takes so many seconds to set up."""

    def __init__(self, seconds: float, name: str) -> None:
        super().__init__(name)
        self.seconds = seconds

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await anyio.sleep(self.seconds)


async def failing_start(worker: PipelineWorker) -> PipelineStartTimeoutError:
    """Run a worker whose start hangs; return what the runner raises, and see that nothing is left."""
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        with pytest.raises(PipelineStartTimeoutError) as raised:
            await runner.run()
    assert isinstance(raised.value, TimeoutError)
    return raised.value


def test_a_start_is_bounded_where_nobody_says() -> None:
    """P6"""
    parameters = inspect.signature(PipelineWorker).parameters
    for name in ("setup_timeout_secs", "start_timeout_secs"):
        assert parameters[name].default == START_TIMEOUT_SECONDS == 20


async def test_a_setup_that_hangs_is_bounded_and_named() -> None:
    """P6, R4"""
    first, log = Spy(), []
    worker = worker_of(first, SetsUp(100, "hangs"), SetsUp(100, "behind"), name="w", setup_timeout_secs=3)
    worker.add_event_handler("on_pipeline_started", lambda *_: log.append("started"))
    begin = anyio.current_time()
    error = await failing_start(worker)
    assert anyio.current_time() == begin + 3
    assert (error.worker_name, error.processors, error.seconds) == ("w", ("hangs",), 3)
    assert "'w' has not started in 3 seconds: setup() of processor 'hangs' has not returned" in str(error)
    assert first.log == ["setup", "cleanup"]
    assert log == []


async def test_the_set_up_of_all_processors_is_bounded_together() -> None:
    """P6: the one that is being set up when the time is over is named."""
    names = ("one", "two", "three")
    worker = worker_of(*(SetsUp(2, name) for name in names), name="w", setup_timeout_secs=3)
    begin = anyio.current_time()
    error = await failing_start(worker)
    assert (anyio.current_time() - begin, error.processors) == (3, ("two",))


async def test_a_start_frame_that_does_not_come_through_is_bounded_and_named() -> None:
    """P6, R4"""
    last = Spy()
    fork = ParallelPipeline([Spy()], [StartsWith(never, "hangs")])
    worker = worker_of(Spy(), fork, last, name="w", start_timeout_secs=3)
    begin = anyio.current_time()
    error = await failing_start(worker)
    assert anyio.current_time() == begin + 3
    assert (error.worker_name, error.processors, error.seconds) == ("w", ("hangs",), 3)
    assert "processor 'hangs' has not pushed the StartFrame on" in str(error)
    assert last.log == ["setup", "cleanup"]


async def test_all_who_keep_a_start_back_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """P2, P6: each in a branch of its own."""
    fork = ParallelPipeline([StartsWith(never, "one")], [Spy()], [Spy(), StartsWith(never, "two")])
    error = await failing_start(worker_of(fork, Spy(), name="w", start_timeout_secs=START_SECONDS + 1))
    assert error.processors == ("one", "two")
    assert "'w' has not started in 5 seconds: it waits for 'one', 'two';" in caplog.text


async def test_each_bound_has_its_own_time() -> None:
    """P6: what the set-up has taken does not count for the start."""

    async def wait(processor: StartsWith) -> None:
        await anyio.sleep(4)

    spy = Spy()
    worker = worker_of(SetsUp(4, "sets up"), StartsWith(wait), spy, setup_timeout_secs=5, start_timeout_secs=5)
    await run_through(worker, TextFrame("x"))
    assert spy.heard == ["x"]


async def test_a_start_without_bounds_takes_as_long_as_it_takes() -> None:
    """P6"""

    async def wait(processor: StartsWith) -> None:
        await anyio.sleep(7)

    spy = Spy()
    worker = worker_of(SetsUp(8, "sets up"), StartsWith(wait), spy, setup_timeout_secs=None, start_timeout_secs=None)
    await run_through(worker, TextFrame("x"))
    assert spy.heard == ["x"]


async def test_what_waits_for_a_start_that_hangs_is_let_go() -> None:
    """P2, P6: who has queued frames, and who waits for the worker's end."""
    spy = Spy(max_buffer_size=1)
    worker = worker_of(spy, StartsWith(never), name="w", start_timeout_secs=3)
    async with anyio.create_task_group() as group:
        for word in "abc":
            group.start_soon(worker.queue_frame, TextFrame(word))
        group.start_soon(worker.wait)
        await failing_start(worker)
    assert spy.heard == []
