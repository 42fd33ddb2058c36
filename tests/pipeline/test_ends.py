"""P2: how a pipeline ends when it has handled what it was given."""

import logging
from typing import Any

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
    flowing,
    for_texts,
    hang,
    run_through,
    said_done,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import CLEANUP_SECONDS, BusJobRequestMessage, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    Pipeline,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


async def test_an_end_drains() -> None:
    """P2"""
    last = Spy()
    await run_through(worker_of(Spy(slow(0.1)), Spy(slow(0.2)), last), *texts(*range(20)))
    assert last.heard == [str(n) for n in range(20)]
    assert last.log[-2:] == ["EndFrame", "cleanup"]


async def test_an_end_by_the_runner_drains_within_the_grace_period() -> None:
    """P2, R2"""
    last = Spy()
    worker = worker_of(Spy(slow(0.2)), last, name="w")
    finished: list[Frame] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(worker)
            await worker.queue_frames(texts(*range(10)))
            await last.until(1)
            await runner.end("enough")
        assert len(last.heard) == 10
    [end] = finished
    assert isinstance(end, EndFrame)
    assert end.reason == "enough"


@pytest.mark.parametrize("stop", [EndFrame, StopFrame])
async def test_an_end_that_is_queued_ends_the_worker(stop: type[EndFrame | StopFrame]) -> None:
    """P2"""
    last = Spy()
    worker = worker_of(Spy(), last)
    finished: list[Frame] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await worker.queue_frames([TextFrame("x"), stop()])
        await runner.run()
    assert last.heard == ["x"]
    assert [type(frame) for frame in finished] == [stop]


async def test_a_processor_asks_for_the_end_upstream() -> None:
    """P2"""

    async def end(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "bye":
            await spy.push_frame(EndFrame("said bye"), UP)

    first, last = Spy(), Spy(end)
    runner = WorkerRunner(handle_sigint=False)
    worker = worker_of(first, last)
    await runner.add_workers(worker)
    await worker.queue_frames(texts("a", "bye", "c"))
    await runner.run()
    assert last.heard == ["a", "bye", "c"]
    assert [frame.reason for frame in last.got if isinstance(frame, EndFrame)] == ["said bye"]
    assert first.log[-2:] == ["EndFrame", "cleanup"]


async def test_processors_see_one_end_however_often_it_is_asked_for() -> None:
    """P2"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    worker = worker_of(spy, name="w")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await gate.reached.wait()
        await worker.stop_when_done()
        await worker.stop_when_done()
        await runner.stop_when_done()
        await worker.queue_frame(EndFrame())
        await runner.end()
        gate.open()
    assert spy.log == ["setup", "StartFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_no_frame_is_queued_behind_an_end() -> None:
    """P2"""
    spy = Spy()
    async with flowing(spy) as worker:
        await worker.stop_when_done()
        with pytest.raises(NotRunningError, match=r"'w' is ending: TextFrame#.* would never be handled"):
            await worker.queue_frame(TextFrame("x"))
        await worker.wait()
        with pytest.raises(RuntimeError, match="its pipeline is over"):
            await worker.queue_frame(Alert("x"))
        await worker.stop_when_done()


@pytest.mark.parametrize("end", [EndFrame, StopFrame])
async def test_what_does_not_meet_an_end_comes_in_behind_it_before_the_start_too(
    end: type[EndFrame | StopFrame],
) -> None:
    """P2: system frames, which overtake it, and frames that go the other way."""
    first, last = Spy(), Spy()
    worker = worker_of(first, last, name="w")
    await worker.queue_frames([TextFrame("a"), end(), Alert("!"), end()])
    await worker.queue_frame(TextFrame("up"), UP)
    await run_through(worker, Alert("!!"))
    assert sorted(last.heard) == sorted(first.heard) == ["!", "!!", "a", "up"]


async def test_stop_when_done_of_the_runner_waits_for_what_was_queued() -> None:
    """P2, R1"""
    spies = [Spy(slow(1)), Spy(slow(2))]
    workers = [worker_of(spy) for spy in spies]
    for worker in workers:
        await worker.queue_frames(texts("a", "b"))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(*workers)
    await runner.stop_when_done()
    await runner.run()
    assert [spy.heard for spy in spies] == [["a", "b"], ["a", "b"]]


async def test_many_pipelines_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """L1"""
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        for n in range(20):
            worker = worker_of(Spy(), Spy(), name=f"w{n}")
            await runner.add_workers(worker)
            await worker.queue_frames(texts("a", "b"))
            if n % 2:
                await worker.stop_when_done()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- a stop, after which processors may be used again


async def test_a_stop_leaves_processors_as_they_are_for_another_pipeline() -> None:
    """P2"""
    spy = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        worker = worker_of(spy)
        await runner.add_workers(worker)
        await worker.queue_frames([TextFrame("a"), StopFrame()])
        await runner.run()
    assert spy.log == ["setup", "StartFrame", "TextFrame", "StopFrame"]
    await run_through(worker_of(spy), TextFrame("b"))
    assert spy.log[4:] == ["setup", "StartFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_what_a_processor_has_kept_in_one_pipeline_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """P2: after a `StopFrame` it is as new."""

    async def end_above(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, StopFrame):
            await processor.push_frame(frame, direction)
            await processor.push_frame(EndFrame(), UP)
        return isinstance(frame, StopFrame)

    async def keep(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        return isinstance(frame, EndFrame) and direction is UP

    first, kept, sink = Spy(slow(3)), ScriptedProcessor(keep, "keeper"), Spy()
    await run_through(worker_of(kept, ScriptedProcessor(end_above)), StopFrame())
    worker = worker_of(first, kept, sink, name="again")
    async with running(worker, grace_period=1.0):
        await worker.queue_frame(TextFrame("a"))
        await worker.stop_when_done()
        await worker.wait()
    assert sink.heard == ["a"]
    assert "has not pushed on" not in caplog.text


async def test_an_end_is_not_lost_while_the_processor_that_keeps_it_handles_a_system_frame(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P2: it may be about to push it on, in that very handler."""

    class Keeps(FrameProcessor):
        kept: Frame | None = None

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, EndFrame):
                self.kept = frame
                return
            await self.push_frame(frame, direction)
            if isinstance(frame, Alert):
                await anyio.sleep(10)
                assert self.kept is not None
                await self.push_frame(self.kept)

    sink = Spy()
    worker = worker_of(Keeps("keeps"), sink)
    async with running(worker, grace_period=1.0):
        await worker.queue_frames([Alert("!"), TextFrame("a"), EndFrame()])
        await worker.wait()
    assert [type(frame) for frame in sink.got][-2:] == [TextFrame, EndFrame]
    assert "has not pushed on" not in caplog.text


