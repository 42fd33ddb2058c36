"""R5: signals end a run, once; a second SIGINT is the program's own. In processes of their own."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from support.leaks import signal_handlers
from support.workers import Helper
from workerbus import MemoryBus, WorkerRunner

pytestmark = pytest.mark.slow


PROGRAMS = Path(__file__).with_name("signal_programs.py")
MOMENTS = Path(__file__).with_name("signal_moments.py")
HANGS = 120.0
"""After so many seconds a process hangs: the library gives no wind-down up there (L4)."""
FORMS = ("main", "child", "body")


class Program:
    """A process that says line by line what it does."""

    def __init__(self, process: subprocess.Popen[str], *, errors: bool) -> None:
        self._process = process
        self._may_fail = errors
        self.lines: list[str] = []
        self.errors = ""

    @property
    def written(self) -> str:
        return "\n".join([*self.lines, self.errors])

    def until(self, line: str) -> None:
        """Wait until it has said something."""
        assert self._process.stdout is not None
        while line not in self.lines:
            said = self._process.stdout.readline()
            assert said, f"it ended without {line!r}"
            self.lines.append(said.rstrip())

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.lines += self._process.stdout.read().splitlines()
        self.errors = self._process.stderr.read()
        self._process.wait()
        assert self._may_fail or self.errors == ""
        return self._process.returncode


@contextmanager
def program(*arguments: str, errors: bool = False) -> Iterator[Program]:
    """Start one of the programs, and kill it if it hangs; it may write a traceback if ``errors``."""
    command = [sys.executable, "-W", "error", str(PROGRAMS), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(HANGS, process.kill)
    watchdog.start()
    try:
        yield Program(process, errors=errors)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def after(number: signal.Signals, *command: str, ready: str = "ready") -> tuple[int, list[str]]:
    """Start a program and send it a signal when it is ready; returns its exit code and what it has said since."""
    with program(*command) as it:
        it.until(ready)
        it.send(number)
        code = it.end()
    return code, it.lines[it.lines.index(ready) + 1 :]


@pytest.mark.parametrize("form", ["main", "child"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_run_which_returns(number: signal.Signals, form: str, backend: str) -> None:
    """R5: in the main task and in a child task; the earlier handlers are back."""
    assert after(number, backend, "once", form, "handle_sigterm") == (
        0,
        ["slow cleans up", "went on", f"cancelled by {number.name}: {number.name}", "restored"],
    )


@pytest.mark.parametrize("launcher", ["", ".run"])
@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit 143")]
)
def test_a_signal_cuts_a_body_short_which_does_not_look_finished(
    number: signal.Signals, raised: str, launcher: str, backend: str
) -> None:
    """R5: under anyio.run, asyncio.run and trio.run; the earlier handlers are back."""
    assert after(number, backend + launcher, "once", "body", "handle_sigterm") == (
        0,
        ["slow cleans up", f"cancelled by {number.name}: {number.name}", "restored", f"raised {raised}"],
    )


@pytest.mark.parametrize("launcher", ["", ".run"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_program_whose_body_a_signal_has_cut_short_ends_as_one_that_got_it(
    number: signal.Signals, code: int, launcher: str, backend: str
) -> None:
    """R5: for a shell, both is 128 and the signal's number. And one line of the log says what the signal began."""
    with program("bare", backend + launcher, "once", "body", "handle_sigterm", errors=number is signal.SIGINT) as it:
        it.until("ready")
        it.send(number)
        assert it.end() == code
    assert len([line for line in it.lines if line.startswith(f"INFO {number.name}: runner ")]) == 1


def test_a_sigint_while_a_finished_body_is_left_does_not_look_finished_either(backend: str) -> None:
    """R5: its workers were cut short."""
    assert after(signal.SIGINT, backend, "leaving") == (0, ["slow cleans up", "raised KeyboardInterrupt"])


