"""Pipeline workers: events, observers, idleness, and what they refuse."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from support.pipelines import UP, Alert, Gate, Spy, boom, flowing, for_texts, run_through, texts, worker_of
from support.workers import running
from workerbus import CLEANUP_SECONDS, BaseWorker, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessed,
    FrameProcessor,
    FramePushed,
    Observer,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle

# --- queueing


async def test_frames_are_queued_from_iterables_of_both_kinds() -> None:
    async def arrive() -> AsyncIterator[Frame]:
        for frame in texts("c", "d"):
            await anyio.sleep(1)
            yield frame

    spy = Spy()
    async with flowing(spy) as worker:
        await worker.queue_frames(texts("a", "b"))
        await worker.queue_frames(arrive())
        await worker.queue_frames(frame for frame in texts("e"))
        await worker.queue_frames(texts("f"), UP)
        await spy.until(6)
    assert spy.heard == list("abcdef")


async def test_queueing_without_end_can_be_cancelled() -> None:
    """P1: every 64th call yields"""
    async with flowing(Spy()) as worker:
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await worker.queue_frame(TextFrame("x"))
        assert scope.cancelled_caught


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


async def test_what_cannot_be_queued_is_refused() -> None:
    worker = worker_of(Spy(), name="w")
    with pytest.raises(TypeError, match="a Frame is queued, in a FrameDirection; not 'x'"):
        await worker.queue_frame("x")  # type: ignore[arg-type]  # as it is refused
    with pytest.raises(TypeError, match="a FrameDirection"):
        await worker.queue_frame(TextFrame("x"), "down")  # type: ignore[arg-type]  # as it is refused
    with pytest.raises(ValueError, match="do not queue a StartFrame"):
        await worker.queue_frame(StartFrame())


async def test_a_cancel_frame_before_the_run_is_the_end_of_it() -> None:
    """P2"""
    spy = Spy()
    worker = worker_of(spy)
    await worker.queue_frame(CancelFrame())
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        await runner.run()
    assert spy.log == []
    with pytest.raises(NotRunningError):
        await worker.queue_frame(TextFrame("x"))


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


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"bridged": "voice"}, TypeError, "bridged is None, or a tuple of names"),
        ({"bridged": (3,)}, TypeError, "bridged is None, or a tuple of names"),
        ({"exclude_frames": ("x",)}, TypeError, "exclude_frames is a tuple of classes of frames"),
        ({"exclude_frames": (int,)}, TypeError, "exclude_frames is a tuple of classes of frames"),
        ({"observers": [3]}, TypeError, "observers are Observers, not 3"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout is a number of seconds, more than 0"),
    ],
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        PipelineWorker(Pipeline([]), **kwargs)


def test_a_worker_runs_a_pipeline() -> None:
    with pytest.raises(TypeError, match="a PipelineWorker runs a Pipeline, not"):
        PipelineWorker([FrameProcessor()])  # type: ignore[arg-type]  # as it is refused
    pipeline = Pipeline([])
    assert PipelineWorker(pipeline).pipeline is pipeline


# --- events


async def test_the_events_come_in_both_forms_and_in_order() -> None:
    """N3"""
    log: list[str] = []

    class Tells(PipelineWorker):
        async def on_pipeline_started(self, frame: StartFrame) -> None:
            log.append("started")

        async def on_pipeline_finished(self, frame: EndFrame | StopFrame | CancelFrame) -> None:
            log.append("finished")

        async def on_pipeline_error(self, frame: ErrorFrame) -> None:
            log.append(frame.error)

    worker = Tells(Pipeline([Spy(for_texts(boom))]))

    @worker.event_handler("on_pipeline_started")
    async def started(emitter: PipelineWorker, frame: StartFrame) -> None:
        assert emitter is worker
        log.append("started, too")

    @worker.event_handler("on_pipeline_finished")
    def finished(emitter: PipelineWorker, frame: EndFrame) -> None:
        assert isinstance(frame, EndFrame)
        log.append("finished, too")

    await run_through(worker, *texts("x"))
    assert log == ["started", "started, too", "ValueError: it went wrong", "finished", "finished, too"]


async def test_a_handler_of_the_start_may_ask_for_jobs() -> None:
    """W8"""

    class Asks(PipelineWorker):
        answer: Any = None

        async def on_pipeline_started(self, frame: StartFrame) -> None:
            self.answer = await self.job("echo")

    class Echo(BaseWorker):
        async def on_job_request(self, message: Any) -> dict[str, Any]:
            await self.send_job_response(message.job_id, {"said": "hello"})
            return {}

    asks = Asks(Pipeline([]), name="asks")
    async with running(Echo("echo"), asks):
        while asks.answer is None:
            await settle()
    assert asks.answer == {"said": "hello"}


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


async def test_an_event_handler_that_raises_is_logged_and_reported() -> None:
    """W7"""
    worker = worker_of(Spy())
    worker.add_event_handler("on_pipeline_started", boom)
    errors: list[str] = []
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", lambda runner, data: errors.append(data.error))
    await runner.add_workers(worker)
    await runner.stop_when_done()
    await runner.run()
    assert errors == ["on_pipeline_started: ValueError: it went wrong"]
    assert worker.statistics().failed_hooks == 1


async def test_frames_that_leave_are_told_as_the_filters_say() -> None:
    downstream: list[Frame] = []
    upstream: list[Frame] = []
    worker = worker_of(Spy())
    worker.add_event_handler("on_frame_reached_downstream", lambda worker, frame: downstream.append(frame))
    worker.add_event_handler("on_frame_reached_upstream", lambda worker, frame: upstream.append(frame))
    worker.set_reached_downstream_filter((TextFrame, StartFrame))
    worker.set_reached_upstream_filter((Alert,))
    frames = [TextFrame("a"), Alert("b"), TextFrame("c"), Alert("d")]
    await worker.queue_frames(frames[:2])
    await worker.queue_frames(frames[2:], UP)
    await run_through(worker)
    assert downstream[1:] == frames[:1]
    assert isinstance(downstream[0], StartFrame)
    assert upstream == frames[3:]
    with pytest.raises(TypeError, match="types is a tuple of classes of frames"):
        worker.set_reached_upstream_filter((int,))  # type: ignore[arg-type]  # as it is refused


# --- observers


class Watches(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Frame]] = []
        self.to: list[tuple[str, str | None]] = []

    async def on_process_frame(self, data: FrameProcessed) -> None:
        self.seen.append(("process", data.processor.name, data.frame))

    async def on_push_frame(self, data: FramePushed) -> None:
        self.to.append((data.source.name, None if data.destination is None else data.destination.name))
        self.seen.append(("push", data.source.name, data.frame))


async def test_an_observer_sees_what_happens_in_its_order() -> None:
    observer, frame = Watches(), TextFrame("x")
    await run_through(worker_of(Spy(name="a"), Spy(name="b"), observers=[observer]), frame)
    assert [(what, where) for what, where, seen in observer.seen if seen is frame] == [
        ("process", "a"),
        ("push", "a"),
        ("process", "b"),
        ("push", "b"),
    ]
    assert set(observer.to) == {("a", "b"), ("b", None)}
    assert len(observer.seen) == 12  # the start, the frame and the end


async def test_a_slow_observer_slows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Observer):
        seen = 0

        async def on_push_frame(self, data: FramePushed) -> None:
            await anyio.sleep(100)

    class Quick(Observer):
        seen = 0

        async def on_process_frame(self, data: FrameProcessed) -> None:
            self.seen += 1

    quick, spy = Quick(), Spy()
    before = anyio.current_time()
    async with nothing_left(), flowing(spy, observers=[Slow(), quick]) as worker:
        await worker.queue_frames(texts(*range(100)))
        await spy.until(100)
        await settle()
        assert quick.seen == 101
        assert anyio.current_time() == before
    assert not caplog.records


async def test_an_observer_that_raises_is_logged_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Watches):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            await super().on_process_frame(data)
            raise ValueError("it went wrong")

    observer = Fails()
    await run_through(worker_of(Spy(), observers=[observer], name="w"), *texts("a", "b"))
    assert sum(what == "process" for what, *_ in observer.seen) == 4
    assert "observer Fails of worker 'w' failed" in caplog.text


async def test_an_observer_is_told_when_things_happened() -> None:
    times: list[float] = []

    class Clock(Observer):
        async def on_push_frame(self, data: FramePushed) -> None:
            await anyio.sleep(1)
            times.append(data.timestamp)

    gate = Gate()
    spy = Spy(for_texts(gate))
    async with flowing(spy, observers=[Clock()]) as worker:
        begun = anyio.current_time()
        await worker.queue_frame(TextFrame("x"))
        await anyio.sleep(5)
        gate.open()
        await anyio.sleep(2)
    assert times[:2] == [begun, begun + 5]


# --- idleness


async def test_an_idle_worker_says_so_and_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Any] = []
    spy = Spy()
    worker = worker_of(spy, idle_timeout=10, name="w")
    worker.add_event_handler("on_idle_timeout", lambda worker: events.append("idle"))
    worker.add_event_handler("on_pipeline_finished", lambda worker, frame: events.append(frame.reason))
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner):
        await runner.add_workers(worker)
        before = anyio.current_time()
        await runner.run()
        assert anyio.current_time() == before + 10
    assert events == ["idle", "idle for 10 seconds"]
    assert "worker 'w' is cancelled: no frame for 10 seconds" in caplog.text
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]


async def test_frames_keep_a_worker_from_being_idle() -> None:
    times: list[float] = []
    async with flowing(Spy(), idle_timeout=4, cancel_on_idle_timeout=False) as worker:
        worker.add_event_handler("on_idle_timeout", lambda worker: times.append(anyio.current_time() - begun))
        begun = anyio.current_time()
        for _ in range(3):
            await anyio.sleep(3)
            await worker.queue_frame(TextFrame("x"))
        await anyio.sleep(8.5)  # the last frame came after 9 seconds
    assert times == [13, 17]


async def test_a_worker_without_a_timeout_is_never_idle() -> None:
    async with flowing(Spy()) as worker:
        await anyio.sleep(15)
        assert worker.active


# --- jobs


class Answers(FrameProcessor):
    """The sink of a pipeline that does a worker's jobs."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await anyio.sleep(1)
            await self.worker.send_job_response(frame.metadata["job_id"], {"text": frame.text.upper()})
        await self.push_frame(frame, direction)


