"""Processors that pause: what waits, what does not, and how a pause ends."""

from collections.abc import Callable
from typing import Any

import pytest
from anyio import Event, create_task_group, current_time, fail_after, sleep, sleep_forever
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pipelines import DOWN, UP, Alert, Firm, Gate, Spy, flowing, for_texts, hang, texts, worker_of
from support.workers import running
from workerbus import BusFrameMessage, HandlerTypeError, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
    InterruptionFrame,
    StartFrame,
    TextFrame,
)
from workerbus.testing import RecordingBus, nothing_left, run, settle


async def test_a_paused_processor_begins_no_frame_but_system_frames() -> None:
    """P1: both directions wait, and go on in their order."""
    spy, last = Spy(), Spy()
    async with flowing(spy, last) as worker:
        await spy.pause_processing_frames()
        await worker.queue_frames(texts("a", "b"))
        await worker.queue_frame(TextFrame("up"), UP)
        await worker.queue_frame(Alert("!"))
        await last.until(1, Alert)
        await settle()
        assert spy.heard == ["!"]
        await spy.resume_processing_frames()
        await spy.until(3)
    assert [text for text in spy.heard if text != "up"] == ["!", "a", "b"]


async def test_a_processor_that_pauses_while_it_handles_a_frame_finishes_that_one() -> None:
    """P1"""
    gate = Gate()

    async def pause(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "pause":
            await spy.pause_processing_frames()
            await gate(spy, frame)

    spy, last = Spy(pause), Spy()
    async with flowing(spy, last) as worker:
        await worker.queue_frames(texts("pause", "waits"))
        await gate.reached.wait()
        gate.open()
        await last.until(1)
        await settle()
        assert (spy.heard, last.heard) == (["pause"], ["pause"])
        await spy.resume_processing_frames()
        await last.until(2)


async def test_system_frames_pause_on_their_own() -> None:
    """P1: data frames go on meanwhile."""
    spy = Spy()
    async with flowing(spy) as worker:
        await spy.pause_processing_system_frames()
        await worker.queue_frame(Alert("!"))
        await worker.queue_frames(texts("a", "b"))
        await spy.until(2)
        assert spy.heard == ["a", "b"]
        await spy.resume_processing_system_frames()
        await spy.until(1, Alert)


async def test_pauses_do_not_add_up() -> None:
    """P1: one resume ends them; one too many does nothing."""
    spy = Spy()
    async with flowing(spy) as worker:
        for _ in range(3):
            await spy.pause_processing_frames()
        await worker.queue_frame(TextFrame("a"))
        for _ in range(2):
            await spy.resume_processing_frames()
        await spy.until(1)
        await spy.pause_processing_frames()
        await worker.queue_frame(TextFrame("b"))
        await settle()
        assert spy.heard == ["a"]
        await spy.resume_processing_frames()
        await spy.until(2)


async def test_an_interruption_drops_what_a_pause_holds_and_does_not_end_it() -> None:
    """P1"""
    spy, last = Spy(), Spy()
    async with flowing(spy, last) as worker:
        await spy.pause_processing_frames()
        await worker.queue_frames([TextFrame("goes"), Firm("stays")])
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("comes later"))
        await last.until(1, InterruptionFrame)
        await settle()
        assert spy.heard == []
        await spy.resume_processing_frames()
        await spy.until(2)
    assert spy.heard == ["stays", "comes later"]


async def test_an_end_waits_for_the_end_of_a_pause() -> None:
    """P2: an end that is queued comes behind what waits."""
    spy = Spy()
    async with flowing(spy) as worker:
        await spy.pause_processing_frames()
        await worker.queue_frames(texts("a"))
        await worker.queue_frame(EndFrame())
        await settle()
        assert spy.heard == []
        await spy.resume_processing_frames()
        await worker.wait()
    assert spy.log[-3:] == ["TextFrame", "EndFrame", "cleanup"]


@pytest.mark.parametrize("system", [False, True])
async def test_a_cancel_gets_through_a_pause(system: bool, caplog: pytest.LogCaptureFixture) -> None:
    """P2, L4"""
    spy = Spy()
    worker = worker_of(spy, name="w")
    async with nothing_left(), running(worker):
        await (spy.pause_processing_system_frames() if system else spy.pause_processing_frames())
        await worker.queue_frames([TextFrame("a"), Alert("!")])
        await settle()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]
    assert "has not got through" not in caplog.text


