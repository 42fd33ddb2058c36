"""Order, room and ends of pipelines: faults that were planted there had turned no test red."""

import asyncio

import anyio
import pytest
from anyio import CancelScope, current_time, sleep
from anyio.lowlevel import checkpoint

from support.pipelines import Alert, Firm, Gate, Spy, StartsWith, flowing, for_texts, run_through, texts, worker_of
from support.workers import running
from workerbus import CLEANUP_SECONDS, PipelineWorker
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessed,
    FrameProcessor,
    InterruptionFrame,
    Observer,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    TextFrame,
)
from workerbus.testing import settle


async def test_an_end_before_the_start_comes_behind_those_who_wait_for_room() -> None:
    """P2: the first processor is full, and the start is still on its way."""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=1), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    async with anyio.create_task_group() as group:

        async def begin() -> None:
            await starter.begun.wait()
            group.start_soon(worker.queue_frames, texts("a", "b"))
            await settle()
            await worker.stop_when_done()
            may_start.set()

        group.start_soon(begin)
        async with running(worker):
            await worker.wait()
    assert spy.heard == ["a", "b"]
    assert spy.log[-2:] == ["EndFrame", "cleanup"]


async def enter(worker: PipelineWorker, frame: TextFrame, entered: list[str]) -> None:
    """Queue a frame, and write down when it is in."""
    await worker.queue_frame(frame)
    entered.append(frame.text)


async def test_what_an_interruption_spares_still_takes_room() -> None:
    """P1: a bound holds after it as before."""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=2)
    entered: list[str] = []

    async with flowing(sink) as worker, anyio.create_task_group() as group:
        for word in ("being handled", "waits", "waits too"):
            await worker.queue_frame(Firm(word))
            await settle()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        group.start_soon(enter, worker, TextFrame("comes later"), entered)
        await settle()
        assert entered == []
        gate.open()
    assert sink.heard == ["being handled", "waits", "waits too", "comes later"]


async def test_an_interruption_before_the_start_spares_what_is_uninterruptible() -> None:
    """P1, P2"""
    spy = Spy()
    await run_through(worker_of(spy), Firm("stays"), *texts("goes"), InterruptionFrame(), *texts("comes later"))
    assert spy.heard == ["stays", "comes later"]


async def test_an_interruption_before_the_start_lets_nobody_past_the_gate() -> None:
    """P2: whom it makes room for waits for the start like everybody."""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=1), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    async with anyio.create_task_group() as group:

        async def begin() -> None:
            await starter.begun.wait()
            group.start_soon(worker.queue_frames, [*texts("goes"), Firm("stays")])
            await settle()
            await worker.queue_frame(InterruptionFrame())
            await settle()
            assert spy.heard == []
            may_start.set()

        group.start_soon(begin)
        async with running(worker):
            await spy.until(1)
    assert spy.heard == ["stays"]


