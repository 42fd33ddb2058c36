"""Tasks that processors start."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.pipelines import Spy, flowing, run_through, texts, worker_of
from workerbus import CLEANUP_SECONDS, HandlerTypeError, NotRunningError, PipelineWorker
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    TextFrame,
)
from workerbus.pipeline._processor_inbox import inbox_of
from workerbus.testing import nothing_left, settle
from workerbus.worker._core import core_of


class Maker(Spy):
    """Starts what it is given as a task, with its set-up."""

    def __init__(self, function: Any, *args: Any) -> None:
        super().__init__()
        self.function = function
        self.args = args
        self.task: Any = None

    async def setup(self, setup: FrameProcessorSetup) -> None:
        self.task = self.create_task(self.function, *self.args)


async def test_a_task_ends_with_its_processor() -> None:
    """P1, L1"""
    log: list[str] = []

    async def run(word: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append(word)

    maker = Maker(run, "over")
    async with nothing_left():
        await run_through(worker_of(maker))
    assert log == ["over"]
    assert maker.log[-1] == "cleanup"


async def test_a_task_can_be_cancelled_and_waited_for() -> None:
    left = anyio.Event()

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    maker = Maker(run)
    async with flowing(maker):
        maker.task.cancel()
        await maker.task.wait()
        assert left.is_set()
        await maker.task.wait()


async def test_a_task_that_raises_becomes_an_error_frame(caplog: pytest.LogCaptureFixture) -> None:
    """P1"""

    async def fail() -> None:
        raise ValueError("it went wrong")

    first = Spy()
    async with flowing(first, Maker(fail)):
        [error] = await first.until(1, ErrorFrame)
    assert isinstance(error, ErrorFrame)
    assert error.error == "ValueError: it went wrong"
    assert "failed with a task" in caplog.text


async def test_a_task_is_named_after_its_processor_and_its_function() -> None:
    """W8"""
    found: list[Any] = []

    async def look() -> None:
        found.append(anyio.get_current_task().name)

    maker = Maker(look)
    inbox_of(maker).name = "maker"
    async with flowing(maker):
        await maker.task.wait()
    assert "maker look" in found[0]


async def test_no_task_is_started_before_or_after_the_pipeline_runs() -> None:
    async def nothing() -> None:
        pass

    spy = Spy(name="spy")
    with pytest.raises(NotRunningError, match="'spy' is not running yet"):
        spy.create_task(nothing)
    await run_through(worker_of(spy))
    with pytest.raises(NotRunningError, match="'spy' is not running any more"):
        spy.create_task(nothing)
    with pytest.raises(NotRunningError, match="'spy' is not running any more"):
        spy.create_task(nothing())


@pytest.mark.parametrize("end", [EndFrame, CancelFrame])
async def test_a_task_that_ends_with_the_pipeline_starts_no_other(end: type[Frame]) -> None:
    """L1"""
    said: list[str] = []

    class Restarts(FrameProcessor):
        async def listen(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with pytest.raises(NotRunningError, match="is not running any more"):
                    self.create_task(self.listen)
                said.append("refused")

    restarts = Restarts()
    async with nothing_left(), flowing(restarts) as worker:
        for _ in range(2):
            restarts.create_task(restarts.listen)
        await settle()
        await worker.queue_frame(end())
        await worker.wait()
    assert said == ["refused", "refused"]


async def test_a_task_is_made_of_a_coroutine_and_its_name() -> None:
    """N1"""
    names: list[Any] = []

    async def look() -> None:
        names.append(anyio.get_current_task().name)

    spy = Spy(name="spy")
    async with flowing(spy):
        await spy.create_task(look()).wait()
        await spy.create_task(look(), "looks").wait()
        await spy.create_task(look(), name="sees").wait()
    assert [name.split("spy ")[1] for name in names] == ["look", "looks", "sees"]


def not_async(*_args: object) -> int:
    return 7


@pytest.mark.parametrize(("work", "said"), [(not_async, "'not_async' is not async"), ("a word", "not 'a word'")])
async def test_what_is_neither_function_nor_coroutine_is_refused_at_once(work: Any, said: str) -> None:
    """N8"""
    spy = Spy()
    async with flowing(spy):
        with pytest.raises(HandlerTypeError, match=said):
            spy.create_task(work)


async def test_a_coroutine_takes_no_arguments() -> None:
    """N8: and it is closed, so that nobody warns of it."""

    async def nothing() -> None:
        pass

    spy = Spy()
    async with flowing(spy):
        for args in ((7,), ("name", "and more")):
            with pytest.raises(HandlerTypeError, match="a coroutine and its name, not a coroutine and"):
                spy.create_task(nothing(), *args)
        with pytest.raises(HandlerTypeError, match="a coroutine and its name"):
            spy.create_task(nothing(), "name", name="another")


async def test_cancel_task_returns_when_the_task_has_ended() -> None:
    """N1"""
    log: list[str] = []

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            log.append("has ended")

    maker = Maker(run())
    async with flowing(maker):
        await settle()
        await maker.cancel_task(maker.task)
        assert log == ["has ended"]
        await maker.cancel_task(maker.task)


@pytest.mark.parametrize("timeout", [None, 0.5])
async def test_cancel_task_does_not_wait_for_ever(timeout: float | None, caplog: pytest.LogCaptureFixture) -> None:
    """N1, L4: a task that refuses is told of."""
    seconds = CLEANUP_SECONDS if timeout is None else timeout

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    spy = Spy(name="spy")
    async with flowing(spy):
        task = spy.create_task(refuse())
        await settle()
        before = anyio.current_time()
        await spy.cancel_task(task, timeout)
        assert anyio.current_time() == before + seconds
        assert f"a task of processor 'spy' has not ended {seconds:g} seconds after" in caplog.text
        await task.wait()


async def test_a_task_of_a_processor_is_not_interrupted() -> None:
    """P1"""
    ticks: list[int] = []

    class Ticker(FrameProcessor):
        async def setup(self, setup: Any) -> None:
            self.create_task(self.tick)

        async def tick(self) -> None:
            for n in range(5):
                await anyio.sleep(1)
                ticks.append(n)

    async with flowing(Ticker()) as worker:
        await worker.queue_frame(InterruptionFrame())
        await anyio.sleep(6)
    assert ticks == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("how", ["failed", "been cancelled", "been cancelled before it began"])
async def test_a_task_of_a_processor_that_is_over_holds_no_end_up(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """P2: a processor that keeps the end and does nothing is passed by."""

    class Keeper(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                task = self.create_task(self.fail if how == "failed" else anyio.sleep_forever)
                if "before" not in how:
                    await settle()
                await self.cancel_task(task)
            elif not isinstance(frame, EndFrame):
                await self.push_frame(frame, direction)

        async def fail(self) -> None:
            raise ValueError("it went wrong")

    async with flowing(Keeper(name="keeper")) as worker:
        await worker.queue_frames(texts("a"))
        await settle()
        await worker.stop_when_done()
        await worker.wait()
    assert "ends without the end that processor 'keeper' has not pushed on" in caplog.text


def _tasks_of(worker: PipelineWorker) -> int:
    running = core_of(worker).extension.session._running
    assert running is not None
    return len(running._tasks)


async def test_tasks_of_a_processor_that_are_over_are_not_kept() -> None:
    """L1: a processor may start tasks for ever."""

    class Busy(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                await self.create_task(checkpoint).wait()
            await self.push_frame(frame, direction)

    async with flowing(Busy()) as worker:
        await settle()
        assert isinstance(worker, PipelineWorker)
        before = _tasks_of(worker)
        await worker.queue_frames(texts(*range(50)))
        await settle()
        assert _tasks_of(worker) <= before + 2  # the lane of the data frames, and no more