async def test_a_pause_of_system_frames_holds_an_end_up_no_longer_than_the_grace() -> None:
    """P2, R2"""
    spy = Spy()
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        await runner.add_workers(worker_of(spy, name="w"))
        await runner.registry.wait_for("w")
        await spy.pause_processing_system_frames()
        await spy.queue_frame(Alert("!"))
        await runner.end()
    assert spy.heard == []


async def test_a_bound_holds_while_a_processor_is_paused() -> None:
    """P1"""
    spy = Spy(for_texts(Gate()), max_buffer_size=2)
    async with flowing(spy) as worker:
        await spy.pause_processing_frames()
        await worker.queue_frames(texts("a", "b"))
        waits = [spy.queue_frame(TextFrame("c")), worker.queue_frame(TextFrame("d"))]
        for each in waits:
            with pytest.raises(TimeoutError):
                await within_a_second(each)
        spy.on = None
        await spy.resume_processing_frames()
        await spy.until(2)
    assert spy.heard == ["a", "b"]


async def within_a_second(what: object) -> None:
    with fail_after(1):
        await what  # type: ignore[misc]  # a coroutine


async def test_a_processor_pauses_while_its_pipeline_runs() -> None:
    """N8"""
    with pytest.raises(NotRunningError, match="is not running yet"):
        await Spy().pause_processing_frames()
    await Spy().resume_processing_frames()


# --- pauses that travel


async def test_a_pause_may_come_as_a_frame_and_ends_with_an_urgent_one() -> None:
    """P1: for the processor that it names alone; it goes on to the others."""
    first, paused, last = Spy(), Spy(), Spy()
    async with flowing(first, paused, last) as worker:
        await worker.queue_frames([TextFrame("a"), FrameProcessorPauseFrame(paused), TextFrame("b")])
        await last.until(1, FrameProcessorPauseFrame)
        await settle()
        assert (first.heard, paused.heard, last.heard) == (["a", "b"], ["a"], ["a"])
        await worker.queue_frame(FrameProcessorResumeUrgentFrame(paused))
        await last.until(2)


async def test_a_pause_for_one_of_two_processors_that_are_equal_is_for_it_alone() -> None:
    """N6, P1: and have the same name."""

    class Equal(Spy):
        __hash__ = None  # type: ignore[assignment]  # as of a dataclass

        def __eq__(self, other: object) -> bool:
            return True

    first, second, third = (Equal(name="equal") for _ in range(3))
    async with flowing(first, second, third) as worker:
        await worker.queue_frames([FrameProcessorPauseFrame(second), TextFrame("a")])
        await third.until(1, FrameProcessorPauseFrame)
        await settle()
        assert (first.heard, second.heard, third.heard) == (["a"], [], [])
        await second.resume_processing_frames()
        await third.until(1)


async def test_a_processor_that_raises_at_a_pause_is_paused_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """P1: and one that raises at what ends the pause goes on."""

    async def fail(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, FrameProcessorPauseFrame | FrameProcessorResumeUrgentFrame):
            raise ValueError("it went wrong")

    spy = Spy(fail, name="spy")
    async with flowing(spy) as worker:
        await worker.queue_frames([FrameProcessorPauseFrame(spy), TextFrame("a")])
        await spy.until(1, FrameProcessorPauseFrame)
        await settle()
        assert spy.heard == []
        await worker.queue_frame(FrameProcessorResumeUrgentFrame(spy))
        await spy.until(1)
    assert caplog.text.count("processor 'spy' failed with FrameProcessor") == 2


async def test_an_urgent_pause_overtakes_and_one_in_its_place_ends_it_from_the_other_side() -> None:
    """P1: a `FrameProcessorResumeFrame` waits at the processor itself, and works for one that is not paused there."""
    gate = Gate()
    first, paused, last = Spy(for_texts(gate)), Spy(), Spy()
    async with flowing(first, paused, last) as worker:
        await worker.queue_frames(texts("a"))
        await gate.reached.wait()
        await worker.queue_frame(FrameProcessorPauseUrgentFrame(paused))
        await last.until(1, FrameProcessorPauseUrgentFrame)
        gate.open()
        await worker.queue_frame(FrameProcessorResumeFrame(paused))
        await first.until(1, FrameProcessorResumeFrame)
        await settle()
        assert paused.heard == []
        await paused.resume_processing_frames()
        await last.until(1, FrameProcessorResumeFrame)
        await worker.queue_frame(TextFrame("b"))
        await last.until(2)