@pytest.mark.parametrize(
    ("form", "ends"), [("block", {"KeyboardInterrupt"}), ("main", {"SIGINT", "KeyboardInterrupt"})]
)
def test_a_sigint_is_heard_whenever_it_comes(backend: str, form: str, ends: set[str]) -> None:
    """R5, L6: while a run is being opened or closed, too; `KeyboardInterrupt` is raised nowhere inside of it."""
    command = [sys.executable, "-W", "error", str(MOMENTS), backend, form, "29"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (set(done.stdout.split()), done.stderr, done.returncode) == (ends, "", 0)
    assert len(done.stdout.split()) > 50


def test_of_several_signals_each_is_heard_once_by_the_run_or_by_the_program_whenever_they_come(backend: str) -> None:
    """R5: nothing that is kept while a run is opened or closed is lost, or is left for a later run."""
    command = [sys.executable, "-W", "error", str(MOMENTS), backend, "handles", "29"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout.splitlines()
    assert (set(said) - {"each kind"}, done.stderr, done.returncode) == ({"all"}, "", 0)
    assert said.count("all") > 50


@pytest.mark.parametrize("form", ["main", "body"])
def test_a_sigterm_can_drain(form: str, backend: str) -> None:
    """R5, R2: with `handle_sigterm="end"` jobs get their grace, and a body finishes."""
    code, lines = after(signal.SIGTERM, backend, "draining", form)
    finished = ["body finished"] if form == "body" else []
    assert code == 0
    assert [line for line in lines if "cleans up" not in line] == [
        "told to end: SIGTERM",
        "answer: {'worked': True}",
        *finished,
        "went on",
        "ended by SIGTERM: SIGTERM",
    ]


def test_a_sigint_cuts_a_drain_short(backend: str) -> None:
    """R5: it is the program's own by then."""
    with program(backend, "ending", "sigterm") as it:
        it.until("ready")
        it.send(signal.SIGTERM)
        it.until("told to end")
        it.send(signal.SIGINT)
        it.end()
    assert it.lines[-1] == "raised KeyboardInterrupt"


def test_a_sigint_that_the_program_handles_is_left_to_it_unless_asked(backend: str) -> None:
    """R5: by default a runner takes it only where nobody has."""
    assert after(signal.SIGINT, backend, "left_to_the_program") == (0, ["untouched", "finished by None: None"])


def test_sigterm_is_left_alone_unless_asked(backend: str) -> None:
    """R5: by default it ends the process."""
    with program(backend, "once", "main") as it:
        it.until("ready")
        it.send(signal.SIGTERM)
        assert it.end() == -signal.SIGTERM
    assert it.lines == ["ready"]


def cut_short(*arguments: str, slow: str, first: signal.Signals = signal.SIGINT) -> list[str]:
    """Send a program a signal, then a SIGINT when it says that it is slow; returns all that it has said."""
    with program(*arguments) as it:
        it.until("ready")
        it.send(first)
        it.until(slow)
        it.send(signal.SIGINT)
        it.end()
    return it.lines


@pytest.mark.parametrize("form", FORMS)
def test_a_second_sigint_ends_a_slow_wind_down_at_once(form: str, backend: str) -> None:
    """R5: it arrives as a KeyboardInterrupt, in a group only if the program has put a task group of its own around."""
    lines = cut_short(backend, "twice", form, "cleanup", slow="slow cleans up")
    wrapped = ["raised BaseExceptionGroup"] if form == "child" and backend == "trio" else []
    assert lines[-1] in ["raised KeyboardInterrupt", *wrapped]
    assert "returned" not in lines


@pytest.mark.parametrize("place", ["last hook", "watcher", "bus"])
def test_a_second_sigint_opens_every_shield(place: str, backend: str) -> None:
    """R5: wherever the wind-down is slow."""
    lines = cut_short(backend, "twice", "main", place, slow="slow")
    assert lines[-1] == "raised KeyboardInterrupt"
    assert "returned" not in lines


def test_a_sigint_after_a_sigterm_is_the_programs_own(backend: str) -> None:
    """R5: all earlier handlers are back after the first signal, whichever it was."""
    lines = cut_short(backend, "twice", "main", "cleanup", slow="slow cleans up", first=signal.SIGTERM)
    assert lines[-1] == "raised KeyboardInterrupt"


def test_an_interrupt_in_a_task_of_the_run_opens_every_shield_too(backend: str) -> None:
    """R5: it ends the task that it hits, the wind-down of the others, and arrives as itself."""
    with program(backend, "interrupted") as it:
        it.until("ready")
        it.send(signal.SIGINT)
        it.end()
    assert it.lines[-1] == "raised KeyboardInterrupt"


def test_a_second_sigint_ends_the_programs_own_bus(backend: str) -> None:
    """R5, R6: the run has returned, and the bus around it is slow to stop."""
    lines = cut_short(backend, "twice_with_the_programs_bus", slow="slow")
    assert lines[-1] == "raised KeyboardInterrupt"


def test_a_second_sigint_calls_the_handler_that_was_there_before(backend: str) -> None:
    """R5: a program's own handler, which lets the wind-down go on."""
    with program(backend, "own_handler") as it:
        it.until("ready")
        it.send(signal.SIGINT)
        it.until("slow cleans up")
        it.send(signal.SIGINT)
        assert it.end() == 0
    assert it.lines == ["ready", "slow cleans up", "mine", "cleaned up", "restored"]


@pytest.mark.parametrize("form", FORMS)
def test_a_sigint_that_the_runner_was_not_to_handle_winds_down_and_arrives_as_itself(form: str, backend: str) -> None:
    """R5, L3."""
    with program(backend, "unasked", form) as it:
        it.until("ready")
        it.send(signal.SIGINT)
        it.end()
    wrapped = ["raised BaseExceptionGroup"] if form == "child" and backend == "trio" else []
    assert it.lines[:-1] == ["ready", "slow cleans up"]
    assert it.lines[-1] in ["raised KeyboardInterrupt", *wrapped]


def test_a_sigint_after_the_run_is_the_programs_own(backend: str) -> None:
    """R5, L1: no handler is left."""
    with program(backend, "afterwards") as it:
        it.until("ready")
        it.send(signal.SIGINT)
        it.end()
    assert it.lines == ["ready", "raised KeyboardInterrupt"]


def test_a_sigint_overtakes_a_graceful_end(backend: str) -> None:
    """R5, R2: it is a cancel."""
    with program(backend, "ending") as it:
        it.until("ready")
        it.send(signal.SIGINT)
        assert it.end() == 0
    assert it.lines == ["ready", "slow cleans up", "cancelled by SIGINT: SIGINT"]


def test_a_sigint_ends_every_runner_that_listens(backend: str) -> None:
    """R5, R6: two runners on one bus."""
    with program(backend, "two_runners") as it:
        it.until("ready")
        it.send(signal.SIGINT)
        assert it.end() == 0
    assert {"one returned", "two returned"} <= set(it.lines)


def test_a_signal_wakes_an_event_loop_that_waits_whatever_thread_gets_it(backend: str) -> None:
    """R5: the system may give it to any."""
    with program(backend, "in_a_thread") as it:
        assert it.end() == 0
    assert it.lines == ["cancelled by SIGINT: SIGINT"]


def test_a_run_that_was_never_left_takes_no_signal_from_a_later_event_loop() -> None:
    """R5, L7: whether a runner there listens to it, or the program has asked the loop for it."""
    with program("asyncio", "after_an_abandoned_run", errors=True) as it:
        assert it.end() == 0
    assert it.lines == ["ready", "SIGUSR1", "SIGUSR1", "cancelled by SIGINT: SIGINT"]


@asynccontextmanager
async def running_both(bus: MemoryBus) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner]]:
    """Two runners that listen to signals, each in its own task."""
    async with anyio.create_task_group() as group:
        runners = WorkerRunner(bus=bus, name="one"), WorkerRunner(bus=bus, name="two", handle_sigterm=True)
        for runner in runners:
            helper = Helper(f"worker of {runner.name}")
            await runner.add_workers(helper)
            group.start_soon(partial(runner.run, auto_end=False))
            await runner.registry.wait_for(helper.name)
        yield runners
        for runner in runners:
            await runner.end()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_runners_leave_the_earlier_handlers_in_whatever_order_they_end(order: tuple[int, int]) -> None:
    """R5, L1."""
    before = signal_handlers()
    async with MemoryBus() as bus, running_both(bus) as runners:
        for n in order:
            worker = runners[n].get_worker(f"worker of {runners[n].name}")
            assert worker is not None
            await runners[n].end()
            await worker.wait()
            await anyio.wait_all_tasks_blocked()
    after = signal_handlers()
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)
    assert after == before


async def test_a_run_that_ends_without_a_signal_has_none() -> None:
    """R5."""
    runner = WorkerRunner(handle_sigterm=True)
    await runner.run()
    assert runner.signal is None


async def test_a_runner_that_was_asked_to_leaves_the_handlers_alone() -> None:
    """R5: while it runs, too."""
    before = signal_handlers()
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.registry.wait_for("helper")
        assert signal_handlers() == before


def test_off_the_main_thread_there_is_a_warning_and_no_failure(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """R5."""
    answers: list[object] = []

    async def main() -> None:
        async with WorkerRunner(handle_sigterm=True) as runner:
            await runner.add_workers(Helper("helper"))
            answers.append(await runner.job("helper", name="echo"))

    before = signal_handlers()
    thread = threading.Thread(target=lambda: anyio.run(main, backend=backend))
    thread.start()
    thread.join(HANGS)
    assert not thread.is_alive()
    assert len(answers) == 1
    assert signal_handlers() == before
    assert [record.levelno for record in caplog.records if "signal" in record.getMessage()] == [logging.WARNING]