async def test_behind_an_end_that_a_processor_has_made_nothing_is_queued() -> None:
    """P2: it has come out at the sink, and frames that go up are waited for."""
    gate = Gate()

    async def end_it(spy: Spy, frame: Frame) -> None:
        await spy.push_frame(TextFrame("answer"), UP)
        await spy.push_frame(EndFrame())

    worker = worker_of(Spy(lambda spy, frame: gate(spy, frame) if frame.text == "answer" else settle()), Spy(end_it))  # type: ignore[attr-defined]  # a text
    async with running(worker):
        await worker.queue_frame(TextFrame("a"))
        await gate.reached.wait()
        await settle()
        with pytest.raises(NotRunningError, match="is ending: TextFrame"):
            await worker.queue_frame(TextFrame("b"))
        gate.open()
        await worker.wait()


# --- what an end waits for


async def test_an_end_that_goes_up_through_processors_takes_as_long_as_it_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P2: none of them has kept it."""

    async def take_time(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, EndFrame) and direction is DOWN:
            await sleep(12)
        return False

    async def ask(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, TextFrame):
            await processor.push_frame(EndFrame(), UP)
        return False

    last = Spy()
    worker = worker_of(ScriptedProcessor(take_time, "slow"), Spy(), Spy(), ScriptedProcessor(ask), last, name="w")
    async with running(worker):
        await worker.queue_frame(TextFrame("a"))
        await worker.wait()
    assert [type(frame) for frame in last.got][-2:] == [TextFrame, EndFrame]
    assert caplog.messages == ["the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'slow'"]


async def test_an_end_waits_for_what_is_on_its_way_upstream() -> None:
    """P2"""
    first, last = Spy(), Spy(slow(0.1))
    worker = worker_of(first, Spy(slow(0.1)), last)
    await worker.queue_frames(texts(*range(10)), UP)
    await run_through(worker)
    assert first.heard_going(UP) == [str(n) for n in range(10)]


@pytest.mark.parametrize("way", [DOWN, UP])
async def test_an_end_waits_for_system_frames_that_are_on_their_way(way: FrameDirection) -> None:
    """P2"""

    async def take_time(spy: Spy, frame: Frame) -> None:
        await anyio.sleep(1)

    spies = [Spy(take_time) for _ in range(3)]
    worker = worker_of(*spies)
    await worker.queue_frame(Alert("!"), way)
    await run_through(worker)
    assert all(spy.heard == ["!"] for spy in spies)
    assert all(len(spy.done) == 3 for spy in spies)  # the start, the alert and the end


async def test_system_frames_that_go_up_when_the_end_has_come_through_are_waited_for() -> None:
    """P2: through all processors that they have yet to pass."""

    async def take(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await sleep(float(frame.text) if processor.name == "last" else 1)
            log.append(f"{processor.name} {frame.text}")
        return False

    log: list[str] = []
    async with flowing(ScriptedProcessor(take, "first"), ScriptedProcessor(take, "last")) as worker:
        await worker.queue_frame(Alert("0.5"), UP)
        await sleep(0.6)
        await worker.stop_when_done()
        await settle()
        await worker.queue_frame(Alert("2"), UP)
        await worker.wait()
    assert log == ["last 0.5", "first 0.5", "last 2", "first 2"]


class Answers(FrameProcessor):
    """Answers the jobs that its frames are about, after a second each."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await anyio.sleep(1)
            await self.worker.send_job_response(frame.metadata["job"], {"text": frame.text})
        await self.push_frame(frame, direction)


