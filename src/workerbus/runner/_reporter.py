"""Gathers what those who look at a runner want to know, for as long as they do (O3, O4, O7).

Several may look at once. A look is one synchronous step, for all who are due; each then gets the difference from what
it has, and what was noted of messages since. While nobody looks there is no tap, and nobody listens to what is logged.
It knows no network, and no clock that decides anything: who calls it when is the subject of `_observers`, and of views.
"""

import logging
from collections import deque
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from workerbus.bus._bus import WorkerBus
from workerbus.runner._logged import LoggedErrors
from workerbus.runner._notes import LEVELS, ROOM, MessagesWanted, Note, Notes
from workerbus.runner._rows import Changes, Observed, Sections, difference, rows
from workerbus.runner._statistics import RunnerStatistics

logger = logging.getLogger("workerbus.runner")

KEPT: Final = 4 * ROOM
"""How many notes wait for one who looks; of more, the first are left out."""


class ObservedRunner(Observed, Protocol):
    """A runner, as it is looked at here."""

    @property
    def bus(self) -> WorkerBus:
        """Its bus."""

    def statistics(self) -> RunnerStatistics:
        """Return a snapshot of it."""


class Report(NamedTuple):
    """What one who looks is told.

    Attributes:
        now: When, in seconds by the process's monotonic clock.
        changes: What has changed since the last report, or everything: section to rows set and rows gone.
        notes: What has passed since then.
        missed: How many messages of those that were wanted were not noted, as far as that is known.
        sampled: Whether more messages have passed than were looked at.
    """

    now: float
    changes: Changes
    notes: list[Note]
    missed: int
    sampled: bool


class Observation:
    """One who looks at a runner.

    Args:
        wanted: What it wants to know of messages.
    """

    def __init__(self, reporter: "Reporter", wanted: MessagesWanted) -> None:
        self._reporter = reporter
        self.wanted: MessagesWanted = wanted
        self._told: Sections = {}
        self._notes: deque[Note] = deque(maxlen=KEPT)
        self._missed = 0
        self._sampled = False

    def want(self, wanted: MessagesWanted) -> None:
        """Want to know more or less of messages from now on."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._reporter.settle()

    def begin_anew(self) -> None:
        """Be told everything with the next report."""
        self._told = {}

    def note(self, notes: list[Note], *, sampled: bool) -> None:
        """Learn what has passed."""
        if self.wanted != "none":
            # Each of them, whoever looks now: one who wanted more may have left since they were taken.
            told = [note for each in notes if (note := _as_wanted(each, self.wanted)) is not None]
            self._missed += max(0, len(self._notes) + len(told) - KEPT)
            self._notes.extend(told)
            self._sampled |= sampled

    def report(self) -> Report:
        """Return what is new since the last report, as of the last look."""
        sections = self._reporter.sections
        changes, self._told = difference(self._told, sections), sections
        notes, missed, sampled = list(self._notes), self._missed, self._sampled
        self._notes.clear()
        self._missed, self._sampled = 0, False
        return Report(self._reporter.looked_at, changes, notes, missed, sampled)

    def end(self) -> None:
        """Look no more."""
        self._reporter.leave(self)


class Reporter:
    """Looks at a runner for others.

    Args:
        runner: The runner.

    Attributes:
        errors: The errors that are logged while somebody looks.
        sections: What there was to tell at the last look.
        looked_at: When that was, in seconds by the process's monotonic clock.
        seen: The statistics of that look; None before the first.
    """

    def __init__(self, runner: ObservedRunner) -> None:
        self._runner = runner
        self._notes = Notes(self._take_off)
        self._full = 0
        self._observations: list[Observation] = []
        self.errors: LoggedErrors = LoggedErrors(runner.name)
        self.sections: Sections = {}
        self.looked_at: float = 0.0
        self.seen: RunnerStatistics | None = None

    @property
    def wanted(self) -> MessagesWanted:
        """What is noted of messages: what somebody wants."""
        return LEVELS[max((LEVELS.index(each.wanted) for each in self._observations), default=0)]

    def observe(self, wanted: MessagesWanted = "none") -> Observation:
        """Begin to look."""
        if not self._observations:
            self.errors.listen()
        observation = Observation(self, wanted)
        self._observations.append(observation)
        self.settle()
        return observation

    def leave(self, observation: Observation) -> None:
        """Let one who looks go; nothing happens where it has gone."""
        if observation in self._observations:
            self._observations.remove(observation)
            self.settle()
            if not self._observations:
                self.errors.stop()

    def settle(self) -> None:
        """Add the tap where somebody wants to know of messages, and take it off where nobody does."""
        self._notes.wanted = self.wanted
        if self._notes.wanted == "none":
            self._take_off(self._notes)
            self._notes.forget()
        else:
            self._runner.bus.add_tap(self._notes)

    def look(self) -> None:
        """Look at the runner."""
        self.looked_at, self.seen = monotonic(), self._runner.statistics()
        self.sections = rows(self._runner, self.seen, self.errors.kept, self.sections or None)
        notes, sampled = self._notes.take(), self._notes.full > self._full
        self._full = self._notes.full
        for each in self._observations:
            each.note(notes, sampled=sampled)
        self.settle()

    def _take_off(self, notes: Notes) -> None:
        self._runner.bus.remove_tap(notes)


_OF_JOBS: Final = frozenset({"asked", "answered", "update", "chunk", "cancel", "restart"})


def _as_wanted(note: Note, wanted: MessagesWanted) -> Note | None:
    """Return a note as it is told to one who wants less than another; None where that is nothing."""
    if wanted == "jobs" and note.kind not in _OF_JOBS:
        return None
    return note if wanted == "payloads" or note.payload is None else note._replace(payload=None)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON has a form for it."""
    return {**report._asdict(), "notes": [list(each) for each in report.notes]}
