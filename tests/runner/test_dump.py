"""O6, O3: what a program that runs waits for, told to whoever asks, wherever that is."""

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import create_task_group, to_thread

from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusDataMessage,
    MemoryBus,
    PipelineWorker,
    WorkerPool,
    WorkerRunner,
    bus_message,
    dump,
    job,
)
from workerbus._concurrency.home import Home
from workerbus.diagnosis import _program, _signal
from workerbus.diagnosis._waiting import Live
from workerbus.pipeline import DataFrame, Frame, FrameDirection, FrameProcessor, Pipeline, SystemFrame
from workerbus.testing import PeerFaults, PeerNetwork, settle

IDS = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")
LONG = 1_000.0


def told() -> str:
    """Return a dump, without ids, and without the deadline that all tests have."""
    return IDS.sub("…", dump()).replace(", 20 s left", "")


class Asks(BaseWorker):
    """Asks, for each job ``ask``, the worker that the payload names for the same."""

    @job(name="ask", sequential=True)
    async def ask(self, message: Any) -> None:
        await self.job(message.payload["whom"], name="ask", payload={"whom": self.name})


async def wait_for_ever(worker: BaseWorker, message: Any) -> None:
    await anyio.sleep_forever()


async def ask(runner: WorkerRunner, name: str, timeout: float | None = None, payload: Any = None) -> None:
    await runner.job("b", name=name, timeout=timeout, payload=payload)


# --- what it says


async def test_it_says_who_has_which_job_for_whom_since_when_and_where_that_stands() -> None:
    """O6, O3: with nothing of the payload."""
    async with running(Doing("b", wait_for_ever), Helper("c"), name="office") as runner, create_task_group() as group:
        group.start_soon(ask, runner, "do", 10, {"secret": "payload"}, name="asks")
        await settle()
        await anyio.sleep(3.25)
        text = told()
        group.cancel_scope.cancel()
    head, runners, *tasks = text.split("\n\n")
    assert head == f"process {os.getpid()}, with 1 runner"
    assert re.sub(r"MemoryBus-.*'", "MemoryBus'", runners).splitlines() == [
        "runner 'office' runs, with 2 workers, on bus 'MemoryBus'",
        "    it asks 'b' for job 'do' (…), 6.75 s left",
        "    worker 'b' is active",
        "        has job 'do' (…), which 'office' asked for 3.25 s ago, 6.75 s left: running",
        "    idle is 'c'",
    ]
    [waits] = [task for task in tasks if task.startswith("worker 'b'")]
    title, what, place = waits.split("\n    ")[:3]
    assert title == "worker 'b', job 'do' (…), asked for by 'office' 3.25 s ago, 6.75 s left"
    assert what == "waits for ever: it sleeps"
    assert place.startswith("at test_dump.py:")
    assert waits.endswith("in wait_for_ever:\n        await anyio.sleep_forever()")
    assert "secret" not in text


async def test_a_circle_of_jobs_is_named_while_the_program_goes_on() -> None:
    """O6: in the words of a DeadlockError."""
    async with running(Asks("a"), Asks("b")) as runner, create_task_group() as group:
        group.start_soon(ask, runner, "ask", LONG, {"whom": "a"})
        await settle()
        circle, *_ = [part for part in told().split("\n\n") if "circle" in part]
        group.cancel_scope.cancel()
    title, *tasks = circle.splitlines()
    assert title == "in a circle, each for the next, and the last for the first, wait"
    assert {task[: task.index(",")] for task in tasks} == {"    worker 'a'", "    worker 'b'"}


async def test_the_tasks_of_a_loop_are_told_of_once_however_many_runners_it_has() -> None:
    """O6"""
    worker = Doing("b", wait_for_ever)
    async with running(worker, name="one") as one, running(name="two"), create_task_group() as group:
        group.start_soon(ask, one, "do")
        await settle()
        text = dump()
        group.cancel_scope.cancel()
    assert "with 2 runners" in text
    assert text.count("runner 'one' runs") == text.count("runner 'two' runs") == 1
    assert text.count("worker 'b', job 'do'") == 1


