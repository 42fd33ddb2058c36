"""``workerbus top``: what runs, in a terminal, or as text for people and programs (O8).

What reads the network is anyio's, and runs on both backends. The application in the terminal is textual's, which runs
on asyncio alone; so it is kept in `_app`, which is imported where there is a terminal to draw on.
"""

import argparse
import json
import sys
from typing import Final

import anyio

from workerbus._concurrency.failures import unwrap_group
from workerbus.cli._address import VIEW, Address, add_address, address_of
from workerbus.cli._commands import Commands, WarningsInOneLine, seconds
from workerbus.cli._lists import WORKERS, Rates
from workerbus.cli._rows import Choice
from workerbus.cli._sources import watch_of
from workerbus.cli._summary import as_json, plain
from workerbus.cli._watch import Watch, in_known_form
from workerbus.cli._words import time_for_people
from workerbus.errors import MissingExtraError

WARM_UP: Final = 2.0
"""Seconds that one picture waits at most until there are rates."""


def add_top(commands: Commands) -> None:
    """Add the command ``top``."""
    parser = commands.add_parser(
        "top",
        help="show what runs, live, in the terminal",
        description="Show the workers, the jobs in flight, rates and errors of a program that serves a view, or of all"
        " programs on a bus. Plain text where the output is no terminal.",
        epilog="Keys: ? lists them.",
    )
    add_address(parser, VIEW, positional=True)
    parser.add_argument("--once", action="store_true", help="one picture, as plain text")
    parser.add_argument("--json", action="store_true", help="one object a line instead of pictures")
    parser.add_argument(
        "-d", "--delay", metavar="SECONDS", type=_delay, default=1.0, help="between two pictures; default: %(default)g"
    )
    parser.add_argument(
        "--sort",
        metavar="COLUMN",
        choices=[each.key for each in WORKERS],
        default="name",
        help=f"by which column: {', '.join(each.key for each in WORKERS)}; default: %(default)s",
    )
    parser.add_argument("--filter", metavar="TEXT", default="", help="only what has this in it")
    parser.set_defaults(run=top)


def _delay(text: str) -> float:
    return max(0.1, seconds(text))


def top(given: argparse.Namespace) -> int:
    """Show what runs."""
    address = address_of(given, VIEW)
    choice = Choice(given.sort, wanted=given.filter.lower())
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))  # textual draws on the last one
    if terminal and not given.once and not given.json:
        return _in_terminal(address, choice, given.delay)
    with WarningsInOneLine():
        anyio.run(tell, address, choice, given.delay, given.once, given.json)
    return 0


def _in_terminal(address: Address, choice: Choice, delay: float) -> int:
    try:
        from workerbus.cli._app import show  # noqa: PLC0415 - textual is an extra
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("textual", "rich"):
            raise
        raise MissingExtraError("pictures in a terminal", library, "cli") from error
    return show(watch_of(address), choice, delay)


async def tell(address: Address, choice: Choice, delay: float, once: bool, objects: bool) -> None:
    """Write what there is to see to standard output, again and again.

    Raises:
        CommandError: There is nothing to see.
    """
    watch = watch_of(address)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run, name="watch")
            await watch.begun.wait()
            with in_known_form(watch.shown):
                await _write(watch, choice, delay, once, objects)
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise unwrap_group(group) from None


async def _write(watch: Watch, choice: Choice, delay: float, once: bool, objects: bool) -> None:
    rates = Rates()
    begun = watch.at
    with anyio.move_on_after(WARM_UP if once else 0):
        rates.learn(begun, watch.state)
        while not watch.state["curves"] or watch.at < begun + 1:
            await watch.changed()
    lost = False
    while True:
        if watch.link == "live":
            rates.learn(watch.at, watch.state)
        elif not lost:
            sys.stderr.write(f"workerbus: {watch.shown} is lost: {watch.why}; looking for it\n")
        lost = watch.link == "lost"
        if not lost:
            sys.stdout.write(_text(watch, rates, choice, objects))
            sys.stdout.flush()
        if once:
            return
        await anyio.sleep(delay)
        if not objects and not lost:
            sys.stdout.write("\n")


def _text(watch: Watch, rates: Rates, choice: Choice, objects: bool) -> str:
    if objects:
        return json.dumps(as_json(watch, time_for_people()), ensure_ascii=False, separators=(",", ":")) + "\n"
    return plain(watch, rates, choice)
