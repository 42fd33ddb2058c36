"""P1, P2: the order of frames, and how a pipeline starts and ends."""

import logging
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
    boom,
    flowing,
    for_texts,
    hang,
    never,
    run_through,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import CLEANUP_SECONDS, BusJobRequestMessage, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    START_SECONDS,
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import advance, nothing_left, settle

# --- P1: order


async def test_frames_keep_their_order_through_every_processor() -> None:
    """P1"""
    first, last = Spy(), Spy()
    await run_through(worker_of(first, FrameProcessor(), last), *texts(*range(200)))
    assert first.heard == last.heard == [str(n) for n in range(200)]


async def test_frames_keep_their_order_in_each_direction() -> None:
    """P1"""
    middle = Spy(slow(0.01))
    async with flowing(Spy(), middle, Spy()) as worker:
        for n in range(50):
            await worker.queue_frame(TextFrame(f"down {n}"))
            await worker.queue_frame(TextFrame(f"up {n}"), UP)
        await middle.until(100)
    assert middle.heard_going(DOWN) == [f"down {n}" for n in range(50)]
    assert middle.heard_going(UP) == [f"up {n}" for n in range(50)]


async def test_upstream_frames_travel_from_the_last_to_the_first() -> None:
    """P1"""
    trail: list[str] = []

    async def leave_trail(spy: Spy, frame: Frame) -> None:
        trail.append(spy.name)

    spies = [Spy(leave_trail, name=name) for name in "abc"]
    async with flowing(*spies) as worker:
        await worker.queue_frame(TextFrame("x"), UP)
        await spies[0].until()
        assert trail == ["c", "b", "a"]


