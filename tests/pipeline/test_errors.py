"""P1, L6: what user code raises in a pipeline, and who is told."""

import asyncio
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.conditions import eventually
from support.failures import Errors, tracebacks
from support.pipelines import DOWN, UP, Alert, Spy, boom, flowing, for_texts, run_through, texts, work, worker_of
from support.workers import Helper, running
from workerbus import CLEANUP_SECONDS, PipelineWorker, WorkerParams, WorkerRunner
from workerbus.errors import FlushError
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessed,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    Observer,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, run


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


async def test_one_error_in_a_group_is_reported_as_what_it_is() -> None:
    """P1, L6"""

    async def fail_in_a_group(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame):
            async with anyio.create_task_group() as group:
                group.start_soon(boom, spy, frame)

    errors: list[ErrorFrame] = []
    worker = worker_of(Spy(fail_in_a_group))
    worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame))
    await run_through(worker, *texts("x"))
    assert [error.error for error in errors] == ["ValueError: it went wrong"]


async def test_several_errors_of_one_handler_are_reported_together() -> None:
    """L6"""

    async def fail_twice(spy: Spy, frame: Frame) -> None:
        async with anyio.create_task_group() as group:
            for text in ("one", "two"):
                group.start_soon(fail_when_cancelled, text)

    async def fail_when_cancelled(text: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError(text)

    errors: list[str] = []
    spy = Spy(for_texts(fail_twice))
    async with flowing(spy) as worker:
        worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame.error))
        await worker.queue_frame(TextFrame("x"))
        await spy.until()
        await anyio.wait_all_tasks_blocked()
        await worker.queue_frame(InterruptionFrame())
        await spy.until(1, InterruptionFrame)
        spy.on = None
        await worker.queue_frame(TextFrame("y"))
        await spy.until(2)
    assert len(errors) == 1
    assert "2 sub-exceptions" in errors[0]


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


# --- beside a cancellation


@pytest.mark.parametrize("errors", [[], [ValueError("beside it")]])
async def test_a_cancellation_in_a_group_is_one_all_the_same(errors: list[Exception]) -> None:
    """L6: what trio's nurseries may raise"""

    async def wrap(spy: Spy, frame: Frame) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc, *errors]) from None

    told: list[str] = []
    spy = Spy(for_texts(wrap))
    async with nothing_left(), flowing(spy) as worker:
        worker.add_event_handler("on_pipeline_error", lambda worker, frame: told.append(frame.error))
        await worker.queue_frame(TextFrame("x"))
        await spy.until()
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("y"))
        await spy.until(2)
        await worker.stop()
    assert told == ["ValueError: beside it"][: len(errors)]


async def test_a_user_error_on_top_of_a_cancellation_is_reported() -> None:
    """L6"""

    async def fail_when_cancelled(spy: Spy, frame: Frame) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("in the finally")

    errors: list[str] = []
    spy = Spy(for_texts(fail_when_cancelled))
    async with flowing(spy, Spy()) as worker:
        worker.add_event_handler("on_pipeline_error", lambda worker, frame: errors.append(frame.error))
        await worker.queue_frame(TextFrame("x"))
        await spy.until()
        spy.on = None
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("y"))
        await spy.until(2)
    assert errors == ["ValueError: in the finally"]


async def test_a_failure_while_the_pipeline_is_cancelled_does_not_hold_it_up() -> None:
    """P2, L4"""

    async def fail_at_the_cancel(spy: Spy, frame: Frame) -> None:
        raise ValueError

    class FailsAtCancel(Spy):
        async def process_frame(self, frame: Frame, direction: Any) -> None:
            if isinstance(frame, CancelFrame):
                raise ValueError("at the cancel")
            await super().process_frame(frame, direction)

    spy = FailsAtCancel()
    async with flowing(spy) as worker:
        before = anyio.current_time()
        await worker.stop()
        assert anyio.current_time() - before <= 1
    assert spy.log[-1] == "cleanup"


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


# --- exceptions that are no `Exception`


class Panic(BaseException):
    """What a native extension raises when it panics."""


