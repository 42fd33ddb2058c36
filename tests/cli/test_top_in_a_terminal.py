"""O3, O4, O8: ``workerbus top`` in a terminal: what it shows, what the keys do, and how it ends.

The application runs on asyncio alone, since textual does; the command runs in a process and a terminal of its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest
from textual.pilot import Pilot

from support import commands
from support.workers import Helper, running
from workerbus import JobError, JobStatus, WorkerRunner
from workerbus.cli._address import Address
from workerbus.cli._app import Details, TopApp
from workerbus.cli._commands import INTERRUPTED, CommandError
from workerbus.cli._rows import Choice
from workerbus.cli._view import ViewWatch
from workerbus.view import serve_view


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Screen:
    """The application, as somebody sees it who presses keys."""

    def __init__(self, app: TopApp, pilot: "Pilot[CommandError | None]") -> None:
        self.app = app
        self._pilot = pilot

    def lines(self, name: str = "workers") -> list[str]:
        """The lines of a list, without its title, and without spaces at their ends."""
        listing = self.app.lists[name]
        return [listing.render_line(y).text.rstrip() for y in range(1, listing.size.height)]

    def names(self) -> list[str]:
        """The workers in their order, and in their tree."""
        width = self.app.lists["workers"]._widths[0]
        return [line[:width].rstrip() for line in self.lines()[1:] if line]

    @property
    def head(self) -> str:
        head = self.app._head
        return "\n".join(head.render_line(y).text.rstrip() for y in range(4))

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()

    async def until(self, text: str, name: str = "workers", *, gone: bool = False) -> None:
        """Wait until a text is on the screen, or is not any more."""
        with anyio.fail_after(60):
            while (text in "\n".join([self.head, *self.lines(name)])) is gone:
                await self._pilot.pause(0.02)


@asynccontextmanager
async def shown(url: str, size: tuple[int, int] = (80, 24), choice: Choice | None = None) -> AsyncIterator[Screen]:
    watch = ViewWatch(Address(url, is_bus=False, token=None, prefix=""))
    app = TopApp(watch, choice or Choice("name"), 0.1)
    async with app.run_test(size=size) as pilot:
        yield Screen(app, pilot)


@asynccontextmanager
async def program(*names: str, size: tuple[int, int] = (80, 24)) -> AsyncIterator[tuple[WorkerRunner, Screen]]:
    """A program with helpers, and the application that shows it."""
    async with (
        running(*(Helper(name) for name in names), name="main") as runner,
        serve_view(runner, port=0) as view,
        shown(view.url, size) as screen,
    ):
        await screen.until("main at http://")
        yield runner, screen


async def test_what_is_shown_is_what_the_statistics_say() -> None:
    """O2, O8: at the head and in the row of each worker."""
    async with program("one", "two") as (runner, screen):
        for _ in range(3):
            await runner.job("one", name="echo")
        with pytest.raises(JobError):
            await runner.job("two", name="fail")
        helper = runner.get_worker("two")
        assert isinstance(helper, Helper)
        async with runner.job("two", name="wait"):
            await screen.until("errors 1")
            await screen.until("in flight 1")
            rows = {row.row.key: row.row.texts for row in screen.app.lists["workers"].placed}
            for name, worker in runner.statistics().workers.items():
                answered = worker.jobs_answered
                bad = sum(answered.values()) - answered[JobStatus.COMPLETED]
                said = [rows[name][column] for column in ("jobs", "done", "bad")]
                assert said == [str(len(worker.jobs)), str(answered[JobStatus.COMPLETED]), str(bad)]
                (line,) = [line.split() for line in screen.lines() if line.startswith(f"    {name}")]
                assert [line[2], line[5], line[6]] == said
            helper.release.set()
        assert "workers 2" in screen.head
        assert "done 3" in screen.head


async def test_workers_come_and_go() -> None:
    """O8"""
    async with program("first") as (runner, screen):
        assert screen.names() == ["▾ main", "    first"]
        await runner.add_workers(Helper("second"), wait=True)
        await screen.until("second")
        second = runner.get_worker("second")
        assert second is not None
        await second.stop()
        await screen.until("second", gone=True)


@pytest.mark.slow
async def test_keys_sort_the_workers() -> None:
    """O8: a letter for a column, again for the other way round; < and > for the one beside; I turns it."""
    async with program("a", "b", "c") as (runner, screen):
        for name in ("b", "b", "c"):
            await runner.job(name, name="echo")
        await screen.until("done 3")
        await screen.press("t", "D")
        assert screen.names() == ["b", "c", "a"]
        assert "▾DONE" in screen.lines()[0]
        await screen.press("D")
        assert screen.names() == ["a", "c", "b"]
        await screen.press("N")
        assert screen.names() == ["a", "b", "c"]
        await screen.press("I")
        assert screen.names() == ["c", "b", "a"]
        await screen.press(">", ">", "<", "<")
        assert screen.names() == ["a", "b", "c"]
        assert "WORKER▴" in screen.lines()[0]


async def test_the_cursor_stays_at_its_row_wherever_that_goes() -> None:
    """O8: and near it, when that has gone."""
    async with program("a", "b", "c") as (runner, screen):
        await screen.press("down", "down")

        def chosen() -> str:
            placed = screen.app.lists["workers"].chosen
            return "" if placed is None else placed.row.key

        assert chosen() == "b"
        await runner.job("b", name="echo")
        await screen.until("done 1")
        await screen.press("D")
        assert (screen.names()[1], chosen()) == ("    b", "b")
        await screen.press("N", "I")
        assert (screen.names()[2], chosen()) == ("    b", "b")
        b = runner.get_worker("b")
        assert b is not None
        await b.stop()
        await screen.until("    b", gone=True)
        assert chosen() == "a"


async def test_keys_fold_and_unfold_the_tree() -> None:
    """O8: Left goes up from what has nothing to fold."""
    async with program("parent") as (runner, screen):
        parent = runner.get_worker("parent")
        assert parent is not None
        await parent.add_workers(Helper("child"))
        await screen.until("child")
        assert screen.names() == ["▾ main", "  ▾ parent", "      child"]
        await screen.press("down", "space")
        assert screen.names() == ["▾ main", "  ▸ parent"]
        await screen.press("right", "down", "left", "left")
        assert screen.names() == ["▾ main", "  ▸ parent"]
        await screen.press("plus")
        assert screen.names() == ["▾ main", "  ▾ parent", "      child"]
        await screen.press("minus")
        assert screen.names() == ["▸ main"]


async def test_a_filter_is_typed_kept_and_cleared() -> None:
    """O8: keys are text meanwhile."""
    async with program("queue", "parser", "quiet") as (_, screen):
        await screen.press("slash", "q", "u")
        assert screen.names() == ["▾ main", "    queue", "    quiet"]
        await screen.press("enter", "down")
        assert screen.names() == ["▾ main", "    queue", "    quiet"]
        await screen.press("escape")
        assert len(screen.names()) == 4
        await screen.press("slash", "x", "x")
        assert screen.lines()[1] == "nothing that has this text"


async def test_a_pause_shows_what_was_and_then_what_is() -> None:
    """O8: what somebody chooses meanwhile is chosen of that."""
    async with program("first") as (runner, screen):
        await screen.press("p")
        await screen.until("paused")
        await runner.add_workers(Helper("second"), wait=True)
        await runner.job("second", name="echo")
        await screen.press("t", "t", "D", "N")
        assert screen.names() == ["▾ main", "    first"]
        await screen.press("p")
        await screen.until("second")


@pytest.mark.slow
async def test_the_lists_are_one_by_one_in_a_small_terminal_and_side_by_side_in_a_wide_one() -> None:
    """O8: 80x24, and 160x48, with curves at the head and a strip for each worker."""
    for size, wide in (((80, 24), False), ((160, 48), True)):
        async with program("one", size=size) as (runner, screen):
            await runner.job("one", name="echo")
            await screen.until("done 1")
            if wide:
                await screen.until("█", "jobs")
            seen = [name for name, listing in screen.app.lists.items() if listing.size.area]
            assert seen == (["workers", "jobs", "errors"] if wide else ["workers"])
            assert all(len(screen.app.lists[name].render_line(1).text) <= size[0] for name in seen)
            assert ("█" in screen.head) == wide
            if wide:
                assert "LAST MINUTE" in screen.lines()[0]
            else:
                assert "1 Workers 1   2 Jobs 0   3 Errors 0" in screen.app.lists["workers"].render_line(0).text
                await screen.press("2")
                assert screen.lines("jobs")[1] == "no jobs"
                await screen.press("tab")
                assert screen.lines("errors")[1] == "no errors"
                await screen.press("tab")
                assert screen.app.lists["workers"].has_focus


async def test_jobs_and_their_stories_are_told() -> None:
    """O3, O8: Enter opens what is chosen, Escape closes it."""
    async with program("one") as (runner, screen):
        helper = runner.get_worker("one")
        assert isinstance(helper, Helper)
        async with runner.job("one", name="wait", payload={"secret": "hunter2"}, timeout=30):
            await screen.press("2")
            await screen.until("wait", "jobs")
            assert screen.lines("jobs")[1].split()[:3] == ["wait", "one", "main"]
            await screen.press("enter")
            assert isinstance(screen.app.screen, Details)
            told = str(screen.app.screen.query_one("#told").render())
            assert "Asked by            main" in told
            assert "asked wait" in told
            assert "hunter2" not in told
            await screen.press("escape")
            assert not isinstance(screen.app.screen, Details)
            helper.release.set()


async def test_an_error_is_told_with_its_traceback_and_a_worker_with_its_counts() -> None:
    """O8: and ? tells of the keys."""
    async with program("one") as (runner, screen):
        with pytest.raises(JobError):
            await runner.job("one", name="fail")
        await screen.press("3")
        await screen.until("ValueError: it went wrong", "errors")
        for keys, expected in (
            (["enter"], "Traceback (most recent call last):"),
            (["1", "down", "enter"], "Errors              1"),
            (["question_mark"], "the other way round"),
        ):
            await screen.press(*keys)
            assert expected in str(screen.app.screen.query_one("#told").render())
            await screen.press("escape")


async def test_a_view_that_goes_is_told_of_and_found_again() -> None:
    """O8: what was seen last stays."""
    async with running(Helper("first"), name="main") as runner:
        async with serve_view(runner, port=0) as first:
            port = int(first.url.rstrip("/").rpartition(":")[2])
        async with anyio.create_task_group() as tasks, anyio.create_task_group() as views:
            begun, gone = anyio.Event(), anyio.Event()

            async def serve() -> None:
                async with serve_view(runner, port=port):
                    begun.set()
                    await gone.wait()

            views.start_soon(serve)
            await begun.wait()
            async with shown(f"http://127.0.0.1:{port}/") as screen:
                await screen.until("first")
                gone.set()
                await screen.until("lost: ")
                assert screen.names() == ["▾ main", "    first"]
                async with running(Helper("second")) as other, serve_view(other, port=port):
                    await screen.until("second")
                    await screen.until("live")
            tasks.cancel_scope.cancel()


async def test_nothing_to_see_ends_it_with_the_reason() -> None:
    """O8"""
    app = TopApp(ViewWatch(Address("http://127.0.0.1:1/", is_bus=False, token=None, prefix="")), Choice("name"), 0.1)
    async with app.run_test() as pilot:
        with anyio.fail_after(60):
            while app.return_value is None:
                await pilot.pause(0.02)
    assert "Connection refused" in str(app.return_value)


async def test_what_is_told_in_another_form_ends_it_with_the_reason() -> None:
    """O8: as a view of another version may tell; there is no traceback."""
    watch = ViewWatch(Address("http://127.0.0.1:1/", is_bus=False, token=None, prefix=""))
    app = TopApp(watch, Choice("name"), 0.1)
    async with app.run_test():
        watch.state["workers"] = {"a": {"kind": "Clerk"}}
        app.look()
        app.draw()  # as where somebody changes the size of the terminal meanwhile
    assert "has a form that is not known here" in str(app.return_value)


@pytest.mark.slow
async def test_a_thousand_workers_are_drawn_in_no_time() -> None:
    """O8: as many rows are drawn as are in sight; a picture takes less than a fifth of a second of the processor."""
    async with program(*(f"worker-{number}" for number in range(1000)), size=(160, 48)) as (_, screen):
        await screen.until("workers 1000")
        begun = os.times()
        for _ in range(5):
            screen.app.look()
        spent = sum(os.times()[:2]) - sum(begun[:2])
        await screen.press("end")
        assert screen.names()[-1] == "    worker-999"
    assert spent / 5 < 0.2


# --- the command


PROGRAM = """
import anyio
from workerbus import WorkerRunner
from workerbus.view import serve_view
from support.workers import Helper