async def test_a_system_frame_overtakes_data_that_waits() -> None:
    """P1"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    async with flowing(spy) as worker:
        await worker.queue_frames(texts("a", "b", "c"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("!"))
        await spy.until(1, Alert)
        gate.open()
        await spy.until(3)
    assert spy.heard == ["a", "!", "b", "c"]


async def test_a_system_frame_waits_for_one_data_frame_at_most_where_handlers_never_suspend() -> None:
    """P1"""
    second = Spy()

    async def alert_after_ten(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "10":
            await spy.push_frame(Alert("!"))

    async with flowing(Spy(alert_after_ten), second) as worker:
        await worker.queue_frames(texts(*range(60)))
        await second.until(60)
    before = second.heard.index("!")
    assert before <= 11  # those that were ahead when it was sent, and one more


async def test_a_system_handler_that_is_suspended_holds_no_data_back() -> None:
    """P1, as B2"""

    async def hang_on_alerts(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await anyio.sleep_forever()

    spy = Spy(hang_on_alerts)
    runner = WorkerRunner(handle_sigint=False)
    worker = worker_of(spy, name="w")
    async with runner:
        await runner.add_workers(worker)
        await worker.queue_frame(Alert("!"))
        await worker.queue_frames(texts("a", "b"))
        await spy.until(2)
        await runner.cancel()


async def test_a_slow_processor_delays_only_what_is_behind_it() -> None:
    """P1"""
    before, after = Spy(), Spy()
    gate = Gate()
    async with flowing(before, Spy(for_texts(gate)), after) as worker:
        await worker.queue_frames(texts(*range(100)))
        await before.until(100)
        assert not after.heard
        gate.open()
        await after.until(100)


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


# --- P1: errors


async def test_a_processor_that_raises_becomes_an_error_frame_upstream(caplog: pytest.LogCaptureFixture) -> None:
    """P1"""
    first, broken, last = Spy(), Spy(for_texts(boom), name="broken"), Spy()
    errors: list[ErrorFrame] = []
    worker = worker_of(first, broken, last, name="w")
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame))
    async with running(worker):
        await worker.queue_frame(TextFrame("x"))
        await first.until(1, ErrorFrame)
        await worker.queue_frame(Alert("still alive"))
        await last.until(1, Alert)
    [error] = errors
    assert error in first.got
    assert error not in last.got
    assert (error.error, error.processor, error.fatal) == ("ValueError: it went wrong", "broken", False)
    assert isinstance(error.exception, ValueError)
    assert "processor 'broken' failed with TextFrame#" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("passes_on_first", [True, False])
@pytest.mark.parametrize("kind", [EndFrame, StopFrame, CancelFrame])
@pytest.mark.parametrize("way", [DOWN, UP])
async def test_a_processor_that_raises_keeps_no_end_back(
    kind: type[EndFrame | StopFrame | CancelFrame], way: FrameDirection, passes_on_first: bool
) -> None:
    """P1, P2"""

    class Fails(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, kind):
                if passes_on_first:
                    await super().process_frame(frame, direction)
                raise ValueError
            await super().process_frame(frame, direction)

    first, last = Spy(), Spy()
    finished: list[Frame] = []
    worker = worker_of(first, Pipeline([Fails(), Fails()]), last)
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        before = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await last.until(1, StartFrame)
            await worker.queue_frame(TextFrame("x"))
            await worker.queue_frame(kind(), way)
        assert anyio.current_time() == before
    assert [type(frame) for frame in finished] == [kind]
    assert sum(isinstance(frame, kind) for frame in last.got_going(DOWN)) == 1
    assert sum(isinstance(frame, kind) for frame in first.got_going(DOWN)) == 1


async def test_the_frames_behind_a_failure_are_processed() -> None:
    """P1"""

    async def fail_on_b(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "b":
            raise ValueError

    last = Spy()
    await run_through(worker_of(Spy(fail_on_b), last), *texts("a", "b", "c"))
    assert last.heard == ["a", "c"]


async def test_a_group_of_errors_is_reported_as_what_was_in_it() -> None:
    """P1"""

    async def fail_in_a_group(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame):
            async with anyio.create_task_group() as group:
                group.start_soon(boom, spy, frame)

    errors: list[ErrorFrame] = []
    worker = worker_of(Spy(fail_in_a_group))
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame))
    await run_through(worker, *texts("x"))
    assert len(errors) == 1


async def test_a_fatal_error_cancels_the_worker_and_is_reported() -> None:
    """P1, W7"""

    async def give_up(spy: Spy, frame: Frame) -> None:
        await spy.push_error("no connection", fatal=True)

    spy = Spy(for_texts(give_up), name="modem")
    worker = worker_of(spy, name="w")
    told: list[Any] = []
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: told.append(frame.error))
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: told.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", lambda runner, data: told.append(data.error))
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("x"))
        await runner.run()
    assert {what for what in told if isinstance(what, str)} == {"no connection", "processor 'modem': no connection"}
    assert [type(what) for what in told if isinstance(what, Frame)] == [CancelFrame]
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


# --- P2: the start


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


async def test_what_leaves_the_pipeline_while_it_starts_waits_for_the_start() -> None:
    """P2"""

    async def push_on(processor: StartsWith) -> None:
        await processor.push_frame(TextFrame("x"))

    worker = worker_of(StartsWith(push_on))
    seen: list[str] = []
    worker.add_event_handler("on_frame_reached_downstream", lambda worker, frame: seen.append(type(frame).__name__))
    await run_through(worker)
    assert seen == ["StartFrame", "TextFrame", "EndFrame"]


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
    """P2, W7, R4"""

    async def fail(processor: StartsWith) -> None:
        raise ValueError("no device")

    first = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker_of(first, StartsWith(fail)))
        with pytest.raises(ValueError, match="no device"):
            await runner.run()
    assert first.log == ["setup", "StartFrame", "cleanup"]


async def test_a_fatal_error_during_the_start_cancels_the_worker() -> None:
    """P2"""

    async def give_up(processor: StartsWith) -> None:
        await processor.push_error("no connection", fatal=True)
        await anyio.sleep_forever()

    errors: list[str] = []
    worker = worker_of(Spy(), StartsWith(give_up))
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame.error))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await runner.run()
    assert errors == ["no connection"]
    assert worker.started_at is None


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


# --- P2: the end


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


async def test_a_cancel_does_not_drain() -> None:
    """P2"""
    gate = Gate()
    first, last = Spy(for_texts(gate)), Spy()
    worker = worker_of(first, last, name="w")
    finished: list[Any] = []
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
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


async def test_a_clean_up_that_fails_or_hangs_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    """L4"""

    class Fails(Spy):
        async def cleanup(self) -> None:
            await super().cleanup()
            raise ValueError("it went wrong")

    class Hangs(Spy):
        async def cleanup(self) -> None:
            await super().cleanup()
            await anyio.sleep_forever()

    spies = [Fails(name="fails"), Hangs(name="hangs"), Spy()]
    before = anyio.current_time()
    await run_through(worker_of(*spies))
    assert anyio.current_time() - before <= CLEANUP_SECONDS
    assert all(spy.log[-1] == "cleanup" for spy in spies)
    assert "cleanup() of processor 'fails' failed" in caplog.text
    assert "cleanup() of processor 'hangs' has not ended in time" in caplog.text


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


async def test_an_interruption_before_the_start_drops_what_was_queued_before_it() -> None:
    """P1, P2"""
    spy = Spy(max_buffer_size=2)
    worker = worker_of(spy)
    await worker.queue_frames(texts("a", "b"))
    await worker.queue_frame(InterruptionFrame())
    await worker.queue_frames(texts("c", "d", "e"))
    await run_through(worker)
    assert spy.heard == ["c", "d", "e"]
    assert spy.log[:3] == ["setup", "StartFrame", "InterruptionFrame"]


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


class Keeps(FrameProcessor):
    """Does not push the end on; or does, from a task of its own, a while later."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("keeps")
        self.seconds = seconds

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, EndFrame):
            await self.push_frame(frame, direction)
        elif self.seconds is not None:
            self.create_task(self._later, frame, direction)

    async def _later(self, frame: Frame, direction: FrameDirection) -> None:
        assert self.seconds is not None
        await anyio.sleep(self.seconds)
        await self.push_frame(frame, direction)


@pytest.mark.parametrize("queued", ["before the start", "later"])
async def test_an_end_that_a_processor_does_not_push_on_ends_the_worker_all_the_same(
    queued: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: after the grace period, and the processor is named."""
    last, ends = Spy(), []
    worker = worker_of(Keeps(), last, name="w")
    worker.add_event_handler("on_pipeline_finished", lambda _, frame: ends.append(type(frame)))
    if queued == "before the start":
        await worker.queue_frame(TextFrame("1"))
        await worker.stop_when_done()
    async with running(worker):
        if queued == "later":
            await worker.queue_frame(TextFrame("1"))
            await worker.stop_when_done()
        begun = anyio.current_time()
        await worker.wait()
        assert 4 < anyio.current_time() - begun < 6
    assert ends == [EndFrame]
    assert last.heard == ["1"]
    assert "worker 'w' ends without the end that processor 'keeps' has not pushed on" in caplog.messages


async def test_an_end_that_is_pushed_on_later_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """P2: a processor that still works may take its time; the log says for whom the end waits, once."""
    last = Spy()
    worker = worker_of(Keeps(12), last, name="w")
    async with running(worker):
        await worker.stop_when_done()
        begun = anyio.current_time()
        await worker.wait()
        assert anyio.current_time() - begun >= 12
    assert caplog.messages == ["the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'keeps'"]