@pytest.mark.parametrize("where", ["setup", "start", "data", "system", "task", "hook"])
async def test_a_panic_ends_the_worker_and_no_other(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """J2, W9: of a processor, of its task, or of a hook"""
    panic = Panic("out of bounds")

    class Panics(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await super().setup(setup)
            self.panic("setup")
            if where == "task":
                self.create_task(self.fail)

        async def fail(self) -> None:
            self.panic("task")

        async def process_frame(self, frame: Frame, direction: Any) -> None:
            self.panic({StartFrame: "start", TextFrame: "data", Alert: "system"}.get(type(frame), ""))
            await super().process_frame(frame, direction)

        def panic(self, place: str) -> None:
            if place == where:
                raise panic

    worker = worker_of(Spy(), Panics(name="panics"), Spy(), name="w")
    if where == "hook":
        worker.add_event_handler("on_frame_reached_downstream", boom_with(panic))
    async with running(Helper("other")) as runner:
        errors = await Errors().of(runner)
        await worker.queue_frame(TextFrame("x"))
        await worker.queue_frame(Alert("x"))
        await runner.add_workers(worker)
        await worker.wait()
        assert (await runner.job("other", name="echo"))["worker"] == "other"
        await eventually(lambda: errors.told)
    assert [(data.exception, data.fatal) for data in errors.told] == [(panic, True)]
    assert tracebacks(caplog, panic)


def boom_with(exc: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise exc

    return fail


async def test_a_panic_of_an_observer_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """J2, P1"""
    panic = Panic("out of bounds")

    class Panics(Observer):
        async def on_process_frame(self, data: FrameProcessed) -> None:
            raise panic

    spy = Spy()
    worker = PipelineWorker(Pipeline([spy]), name="w", observers=[Panics()])
    async with running(worker):
        await worker.queue_frame(TextFrame("x"))
        await spy.until(1)
        await eventually(lambda: tracebacks(caplog, panic))
        await worker.queue_frame(TextFrame("y"))
        await spy.until(2)


# --- exceptions that end programs


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["data", "system", "task", "setup", "cleanup"])
def test_what_ends_programs_arrives_as_itself(backend: str, where: str, ending: type[BaseException]) -> None:
    """L3, L6"""

    class Ends(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            if where == "setup":
                raise ending
            if where == "task":
                self.create_task(self.end)

        async def end(self) -> None:
            raise ending

        async def process_frame(self, frame: Frame, direction: Any) -> None:
            if where == ("data" if isinstance(frame, TextFrame) else "system"):
                raise ending
            await super().process_frame(frame, direction)

        async def cleanup(self) -> None:
            if where == "cleanup":
                raise ending

    async def scenario() -> None:
        worker = worker_of(Spy(), Ends(), Spy(), name="w")
        await worker.queue_frame(TextFrame("x"))
        await worker.stop_when_done()
        async with nothing_left():
            with pytest.raises(ending):
                await work(worker)

    run(scenario, backend=backend)


def test_a_program_that_ends_names_only_those_who_refuse_to_end(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """L3, L4: and not whoever has ended, or has ended it."""

    async def end(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame):
            raise SystemExit

    async def refuse(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3 * CLEANUP_SECONDS)

    async def scenario() -> None:
        refuses = Spy(refuse, name="refuses")
        worker = worker_of(Spy(), refuses, Spy(end), name="w")
        await worker.queue_frames([Alert("!"), *texts("a")])
        async with nothing_left():
            with pytest.raises(SystemExit):
                await work(worker)

    run(scenario, backend=backend)
    assert [line for line in caplog.messages if "refuse" in line] == [
        "worker 'w' waits for processors that refuse cancellation: 'refuses'"
    ]


# --- asyncio's own cancellation


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_handler_that_is_cancelled_natively_ends_nothing_but_itself(anyio_backend: str) -> None:
    """L3: asyncio's `Task.cancel()`"""
    import asyncio  # noqa: PLC0415 - what is tested is asyncio's

    async def cancel_own_task(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "b":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep(1)

    first, last = Spy(), Spy()
    async with nothing_left(), flowing(first, Spy(cancel_own_task), last) as worker:
        await worker.queue_frames(texts("a", "b", "c"))
        await last.until(2)
        [error] = await first.until(1, ErrorFrame)
        assert isinstance(error, ErrorFrame)
        assert error.error == "RuntimeError: a cancellation of its own task"
        await worker.queue_frame(InterruptionFrame())
        await last.until(1, InterruptionFrame)
    assert last.heard == ["a", "c"]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_lane_knows_the_task_of_its_own_after_a_native_cancellation(anyio_backend: str) -> None:
    """L3, P1, P6: a handler in it is spared by its own interruption, and told that a flush would wait for itself."""
    did: list[str] = []
    workers: list[PipelineWorker] = []

    async def on(spy: Spy, frame: Frame) -> None:
        if not isinstance(frame, TextFrame):
            return
        if frame.text == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep(1)
        await spy.broadcast_interruption()
        await anyio.sleep(1)
        with pytest.raises(FlushError, match="which would wait for itself"):
            await workers[0].flush(1)
        did.append(frame.text)

    last = Spy()
    async with nothing_left(), flowing(Spy(on), last) as worker:
        workers.append(worker)
        for text in ("cancel", "interrupt", "cancel", "interrupt"):
            await worker.queue_frame(TextFrame(text))
            await worker.flush()
    assert did == last.heard == ["interrupt", "interrupt"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_lane_that_is_cancelled_natively_while_it_waits_goes_on(anyio_backend: str) -> None:
    """L3: asyncio's `Task.cancel()`"""
    import asyncio  # noqa: PLC0415 - what is tested is asyncio's

    spy = Spy(name="spy")
    async with nothing_left(), flowing(spy) as worker:
        for n in range(1, 4):
            await worker.queue_frames([TextFrame("x"), Alert("!")])
            await spy.until(n)
            await spy.until(n, Alert)
            await anyio.wait_all_tasks_blocked()
            for task in asyncio.all_tasks():
                if task.get_name().startswith("spy "):
                    task.cancel()
            await anyio.wait_all_tasks_blocked()
    assert sorted(spy.heard) == ["!"] * 3 + ["x"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("where", ["set-up", "frame", "hook of an end", "hook of a cancel", "refusal"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_native_timeout_cleans_up_wherever_the_pipeline_is(anyio_backend: str, where: str) -> None:
    """L3, P2: asyncio's `timeout()` around the worker's own `run()`."""

    class Timed(PipelineWorker):
        async def run(self, params: WorkerParams) -> None:
            async with asyncio.timeout(CLEANUP_SECONDS / 4):
                await super().run(params)

    class Slow(Spy):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            await super().setup(setup)
            if where == "set-up":
                await anyio.sleep_forever()
            if where == "refusal":
                self.create_task(refuse)

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS / 2)

    async def hang(*_: Any) -> None:
        await anyio.sleep_forever()

    async def cancel(spy: Spy, _: Frame) -> None:
        await spy.push_frame(CancelFrame(), UP)

    first, last = Spy(), Slow(for_texts(cancel if where == "hook of a cancel" else hang))
    worker = Timed(Pipeline([first, last]), name="w")
    if where.startswith("hook"):
        worker.add_event_handler("on_pipeline_finished", hang)
    await worker.queue_frame(EndFrame() if where in ("hook of an end", "refusal") else TextFrame("x"))
    async with nothing_left():
        with pytest.raises(TimeoutError):
            await work(worker)
    assert first.log[-1] == "cleanup"
    assert last.log[-1] == ("setup" if where == "set-up" else "cleanup")


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_clean_up_that_is_cancelled_natively_keeps_no_other_from_it(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L3: asyncio's `Task.cancel()`"""
    import asyncio  # noqa: PLC0415 - what is tested is asyncio's

    class Cancels(Spy):
        async def cleanup(self) -> None:
            raise asyncio.CancelledError

    last = Spy()
    async with nothing_left(), flowing(Cancels(name="cancels"), last):
        pass
    assert last.log[-1] == "cleanup"
    assert "cleanup() of processor 'cancels' failed" in caplog.text


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_an_end_whose_handler_awaits_something_cancelled_goes_on_by_itself() -> None:
    """P2, L3: a native cancellation concerns that piece of code alone."""

    class Broken(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, EndFrame):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            await self.push_frame(frame, direction)

    begin = current_time()
    sink = Spy()
    await run_through(worker_of(Broken(), sink), *texts("a"))
    assert sink.log[-2:] == ["EndFrame", "cleanup"]
    assert current_time() == begin
