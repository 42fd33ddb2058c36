"""Event handlers of processors: before and after a frame is processed, before and after one is pushed, and errors."""

from typing import Any

import pytest
from anyio import Event, sleep

from support.pipelines import UP, Gate, Spy, Watches, boom, flowing, for_texts, hang, run_through, texts, worker_of
from workerbus import HandlerTypeError, UnknownEventError
from workerbus.pipeline import ErrorFrame, Frame, FrameProcessor, InterruptionFrame, TextFrame
from workerbus.testing import settle

AROUND = ("on_before_process_frame", "on_after_process_frame", "on_before_push_frame", "on_after_push_frame")


def note_all(processor: FrameProcessor, log: list[str]) -> None:
    """Write down all that handlers are told of a processor's texts."""
    for name in AROUND:

        def note(processor: FrameProcessor, frame: Frame, name: str = name) -> None:
            if isinstance(frame, TextFrame):
                log.append(f"{processor.name} {name[3:-6]} {frame.text}")

        processor.add_event_handler(name, note)


async def test_handlers_are_called_around_processing_and_pushing() -> None:
    """N3"""
    log: list[str] = []
    spy = Spy(name="a")
    note_all(spy, log)
    await run_through(worker_of(spy, Spy(name="b")), TextFrame("x"))
    assert log == ["a before_process x", "a before_push x", "a after_push x", "a after_process x"]


async def test_handlers_of_a_processor_that_overrides_nothing_are_called() -> None:
    """N3"""
    log: list[str] = []
    processor, last = FrameProcessor("a"), Spy()
    note_all(processor, log)
    await run_through(worker_of(processor, last), TextFrame("x"))
    assert log == ["a before_process x", "a before_push x", "a after_push x", "a after_process x"]
    assert last.heard == ["x"]


async def test_handlers_that_are_added_while_the_pipeline_runs_are_called_from_then_on() -> None:
    """N3"""
    log: list[str] = []
    spy = Spy(name="a")
    async with flowing(spy) as worker:
        await worker.queue_frame(TextFrame("before"))
        await spy.until(1)
        note_all(spy, log)
        await worker.queue_frame(TextFrame("after"))
        await spy.until(2)
        await settle()
    assert [line for line in log if "process after" in line] == ["a before_process after", "a after_process after"]
    assert not [line for line in log if line.endswith("process before")]


async def test_a_frame_waits_for_handlers_that_are_async() -> None:
    """N3: they hold the processor up, and nobody else."""
    log: list[str] = []
    spy, before = Spy(), Spy()

    @spy.event_handler("on_before_process_frame")
    async def take_time(processor: FrameProcessor, frame: Frame) -> None:
        if isinstance(frame, TextFrame):
            await sleep(1)
            log.append(f"told of {frame.text}, got {spy.heard}")

    async with flowing(before, spy) as worker:
        await worker.queue_frames(texts("a", "b"))
        await before.until(2)
        assert spy.heard == []
        await spy.until(2)
    assert log == ["told of a, got []", "told of b, got ['a']"]


async def test_a_handler_that_raises_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """N3"""
    spy, last = Spy(name="a"), Spy()
    called: list[str] = []
    for name in AROUND:

        def fail(processor: FrameProcessor, frame: Frame) -> None:
            raise ValueError("it went wrong")

        def note(processor: FrameProcessor, frame: Frame, name: str = name) -> None:
            called.append(name)

        for handler in (fail, note, fail):
            spy.add_event_handler(name, handler)
    await run_through(worker_of(spy, last), TextFrame("x"))
    assert last.heard == ["x"]
    assert set(called) == set(AROUND)
    for name in AROUND:
        told = caplog.messages.count(f"a handler for '{name}' of processor 'a' failed")
        assert told == 2 * called.count(name)


async def test_after_process_frame_is_not_said_of_a_frame_that_failed_or_was_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N3, P1"""
    log: list[str] = []
    fails, hangs = Spy(for_texts(boom), name="fails"), Spy(for_texts(hang), name="hangs")
    for spy in (fails, hangs):
        note_all(spy, log)
        async with flowing(spy) as worker:
            await worker.queue_frame(TextFrame("x"))
            await spy.until(1)
            await worker.queue_frame(InterruptionFrame())
            await spy.until(1, InterruptionFrame)
    assert log == ["fails before_process x", "hangs before_process x"]


async def test_on_error_tells_of_errors_that_are_pushed_and_of_those_that_are_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N3, P1"""
    first, spy = Spy(), Spy(for_texts(boom), name="spy")
    said: list[tuple[Any, ErrorFrame]] = []
    spy.add_event_handler("on_error", lambda processor, frame: said.append((processor, frame)))
    async with flowing(first, spy) as worker:
        await spy.push_error("it is late")
        await worker.queue_frame(TextFrame("x"))
        await first.until(2, ErrorFrame)
        await settle()
    assert [(processor, frame.error) for processor, frame in said] == [
        (spy, "it is late"),
        (spy, "ValueError: it went wrong"),
    ]


