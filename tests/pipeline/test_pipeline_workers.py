"""What a worker that runs a pipeline takes, tells and refuses."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.pipelines import (
    UP,
    Alert,
    Gate,
    Spy,
    Watches,
    boom,
    flowing,
    for_texts,
    run_through,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import BaseWorker, BusTTSSpeakMessage, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
    TTSSpeakFrame,
)
from workerbus.testing import nothing_left, settle


async def test_frames_are_queued_from_iterables_of_both_kinds() -> None:
    async def arrive() -> AsyncIterator[Frame]:
        for count, frame in enumerate(texts("c", "d"), 3):
            await anyio.sleep(1)
            yield frame
            await spy.until(count)  # each is queued before the next one is there

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


async def test_what_cannot_be_queued_is_refused() -> None:
    worker = worker_of(Spy(), name="w")
    with pytest.raises(TypeError, match="a Frame is queued, in a FrameDirection; not 'x'"):
        await worker.queue_frame("x")  # type: ignore[arg-type]  # as it is refused
    with pytest.raises(TypeError, match="a FrameDirection"):
        await worker.queue_frame(TextFrame("x"), "down")  # type: ignore[arg-type]  # as it is refused
    with pytest.raises(ValueError, match="do not queue a StartFrame"):
        await worker.queue_frame(StartFrame())


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


async def test_two_workers_run_two_pipelines_beside_each_other() -> None:
    left, right = Spy(), Spy()
    one, two = worker_of(left, name="one"), worker_of(right, name="two")
    async with running(one, two):
        await one.queue_frame(TextFrame("to one"))
        await two.queue_frame(TextFrame("to two"))
        await left.until()
        await right.until()
    assert (left.heard, right.heard) == (["to one"], ["to two"])


async def test_the_library_says_nothing_while_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    await run_through(worker_of(Spy(), Spy(), observers=[Watches()], idle_timeout=5), *texts("a", "b"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


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


async def test_the_filters_of_a_worker_are_its_own() -> None:
    """N3: whoever was made before, or is made after they were set."""
    reached: dict[str, list[Frame]] = {name: [] for name in ("before", "filtered", "after")}
    workers: dict[str, PipelineWorker] = {}
    for name in reached:
        workers[name] = worker_of(Spy(), name=name)
        for event in ("on_frame_reached_downstream", "on_frame_reached_upstream"):
            workers[name].add_event_handler(event, lambda worker, frame: reached[worker.name].append(frame))
        if name == "filtered":
            workers[name].set_reached_downstream_filter((TextFrame,))
            workers[name].set_reached_upstream_filter((TextFrame,))
    async with running(*workers.values()):
        for worker in workers.values():
            await worker.queue_frame(Alert("down"))
            await worker.queue_frame(Alert("up"), UP)
            await worker.queue_frame(TextFrame("text"))
            await worker.flush()
    told = {
        name: [frame for frame in frames if isinstance(frame, Alert | TextFrame)] for name, frames in reached.items()
    }
    assert {name: len(frames) for name, frames in told.items()} == {"before": 3, "filtered": 1, "after": 3}


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


# --- as a worker like others


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


# --- a queue_frame of the user's own


class Queues(PipelineWorker):
    """Notes what is queued, and queues it."""

    def __init__(self, *processors: FrameProcessor, name: str) -> None:
        super().__init__(Pipeline(processors), name=name)
        self.queued: list[str] = []

    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        self.queued.append(type(frame).__name__)
        await super().queue_frame(frame, direction)


async def test_an_end_of_a_worker_that_is_ending_queues_nothing_more() -> None:
    """N7, P2: its user has queued the end, which still drains."""
    gate = Gate()
    worker = Queues(Spy(for_texts(gate)), name="w")
    async with running(worker) as runner:
        await worker.queue_frames([TextFrame("a"), EndFrame()])
        await gate.reached.wait()
        await runner.end()
        await settle()
        gate.open()
        await worker.wait()
    assert worker.queued == ["TextFrame", "EndFrame"]


@pytest.mark.parametrize("how", ["stop_when_done", "end"])
async def test_what_the_library_queues_goes_through_an_override(how: str) -> None:
    """N7, P5: what is to be said, and the end."""
    spy = Spy()
    worker = Queues(spy, name="w")
    async with running(worker) as runner:
        for text in ("one", "two"):
            await runner.bus.send(BusTTSSpeakMessage(text, source="somebody", target="w"))
        await spy.until(2, TTSSpeakFrame)
        await (worker.stop_when_done() if how == "stop_when_done" else runner.end(reason="enough"))
        await worker.wait()
        await worker.stop_when_done()
    assert worker.queued == ["TTSSpeakFrame", "TTSSpeakFrame", "EndFrame"]
    [end] = [frame for frame in spy.got if isinstance(frame, EndFrame)]
    assert end.reason == (None if how == "stop_when_done" else "enough")


async def test_a_mock_of_queue_frame_gets_what_the_library_queues() -> None:
    """N7, P5: and what it does not queue is not in the pipeline."""
    spy, queued = Spy(), []
    worker = worker_of(spy, name="w")

    async def queue_frame(frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        queued.append(frame)

    async with running(worker) as runner:
        worker.queue_frame = queue_frame  # type: ignore[method-assign]  # as a mock
        await runner.bus.send(BusTTSSpeakMessage("mind the gap", False, source="somebody", target="w"))
        await settle()
        del worker.queue_frame
    [frame] = queued
    assert isinstance(frame, TTSSpeakFrame)
    assert (frame.text, frame.append_to_context) == ("mind the gap", False)
    assert not [each for each in spy.got if isinstance(each, TTSSpeakFrame)]


@pytest.mark.parametrize("how", ["stop_when_done", "end"])
async def test_a_mock_of_queue_frame_that_came_after_the_start_gets_the_end(how: str) -> None:
    """N7: what is there when the end is due counts."""
    worker, queued = worker_of(Spy(), name="w"), []

    async def queue_frame(frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        queued.append(type(frame))
        await PipelineWorker.queue_frame(worker, frame, direction)

    async with running(worker) as runner:
        await settle()
        worker.queue_frame = queue_frame  # type: ignore[method-assign]  # as a mock
        await (worker.stop_when_done() if how == "stop_when_done" else runner.end())
        await worker.wait()
    assert queued == [EndFrame]


async def test_an_override_that_loses_the_end_holds_the_runner_up_no_longer_than_the_grace() -> None:
    """P2, R2"""

    class Loses(PipelineWorker):
        async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
            raise ValueError("it went wrong")

    runner = WorkerRunner(handle_sigint=False, grace_period=3)
    begin = current_time()
    async with nothing_left(runner):
        async with runner:
            await runner.add_workers(Loses(Pipeline([Spy()]), name="w"))
            await runner.registry.wait_for("w")
            await runner.end()
        assert current_time() == begin + 3


async def test_what_is_to_be_said_behind_an_end_is_dropped_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """P2, P5"""
    spy = Spy(slow(1))
    worker = Queues(spy, name="w")
    async with running(worker) as runner:
        await worker.queue_frame(TextFrame("a"))
        await worker.stop_when_done()
        await runner.bus.send(BusTTSSpeakMessage("too late", source="somebody", target="w"))
        await worker.wait()
    assert worker.queued == ["TextFrame", "EndFrame"]
    assert not caplog.records


@pytest.mark.parametrize("end", [EndFrame, CancelFrame, StopFrame])
async def test_a_worker_says_whether_it_has_finished(end: type[Frame]) -> None:
    """W6, P2: not before nothing of it runs any more."""
    seen = list[bool]()

    class Last(PipelineWorker):
        async def cleanup(self) -> None:
            await super().cleanup()
            seen.append(self.has_finished())

    worker = Last(Pipeline([Spy()]), name="w")
    assert not worker.has_finished()
    async with running(worker):
        assert not worker.has_finished()
        await worker.queue_frame(end())
        await worker.wait()
        assert worker.has_finished()
    assert seen == [False]