async def test_of_a_program_that_runs_it_does_not_say_that_nobody_sets_an_event() -> None:
    """O6: nobody knows that."""
    async with running(Helper("b")) as runner, create_task_group() as group:
        group.start_soon(ask, runner, "wait")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "    waits for an event\n    at workers.py:" in text
    assert "idle, as they should be" not in text


async def test_a_task_of_a_worker_and_a_task_of_the_program_say_where_they_stand() -> None:
    """O6: by the innermost line of the program's own."""
    async with running(Helper("b")) as runner, create_task_group() as group:
        worker = runner.get_worker("b")
        assert worker is not None
        worker.create_task(anyio.sleep, LONG, name="naps")
        group.start_soon(anyio.sleep, LONG, name="dozes")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "worker 'b', task 'naps'\n    waits for a timer" in text
    assert "task 'dozes'\n    waits for a timer" in text
    assert "    runs at this moment\n    at test_dump.py:" in text
    assert "        return IDS.sub" in text


async def test_a_task_that_has_not_begun_says_so() -> None:
    """O6: it waits for nothing but its turn in the loop."""
    async with running(Helper("b")), create_task_group() as group:
        group.start_soon(anyio.sleep, LONG, name="dozes")
        text = told()
        group.cancel_scope.cancel()
    assert "task 'dozes'\n    has not begun" in text


async def test_it_goes_into_a_file_too() -> None:
    """O6: with a newline at its end."""
    file = io.StringIO()
    async with running(Helper("b")):
        text = dump(file=file)
    assert file.getvalue() == f"{text}\n"


def test_where_nothing_runs_it_says_so() -> None:
    """O6: without a runner, and without an event loop."""
    assert dump() == f"process {os.getpid()}, with 0 runners"


async def test_without_a_runner_the_tasks_of_the_loop_are_told_of() -> None:
    """O6: those of the loop that is here."""
    async with create_task_group() as group:
        group.start_soon(anyio.sleep, LONG, name="dozes")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "with 0 runners\n" in text
    assert "task 'dozes'\n    waits for a timer" in text


async def test_a_job_that_waits_for_its_turn_and_one_that_was_left_open_say_so() -> None:
    """O6: they have no task."""

    class Two(BaseWorker):
        @job(name="turn", sequential=True)
        async def turn(self, message: Any) -> None:
            await anyio.sleep_forever()

        @job(name="open", deferred=True)
        async def leave(self, message: Any) -> None:
            pass

    async with running(Two("b")) as runner, create_task_group() as group:
        for name in ("turn", "turn", "open"):
            group.start_soon(ask, runner, name)
            await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "asked for 0 s ago: waits for its turn, which job 'turn' (…) has\n" in text
    assert "worker 'b', job 'open' (…), asked for by 'runner-…' 0 s ago\n    waits for somebody to answer it" in text


async def test_of_very_many_jobs_some_are_told_of_and_the_rest_is_counted() -> None:
    """O6: the text has a bound."""
    async with running(Doing("b", wait_for_ever)) as runner, create_task_group() as group:
        for _ in range(100):
            group.start_soon(ask, runner, "do")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert text.count("        has job 'do'") == 10
    assert "        has more jobs, 100 in all, of which 0 wait for their turn\n" in text
    assert "    it asks for more jobs, 100 in all\n" in text
    assert text.count("asked for by") == 3
    assert "more tasks wait, most of them as those above do" in text


@bus_message
class Ping(BusDataMessage):
    n: int


class Slow(BaseWorker):
    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, Ping):
            await anyio.sleep_forever()


async def test_a_lane_that_is_full_is_told_of_with_who_waits_for_room() -> None:
    """O6, B9: by whom, and behind what."""

    async def flood() -> None:
        for n in range(5):
            await runner.bus.send(Ping(n, source="me", target="slow"))

    async with running(Slow("slow"), bus=MemoryBus(max_buffer_size=2)) as runner, create_task_group() as group:
        group.start_soon(flood, name="floods")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "    the data lane of 'slow' is full: 2 of 2 messages wait, and 1 sender for room\n" in text
    assert "        has messages and hooks waiting: 2 data\n" in text
    assert "task 'floods'\n    waits for room in the data lane of 'slow', which is full\n" in text
    assert "worker 'slow', hook on_bus_message\n    waits for ever" in text
    assert "behind it" not in text  # to look at that would take it out, and put it back


