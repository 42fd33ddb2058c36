"""How progress looks: one line that changes in a terminal, plain lines anywhere else (J20).

The one module that imports rich. Knows nothing of tasks: it is told what to show, and shows it.
"""

import math
import sys
from collections.abc import Sequence
from reprlib import Repr
from typing import IO, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workerbus._values import JobStatus
from workerbus.cli._commands import one_line
from workerbus.jobs import JobAnswer, JobGroupEvent, JobProgress
from workerbus.jobs._words import bad_answer

BAR = 20
"""How wide the bar is, in columns."""
NAMES = 3
"""How many workers are named at most that are still at work."""

_short = Repr()
_short.maxstring = _short.maxother = 40


class Display(Protocol):
    """Where progress is shown.

    Attributes:
        tick: After how many seconds it is to be shown again, though nothing has happened.
    """

    tick: float

    def show(self, now: JobProgress, waits_for: Sequence[str], seconds: float) -> None:
        """Show how far a job is, and for how many seconds it has been asked for."""

    def stop(self) -> None:
        """Leave behind what is shown, and give the terminal back."""


def display_on(console: Console | None) -> Display:
    """Return the display for a console; by default the one of standard error."""
    if console is None:
        # Told by the file itself: variables such as FORCE_COLOR are about colours, and not about a line that moves.
        console = Console(stderr=True, force_terminal=None if sys.stderr.isatty() else False)
    return LiveLine(console) if console.is_interactive else PlainLines(console.file)


class LiveLine:
    """One line in a terminal, which is drawn anew; what is printed meanwhile stands above it."""

    tick = 1.0

    def __init__(self, console: Console) -> None:
        streams = (sys.stdout, sys.stderr)
        mine = console.file in streams  # else what is printed goes elsewhere, and has no line in its way
        out, err = (mine and stream.isatty() for stream in streams)
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=out, redirect_stderr=err)

    def show(self, now: JobProgress, waits_for: Sequence[str], seconds: float) -> None:
        self._live.start()
        self._live.update(_line(now, waits_for, seconds), refresh=True)

    def stop(self) -> None:
        self._live.stop()


def _line(now: JobProgress, waits_for: Sequence[str], seconds: float) -> Table:
    texts = [Text(f"{now.answered}/{now.total}")]
    if now.failed:
        texts.append(Text(f"{now.failed} failed", "red"))
    texts.append(Text(f"{seconds:.1f} s"))
    details = []
    if waits_for and now.total > 1:
        more = f" and {len(waits_for) - NAMES} more" if len(waits_for) > NAMES else ""
        details.append(f"waits for {', '.join(waits_for[:NAMES])}{more}")
    if waits_for and now.event is not None:
        details.append(_event(now.event, named=now.total > 1))
    line = Table.grid(padding=(0, 2, 0, 0))
    label = [] if now.label is None else [Text(one_line(now.label))]
    bar = ProgressBar(total=max(1, now.total), completed=now.answered or (not now.total), width=BAR)
    for _ in range(len(label) + 1 + len(texts)):
        line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    line.add_row(*label, bar, *texts, Text(one_line("  ".join(details))))
    return line


def _event(event: JobGroupEvent, *, named: bool) -> str:
    data = ", ".join(f"{name}={_short.repr(value)}" for name, value in list((event.data or {}).items())[:NAMES])
    return f"{event.worker_name}: {data}" if named else data


class PlainLines:
    """A line for each worker that has answered, without a control character."""

    tick = math.inf

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._lines = 0

    def show(self, now: JobProgress, waits_for: Sequence[str], seconds: float) -> None:
        label = "" if now.label is None else f"{now.label} "
        for answer in now.answers:
            self._lines += 1
            text = one_line(f"{label}{self._lines}/{now.total}: {_answer(answer)}")
            print(text, file=self._file, flush=True)  # rich would end the program where nobody reads any more

    def stop(self) -> None:
        pass


def _answer(answer: JobAnswer) -> str:
    if answer.status is JobStatus.COMPLETED:
        return f"worker {answer.worker_name!r} completed"
    return bad_answer(answer.worker_name, answer.status, answer.response)