class Asked(PipelineWorker):
    """Queues a frame for each job."""

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.queue_frame(TextFrame("done", metadata={"job": message.job_id}))


@pytest.mark.parametrize("by", ["runner", "worker"])
async def test_an_end_drains_the_jobs_that_the_pipeline_answers(by: str) -> None:
    """P2, R2: what was queued before the end is handled, and its answers are answers."""
    worker, answers = Asked(Pipeline([Answers()]), name="asked"), []
    async with running(worker) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await runner.job("asked"))

        for _ in range(3):
            tasks.start_soon(ask)
        await settle()
        await (runner if by == "runner" else worker).end()
    assert answers == [{"text": "done"}] * 3


async def test_a_slow_handler_of_the_finish_is_waited_for() -> None:
    """P2"""
    done: list[float] = []
    worker = worker_of(Spy())

    @worker.event_handler("on_pipeline_finished")
    async def finished(worker: PipelineWorker, frame: Frame) -> None:
        await anyio.sleep(4)
        done.append(anyio.current_time())

    before = anyio.current_time()
    await run_through(worker)
    assert done == [before + 4]


async def test_an_end_is_bounded_where_a_handler_of_the_finish_hangs() -> None:
    """P2, R2"""

    async def hangs(worker: PipelineWorker, frame: Frame) -> None:
        await anyio.sleep_forever()

    runner = WorkerRunner(handle_sigint=False, grace_period=3)
    async with nothing_left(runner):
        async with runner:
            worker = worker_of(Spy(), name="w")
            worker.add_event_handler("on_pipeline_finished", hangs)
            await runner.add_workers(worker)
            await runner.registry.wait_for("w")
            before = anyio.current_time()
        assert anyio.current_time() - before <= 3 + CLEANUP_SECONDS


@pytest.mark.parametrize("make", [lambda: Spy(hang), lambda: Spy(for_texts(hang))])
async def test_an_end_ends_in_bounded_time_with_a_processor_stuck(make: Any) -> None:
    """P2, R2"""
    stuck = make()
    worker = worker_of(Spy(), stuck, Spy(), name="w")
    runner = WorkerRunner(handle_sigint=False, grace_period=3)
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(worker)
            await worker.queue_frames([Alert("!"), TextFrame("x")])
            await stuck.until(1)
            before = anyio.current_time()
            await runner.end()
        assert anyio.current_time() - before <= 3 + CLEANUP_SECONDS
    assert stuck.log[-1] == "cleanup"


# --- processors that keep the end


async def test_a_processor_that_swallows_the_end_is_cancelled_after_the_grace_period() -> None:
    """P2, R2"""

    class Swallows(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if not isinstance(frame, EndFrame | CancelFrame):
                await super().process_frame(frame, direction)

    runner = WorkerRunner(handle_sigint=False, grace_period=3)
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(worker_of(Swallows(), name="w"))
            await runner.registry.wait_for("w")
            before = anyio.current_time()
        assert anyio.current_time() - before <= 3 + CLEANUP_SECONDS


class Keeps(FrameProcessor):
    """Does not push the end on; or does, from a task of its own, a while later."""

    def __init__(self, seconds: float | None = None, *others: float) -> None:
        super().__init__("keeps")
        self.seconds = seconds
        self.others = others

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, EndFrame):
            await self.push_frame(frame, direction)
        elif self.seconds is not None:
            self.create_task(self._later, frame, direction)
            for seconds in self.others:
                self.create_task(anyio.sleep, seconds)

    async def _later(self, frame: Frame, direction: FrameDirection) -> None:
        assert self.seconds is not None
        await anyio.sleep(self.seconds)
        await self.push_frame(frame, direction)