async def test_all_lanes_in_which_something_waits_are_told_of_the_full_ones_and_the_others() -> None:
    """O6, B9: of a plain subscriber of a bounded bus, too."""

    async def flood(n: int, target: str) -> None:
        for number in range(n):
            await runner.bus.send(Ping(number, source="me", target=target))

    def wait_in(message: Any) -> Any:
        return anyio.sleep_forever() if isinstance(message, Ping) else None

    workers = (Slow("slow"), Slow("slower"))
    async with MemoryBus(max_buffer_size=3) as bus, running(*workers, bus=bus) as runner:
        for name in ("one", "two"):
            await bus.subscribe(Plain(name, receives="own", on=wait_in))
        async with create_task_group() as group:
            for n, target in ((5, "slow"), (6, "slower"), (3, "one"), (2, "two")):
                group.start_soon(flood, n, target)
            await settle()
            text = told()
            group.cancel_scope.cancel()
        assert "the data lane of 'slow' is full: 3 of 3 messages wait, and 1 sender for room\n" in text
        assert "the data lane of 'slower' is full: 3 of 3 messages wait, and 1 sender for room\n" in text
        assert "subscriber 'one' has 2 messages waiting\n" in text
        assert "subscriber 'two' has 1 message waiting\n" in text


async def test_a_worker_that_is_late_with_its_start_says_why() -> None:
    """O6: who waits for it, too."""

    class Late(BaseWorker):
        async def run(self, params: Any) -> None:
            await anyio.sleep_forever()

    async with WorkerRunner() as runner, create_task_group() as group:
        await runner.add_workers(Late("late"))
        group.start_soon(runner.registry.wait_for, "late", name="waits")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "    worker 'late' starts: its run() has begun, and has not called start()\n" in text
    assert (
        "task 'waits'\n    waits for worker 'late' to be ready: its run() has begun, and has not called start()" in text
    )


async def test_a_runner_whose_bus_does_not_open_is_told_of_already() -> None:
    """O6: that is when somebody wants to know."""

    class Unreachable(MemoryBus):
        async def start(self) -> None:
            await super().start()
            await anyio.sleep_forever()

    async with create_task_group() as group:
        group.start_soon(WorkerRunner(name="r", bus=Unreachable(name="far")).run, name="runs")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "runner 'r' is starting or ending, with 0 workers, on bus 'far'" in text
    assert "task 'runs'\n    waits for runner 'r' to start" in text
    assert "in test_a_runner_whose_bus_does_not_open_is_told_of_already.<locals>.Unreachable.start:" in text


async def test_a_worker_that_is_just_being_attached_does_not_hide_the_rest() -> None:
    """O6: as a signal handler or another thread may find it."""
    texts: list[str] = []

    class Told(MemoryBus):
        async def subscribe(self, subscriber: Any) -> None:
            texts.append(told())
            await super().subscribe(subscriber)

    async with running(Helper("first"), name="office", bus=Told()) as runner:
        await runner.add_workers(Helper("second"))
    assert "worker 'second' " in texts[-1]
    assert "cannot be told of" not in "".join(texts)


async def test_a_pool_says_how_many_members_take_jobs_and_how_many_wait() -> None:
    """O6, S2: and which job has the member."""

    class Member(Helper):
        def __init__(self) -> None:
            super().__init__(None)

    async with running(WorkerPool("b", Helper, size=1)) as runner, create_task_group() as group:
        for _ in range(2):
            group.start_soon(ask, runner, "wait")
            await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "        members that take jobs: 1 of 1; jobs that wait for one: 1\n" in text
    assert "waits for a member of the pool, which job 'wait' (…) has" in text


class Text(DataFrame):
    pass


class Alarm(SystemFrame):
    pass


class Sink(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Text | Alarm):
            await anyio.sleep_forever()
        await self.push_frame(frame, direction)