async def main():
    async with WorkerRunner(name="main") as runner, serve_view(runner, port=0) as view:
        await runner.add_workers(Helper("helper"), wait=True)
        print(view.url, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def served() -> Iterator[str]:
    """A program that serves a view, in a process of its own; the address of the view."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=commands.environment()
    )
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "exit_code"), [("q", 0), ("\x03", INTERRUPTED), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_the_terminal_is_as_before_however_it_ends(end: str | signal.Signals, exit_code: int) -> None:
    """O8: q, Ctrl-C, and signals."""
    with served() as url, commands.Terminal([sys.executable, "-m", "workerbus", "top", url]) as terminal:
        terminal.until("helper")
        assert terminal.modes_now != terminal.modes
        if isinstance(end, str):
            terminal.type(end)
        else:
            terminal.process.send_signal(end)
        assert terminal.end() == exit_code
        terminal.read()
        assert terminal.modes_now == terminal.modes
        for begun, ended in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
            assert terminal.output.rfind(begun) < terminal.output.rfind(ended)


@pytest.mark.slow
def test_nobody_there_is_said_in_one_line_below_what_was_there() -> None:
    """O8: the terminal is as before."""
    with commands.Terminal([sys.executable, "-m", "workerbus", "top", "http://127.0.0.1:1"]) as terminal:
        assert terminal.end() == 1
        assert terminal.text.rstrip().endswith("workerbus: there is no view at http://127.0.0.1:1: Connection refused")
        assert terminal.modes_now == terminal.modes