async def test_an_interruption_from_another_task_cancels_the_processors_own_frame() -> None:
    """P1: only the handler that calls for it is let finish."""
    gate = Gate()

    async def on(spy: Spy, frame: Frame) -> None:
        await (spy.broadcast_interruption() if isinstance(frame, Alert) else gate(spy, frame))

    async with flowing(Spy(on)) as worker:
        await worker.queue_frames(texts("takes for ever"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("stop"))
        await settle()
        assert gate.left == 1


async def test_an_interruption_lets_in_all_for_whom_it_makes_room() -> None:
    """P1"""
    gate = Gate()
    sink = Spy(for_texts(gate), max_buffer_size=2)
    entered: list[str] = []

    async with flowing(sink) as worker, anyio.create_task_group() as group:
        await worker.queue_frame(Firm("being handled"))
        await gate.reached.wait()
        await worker.queue_frames(texts("goes", "goes too"))
        for word in ("stays", "stays too"):
            group.start_soon(enter, worker, Firm(word), entered)
            await settle()
        assert entered == []
        await worker.queue_frame(InterruptionFrame())
        await settle()
        assert sorted(entered) == ["stays", "stays too"]
        gate.open()
    assert sink.heard == ["being handled", "stays", "stays too"]


async def test_a_processor_that_fails_with_an_interruption_handles_what_comes_behind_it() -> None:
    """P1"""

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            raise ValueError("it went wrong")

    spy = Spy(on)
    async with flowing(spy) as worker:
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frames(texts("behind it"))
        await spy.until(1)
    assert spy.heard == ["behind it"]


def unwinding(seconds: float) -> Spy:
    """A processor whose handling of texts takes a while to be cancelled."""

    async def on(spy: Spy, frame: Frame) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(seconds)

    return Spy(for_texts(on))


async def test_a_second_interruption_holds_the_first_one_up_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    """P1: both pass when the handler has unwound."""
    spy, sink = unwinding(0.5), Spy()
    async with flowing(spy, sink) as worker:
        await worker.queue_frames(texts("a"))
        await spy.until(1)
        begin = current_time()
        for _ in range(2):
            await worker.queue_frame(InterruptionFrame())
            await settle()
        await sink.until(2, InterruptionFrame)
        assert current_time() == begin + 0.5
    assert "after an interruption" not in caplog.text


async def test_a_handler_that_is_not_over_long_after_an_interruption_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4: user code that refuses cancellation is named in the log."""
    spy, sink = unwinding(4), Spy()
    async with flowing(spy, sink) as worker:
        await worker.queue_frames(texts("a"))
        await spy.until(1)
        await worker.queue_frame(InterruptionFrame())
        await sink.until(1, InterruptionFrame)
    said = [record.levelname for record in caplog.records if "2 s after an interruption" in record.getMessage()]
    assert said == ["WARNING"]


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
            raise ValueError("after")


async def test_a_processor_that_fails_when_it_has_passed_the_start_on_keeps_nothing_from_starting() -> None:
    """P1: it is an error like others."""
    errors: list[ErrorFrame] = []
    sink = Spy()
    worker = worker_of(Start(), sink)
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame))
    await run_through(worker, *texts("a"))
    assert sink.heard == ["a"]
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


async def test_system_frames_that_wait_behind_one_that_is_suspended_hold_no_data_back() -> None:
    """B2, P1"""
    gate = Gate()

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await gate(spy, frame)

    spy = Spy(on)
    async with flowing(spy) as worker:
        for word in ("suspended", "waits"):
            await worker.queue_frame(Alert(word))
        await gate.reached.wait()
        await worker.queue_frames(texts("goes on"))
        await settle()
        assert spy.heard == ["suspended", "goes on"]
        gate.open()


async def test_a_processor_that_never_waits_lets_others_run_now_and_then() -> None:
    """B2: a flood starves nobody, though the processor passes nothing on."""
    turns = 0
    seen: list[int] = []

    class Swallows(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                seen.append(turns)
            else:
                await self.push_frame(frame, direction)

    async def others() -> None:
        nonlocal turns
        while len(seen) < 1000:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        await run_through(worker_of(Swallows()), *texts(*range(1000)))
    assert seen[-1] - seen[0] >= 10


async def test_a_task_of_a_processor_that_has_failed_holds_no_end_up(caplog: pytest.LogCaptureFixture) -> None:
    """P2: a processor that keeps the end and does nothing is passed by."""

    class Keeper(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                self.create_task(self.fail)
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


async def test_an_end_that_a_branch_lets_out_twice_still_waits_for_the_others() -> None:
    """P2"""

    class Twice(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            for _ in range(2 if isinstance(frame, EndFrame) else 1):
                await self.push_frame(frame, direction)

    async def on(spy: Spy, frame: Frame) -> None:
        await sleep(1)
        await spy.push_frame(TextFrame("slow"))

    sink = Spy()
    await run_through(worker_of(ParallelPipeline([Twice()], [Spy(for_texts(on))]), sink), *texts("a"))
    assert sink.log == ["setup", "StartFrame", "TextFrame", "TextFrame", "EndFrame", "cleanup"]


async def test_a_branch_is_free_for_another_parallel_pipeline_after_a_stop() -> None:
    """P2: as single processors are."""
    spy = Spy()
    branch = Pipeline([spy])
    await run_through(worker_of(ParallelPipeline(branch)), *texts("a"), StopFrame())
    await run_through(worker_of(ParallelPipeline(branch, [Spy()])), *texts("b"))
    assert spy.heard == ["a", "b"]


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


def _tasks_of(worker: PipelineWorker) -> int:
    flow = worker._course._flow
    assert flow is not None
    return len(flow._tasks)


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