async def test_a_processor_says_what_it_handles_and_how_many_frames_wait() -> None:
    """O6: in its worker's lines, and as a task."""
    worker = PipelineWorker(Pipeline([Sink("sink")]), name="p")
    async with running(worker):
        for _ in range(3):
            await worker.queue_frame(Text())
        await settle()
        text = told()
    assert re.search(r"        processor 'sink' handles Text#\d+, and has 2 more frames waiting\n", text)
    assert re.search(r"processor 'sink' of worker 'p', with Text#\d+\n    waits for ever: it sleeps\n", text)


async def test_a_processor_says_what_it_handles_in_both_of_its_lanes() -> None:
    """O6, P1: a system frame and another one, and how many wait behind the two."""
    worker = PipelineWorker(Pipeline([Sink("sink")]), name="p")
    async with running(worker):
        for frame in (Alarm(), Text(), Alarm(), Text(), Text()):
            await worker.queue_frame(frame)
            await settle()
        text = told()
    assert re.search(r" 'sink' handles Alarm#\d+, and handles Text#\d+, and has 3 more frames waiting\n", text)


async def test_a_sender_that_waits_for_a_network_says_for_what() -> None:
    """O6, X2: and the bus says how it is."""
    network = PeerNetwork(faults=PeerFaults(unconfirmed=1.0))
    here, there = (WorkerRunner(name=name, bus=network.end(name)) for name in ("here", "there"))
    async with here, there, create_task_group() as group:
        await settle()
        group.start_soon(here.bus.send, Ping(1, source="me"), name="sends")
        await settle()
        text = told()
        group.cancel_scope.cancel()
    assert "with 2 runners\n" in text
    assert "runner 'here' runs, with 0 workers, on bus 'here', with the peers 'there'" in text
    assert "task 'sends'\n    waits for a Ping to all to be stored by the network of bus 'here'" in text


class Broken:
    def lines(self, live: Any) -> list[str]:
        raise KeyError("in the middle of a step")


async def test_what_cannot_be_read_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """O6: it never raises, and tells of all else."""

    def fail(*_: Any, **__: Any) -> tuple[str, ...]:
        raise RuntimeError("changed size during iteration")

    broken = Broken()
    async with running(Helper("b"), name="office"):
        _program.begin_to_tell(broken)
        try:
            text = told()
            monkeypatch.setattr(_program, "describe", fail)
            less = told()
        finally:
            _program.end_telling(broken)
    assert "with 2 runners\n" in text
    assert "\n\na runner cannot be read at this moment\n\n" in text
    assert "runner 'office' runs" in text
    assert less.endswith("\n\nits tasks cannot be read at this moment")


async def test_nothing_is_kept_of_a_runner_that_has_ended() -> None:
    """O6, L1: nor of one that could not begin."""
    async with running(Helper("b")) as runner:
        assert len(_program._SOURCES) == 1
        with pytest.raises(RuntimeError):
            await WorkerRunner(bus=runner.bus).run()
        assert len(_program._SOURCES) == 1
    assert len(_program._SOURCES) == 0


# --- in other threads, and in real time


def test_another_thread_has_the_loop_tell(backend: str) -> None:
    """O6: with all that the loop itself can say."""

    async def main() -> str:
        async with running(Doing("b", wait_for_ever)) as runner, create_task_group() as group:
            group.start_soon(ask, runner, "do")
            await settle()
            text = await to_thread.run_sync(told)
            group.cancel_scope.cancel()
        return text

    text = anyio.run(main, backend=backend)
    assert "s ago: running\n" in text
    assert "job 'do' (…), asked for by 'runner-…' " in text
    assert "    waits for a thread\n    at test_dump.py:" in text