async def test_an_urgent_pause_counts_while_a_flush_waits_for_the_frame_before_it() -> None:
    """P1, P6"""

    async def slowly(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await sleep(1)

    spy, last = Spy(slowly), Spy()
    async with flowing(spy, last) as worker, create_task_group() as group:
        await worker.queue_frame(Alert("!"))
        group.start_soon(worker.flush)
        await settle()
        await worker.queue_frame(FrameProcessorPauseUrgentFrame(spy))
        await last.until(1, FrameProcessorPauseUrgentFrame)
        await worker.queue_frame(TextFrame("a"))
        await settle()
        assert last.heard == ["!"]
        await spy.resume_processing_frames()
    assert last.heard == ["!", "a"]


async def test_frames_that_pause_stay_in_their_pipeline_and_survive_interruptions() -> None:
    """P1, P3"""
    bus, hanging, paused = RecordingBus(), Spy(for_texts(hang)), Spy()
    async with running(worker_of(hanging, paused, bridged=(), name="w"), bus=bus) as runner:
        worker = runner.get_worker("w")
        assert isinstance(worker, PipelineWorker)
        await worker.queue_frames([TextFrame("a"), FrameProcessorPauseFrame(paused), TextFrame("b")])
        await hanging.until(1)
        await worker.queue_frame(InterruptionFrame())
        await paused.until(1, FrameProcessorPauseFrame)
        await worker.queue_frame(FrameProcessorResumeUrgentFrame(paused))
        await paused.until(1, FrameProcessorResumeUrgentFrame)
        await settle()
    assert {type(message.frame) for message in bus.messages(BusFrameMessage)} == {InterruptionFrame}


# --- pauses and interruptions, mixed


class Noting(FrameProcessor):
    """Takes its time for each frame, and writes down when it begins and when it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        number = frame.metadata.get("number")
        if number is not None:
            self.log.append(("begins", number))
            await sleep(0.5)
            self.log.append(("done", number))
        await self.push_frame(frame, direction)


FRAMES: dict[str, Callable[[], Frame]] = {
    "data": lambda: TextFrame(""),
    "firm": lambda: Firm(""),
    "interrupt": InterruptionFrame,
}
DOINGS = ("data", "data", "firm", "interrupt", "interrupt", "pause", "resume", "pause system", "resume system")


@given(
    script=st.lists(st.tuples(st.sampled_from(DOINGS), st.sampled_from([0.0, 0.1, 0.3, 0.7])), min_size=6, max_size=14),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 20),
)
@settings(max_examples=100)
def test_pauses_and_interruptions_hold_what_waits_each_for_its_time(
    script: list[tuple[str, float]], backend: str, seed: int
) -> None:
    """P1: however they overlap, nothing begins in a pause, nor before an interruption that it is behind is done."""
    noting = Noting()

    async def main() -> None:
        worker = worker_of(noting)
        async with running(worker):
            for n, (what, seconds) in enumerate([*script, ("resume", 0), ("resume system", 50)]):
                noting.log.append((what, f"{what} {n}"))
                if what in FRAMES:
                    frame = FRAMES[what]()
                    frame.metadata["number"] = f"{what} {n}"
                    await worker.queue_frame(frame)
                elif "pause" in what:
                    await (
                        noting.pause_processing_system_frames if "system" in what else noting.pause_processing_frames
                    )()
                elif "system" in what:
                    await noting.resume_processing_system_frames()
                else:
                    await noting.resume_processing_frames()
                await settle()
                await sleep(seconds)

    run(main, backend=backend, seed=seed)
    queued: list[str] = []
    dropped, begun, done, paused = set[str](), list[str](), set[str](), set[str]()
    for what, which in noting.log:
        kind = "system" if "interrupt" in which else "data"
        if what == "begins":
            assert kind not in paused
            assert which not in dropped
            before = queued[: queued.index(which)]
            assert kind == "system" or all(each in done for each in before if each.startswith("interrupt"))
            begun.append(which)
        elif what == "done":
            done.add(which)
        elif what == "interrupt":
            dropped |= {each for each in queued if each.startswith("data") and each not in begun}
            queued.append(which)
        elif what in FRAMES:
            queued.append(which)
        else:
            (paused.discard if "resume" in what else paused.add)("system" if "system" in what else "data")
    for kinds in (("interrupt",), ("data", "firm")):
        expected = [each for each in queued if each.startswith(kinds) and each not in dropped]
        assert [each for each in begun if each.startswith(kinds)] == expected


# --- until something is ready


def holding(ready: Any, **kwargs: Any) -> Spy:
    """A processor that holds all frames from the `StartFrame` on."""

    class Holding(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, StartFrame):
                await self.pause_processing_all_frames_until(ready, **kwargs)
            await super().process_frame(frame, direction)

    return Holding()


async def test_a_processor_holds_all_frames_until_something_is_ready() -> None:
    """P1: system frames, too; the frame that is being handled passes, so that the pipeline starts."""
    ready, last = Event(), Spy()
    spy = holding(ready.wait)
    async with flowing(spy, last) as worker:
        await worker.queue_frames([*texts("a", "b"), Alert("!")])
        await worker.queue_frame(TextFrame("up"), UP)
        await settle()
        assert spy.heard == []
        ready.set()
        await last.until(2)
        await spy.until(3)
    assert sorted(spy.heard) == ["!", "a", "b", "up"]
    assert spy.heard[0] == "!"
    assert last.heard_going(DOWN) == ["!", "a", "b"]


async def test_a_pause_ends_in_any_case_when_its_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """P1: after five seconds, unless another time is given; the log says so."""
    for seconds, options in ((5.0, {}), (0.5, {"timeout": 0.5})):
        spy = holding(sleep_forever, **options)
        async with flowing(spy) as worker:
            begin = current_time()
            await worker.queue_frames(texts("a"))
            await spy.until(1)
            assert current_time() == begin + seconds
    assert [record.getMessage().partition(" goes on ")[2] for record in caplog.records] == [
        "after 5 seconds, without what it has waited for",
        "after 0.5 seconds, without what it has waited for",
    ]


async def test_what_fails_to_get_ready_is_reported_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """P1"""

    async def fail() -> None:
        raise OSError("no connection")

    spy, errors = holding(fail), list[str]()
    worker = worker_of(spy, name="w")
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame.error))
    async with running(worker):
        await worker.queue_frames(texts("a"))
        await spy.until(1)
    assert errors == ["OSError: no connection"]
    assert "failed with a task" in caplog.text


async def test_pauses_until_something_is_ready_end_each_for_itself() -> None:
    """P1: and beside those that are ended by hand."""
    first, second, spy = Event(), Event(), Spy()
    async with flowing(spy) as worker:
        await spy.pause_processing_all_frames_until(first.wait)
        await spy.pause_processing_all_frames_until(second.wait)
        await spy.pause_processing_frames()
        await worker.queue_frames([*texts("a"), Alert("!")])
        first.set()
        await settle()
        assert spy.heard == []
        second.set()
        await settle()
        assert spy.heard == ["!"]
        await spy.resume_processing_frames()
        await spy.until(1)


async def test_a_cancel_gets_through_a_pause_that_waits_and_an_interruption_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P2, L4, P1"""
    ready, spy = Event(), Spy()
    worker = worker_of(spy, name="w")
    async with nothing_left(), running(worker):
        await spy.pause_processing_all_frames_until(ready.wait)
        await worker.queue_frames([TextFrame("dropped"), InterruptionFrame(), TextFrame("a")])
        await settle()
        ready.set()
        await spy.until(1)
        for _ in range(3):
            await spy.pause_processing_all_frames_until(sleep_forever, timeout=1000)
        await worker.queue_frames([TextFrame("b"), Alert("!")])
        await settle()
        before = current_time()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
        assert current_time() == before
    assert spy.heard == ["a"]
    assert spy.log[-2:] == ["CancelFrame", "cleanup"]
    assert "has not got through" not in caplog.text


async def test_a_pause_that_would_have_ended_while_a_cancel_goes_through_is_over_already(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P2, L4: it ends once."""

    class Slow(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, CancelFrame):
                await sleep(0.5)
            await super().process_frame(frame, direction)

    ready, first, second = Event(), Slow(), Spy()
    worker = worker_of(first, second, name="w")
    async with running(worker):
        await second.pause_processing_all_frames_until(ready.wait)
        before = current_time()
        await worker.queue_frame(CancelFrame())
        await sleep(0.25)
        ready.set()
        await worker.wait()
        assert current_time() == before + 0.5
    assert second.log[-2:] == ["CancelFrame", "cleanup"]
    assert "has not got through" not in caplog.text


async def test_a_pause_that_cannot_be_is_refused() -> None:
    """N8, L1: before anything is held, and nothing is left unawaited."""
    spy = Spy()
    with pytest.raises(NotRunningError):
        await spy.pause_processing_all_frames_until(sleep_forever)
    async with flowing(spy) as worker:
        with pytest.raises(ValueError, match="timeout is a number of seconds, more than 0, not 0"):
            await spy.pause_processing_all_frames_until(sleep_forever, timeout=0)
        not_async: Any = Event().set
        with pytest.raises(HandlerTypeError):
            await spy.pause_processing_all_frames_until(not_async)
        await worker.queue_frames(texts("a"))
        await spy.until(1)
