"""P1: what an interruption drops, and what it spares."""

import copy
from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope, current_time, sleep
from anyio.lowlevel import checkpoint

from support.buses import Wire
from support.pipelines import (
    UP,
    Alert,
    Firm,
    Gate,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    hang,
    kept,
    run_through,
    said_done,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import CLEANUP_SECONDS, BusFrameMessage, BusMessage, WorkerRunner
from workerbus.pipeline import (
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    SyncParallelPipeline,
    TextFrame,
    frame_type,
)
from workerbus.pipeline._frames import received
from workerbus.testing import settle


async def test_an_interruption_drops_what_waits_and_cancels_what_is_being_handled() -> None:
    """P1"""
    first, last = Spy(for_texts(hang)), Spy()
    async with flowing(first, last) as worker:
        await worker.queue_frames(texts("a", "b", "c"))
        await first.until(1)
        first.on = None
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("d"))
        await last.until(1)
    assert first.heard == ["a", "d"]
    assert last.heard == ["d"]


async def test_what_is_uninterruptible_is_spared(caplog: pytest.LogCaptureFixture) -> None:
    """P1"""
    gate, last = Gate(), Spy()
    first = Spy(for_texts(gate))
    async with flowing(first, last) as worker:
        await worker.queue_frames([Firm("a"), TextFrame("b"), Firm("c"), TextFrame("d"), Firm("e")])
        await gate.reached.wait()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        gate.open()
        await last.until(3)
    assert last.heard == ["a", "c", "e"]
    assert not caplog.records


async def test_a_frame_of_any_class_is_spared_when_it_says_so() -> None:
    """P1: and one of an uninterruptible class is not; the frame that is being handled, too."""

    @frame_type
    class Kept(TextFrame):
        interruptible: bool = False

    gate, last = Gate(), Spy()
    first = Spy(for_texts(gate))
    frames = [TextFrame("a"), TextFrame("b"), TextFrame("c"), Firm("d"), Kept("e"), Kept("f", interruptible=True)]
    frames[0].interruptible = frames[2].interruptible = False
    frames[3].interruptible = True
    async with flowing(first, last) as worker:
        await worker.queue_frames(frames)
        await gate.reached.wait()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        gate.open()
        await last.until(3)
    assert last.heard == ["a", "c", "e"]
    assert [frame.interruptible for frame in frames] == [False, True, False, True, False, True]


async def test_a_frame_that_is_spared_is_spared_before_the_start_and_between_branches() -> None:
    """P1"""
    last = Spy()
    stuck = Spy(for_texts(hang))
    worker = worker_of(SyncParallelPipeline([stuck], [Spy()]), last, name="w")
    await worker.queue_frames([TextFrame("a"), TextFrame("b"), kept("kept")])
    async with running(worker):
        await stuck.until(1)
        stuck.on = None
        await worker.queue_frame(InterruptionFrame())
        await last.until(1)
        await settle()
    assert last.heard == ["kept"]


def test_a_copy_of_a_frame_is_as_interruptible_as_the_frame() -> None:
    """P1: those that `broadcast_frame_instance` makes, and what a bridge brings."""
    frame = TextFrame("kept")
    assert copy.copy(frame).interruptible
    frame.interruptible = False
    assert not copy.copy(frame).interruptible
    assert not copy.copy(copy.copy(frame)).interruptible
    assert not received(frame, object()).interruptible
    firm = Firm("firm")
    assert firm.interruptible is copy.copy(firm).interruptible is False
    firm.interruptible = True
    assert copy.copy(firm).interruptible
    assert copy.copy(copy.copy(firm)).interruptible


async def test_an_end_survives_an_interruption() -> None:
    """P1, P2"""
    first = Spy(for_texts(hang))
    async with flowing(first, Spy()) as worker:
        await worker.queue_frames(texts("a", "b"))
        await worker.queue_frame(EndFrame())
        await first.until(1)
        await worker.queue_frame(InterruptionFrame())
        await worker.wait()
    assert first.log == ["setup", "StartFrame", "TextFrame", "InterruptionFrame", "EndFrame", "cleanup"]


