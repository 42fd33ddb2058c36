"""P2, L4: how a pipeline ends at once."""

from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from support.pipelines import DOWN, UP, Alert, Gate, ScriptedProcessor, Spy, flowing, for_texts, hang, texts, worker_of
from support.runners import cut_short
from support.workers import running
from workerbus import CLEANUP_SECONDS, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessed,
    FrameProcessor,
    FrameProcessorSetup,
    Observer,
    Pipeline,
    StartFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


async def test_a_cancel_does_not_drain() -> None:
    """P2"""
    gate = Gate()
    first, last = Spy(for_texts(gate)), Spy()
    worker = worker_of(first, last, name="w")
    finished: list[Any] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with cut_short("enough"), nothing_left(runner), runner:
        await runner.add_workers(worker)
        await worker.queue_frames(texts(*range(10)))
        await gate.reached.wait()
        await runner.cancel("enough")
        await anyio.sleep_forever()
    assert first.log == ["setup", "StartFrame", "TextFrame", "CancelFrame", "cleanup"]
    assert last.log == ["setup", "StartFrame", "CancelFrame", "cleanup"]
    assert gate.left == 1
    [frame] = finished
    assert isinstance(frame, CancelFrame)
    assert frame.reason == "enough"


async def test_a_cancel_drops_system_frames_that_wait_and_cancels_those_that_are_handled() -> None:
    """P2"""
    first, last = Spy(hang), Spy()
    async with flowing(first, last) as worker:
        await worker.queue_frames([Alert("!"), Alert("?")])
        await first.until(1, Alert)
        before = anyio.current_time()
        await worker.stop()
        assert anyio.current_time() == before
    assert first.log == ["setup", "StartFrame", "Alert", "CancelFrame", "cleanup"]
    assert last.log == ["setup", "StartFrame", "CancelFrame", "cleanup"]


async def test_what_is_pushed_while_the_pipeline_is_cancelled_goes_nowhere() -> None:
    """P2"""

    class Talks(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, CancelFrame):
                for last_words in (Alert("!"), TextFrame("x")):
                    await self.push_frame(last_words, DOWN)
                    await self.push_frame(last_words, UP)
            await super().process_frame(frame, direction)

    out: list[str] = []
    first, last = Talks(), Talks()
    async with flowing(first, last) as worker:
        for event in ("on_frame_reached_downstream", "on_frame_reached_upstream"):
            worker.add_event_handler(event, lambda worker, frame: out.append(type(frame).__name__))
        await worker.stop()
    assert (first.heard, last.heard) == ([], [])
    assert out == ["CancelFrame"]