def test_of_a_loop_that_stands_still_another_thread_says_what_holds_it_up(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O6: and which jobs there are."""
    monkeypatch.setattr(_program, "PATIENCE", 0.05)
    texts: list[str] = []

    async def block(worker: BaseWorker, message: Any) -> None:
        thread = threading.Thread(target=lambda: texts.append(told()))
        thread.start()
        thread.join()

    async def main() -> None:
        async with running(Doing("b", block), Helper("c")) as runner:
            await runner.job("b", name="do")

    anyio.run(main, backend=backend)
    [text] = texts
    assert "        has job 'do' (…), which 'runner-…' asked for: running\n" in text
    still = "the event loop stands still, and its tasks cannot be asked: held up by "
    assert f"{still}the handler of job 'do' (…) at worker 'b'\n" in text
    assert "in block\n    thread.join()" in text


def test_runners_in_several_threads_are_all_told_of(backend: str) -> None:
    """O6: each by its own loop."""
    begun, over = threading.Event(), threading.Event()

    async def other() -> None:
        async with running(Helper("elsewhere"), name="there"):
            begun.set()
            await to_thread.run_sync(over.wait)

    async def main() -> str:
        async with running(Helper("b"), name="here"):
            return told()

    thread = threading.Thread(target=anyio.run, args=(other,), kwargs={"backend": backend})
    thread.start()
    begun.wait()
    text = anyio.run(main, backend=backend)
    over.set()
    thread.join()
    assert "with 2 runners\n" in text
    assert "runner 'here' runs" in text
    assert "runner 'there' runs" in text
    assert "\n    waits for a thread\n    at test_dump.py:" in text


# --- in signal handlers


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Handle a signal of the program's own while the block runs."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_a_signal_handler_tells_of_what_it_has_interrupted() -> None:
    """O6: it says that this runs, whatever else waits."""
    texts: list[str] = []

    async def block(worker: BaseWorker, message: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    with handling(lambda *_: texts.append(told())):
        async with running(Doing("b", block)) as runner:
            await runner.job("b", name="do")
    [text] = texts
    assert re.search(r"worker 'b', job 'do' \(…\), asked for by 'runner-…' 0 s ago\n    runs at this moment\n", text)
    assert "    waits for the answer of 'b' to job 'do' (…)\n    at test_dump.py:" in text


async def test_the_signal_that_a_runner_was_given_has_it_told_to_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """O6, L1: and what was there before is back afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    async with running(Helper("b"), name="office", dump_signal="SIGUSR1"):
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert "runner 'office' runs, with 1 worker, on bus" in capfd.readouterr().err


async def test_a_handler_that_the_program_has_is_called_too(capfd: pytest.CaptureFixture[str]) -> None:
    """O6, R5: and it is what is there again."""
    got: list[int] = []

    def own(number: int, _: Any) -> None:
        got.append(number)

    with handling(own):
        async with running(Helper("b"), dump_signal=signal.SIGUSR1):
            signal.raise_signal(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is own
    assert got == [signal.SIGUSR1]
    assert "with 1 runner\n" in capfd.readouterr().err


async def test_of_several_runners_that_were_given_it_the_last_gives_it_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """O6, L1: and it tells of both, once."""
    with handling(signal.SIG_IGN):
        async with running(Helper("b"), dump_signal="SIGUSR1"):
            async with running(Helper("c"), dump_signal="SIGUSR1"):
                signal.raise_signal(signal.SIGUSR1)
            assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    assert capfd.readouterr().err.count("with 2 runners\n") == 1


async def test_a_handler_that_somebody_has_set_meanwhile_stays() -> None:
    """O6, R5: it is not taken from who has it."""

    def own(*_: Any) -> None: ...

    with handling(signal.SIG_IGN):
        async with running(Helper("b"), dump_signal="SIGUSR1"):
            signal.signal(signal.SIGUSR1, own)
        assert signal.getsignal(signal.SIGUSR1) is own


def test_off_the_main_thread_there_is_a_warning_and_no_failure(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """O6, R5: only the main thread can handle signals."""

    async def main() -> None:
        async with running(Helper("b"), dump_signal="SIGUSR1"):
            pass

    thread = threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": backend})
    thread.start()
    thread.join()
    assert "SIGUSR1 dumps nothing: this is not the main thread" in caplog.messages


@contextmanager
def standard_error(file: Any) -> Iterator[None]:
    """Have something else for standard error while the block runs; pytest has its own there."""
    before, sys.stderr = sys.stderr, file
    try:
        yield
    finally:
        sys.stderr = before


async def test_standard_error_that_is_no_file_gets_the_text_too() -> None:
    """O6: and where there is none, nothing happens."""
    async with running(Helper("b"), dump_signal="SIGUSR1"):
        with standard_error(file := io.StringIO()):
            signal.raise_signal(signal.SIGUSR1)
        with standard_error(None):
            signal.raise_signal(signal.SIGUSR1)
    assert "with 1 runner\n" in file.getvalue()


async def test_a_pipe_that_nobody_reads_does_not_keep_the_program_from_going_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """O6: the rest of the text is lost."""
    monkeypatch.setattr(_signal, "PATIENCE", 0.01)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    try:
        async with running(Helper("b"), dump_signal="SIGUSR1"):
            with standard_error(SimpleNamespace(fileno=lambda: writes)):
                signal.raise_signal(signal.SIGUSR1)
    finally:
        os.close(reads)
        os.close(writes)


async def test_a_runner_that_begins_in_another_thread_meanwhile_is_told_of_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """O6: and does not disturb what is told."""

    class Another:
        def lines(self, live: Live) -> list[str]:
            return ["another"]

    another, is_same = Another(), Home.is_same

    def begins(home: Home, other: Home) -> bool:
        _program.begin_to_tell(another)  # as that thread would between two steps of this one
        return is_same(home, other)

    async with running(Helper("b")), running(Helper("c")):
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Home, "is_same", begins)
                assert "with 2 runners\n" in told()
            assert "with 3 runners\n" in told()
        finally:
            _program.end_telling(another)


async def test_a_text_that_no_pipe_takes_at_once_arrives_as_a_whole() -> None:
    """O6: who reads slowly gets all of it, in its order."""
    reads, writes = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        while part := os.read(reads, 100):
            got.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    names = [f"{n}" * 8000 for n in range(10)]
    try:
        async with running(*map(Helper, names), dump_signal="SIGUSR1"):
            with standard_error(SimpleNamespace(fileno=lambda: writes)):
                signal.raise_signal(signal.SIGUSR1)
    finally:
        os.close(writes)
        reader.join()
        os.close(reads)
    text = b"".join(got).decode()
    assert all(repr(name) in text for name in names)
    assert text.count("with 1 runner\n") == 1
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("SIGUSR9", ValueError, r"dump_signal: \w+ has no signal 'SIGUSR9'; it has .*SIGUSR1"),
        (999, ValueError, "has no signal 999"),
        ("SIGKILL", ValueError, "SIGKILL is not for that; SIGUSR1 is"),
        (signal.SIGINT, ValueError, "SIGINT is not for that"),
        (True, TypeError, "the name or the number of a signal, not True"),
        (1.5, TypeError, "not 1.5"),
    ],
)
def test_what_is_no_signal_for_that_is_refused_where_it_is_given(given: Any, error: type[Exception], text: str) -> None:
    """O6: on platforms without the signal, too."""
    with pytest.raises(error, match=text):
        WorkerRunner(dump_signal=given)


