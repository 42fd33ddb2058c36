"""Small numbers for names and job ids that the library makes up.

Those are random. In what people read they become small numbers, in the order in which they are met, so that one run of
a program gives one picture and one story, whichever process it runs in.
"""

import re
from collections.abc import Iterable
from typing import Final

from workerbus.messages import (
    BusAddWorkerMessage,
    BusObservationMessage,
    BusObserveMessage,
    BusPoolLoadMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
)
from workerbus.recording._records import BEGINS, ENDS, FROM_REQUESTER, OF_STREAMS, Record

MADE_UP: Final = re.compile(r"(?:(?P<what>\w+)-)?[0-9a-f]{12}-[0-9a-f]+")


LEFT_OUT: Final = OF_STREAMS | {
    BEGINS,
    ENDS,
    BusAddWorkerMessage.__name__,
    BusObservationMessage.__name__,
    BusObserveMessage.__name__,
    BusPoolLoadMessage.__name__,
    BusWorkerReadyMessage.__name__,
    BusWorkerRegistryMessage.__name__,
}
"""The kinds of records that no sequence diagram shows: what the library says for its own sake."""


class Naming:
    """Finds small numbers for made-up names and job ids; leaves others as they are."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._jobs: dict[str, str] = {}
        self._last: dict[tuple[str, str], int] = {}

    def name(self, name: str) -> str:
        """Return a subscriber's name, or ``runner-1`` for one that was made up."""
        known = self._names.get(name)
        if known is None:
            made_up = MADE_UP.fullmatch(name)
            known = name if made_up is None else self._numbered("name", made_up["what"] or "id")
            self._names[name] = known
        return known

    def job_id(self, job_id: str, requester: str | None) -> str:
        """Return a job's id, or ``front-1`` for the first that ``front`` asked for.

        Args:
            job_id: The id.
            requester: Who has asked for it; None where that is not known.
        """
        known = self._jobs.get(job_id)
        if known is None:
            made_up = MADE_UP.fullmatch(job_id)
            known = job_id if made_up is None else self._numbered("job", self.name(requester or "somebody"))
            self._jobs[job_id] = known
        return known

    def text(self, text: str) -> str:
        """Return a text in which what is made up is named so."""
        return MADE_UP.sub(lambda found: self._jobs.get(found[0]) or self.name(found[0]), text)

    def _numbered(self, kind: str, what: str) -> str:
        number = self._last[kind, what] = self._last.get((kind, what), 0) + 1
        return f"{what}-{number}"


def naming_of(records: Iterable[Record]) -> Naming:
    """Return the names of all that a sequence diagram of some records shows: every picture has the same ones."""
    naming = Naming()
    for record in records:
        if record.job_id is not None:
            naming.job_id(record.job_id, record.source if record.kind in FROM_REQUESTER else record.target)
        if record.kind in LEFT_OUT:
            continue
        naming.name(record.source)
        if record.target is not None:
            naming.name(record.target)
        if record.reason is not None:
            naming.text(record.reason)
        if record.asked_as:
            naming.name(record.asked_as)
    return naming
