"""One runner as it is seen from here: what it has told, and how fast it is (O4, O7)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from workerbus.runner._notes import Note
from workerbus.runner._rows import Row, Section, moment

SPAN: Final = 1.0
"""Over how many seconds rates are taken, at least."""


class SeenRunner:
    """A runner, as far as it has told of itself.

    Args:
        name: Its name.
        peer: The incarnation of the peer that it is at; None for a runner of this process.

    Attributes:
        sections: What it has told, with times on this process's clock.
        offset: How far its clock is ahead of this one, in seconds.
        sampled: Whether more messages have passed there than were looked at.
        silent: Whether it has told nothing for longer than it should.
        rates: Messages and answers a second; None before they are known.
    """

    def __init__(self, name: str, peer: str | None) -> None:
        self.name: str = name
        self.peer: str | None = peer
        self.sections: dict[str, Section] = {each: {} for each in ("runner", "workers", "jobs", "groups", "errors")}
        self.offset: float = 0.0
        self.sampled: bool = False
        self.silent: bool = False
        self.rates: tuple[float, float] | None = None
        self._earlier: tuple[float, int, int] | None = None
        self._sampled_at = -SPAN

    @property
    def row(self) -> Mapping[str, Any]:
        """What it says of itself; empty before it has said anything."""
        row: Mapping[str, Any] = self.sections["runner"].get(self.name, {})
        return row

    def forget(self) -> None:
        """Forget what it has told, since it tells everything once more."""
        for section in self.sections.values():
            section.clear()

    def take(self, changes: Mapping[str, Any]) -> None:
        """Take what has changed, a section at a time."""
        for name, section in self.sections.items():
            change = changes.get(name)
            if change is None:
                continue
            as_seen = _AS_SEEN[name]
            section.update({key: as_seen(self, row) for key, row in change["set"].items()})
            for key in change["gone"]:
                section.pop(key, None)

    def measure(self, now: float) -> None:
        """Take the rates, where it is time to.

        Args:
            now: When it has told what is known of it, by any clock, but always that one.
        """
        row = self.row
        sent, answered = row.get("sent", 0), sum(value for key, value in row.items() if key.startswith("answered_"))
        if self._earlier is None:
            self._earlier = (now, sent, answered)
            return
        since, passed, before = self._earlier
        span = now - since
        if span >= SPAN:
            self.rates = ((sent - passed) / span, (answered - before) / span)
            self._earlier = (now, sent, answered)

    def note_sampled(self, now: float, *, sampled: bool) -> None:
        """Note whether more has passed than was looked at, by the clock of the process that tells so."""
        if sampled:
            self._sampled_at = now
        self.sampled = now - self._sampled_at < SPAN

    def note(self, note: Note) -> Note:
        """Return a note with its time on this process's clock."""
        return note._replace(at=note.at - self.offset) if self.offset else note

    def rest(self) -> None:
        """Measure anew from the next report on: nobody has looked for a while."""
        self._earlier = self.rates = None


def _seen_worker(runner: SeenRunner, row: Row) -> Row:
    return {**row, "runner": runner.name}


def _seen_job(runner: SeenRunner, row: Row) -> Row:
    until = row["until"]
    begun, until = row["begun"] - runner.offset, None if until is None else moment(until - runner.offset)
    return {**row, "begun": moment(begun), "until": until, "runner": runner.name}


def _seen_error(runner: SeenRunner, row: Row) -> Row:
    return [moment(row[0] - runner.offset), *row[1:], runner.name]


def _as_it_is(_runner: SeenRunner, row: Row) -> Row:
    return row


_AS_SEEN: Final[Mapping[str, Callable[[SeenRunner, Row], Row]]] = {
    "runner": _as_it_is,
    "workers": _seen_worker,
    "jobs": _seen_job,
    "groups": _as_it_is,
    "errors": _seen_error,
}
