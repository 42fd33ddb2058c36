"""L1, L3, L6: pipelines that are cut anywhere, and exceptions that end programs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support.pipelines import Alert, Spy, StartsWith, flowing, for_texts, slow, texts, worker_of
from workerbus import BusBridgeProcessor, MemoryBus, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    TextFrame,
)
from workerbus.testing import assert_no_jobs, cancel_at_every_checkpoint, nothing_left, run


async def converse(runner: WorkerRunner) -> None:
    bus, out = runner.bus, Spy(slow(0.01))
    front = worker_of(BusBridgeProcessor(bus=bus, worker_name="front"), out, name="front")
    agent = worker_of(Spy(slow(0.01), max_buffer_size=1), bridged=(), name="agent")

    class Turn(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: Any) -> None:
            await self.push_frame(TextFrame(frame.text) if isinstance(frame, TextFrame) else frame, direction)

    other = worker_of(Turn(), bridged=(), name="other")
    await runner.add_workers(front, agent, other)
    await front.queue_frames(texts("a", "b"))
    await out.until(2)
    await front.queue_frame(InterruptionFrame())
    for worker in (front, agent, other):
        await worker.stop_when_done()
        await worker.wait()


@asynccontextmanager
async def runner_on_a_bus() -> AsyncIterator[WorkerRunner]:
    async with WorkerRunner(bus=MemoryBus(), handle_sigint=False) as runner:
        yield runner


def test_a_conversation_may_be_cut_at_every_checkpoint(backend: str) -> None:
    """L1, L3"""
    report = cancel_at_every_checkpoint(converse, set_up=runner_on_a_bus, check=assert_no_jobs, backend=backend)
    assert len(report.checkpoints) >= 3


async def work(worker: PipelineWorker) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def one_run() -> None:
    async def pause(processor: StartsWith) -> None:
        await anyio.sleep(0.01)

    worker = worker_of(Spy(slow(0.01)), StartsWith(pause), Spy(max_buffer_size=1), name="w")
    await worker.queue_frames(texts("a", "b", "c"))
    await worker.stop_when_done()
    await work(worker)


def test_a_run_may_be_cut_at_every_checkpoint(backend: str) -> None:
    """L1, L3"""

    @asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield None

    report = cancel_at_every_checkpoint(lambda _: one_run(), set_up=nothing, backend=backend)
    assert len(report.checkpoints) >= 1


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
    assert "cleanup() of processor 'cancels' was cancelled" in caplog.text


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


async def test_an_error_of_the_start_is_raised_as_itself() -> None:
    """L6"""

    async def fail(processor: StartsWith) -> None:
        raise ValueError("no device")

    with pytest.raises(ValueError, match="no device"):
        await work(worker_of(Spy(), StartsWith(fail)))


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