class Shouts(PipelineWorker):
    async def on_job_request(self, message: Any) -> None:
        await self.queue_frame(TextFrame(message.payload["text"], metadata={"job_id": message.job_id}))


async def test_the_sink_answers_the_jobs_of_the_worker() -> None:
    """J2"""
    async with running(Shouts(Pipeline([Spy(), Answers()]), name="shouts")) as runner:
        job = runner.job_group("shouts", payload={"text": "hello"}, timeout=3)
        assert (await job)["shouts"] == {"text": "HELLO"}


async def test_a_job_that_the_pipeline_cannot_answer_any_more_is_answered() -> None:
    """J4"""
    shouts = Shouts(Pipeline([Spy(for_texts(Gate())), Answers()]), name="shouts")
    async with running(shouts) as runner:
        async with runner.job_group("shouts", payload={"text": "hello"}, cancel_on_error=False) as group:
            await settle()
            await shouts.queue_frame(CancelFrame())
        assert group.statuses["shouts"] == "cancelled"


async def test_a_processor_asks_for_jobs() -> None:
    """P1, J15"""

    class Asks(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, TextFrame):
                response = await self.worker.job("shouts", payload={"text": frame.text})
                frame = TextFrame(response["text"])
            await self.push_frame(frame, direction)

    spy = Spy()
    asks = worker_of(Asks(), spy, name="asks")
    async with running(Shouts(Pipeline([Answers()]), name="shouts"), asks):
        await asks.queue_frames(texts("a", "b"))
        await spy.until(2)
    assert spy.heard == ["A", "B"]


# --- as a worker


async def test_the_worker_has_the_hooks_of_every_worker() -> None:
    """W2"""
    log: list[Any] = []

    class Hooks(PipelineWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            log.append("activated")
            await self.queue_frame(TextFrame("from the hook"))

    spy = Spy()
    async with running(Hooks(Pipeline([spy]), name="w")):
        await spy.until()
    assert log == ["activated"]


async def test_a_pipeline_worker_may_be_a_child() -> None:
    """W5"""
    spy, parent = Spy(), worker_of(Spy(), name="parent")
    child = worker_of(spy, name="child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await child.queue_frame(TextFrame("x"))
        await spy.until()
    assert spy.log[-2:] == ["EndFrame", "cleanup"]


async def test_the_library_says_nothing_while_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    await run_through(worker_of(Spy(), Spy(), observers=[Watches()], idle_timeout=5), *texts("a", "b"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