async def test_no_frame_behind_an_interruption_is_dropped_by_it() -> None:
    """P1: also where handlers of the interruption take their time"""

    async def take_time(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            await anyio.sleep(0.1)

    last = Spy()
    async with flowing(*(Spy(take_time) for _ in range(4)), last) as worker:
        await worker.queue_frames(texts(*range(20)))
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frames(texts(*range(100, 120)))
        await last.until(1, InterruptionFrame)
        while "119" not in last.heard:
            await last.until(len(last.heard) + 1)
    cut = next(n for n, frame in enumerate(last.got) if isinstance(frame, InterruptionFrame))
    assert last.heard[-20:] == [str(n) for n in range(100, 120)]
    assert [frame.text for frame in last.got[cut:] if isinstance(frame, TextFrame)] == last.heard[-20:]


async def test_a_handler_that_swallows_its_cancellation_takes_no_later_frame_with_it() -> None:
    """P1: the next one is handled as ever, though no interruption comes to that branch."""

    async def swallow(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "a":
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()
        else:
            await anyio.sleep(1)

    async def interrupt(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "a":
            await spy.push_frame(InterruptionFrame())

    spy, last = Spy(for_texts(swallow)), Spy()
    async with flowing(ParallelPipeline([spy], [Spy(interrupt)]), last) as worker:
        await worker.queue_frames([TextFrame("a"), Firm("b"), Firm("c")])
        await worker.flush()
    assert said_done(spy)[-2:] == ["b", "c"]


async def test_no_frame_gets_ahead_of_an_interruption_that_waits_for_a_system_frame() -> None:
    """P1"""

    async def take_time(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await anyio.sleep(1)

    spy = Spy(take_time)
    async with flowing(spy) as worker:
        await worker.queue_frame(Alert("!"))
        await spy.until(1, Alert)
        await worker.queue_frames([InterruptionFrame(), TextFrame("a")])
        await spy.until(1)
    assert [type(frame) for frame in spy.got[1:4]] == [Alert, InterruptionFrame, TextFrame]


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


async def test_upstream_frames_are_dropped_too() -> None:
    """P1"""
    last = Spy(for_texts(hang))
    async with flowing(Spy(), last) as worker:
        await worker.queue_frames(texts("a", "b"), UP)
        await last.until(1)
        last.on = None
        await worker.queue_frame(InterruptionFrame(), UP)
        await worker.queue_frame(TextFrame("c"), UP)
        await last.until(2)
    assert last.heard == ["a", "c"]


async def test_interruptions_one_after_the_other_do_not_wedge_a_processor() -> None:
    """P1"""
    last = Spy()
    async with flowing(Spy(for_texts(hang), name="hangs"), FrameProcessor(), last) as worker:
        for n in range(50):
            await worker.queue_frame(TextFrame(str(n)))
            await worker.queue_frame(InterruptionFrame())
            if n % 7 == 0:
                await settle()
        await last.until(50, InterruptionFrame)
        await worker.queue_frame(Alert("!"))
        await last.until(1, Alert)
        worker.pipeline.processors[0].on = None  # type: ignore[attr-defined]  # it is a Spy
        await worker.queue_frame(TextFrame("x"))
        await last.until(1)
    assert last.heard == ["!", "x"]


# --- handlers that are cancelled


async def test_a_cancelled_handler_has_unwound_before_the_interruption_is_handled() -> None:
    """P1"""

    async def unwind_slowly(spy: Spy, frame: Frame) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            await spy.push_frame(Alert("last words"))

    first, last = Spy(for_texts(unwind_slowly)), Spy()
    async with flowing(first, last) as worker:
        for n in range(1, 4):
            await worker.queue_frame(TextFrame("a"))
            await first.until(n)
            await worker.queue_frame(InterruptionFrame())
            await last.until(n, InterruptionFrame)
    assert [type(frame) for frame in last.got[1:7]] == [Alert, InterruptionFrame] * 3


async def test_a_handler_that_refuses_cancellation_holds_an_interruption_up_for_a_bounded_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P1, L4: and is named in the log"""

    async def refuse(spy: Spy, frame: Frame) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    first, last = Spy(for_texts(refuse), name="stubborn"), Spy()
    async with flowing(first, last) as worker:
        await worker.queue_frame(TextFrame("a"))
        await first.until(1)
        before = anyio.current_time()
        await worker.queue_frame(InterruptionFrame())
        await last.until(1, InterruptionFrame)
        assert anyio.current_time() - before == pytest.approx(CLEANUP_SECONDS)
    [said] = [record for record in caplog.records if "2 s after an interruption" in record.getMessage()]
    assert said.levelname == "WARNING"
    assert "processor 'stubborn' still handles a frame" in said.getMessage()


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


async def test_what_comes_behind_two_interruptions_is_dropped_by_neither() -> None:
    """P1: it waits until both have been passed on, where the first takes its time as well as where the second does."""

    async def take_time(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            await sleep(1)

    first, second, sink = Spy(take_time), Spy(slow(1)), Spy()
    async with flowing(first, second, sink) as worker:
        await worker.queue_frames([InterruptionFrame(), InterruptionFrame(), TextFrame("behind both")])
        await second.until(2, InterruptionFrame)
        await second.until(1)
        await sleep(2)
    assert [type(frame) for frame in second.got[1:4]] == [InterruptionFrame, InterruptionFrame, TextFrame]
    assert sink.heard == ["behind both"]


# --- processors that interrupt


async def test_a_processor_interrupts_everybody_but_its_own_handler() -> None:
    """P1"""

    class Listener(Spy):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, TextFrame) and frame.text == "stop":
                await self.broadcast_interruption()
                await anyio.sleep(0.1)
                self.log.append("went on")
            await super().process_frame(frame, direction)

    first, listener, last = Spy(), Listener(), Spy(for_texts(hang))
    async with flowing(first, listener, last) as worker:
        await worker.queue_frames(texts("a", "b", "stop", "d"))
        await first.until(1, InterruptionFrame)
        last.on = None
        await worker.queue_frame(TextFrame("e"))
        while "e" not in last.heard:
            await last.until(len(last.heard) + 1)
    assert "went on" in listener.log
    assert "stop" in last.heard
    assert "b" not in last.heard
    assert "d" not in last.heard  # it waited at the listener
    assert sum(isinstance(frame, InterruptionFrame) for frame in [*first.got, *last.got]) == 2
    assert not any(isinstance(frame, InterruptionFrame) for frame in listener.got)


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


async def test_a_processor_that_interrupts_is_interrupted_before_the_bus_has_heard_of_it() -> None:
    """P1: itself first, though what it pushes takes its time to go out."""

    class Slow(Wire):
        async def publish(self, message: BusMessage) -> None:
            await (sleep(1) if isinstance(message, BusFrameMessage) else checkpoint())
            await super().publish(message)

    gate = Gate()

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await spy.broadcast_interruption()
        elif isinstance(frame, TextFrame):
            await gate(spy, frame)

    spy = Spy(on)
    worker = worker_of(spy, bridged=(), name="w")
    async with running(worker, bus=Slow()):
        await worker.queue_frame(TextFrame("is handled"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("interrupt"))
        await settle()
        assert gate.left == 1
        gate.open()
        await worker.queue_frame(TextFrame("comes later"))
    assert "comes later" in said_done(spy)


# --- before the start


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


async def test_an_interruption_before_the_start_spares_what_is_uninterruptible() -> None:
    """P1, P2"""
    spy = Spy()
    frames = [Firm("stays"), *texts("goes"), kept("stays, too"), InterruptionFrame(), *texts("comes later")]
    await run_through(worker_of(spy), *frames)
    assert spy.heard == ["stays", "stays, too", "comes later"]


async def test_an_interruption_during_the_start_makes_room_for_what_is_uninterruptible() -> None:
    """P1, P2"""
    gate = Gate()

    async def wait(processor: StartsWith) -> None:
        await gate(Spy(), TextFrame(""))

    spy = Spy(max_buffer_size=1)
    worker = worker_of(spy, StartsWith(wait), name="w")
    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        await gate.reached.wait()
        group.start_soon(worker.queue_frames, [TextFrame("a"), Firm("b"), TextFrame("c")])
        await settle()
        await worker.queue_frame(InterruptionFrame())
        await settle()
        gate.open()
        await spy.until(2)
    assert spy.heard == ["b", "c"]


async def test_an_interruption_before_the_start_lets_nobody_past_the_gate() -> None:
    """P2: whom it makes room for waits for the start like everybody."""
    may_start = anyio.Event()
    spy, starter = Spy(max_buffer_size=3), StartsWith(lambda _: may_start.wait())
    worker = worker_of(spy, starter, name="w")
    async with anyio.create_task_group() as group:

        async def begin() -> None:
            await starter.begun.wait()
            await worker.queue_frames([Firm("is in"), *texts("goes", "goes")])
            for word in "stays", "stays, too":
                group.start_soon(worker.queue_frame, Firm(word))
                await settle()
            await worker.queue_frame(InterruptionFrame())
            await settle()
            assert spy.heard == []
            may_start.set()

        group.start_soon(begin)
        async with running(worker):
            await spy.until(3)
    assert spy.heard == ["is in", "stays", "stays, too"]
