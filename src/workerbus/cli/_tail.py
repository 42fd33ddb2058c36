"""``workerbus tail``: the messages of a bus as they pass, one a line (O3, O8).

What is told of a message is what an observer tells of it: no payload, unless that was asked for here and allowed there.
All that is wanted is chosen here, so a filter makes nothing that passes too fast pass slower.
"""

import argparse
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import anyio

from workerbus.cli._address import VIEW, add_address, address_of
from workerbus.cli._commands import Commands, WarningsInOneLine, one_line, whole
from workerbus.cli._sources import passing_at
from workerbus.cli._watch import Passed, Passing
from workerbus.cli._words import time_for_people

REMEMBERED: Final = 10_000
"""How many jobs are remembered by the name that was asked for."""
WIDEST: Final = 40
"""How wide sender and receiver are made at most, so that what is behind them stands in a column."""
_COLOURS: Final = {"dim": "2", "bad": "31", "warn": "33"}
_BAD: Final = {"error": "bad", "failed": "warn", "cancelled": "warn"}


def add_tail(commands: Commands) -> None:
    """Add the command ``tail``."""
    parser = commands.add_parser(
        "tail",
        help="show the messages that pass, one a line",
        description="Show the messages that pass on the bus of a program that serves a view, or on a whole bus, one a"
        " line, until Ctrl-C.",
        epilog="Kinds: asked, answered, update, chunk, cancel, restart, and the classes of other messages. Names may"
        " have * and ? in them; an option that is given several times means any of them.",
    )
    add_address(parser, VIEW, positional=True)
    parser.add_argument("--worker", metavar="NAME", action="append", help="only from or to this worker or runner")
    parser.add_argument("--job", metavar="NAME", action="append", help="only of jobs of this name, or with this id")
    parser.add_argument("--kind", metavar="KIND", action="append", help="only of this kind, as in asked or answered")
    parser.add_argument("--payloads", action="store_true", help="with payloads, where that is allowed")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("-n", "--number", metavar="N", type=whole, help="end after so many; default: never")
    parser.set_defaults(run=tail)


def tail(given: argparse.Namespace) -> int:
    """Show the messages that pass."""
    passing = passing_at(address_of(given, VIEW), payloads=given.payloads)
    filters = Filters(given.worker or (), given.job or (), given.kind or ())
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    writer = Writer(filters, given.number, objects if given.json else Lines(colours=colours))
    with WarningsInOneLine():
        anyio.run(follow, passing, writer)
    return 0


async def follow(passing: Passing, writer: "Writer") -> None:
    """Write what passes, until there is enough.

    Raises:
        CommandError: There is nothing to see.
    """
    await passing.run(writer.take)


class Filters:
    """What is wanted of what passes.

    Args:
        workers: Names of senders or receivers; none for all.
        jobs: Names or ids of jobs; none for all.
        kinds: Kinds of messages; none for all.
    """

    def __init__(self, workers: Sequence[str], jobs: Sequence[str], kinds: Sequence[str]) -> None:
        self._workers = workers
        self._jobs = jobs
        self._kinds = [kind.lower() for kind in kinds]
        self._wanted: OrderedDict[str, bool] = OrderedDict()

    def has(self, passed: Passed) -> bool:
        """Return whether a message is wanted. A job that was asked for by its name is followed to its end."""
        return self._is_of_job(passed) and self._is_of_worker(passed) and self._is_of_kind(passed)

    def _is_of_worker(self, passed: Passed) -> bool:
        names = [each for each in (passed.source, passed.target) if each]
        return not self._workers or any(fnmatchcase(name, each) for name in names for each in self._workers)

    def _is_of_kind(self, passed: Passed) -> bool:
        return not self._kinds or _any(passed.kind.lower(), self._kinds)

    def _is_of_job(self, passed: Passed) -> bool:
        if not self._jobs:
            return True
        if passed.kind == "asked" and passed.text and _any(passed.text, self._jobs):
            self._wanted[passed.job_id] = True
            if len(self._wanted) > REMEMBERED:
                self._wanted.popitem(last=False)
        return passed.job_id in self._wanted or (bool(passed.job_id) and _any(passed.job_id, self._jobs))


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns)


class Writer:
    """Writes what is wanted of what passes to standard output.

    Args:
        filters: What is wanted.
        number: After how many it is enough; None for never.
        form: What makes lines of a message, and of a number of those that were left out.
    """

    def __init__(self, filters: Filters, number: int | None, form: Callable[["Seen"], str]) -> None:
        self._filters = filters
        self._left = number
        self._form = form
        self._offset: float | None = None

    def take(self, passed: Sequence[Passed], missed: int, now: float | None) -> bool:
        """Write what has passed; returns whether more is wanted.

        Args:
            passed: The messages.
            missed: How many were left out before them.
            now: What the time is on their clock, in seconds; None where that is not known.
        """
        lines = [self._form(Seen(None, None, missed))] if missed else []
        if passed:
            # Where nobody says what the time is, the last message is taken to have come at once.
            offset = time_for_people() - (passed[-1].at if now is None else now)
            self._offset = offset if self._offset is None else min(offset, self._offset)
        for each in passed:
            if self._filters.has(each) and self._left != 0:
                self._left = None if self._left is None else self._left - 1
                lines.append(self._form(Seen(each, each.at + (self._offset or 0.0), 0)))
        if lines:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()
        return self._left != 0


class Seen(NamedTuple):
    """A message that is written, or how many were left out.

    Attributes:
        passed: The message; None for those that were left out.
        time: When, by the clock on the wall, for people.
        missed: How many were left out.
    """

    passed: Passed | None
    time: float | None
    missed: int


def objects(seen: Seen) -> str:
    """Return a message, or how many were left out, as one object of JSON."""
    if seen.passed is None:
        return json.dumps({"missed": seen.missed})
    told: dict[str, Any] = {"time": round(seen.time or 0.0, 3), **seen.passed._asdict()}
    if told["payload"] is None:
        del told["payload"]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


class Lines:
    """Makes lines for people: when, from whom to whom, what, and of which job.

    Args:
        colours: Whether there are any.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._width = 0

    def __call__(self, seen: Seen) -> str:
        """Return the line of a message."""
        passed = seen.passed
        if passed is None:
            return self._look(f"… {seen.missed:,} messages left out: more pass than can be told", "warn")
        moment = seen.time or 0.0
        when = time.strftime("%H:%M:%S", time.localtime(moment)) + f".{int(moment % 1 * 1000):03}"
        who = one_line(f"{passed.source} → {passed.target or '*'}")
        self._width = min(WIDEST, max(self._width, len(who)))
        what = one_line(f"{passed.kind} {passed.text or ''}".rstrip())
        line = f"{self._look(when, 'dim')}  {who:<{self._width}}  {self._look(what, _BAD.get(passed.text or '', ''))}"
        if passed.job_id:
            line += f"  {self._look(one_line(passed.job_id), 'dim')}"
        if passed.payload is not None:
            line += f"  {one_line(passed.payload)}"
        return line

    def _look(self, text: str, look: str) -> str:
        return f"\x1b[{_COLOURS[look]}m{text}\x1b[0m" if self._colours and look else text
