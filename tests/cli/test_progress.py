"""J20: the progress of a job or a group in one line of a terminal, and in plain lines of a pipe."""

import gc
import io
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobFailure,
    JobGroupError,
    MissingExtraError,
    NotRunningError,
    WorkerRunner,
    job,
    rich_progress,
)
from workerbus.cli import _display
from workerbus.testing import run


class Scanner(BaseWorker):
    """Tells each second how far it is, for so many seconds."""

    def __init__(self, name: str, seconds: int, error: Exception | None = None) -> None:
        super().__init__(name)
        self._seconds, self._error = seconds, error

    @job(name="scan")
    async def scan(self, message: BusJobRequestMessage) -> dict[str, Any]:
        for n in range(self._seconds):
            await self.send_job_update(message.job_id, {"files": n, "at": "lib/[red].py"})
            await anyio.sleep(1)
        if self._error is not None:
            raise self._error
        return {"seconds": self._seconds}


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def terminal(width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)


def written(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def lines_of(console: Console) -> list[str]:
    """What the live line was, one after the other, without what rich does to the terminal around it."""
    texts = re.split(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|[\r\n]", written(console))
    return [text.rstrip() for text in texts if text.strip()]


SHOWS = "\x1b[?25h"
HIDES = "\x1b[?25l"


async def test_in_a_pipe_there_is_a_line_for_each_worker_that_has_answered() -> None:
    """J20: in the order of the answers, with what has failed and why."""
    console = pipe()
    workers = [Scanner("a", 3), Scanner("b", 1, KeyError("x")), Scanner("c", 2, JobFailure("no such page"))]
    async with running(*workers) as runner:
        group = runner.job_group("a", "b", "c", name="scan", cancel_on_error=False)
        answers = await rich_progress(group, console=console)
    assert answers["a"] == {"seconds": 3}
    assert written(console).splitlines() == [
        "scan 1/3: worker 'b' raised KeyError: 'x'",
        "scan 2/3: worker 'c' failed: no such page",
        "scan 3/3: worker 'a' completed",
    ]


async def test_in_a_pipe_each_of_those_that_answer_at_once_has_its_line() -> None:
    """J20"""
    console = pipe()
    async with running(*(Scanner(name, 1) for name in "abc")) as runner:
        await rich_progress(runner.job_group("a", "b", "c", name="scan"), console=console)
    lines = written(console).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["scan 1/3", "scan 2/3", "scan 3/3"]
    assert sorted(line.partition(": ")[2] for line in lines) == [f"worker '{name}' completed" for name in "abc"]


async def test_in_a_pipe_a_line_comes_when_the_answer_does() -> None:
    """J20"""
    console = pipe()
    async with (
        running(Scanner("a", 1), Scanner("b", 5)) as runner,
        rich_progress(runner.job_group("a", "b", name="scan", label="all"), console=console),
    ):
        await anyio.sleep(1.5)
        assert written(console) == "all 1/2: worker 'a' completed\n"


async def test_those_that_are_told_to_stop_have_a_line_when_they_have_unwound() -> None:
    """J5, J20: the line ends after the job."""
    console = pipe()
    async with (
        running(Scanner("a", 1), Scanner("b", 5)) as runner,
        rich_progress(runner.job_group("a", "b", name="scan"), console=console) as group,
    ):
        assert (await group.first()).worker_name == "a"
    assert written(console).splitlines() == [
        "scan 1/2: worker 'a' completed",
        "scan 2/2: worker 'b' was cancelled: the requester has enough answers",
    ]


@given(text=st.text())
def test_nothing_that_is_shown_does_anything_to_a_terminal_or_breaks_the_line(text: str) -> None:
    """J20: whatever errors and updates have in them."""
    console = pipe()

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(Scanner("a", 0, OSError(text)))
            await rich_progress(runner.job_group("a", name="scan", label=text, cancel_on_error=False), console=console)

    run(main)
    line, end, rest = written(console).partition("\n")
    assert (end, rest) == ("\n", "")
    assert line.isprintable()


async def test_in_a_terminal_the_line_says_how_far_it_is() -> None:
    """J20: done and all, failures, how long, for whom it waits, and the last update."""
    console = terminal()
    workers = [Scanner("a", 2), Scanner("b", 1, KeyError("x")), *(Scanner(f"w{n}", 3) for n in range(4))]
    async with running(*workers) as runner:
        names = [worker.name for worker in workers]
        await rich_progress(runner.job_group(*names, name="scan", cancel_on_error=False), console=console)
    lines = lines_of(console)
    bar = r"scan  [━╸╺ ]* "
    assert re.fullmatch(bar + r" 0/6  0\.0 s  waits for a, b, w0 and 3 more(  \w+: files=0, .*)?", lines[0])
    one = bar + r" 1/6  1 failed  1\.\d s  waits for a, w0, w1 and 2 more  \w+: files=1, at='lib/\[red\]\.py'"
    assert any(re.fullmatch(one, line) for line in lines)
    assert re.fullmatch(bar + r" 6/6  1 failed  3\.0 s", lines[-1])
    assert written(console).startswith(HIDES)
    assert written(console).endswith("\n" + SHOWS)


async def test_the_time_in_a_terminal_goes_on_while_nothing_happens() -> None:
    """J20"""
    console = terminal()
    async with running(Helper("a")) as runner, rich_progress(runner.job("a", name="wait"), console=console):
        await anyio.sleep(9)
        assert re.search(r"0/1  8\.\d s$", lines_of(console)[-1])
        helper = runner.get_worker("a")
        assert isinstance(helper, Helper)
        helper.release.set()


@pytest.mark.parametrize("width", [1, 10, 40, 60])
async def test_the_line_is_one_line_however_narrow_the_terminal_is(width: int) -> None:
    """J20"""
    console = terminal(width)
    names = [f"scanner-{n}" for n in range(4)]
    async with running(*(Scanner(name, 1) for name in names)) as runner:
        await rich_progress(runner.job_group(*names, name="scan"), console=console)
    assert written(console).count("\n") == 1
    assert max(map(len, lines_of(console)), default=0) <= width


@pytest.mark.parametrize("console", [pipe, terminal])
async def test_a_loop_of_the_user_misses_nothing(console: Callable[[], Console]) -> None:
    """J7, J20: whether the group is entered with its line, or was before."""
    async with running(Scanner("a", 2), Scanner("b", 3)) as runner:
        async with rich_progress(runner.job_group("a", "b", name="scan"), console=console()) as group:
            events = [event async for event in group]
        assert len(events) == 5
        async with runner.job_group("a", "b", name="scan") as group, rich_progress(group, console=console()) as same:
            assert same is group
            events = [event async for event in group]
            assert [each.worker_name async for each in group.as_completed()] == ["a", "b"]
        assert len(events) == 5


async def test_a_group_that_was_entered_before_is_shown_while_the_block_runs_and_left_by_who_has_entered_it() -> None:
    """J20"""
    console = pipe()
    async with running(Scanner("a", 1), Scanner("b", 2)) as runner:
        async with runner.job_group("a", "b", name="scan") as group:
            async with rich_progress(group, console=console):
                await anyio.sleep(1.5)
            assert current_time() == 1.5
            assert written(console).splitlines() == ["scan 1/2: worker 'a' completed"]
            assert await rich_progress(group, console=console) == {"a": {"seconds": 1}, "b": {"seconds": 2}}
            assert len([event async for event in group]) == 3
        assert current_time() == 2


@dataclass
class Words:
    text: str


@dataclass
class Count:
    words: int


class Counter(BaseWorker):
    @job(name="count")
    async def count(self, words: Words) -> Count:
        return Count(len(words.text.split()))


async def test_awaiting_it_gives_what_awaiting_the_job_gives() -> None:
    """J15, J17, J20"""
    console = pipe()
    async with running(Counter("a"), Counter("b")) as runner:
        words = Words("to be")
        assert await rich_progress(runner.job("a", Counter.count, payload=words), console=console) == Count(2)
        group = runner.job_group("a", "b", handler=Counter.count, payload=words)
        assert await rich_progress(group, console=console) == {"a": Count(2), "b": Count(2)}
    assert written(console).splitlines()[0] == "count 1/1: worker 'a' completed"


async def test_awaiting_it_keeps_no_events() -> None:
    """J20: nobody else can take them."""
    async with running(Scanner("a", 3)) as runner:
        asked = runner.job("a", name="scan")
        await rich_progress(asked, console=pipe())
        queue = asked._entered.queue
        assert queue is None or not queue.events


@pytest.mark.parametrize("console", [pipe, terminal])
async def test_what_ends_the_body_goes_through_as_it_is(console: Callable[[], Console]) -> None:
    """L6, J8, J20: and the terminal is as it was."""
    shown: list[Console] = []

    def show(asked: Any) -> Any:
        shown.append(console())
        return rich_progress(asked, console=shown[-1])

    async with running(Scanner("a", 9), Scanner("b", 1, OSError("fell"))) as runner:
        with pytest.raises(JobGroupError, match=r"^job group 'scan' .*worker 'b' raised OSError: fell$"):
            await show(runner.job_group("a", "b", name="scan"))
        with pytest.raises(JobError, match=r"raised OSError: fell$"):
            await show(runner.job("b", name="scan"))
        with pytest.raises(ZeroDivisionError):
            async with show(runner.job_group("a", "b", name="scan")):
                raise ZeroDivisionError
        with anyio.move_on_after(0.5) as scope:
            await show(runner.job_group("a", "b", name="scan"))
        assert scope.cancelled_caught
        with pytest.raises(NotRunningError, match="several attempts has no body"):
            await show(runner.job("a", name="scan", attempts=2))
        with pytest.raises(TimeoutError):
            await show(runner.job("a", name="scan", timeout=1))
    assert sys.stdout is not None
    for each in shown:
        assert written(each).count(HIDES) == written(each).count(SHOWS)


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("closed", [True, False])
async def test_an_output_that_has_gone_ends_nothing(
    live: bool, closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J20: rich puts something else in the place of standard output then, which is not to be pytest's."""
    output = (tmp_path / "output").open("w")
    monkeypatch.setattr(sys, "stdout", output)
    file = Broken()
    if closed:
        file.close()
    before = sys.stdout, sys.stderr
    async with running(Scanner("a", 2)) as runner:
        console = Console(file=file, force_terminal=live)
        assert await rich_progress(runner.job("a", name="scan"), console=console) == {"seconds": 2}
    assert (sys.stdout, sys.stderr) == before
    output.close()


async def test_without_rich_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """J20, N8: where it is made; the job is never asked for, and that is nobody's mistake."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, _display.__name__)
    monkeypatch.delattr("workerbus.cli._display")
    async with running(Helper("a")) as runner:
        with pytest.raises(MissingExtraError, match=r"^lines of progress need rich: pip install 'workerbus\[cli\]'$"):
            rich_progress(runner.job("a", name="echo"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()


@pytest.mark.parametrize("wrong", [None, "a", Helper])
def test_what_is_no_job_is_refused(wrong: Any) -> None:
    """N8"""
    with pytest.raises(TypeError, match=r"^progress is shown of what job\(\) or job_group\(\) returns, not of "):
        rich_progress(wrong)


def loaded(program: str) -> str:
    program = f"import sys; {program}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_rich_is_imported_when_progress_is_shown_and_not_before() -> None:
    """J20: it costs nothing where it is not used."""
    assert "rich" not in loaded("import workerbus").split()
    assert "workerbus.cli" not in loaded("import workerbus").split()
    assert "rich" not in loaded("from workerbus import *").split()
