"""What is noted of each message while somebody looks: who, to whom, when, of which job. No payload (O1, O3, O4).

The tap runs in the step of whoever sends, so it does as little as it can; what the notes mean is the subject of
`_stories`. Between two looks so many messages are looked at; then the tap takes itself off until the next look. So what
it costs has a bound, whatever the program does.
"""

from collections.abc import Callable
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
"""How many messages are looked at between two looks at the runner."""

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
    """A tap that notes what passes, until it has seen enough.

    Args:
        take_off: Takes the tap off its bus.
        room: How many messages it looks at until its notes are taken.

    Attributes:
        full: How many times it has seen enough.
    """

    def __init__(self, take_off: Callable[["Notes"], None], room: int = ROOM) -> None:
        self._take_off = take_off
        self._room = room
        self._left = room
        self._kept: list[tuple[Any, ...]] = []
        self.full: int = 0

    def tap(self, message: BusMessage) -> None:
        """Note a message."""
        self._left -= 1
        if self._left < 0:
            self.full += 1
            self._take_off(self)
            return
        kind = _KINDS.get(type(message))
        if kind is None:
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
        """Return what was noted since the last time, in the order in which it has passed; there is room again."""
        taken, self._kept, self._left = self._kept, [], self._room
        return [Note(*each) for each in taken]