@pytest.mark.parametrize("how", ["pushed", "raised", "raised by a task"])
async def test_on_error_is_called_when_the_error_is_on_its_way(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """N3, P1: so a handler may wait for what the worker does about it."""
    spy, acted, waited = Spy(for_texts(boom), name="spy"), Event(), Event()

    @spy.event_handler("on_error")
    async def wait(processor: FrameProcessor, frame: ErrorFrame) -> None:
        await acted.wait()
        waited.set()

    async with flowing(spy) as worker:
        worker.add_event_handler("on_pipeline_error", lambda *_: acted.set())
        if how == "pushed":
            await spy.push_error("it is late")
        elif how == "raised":
            await worker.queue_frame(TextFrame("x"))
        else:
            spy.create_task(boom, spy, TextFrame("x"))
        await waited.wait()


async def test_push_error_takes_text_exception_and_whether_it_is_fatal() -> None:
    """N1: by position and by name."""
    first, spy, error = Spy(), Spy(name="spy"), ValueError("x")
    finished: list[Any] = []
    async with flowing(first, spy) as worker:
        worker.add_event_handler("on_pipeline_finished", lambda worker, frame: finished.append(frame.reason))
        await spy.push_error(error_msg="by name", exception=error, fatal=False)
        await spy.push_error("by position", error)
        frames = await first.until(2, ErrorFrame)
        await spy.push_error("the last", error, True)
        await worker.wait()
    assert [(f.error, f.exception, f.fatal, f.processor) for f in frames] == [  # type: ignore[attr-defined]  # ErrorFrames
        ("by name", error, False, "spy"),
        ("by position", error, False, "spy"),
    ]
    assert finished == ["the last"]


async def test_observers_and_handlers_are_both_told() -> None:
    """N3"""
    log: list[str] = []
    spy, observer = Spy(name="a"), Watches()
    note_all(spy, log)
    await run_through(worker_of(spy, observers=[observer]), TextFrame("x"))
    assert len(log) == 4
    assert [what for what, _, frame in observer.seen if isinstance(frame, TextFrame)] == ["process", "push"]


async def test_a_handler_may_push_frames() -> None:
    """N3"""
    spy, last, done = Spy(), Spy(), Event()

    @spy.event_handler("on_before_push_frame")
    async def announce(processor: FrameProcessor, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and not frame.text.startswith("now comes"):
            await processor.push_frame(TextFrame(f"now comes {frame.text}"))
            done.set()

    await run_through(worker_of(spy, last), TextFrame("x"))
    assert done.is_set()
    assert last.heard == ["now comes x", "x"]


async def test_upstream_frames_are_told_of_too() -> None:
    """N3"""
    log: list[str] = []
    spy = Spy(name="a")
    note_all(spy, log)
    async with flowing(spy) as worker:
        await worker.queue_frame(TextFrame("x"), UP)
        await spy.until(1)
        await settle()
    assert log == ["a before_process x", "a before_push x", "a after_push x", "a after_process x"]


def test_an_event_that_processors_do_not_have_is_refused() -> None:
    """N8"""
    with pytest.raises(UnknownEventError, match="on_before_process_frame"):
        Spy().add_event_handler("on_before_process", print)
    with pytest.raises(HandlerTypeError, match="must be a function"):
        Spy().add_event_handler("on_error", "print")  # type: ignore[arg-type]  # as it is refused


async def test_after_push_frame_comes_when_there_was_room() -> None:
    """N3, P1: the frame is in then."""
    log: list[str] = []
    gate = Gate()
    first, second = Spy(name="first"), Spy(for_texts(gate), name="second", max_buffer_size=1)
    note_all(first, log)
    async with flowing(first, second) as worker:
        await worker.queue_frames(texts("a", "b", "c"))
        await gate.reached.wait()
        await settle()
        assert log[-1] == "first before_push c"
        gate.open()
        await second.until(3)
    assert log[-2:] == ["first after_push c", "first after_process c"]