@pytest.mark.slow
def test_whatever_is_interrupted_goes_on_as_if_nothing_had_been_asked(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O6: in the middle of any step, and by other threads at the same time."""
    monkeypatch.setattr(_program, "PATIENCE", 60.0)  # a loop that has to wait for a processor does not stand still
    texts: list[str] = []
    over = threading.Event()

    async def echo(worker: BaseWorker, message: Any) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"n": message.payload["n"]}

    def ask_on() -> None:
        while not over.wait(0.001):
            texts.append(dump())

    async def main() -> None:
        async with running(*(Doing(f"w{n}", echo) for n in range(20))) as runner:
            for _ in range(40):
                async with create_task_group() as group:
                    for n in range(20):
                        group.start_soon(one, runner, n)

    async def one(runner: WorkerRunner, n: int) -> None:
        answer = await runner.job(f"w{n}", name="do", payload={"n": n})
        assert answer == {"n": n}

    thread = threading.Thread(target=ask_on)

    def interrupt(*_: Any) -> None:
        texts.append(dump())
        signal.setitimer(signal.ITIMER_REAL, 0 if over.is_set() else 0.002)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    thread.start()
    try:
        anyio.run(main, backend=backend)
    finally:
        over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        thread.join()
    assert len(texts) > 20
    assert [text for text in texts if "cannot be told of" in text or "stands still" in text] == []
