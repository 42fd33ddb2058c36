"""J5, L3, R5: examples/hosts/terminal.py, used by its keys, and ended by signals in a terminal."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest
from anyio import fail_after, sleep

from support.programs import Terminal
from workerbus import WorkerRunner

pytest.importorskip("textual", reason="Textual is not installed: pip install '.[hosts]'")

pytestmark = pytest.mark.slow

PATIENCE = 60.0


@pytest.fixture
def anyio_backend() -> str:
    """Textual runs on asyncio, and in real time."""
    return "asyncio"


class Screen:
    """The application, driven by Textual's Pilot."""

    def __init__(self, app: Any, pilot: Any, searcher: Any) -> None:
        self.app = app
        self.pilot = pilot
        self.searcher = searcher

    @property
    def status(self) -> str:
        return str(self.app.query_one("#status").render())

    @property
    def lines(self) -> list[str]:
        return list(self.app.query_one("Log").lines)

    async def until(self, condition: Callable[[], object]) -> None:
        with fail_after(PATIENCE):
            while not condition():
                await self.pilot.pause()
                await sleep(0.005)


@asynccontextmanager
async def opened() -> AsyncIterator[Screen]:
    program = import_module("examples.hosts.terminal")
    searcher = program.Searcher("searcher")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(searcher)
        app = program.PrimesApp(runner)
        async with app.run_test() as pilot:
            yield Screen(app, pilot, searcher)


async def test_a_key_starts_a_job_whose_chunks_are_shown() -> None:
    """R7, J18: Textual's tasks ask for jobs as any other."""
    async with opened() as screen:
        await screen.pilot.press("3", "0", "enter")
        await screen.until(lambda: screen.status == "10 prime numbers up to 30")
        assert [int(line) for line in screen.lines if line] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
        assert screen.searcher.stopped == 0


async def test_a_key_stops_the_job() -> None:
    """L3, J5: Textual cancels its task natively, and the worker has stopped when the task has ended."""
    async with opened() as screen:
        await screen.pilot.press(*"99999", "enter")
        await screen.until(lambda: len(screen.lines) > 2)
        await screen.pilot.press("escape")
        await screen.until(lambda: screen.searcher.stopped == 1)
        assert screen.status == "Stopped"


async def test_another_search_stops_the_one_before() -> None:
    """L3, J5"""
    async with opened() as screen:
        await screen.pilot.press(*"99999", "enter")
        await screen.until(lambda: len(screen.lines) > 2)
        screen.app.query_one("#limit").value = "10"
        await screen.pilot.press("enter")
        await screen.until(lambda: screen.status == "4 prime numbers up to 10")
        assert screen.searcher.stopped == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    """R5: while a job is under way; the screen is the one from before, with its cursor."""
    with Terminal("hosts/terminal.py") as terminal:
        terminal.read_until("Type a number")
        terminal.type("99999\r")
        terminal.read_until("Searching up to")
        terminal.process.send_signal(number)
        assert terminal.read_to_the_end() == 128 + number
    assert "Traceback" not in terminal.text
    assert terminal.output.rindex(b"\x1b[?1049l") > terminal.output.rindex(b"\x1b[?1049h")
    assert terminal.output.rindex(b"\x1b[?25h") > terminal.output.rindex(b"\x1b[?25l")


def test_ctrl_c_is_a_key_that_ends_it() -> None:
    """A terminal in Textual's hands sends no signal for it."""
    with Terminal("hosts/terminal.py") as terminal:
        terminal.read_until("Type a number")
        terminal.type("99999\r")
        terminal.read_until("Searching up to")
        terminal.type("\x03")
        assert terminal.read_to_the_end() == 0
    assert "Traceback" not in terminal.text