async def test_a_cancelled_run_winds_the_pipeline_down() -> None:
    """L3"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    worker = worker_of(spy, name="w")
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run)
                await gate.reached.wait()
                scope.cancel()
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_a_worker_that_is_stopped_cancels_its_pipeline() -> None:
    """W6"""
    spy = Spy(for_texts(hang))
    async with flowing(spy) as worker:
        await worker.queue_frame(TextFrame("x"))
        await spy.until()
        await worker.stop()
        assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_a_handler_may_stop_its_own_worker() -> None:
    """W6"""

    async def stop(spy: Spy, frame: Frame) -> None:
        await spy.worker.stop()
        spy.log.append("returned")

    spy = Spy(for_texts(stop))
    async with flowing(spy) as worker:
        await worker.queue_frame(TextFrame("x"))
        await worker.wait()
    assert spy.log[-3:] == ["returned", "CancelFrame", "cleanup"]


async def test_a_cancel_waits_for_no_observer() -> None:
    """P2: what it has not seen then, it does not see."""

    class Slow(Observer):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            await sleep(0.5)

    async with flowing(Spy(), observers=[Slow()]) as worker:
        begin = current_time()
        await worker.queue_frames(texts("a", "b"))
        await settle()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
        assert current_time() == begin


async def test_a_hook_of_the_pipeline_has_unwound_when_the_worker_cleans_up() -> None:
    """L4, W6: it is cancelled with the pipeline."""
    log: list[str] = []

    class Tidy(PipelineWorker):
        async def on_pipeline_started(self, frame: StartFrame) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log.append("hook")

        async def cleanup(self) -> None:
            log.append("cleanup")

    class Last(Spy):
        async def cleanup(self) -> None:
            await sleep(0.1)

    worker = Tidy(Pipeline([Last()]), name="w")
    async with running(worker):
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert log == ["hook", "cleanup"]


# --- frames that cancel


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_a_cancel_frame_from_a_processor_cancels_the_worker(way: FrameDirection) -> None:
    """P2"""

    async def cancel(spy: Spy, frame: Frame) -> None:
        await spy.push_frame(CancelFrame("no more"), way)

    first, middle, last = Spy(), Spy(for_texts(cancel)), Spy()
    worker = worker_of(first, middle, last)
    finished: list[Any] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await worker.queue_frames(texts(*range(10)))
        await runner.run()
    assert [(type(frame), frame.reason) for frame in finished] == [(CancelFrame, "no more")]
    assert all(spy.log[-1] == "cleanup" for spy in (first, middle, last))


async def test_a_cancel_frame_that_is_queued_cancels_the_worker() -> None:
    """P2"""
    spy = Spy(for_texts(hang))
    worker = worker_of(spy, name="w")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await spy.until()
        await worker.stop_when_done()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert spy.log == ["setup", "StartFrame", "TextFrame", "CancelFrame", "cleanup"]


async def test_a_cancel_that_was_pushed_upstream_is_waited_for_as_it_comes_down() -> None:
    """P2: it has to get through, and has not because it has left at the other end."""

    async def take(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(CancelFrame(), UP)
        elif isinstance(frame, CancelFrame) and direction is DOWN:
            await sleep(0.1)
        return False

    sink = Spy()
    async with flowing(ScriptedProcessor(take), sink) as worker:
        await worker.queue_frame(Alert("cancel"))
        await worker.wait()
    assert sink.log[-2:] == ["CancelFrame", "cleanup"]


async def test_a_cancel_that_does_not_get_through_leaves_time_to_clean_up() -> None:
    """P2, L4: it has half of the wind-down's."""
    cleaned: list[float] = []

    class Keeper(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if not isinstance(frame, CancelFrame):
                await self.push_frame(frame, direction)

        async def cleanup(self) -> None:
            await sleep(0.5)
            cleaned.append(current_time())

    async with flowing(Keeper()) as worker:
        begin = current_time()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert cleaned == [begin + CLEANUP_SECONDS / 2 + 0.5]


# --- processors that are stuck


class Stubborn(Spy):
    """Refuses cancellation for some seconds, wherever it is told to."""

    def __init__(self, where: type[Frame], seconds: float) -> None:
        super().__init__(name="stubborn")
        self.where = where
        self.seconds = seconds
        self.stuck = anyio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, self.where):
            self.stuck.set()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.seconds)
        await super().process_frame(frame, direction)


STUCK = pytest.mark.parametrize(
    "make",
    [
        lambda: Spy(hang),
        lambda: Spy(for_texts(hang)),
        lambda: Stubborn(TextFrame, 1.5),
        lambda: Stubborn(Alert, 1.5),
        lambda: Stubborn(CancelFrame, 1.5),
        lambda: Stubborn(EndFrame, 1.5),
    ],
    ids=["hangs", "hangs with data", "stubborn with data", "stubborn with system", "at the cancel", "at the end"],
)


@STUCK
@pytest.mark.parametrize("end_first", [True, False])
async def test_a_cancel_ends_in_bounded_time_with_a_processor_stuck(make: Any, end_first: bool) -> None:
    """P2, L4"""
    stuck, last = make(), Spy()
    worker = worker_of(Spy(), stuck, last, name="w")
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await last.until(1, StartFrame)
            await worker.queue_frames([Alert("!"), *texts(*range(5))])
            await anyio.sleep(0.1)
            if end_first:
                await runner.end()
                await anyio.sleep(0.1)
            before = anyio.current_time()
            await runner.cancel()
        assert anyio.current_time() - before <= CLEANUP_SECONDS
    assert last.log[-1] == stuck.log[-1] == "cleanup"


