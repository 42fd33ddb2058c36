"""What is noted of each message while somebody looks: who, to whom, when, of which job. No payload (O1, O3, O4).

The tap runs in the step of whoever sends, so it does as little as it can; what the notes mean is the subject of
`_stories`. There is room for so many notes. Where more messages pass between two looks, the first ones are noted and
the others counted, so looking has a bound whatever the program does.
"""

from time import monotonic
from typing import Any, Final, NamedTuple

from workerbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    BusWorkerRestartingMessage,
)

ROOM: Final = 1000
"""How many notes are kept between two looks."""

ASKED: Final = "asked"
ANSWERED: Final = "answered"
UPDATE: Final = "update"
CHUNK: Final = "chunk"
CANCEL: Final = "cancel"
RESTART: Final = "restart"

_KINDS: Final[dict[type[BusMessage], tuple[str, str | None]]] = {
    BusJobRequestMessage: (ASKED, "job_name"),
    BusJobResponseMessage: (ANSWERED, "status"),
    BusJobResponseUrgentMessage: (ANSWERED, "status"),
    BusJobStreamEndMessage: (ANSWERED, None),
    BusJobUpdateMessage: (UPDATE, None),
    BusJobUpdateUrgentMessage: (UPDATE, None),
    BusJobStreamStartMessage: (CHUNK, None),
    BusJobStreamDataMessage: (CHUNK, None),
    BusJobCancelMessage: (CANCEL, "reason"),
    BusWorkerRestartingMessage: (RESTART, None),
}


class Note(NamedTuple):
    """A message that has passed.

    Attributes:
        at: When, in seconds by the process's monotonic clock.
        kind: What it is: one of the constants of this module.
        job_id: Of which job; empty where it is of none.
        source: Who has sent it.
        target: For whom; None is everybody.
        text: The name of the job that is asked for, the status of an answer, or the reason of a cancel.
    """

    at: float
    kind: str
    job_id: str
    source: str
    target: str | None
    text: str | None


class Notes:
    """A tap that notes what passes.

    Args:
        room: How many notes are kept until they are taken.

    Attributes:
        passed: How many messages have passed.
        lost: How many notes there was no room for.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._kept: list[tuple[Any, ...]] = []
        self._room = room
        self.passed: int = 0
        self.lost: int = 0

    def tap(self, message: BusMessage) -> None:
        """Note a message."""
        self.passed += 1
        kind = _KINDS.get(type(message))
        if kind is None:
            return
        if len(self._kept) >= self._room:
            self.lost += 1
            return
        what, field = kind
        self._kept.append(
            (
                monotonic(),
                what,
                getattr(message, "job_id", ""),
                message.source,
                message.target,
                None if field is None else getattr(message, field),
            )
        )

    def take(self) -> list[Note]:
        """Return what was noted since the last time, in the order in which it has passed."""
        taken, self._kept = self._kept, []
        return [Note(*each) for each in taken]