class KeepsAtWork(Keeps):
    """Works for a while when it gets the end, which it never pushes on."""

    async def _later(self, frame: Frame, direction: FrameDirection) -> None:
        assert self.seconds is not None
        await anyio.sleep(self.seconds)


@pytest.mark.parametrize("queued", ["before the start", "later", "as a frame"])
async def test_an_end_that_a_processor_does_not_push_on_ends_the_worker_all_the_same(
    queued: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: after the grace period, and the processor is named, whatever others are at."""
    last, ends = Spy(), []

    class Busy(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                self.create_task(anyio.sleep_forever)
            await self.push_frame(frame, direction)

    worker = worker_of(Busy(), Keeps(), last, name="w")
    worker.add_event_handler("on_pipeline_finished", lambda _, frame: ends.append(type(frame)))
    if queued == "before the start":
        await worker.queue_frame(TextFrame("1"))
        await worker.stop_when_done()
    async with running(worker):
        if queued != "before the start":
            await worker.queue_frame(TextFrame("1"))
            await (worker.stop_when_done() if queued == "later" else worker.queue_frame(EndFrame()))
        begun = anyio.current_time()
        await worker.wait()
        assert 4 < anyio.current_time() - begun < 6
    assert ends == [EndFrame]
    assert last.heard == ["1"]
    assert "worker 'w' ends without the end that processor 'keeps' has not pushed on" in caplog.messages


@pytest.mark.parametrize("others", [(), (1.0,), (1.0, 8.0)])
async def test_an_end_that_is_pushed_on_later_is_waited_for(
    others: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """P2: as long as one of its tasks works, a processor may take its time; the log says for whom it waits, once."""
    last = Spy()
    worker = worker_of(Keeps(12, *others), last, name="w")
    async with running(worker):
        await worker.stop_when_done()
        begun = anyio.current_time()
        await worker.wait()
        assert anyio.current_time() - begun >= 12
    assert caplog.messages == ["the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'keeps'"]


async def test_an_end_that_is_not_pushed_on_after_all_is_lost_when_the_work_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P2: however often one has looked before; and what keeps it is told whenever that changes."""
    last, ends = Spy(slow(7)), []
    worker = worker_of(KeepsAtWork(12), last, name="w")
    worker.add_event_handler("on_pipeline_finished", lambda _, frame: ends.append(type(frame)))
    async with running(worker):
        await worker.queue_frame(TextFrame("a"))
        await worker.stop_when_done()
        begun = anyio.current_time()
        await worker.wait()
        assert anyio.current_time() - begun == 15
    assert ends == [EndFrame]
    assert caplog.messages == [
        f"the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'keeps', {last.name!r}",
        "the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'keeps'",
        "worker 'w' ends without the end that processor 'keeps' has not pushed on",
    ]


async def test_a_processor_that_has_passed_the_end_on_keeps_none(caplog: pytest.LogCaptureFixture) -> None:
    """P2: it may have kept another before."""

    async def twice(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, EndFrame):
            await processor.push_frame(EndFrame())
        return False

    async def keep_one(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        ends.append(frame) if isinstance(frame, EndFrame) else None
        return ends == [frame]

    ends: list[Frame] = []
    sink = Spy(slow(3))
    worker = worker_of(ScriptedProcessor(twice), ScriptedProcessor(keep_one), sink, name="w")
    async with running(worker, grace_period=1.0):
        await worker.queue_frames(texts("a", "b"))
        await worker.stop_when_done()
        await worker.wait()
    assert len(ends) == 2
    assert [type(frame) for frame in sink.done][-3:] == [TextFrame, TextFrame, EndFrame]
    assert "has not pushed on" not in caplog.text


@pytest.mark.parametrize("other", ["goes up", "came before", "is put in its place"])
async def test_an_end_is_not_lost_where_a_processor_has_kept_another(
    other: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: it takes as long as the frames before it."""

    async def make(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, Alert):
            await processor.push_frame(EndFrame("another"))
        return False

    async def keep(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if other == "is put in its place" and isinstance(frame, EndFrame):
            await processor.push_frame(EndFrame("another"))
            return True
        return isinstance(frame, EndFrame) and (direction is UP or frame.reason == "another")

    keeps = ScriptedProcessor(keep)
    slow_ones = [keeps, Spy(slow(3))] if other == "is put in its place" else [Spy(slow(3)), keeps]
    sink = Spy()
    worker = worker_of(ScriptedProcessor(make), *slow_ones, sink, name="w")
    async with running(worker, grace_period=1.0):
        if other == "goes up":
            await worker.queue_frame(EndFrame("another"), UP)
        elif other == "came before":
            await worker.queue_frame(Alert("make one"))
        await settle()
        await worker.queue_frames(texts("a", "b"))
        await worker.stop_when_done()
        await worker.wait()
    assert said_done(sink)[-2:] == ["a", "b"]
    assert "has not pushed on" not in caplog.text


async def test_an_end_that_goes_up_hides_none_that_was_not_pushed_on(caplog: pytest.LogCaptureFixture) -> None:
    """P2: the one that was kept is lost, though the processor passes the other one on."""

    async def ask(spy: Spy, frame: Frame) -> None:
        await anyio.sleep(2)
        await spy.push_frame(EndFrame(), UP)

    async def keep(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        return isinstance(frame, EndFrame) and direction is DOWN

    worker = worker_of(ScriptedProcessor(keep, "keeps"), Spy(for_texts(ask)), name="w")
    async with running(worker):
        await worker.queue_frame(TextFrame("a"))
        await worker.stop_when_done()
        begun = anyio.current_time()
        await worker.wait()
        assert anyio.current_time() - begun == 5
    assert "worker 'w' ends without the end that processor 'keeps' has not pushed on" in caplog.messages


# --- ends that are cut short


async def test_an_end_that_is_cancelled_while_it_waits_for_system_frames_is_told_once() -> None:
    """P2"""
    spy = Spy(hang)
    finished: list[Frame] = []
    worker = worker_of(spy, name="w")
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(Alert("!"))
        await worker.stop_when_done()
        await spy.until(1, EndFrame)
        await settle()
        assert finished == []
        await worker.stop()
    assert [type(frame) for frame in finished] == [CancelFrame]
    assert spy.log[-1] == "cleanup"


async def test_the_runners_cancel_overtakes_an_end_that_is_under_way() -> None:
    """P2, R2"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    worker = worker_of(spy, name="w")
    finished: list[Frame] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(worker)
            await worker.queue_frames(texts("a", "b"))
            await gate.reached.wait()
            await runner.end()
            await settle()
            before = anyio.current_time()
            await runner.cancel()
        assert anyio.current_time() - before <= CLEANUP_SECONDS
    assert [type(frame) for frame in finished] == [CancelFrame]
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_a_cancelled_queueing_of_an_end_is_no_half_an_end() -> None:
    """P2: an end does not wait for room, so there is nothing that could be cancelled half-way."""
    gate, ends = Gate(), []
    worker = worker_of(Spy(for_texts(gate), max_buffer_size=1), name="w")
    worker.add_event_handler("on_pipeline_finished", lambda _, frame: ends.append(frame))
    async with running(worker):
        await worker.queue_frame(TextFrame("1"))
        await gate.reached.wait()
        await worker.queue_frame(TextFrame("2"))
        with anyio.move_on_after(1):
            await worker.queue_frame(EndFrame())
        gate.open()
        await worker.stop_when_done()
        await worker.wait()
    assert [type(frame) for frame in ends] == [EndFrame]


async def test_an_end_behind_those_who_wait_for_room_is_queued_at_once() -> None:
    """P2: they are handled before it."""
    gate, spy = Gate(), Spy(max_buffer_size=1)
    spy.on = for_texts(gate)
    worker = worker_of(spy, name="w")
    async with running(worker), anyio.create_task_group() as group:
        group.start_soon(worker.queue_frames, texts("1", "2", "3"))
        await gate.reached.wait()
        await settle()
        with anyio.move_on_after(1) as limit:
            await worker.queue_frame(EndFrame())
        assert not limit.cancelled_caught
        gate.open()
        await worker.wait()
    assert spy.heard == ["1", "2", "3"]


class PushesLater(FrameProcessor):
    """Keeps the end for a second, and pushes it on from a task of its own."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            self.create_task(self.push_later, frame, direction)
        else:
            await self.push_frame(frame, direction)

    async def push_later(self, frame: Frame, direction: FrameDirection) -> None:
        await sleep(1)
        await self.push_frame(frame, direction)


async def test_an_end_that_a_processor_has_pushed_on_late_drains_as_long_as_it_takes() -> None:
    """P2: it is not taken for one that was kept, however long the processors behind work."""
    last = Spy()
    await run_through(worker_of(PushesLater(), Spy(slow(3)), last), *texts(*range(5)))
    assert last.heard == [str(n) for n in range(5)]