async def test_user_code_that_refuses_cancellation_is_waited_for_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4"""
    stubborn = Stubborn(TextFrame, 6)
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        worker = worker_of(stubborn, name="w")
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await stubborn.stuck.wait()
        await runner.cancel()
    assert "worker 'w' waits for processors that refuse cancellation: 'stubborn'" in caplog.text
    assert "cleanup" in stubborn.log


async def test_all_processors_that_refuse_cancellation_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4, R8: and all are cleaned up."""

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(6)

    class Busy(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, StartFrame):
                self.create_task(refuse)
            await super().process_frame(frame, direction)

    runner = WorkerRunner(handle_sigint=False)
    spies = [Busy(name="one"), Spy(), Busy(name="two"), Spy()]
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(*spies, name="w"), wait=True)
        await runner.cancel()
    assert "worker 'w' waits for processors that refuse cancellation: 'one', 'two'" in caplog.text
    assert [spy.log[-1] for spy in spies] == ["cleanup"] * 4
    assert "has not ended in time" not in caplog.text


@pytest.mark.parametrize(("given", "seconds"), [(None, 1.0), (0.2, 0.2), (30, 1.0)])
async def test_a_cancel_that_a_processor_keeps_has_as_much_time_as_was_given(
    given: float | None, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """P2, L4: and at most half of the wind-down's."""

    class Keeping(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if not isinstance(frame, CancelFrame):
                await self.push_frame(frame, direction)

    options: dict[str, Any] = {} if given is None else {"cancel_timeout_secs": given}
    finished = list[Frame]()
    async with flowing(Keeping(), **options) as worker:
        worker.add_event_handler("on_pipeline_finished", lambda _, frame: finished.append(frame))
        begin = current_time()
        await worker.queue_frame(CancelFrame("enough"))
        await worker.wait()
        assert current_time() == begin + seconds
    assert [type(frame) for frame in finished] == [CancelFrame]
    assert "has not got through" in caplog.text


@pytest.mark.parametrize("seconds", [0, -1])
def test_the_time_for_a_cancel_is_more_than_none(seconds: float) -> None:
    """N8"""
    with pytest.raises(ValueError, match="cancel_timeout_secs is a number of seconds, more than 0"):
        worker_of(Spy(), cancel_timeout_secs=seconds)


async def test_a_fatal_error_cuts_short_what_an_end_that_has_come_through_still_waits_for() -> None:
    """P2, L4: a hook that takes its time, say; the end stays an end."""
    spy, finished, ends = Spy(), anyio.Event(), list[str]()
    worker = worker_of(spy, name="w")

    @worker.event_handler("on_pipeline_finished")
    async def take_time(_: PipelineWorker, frame: Frame) -> None:
        ends.append(type(frame).__name__)
        finished.set()
        await anyio.sleep(100)

    async with running(worker, grace_period=1000) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await worker.queue_frame(EndFrame())
        await finished.wait()
        begun = current_time()
        await spy.push_error("broken", fatal=True)
        await worker.wait()
        assert current_time() - begun <= CLEANUP_SECONDS
    assert ends == ["EndFrame"]


class Lingers(Spy):
    """Has a task that takes its time to unwind, and takes its time to clean up."""

    def __init__(self, unwinds: float, cleans: float) -> None:
        super().__init__()
        self.unwinds, self.cleans = unwinds, cleans

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self.create_task(self.linger)

    async def linger(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await sleep(self.unwinds)

    async def cleanup(self) -> None:
        await sleep(self.cleans)
        await super().cleanup()


@pytest.mark.parametrize("end", [EndFrame, CancelFrame])
@pytest.mark.parametrize(
    ("unwinds", "cleans", "seconds"),
    [(0.5, 0, 0.5), (0.5, 0.25, 1.25), (0, 100, CLEANUP_SECONDS), (0.5, 1, CLEANUP_SECONDS)],
)
async def test_tasks_of_processors_unwind_together_and_one_deadline_is_for_all_of_a_wind_down(
    unwinds: float, cleans: float, seconds: float, end: type[EndFrame | CancelFrame]
) -> None:
    """P2, L4: the processors are cleaned up one after the other."""
    async with flowing(*(Lingers(unwinds, cleans) for _ in range(3))) as worker:
        await settle()
        begin = current_time()
        await worker.queue_frame(end())
        await worker.wait()
        assert current_time() - begin == pytest.approx(seconds)
