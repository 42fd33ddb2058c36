"""What is noted of each message while somebody looks: who, to whom, when, of which job (O1, O3, O4, O7).

The tap runs in the step of whoever sends, so it does as little as it can; what the notes mean is the subject of
`workerbus.observing`. Between two looks so many messages are looked at; then the tap takes itself off until the next
look. So what it costs has a bound, whatever the program does. A payload is kept only where it was asked for.

In which job another one is asked for, no message says. So it is noted, for as long as somebody looks, which job's
handler the running code belongs to: in a context variable, which tasks that a handler starts get with the others, and
keep. A request passes here in the step of whoever asks.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from time import monotonic
from typing import Any, Final, Literal, NamedTuple

from workerbus._message_base import BusMessage, own_fields, peer_of
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
    BusObservationMessage,
    BusObserveMessage,
    BusWorkerRestartingMessage,
)

ROOM: Final = 1000
"""How many messages are looked at between two looks at the runner."""
LONGEST: Final = 2000
"""How many characters of a payload, as JSON, are told."""

ASKED: Final = "asked"
ANSWERED: Final = "answered"
UPDATE: Final = "update"
CHUNK: Final = "chunk"
CANCEL: Final = "cancel"
RESTART: Final = "restart"

MessagesWanted = Literal["none", "jobs", "all", "payloads"]
"""What of the messages that pass somebody wants to know."""
LEVELS: Final[tuple[MessagesWanted, ...]] = ("none", "jobs", "all", "payloads")
"""Each includes those before it."""

_KINDS: Final[dict[type[BusMessage], tuple[str, str | None, str | None]]] = {
    BusJobRequestMessage: (ASKED, "job_name", "payload"),
    BusJobResponseMessage: (ANSWERED, "status", "response"),
    BusJobResponseUrgentMessage: (ANSWERED, "status", "response"),
    BusJobStreamEndMessage: (ANSWERED, None, "data"),
    BusJobUpdateMessage: (UPDATE, None, "update"),
    BusJobUpdateUrgentMessage: (UPDATE, None, "update"),
    BusJobStreamStartMessage: (CHUNK, None, "data"),
    BusJobStreamDataMessage: (CHUNK, None, "data"),
    BusJobCancelMessage: (CANCEL, "reason", None),
    BusWorkerRestartingMessage: (RESTART, None, None),
}
"""Class to what it is called, which field is told, and which is the payload."""
_UNSEEN: Final = (BusObserveMessage, BusObservationMessage)


_running: "ContextVar[str]" = ContextVar("workerbus.noted_job")
"""The id of the job whose handler runs."""


class Note(NamedTuple):
    """A message that has passed.

    Attributes:
        at: When, in seconds by the process's monotonic clock.
        kind: What it is: one of the constants of this module, or the name of its class.
        job_id: Of which job; empty where it is of none.
        source: Who has sent it.
        target: For whom; None is everybody.
        text: The name of the job that is asked for, the status of an answer, or the reason of a cancel.
        origin: The incarnation of the peer that it has come from; None for one that was sent here.
        parent: The id of the job that a request is asked for in; empty if it is in none, None where that is not known.
        payload: The payload as JSON; None where that was not asked for.
    """

    at: float
    kind: str
    job_id: str
    source: str
    target: str | None
    text: str | None
    origin: str | None = None
    parent: str | None = None
    payload: str | None = None


class Notes:
    """A tap that notes what passes, until it has seen enough.

    Args:
        take_off: Takes the tap off its bus.
        room: How many messages it looks at until its notes are taken.

    Attributes:
        full: How many times it has seen enough.
        wanted: What is noted.
    """

    def __init__(self, take_off: Callable[["Notes"], None], room: int = ROOM) -> None:
        self._take_off = take_off
        self._room = room
        self._left = room
        self._kept: list[tuple[Any, ...]] = []
        self._tokens: dict[tuple[str, str], Token[str]] = {}
        self._known: Counter[str] = Counter()
        self.full: int = 0
        self.wanted: MessagesWanted = "jobs"

    def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
        """Note, in the handler's task, whose it is."""
        if _running.get(None) != request.job_id:  # else another tap of this kind has done so
            self._tokens[worker, request.job_id] = _running.set(request.job_id)
            self._known[worker] += 1

    def job_ends(self, worker: str, request: BusJobRequestMessage) -> None:
        """Note that the task is nobody's any more. One of which nobody hears that keeps it, and is not used again."""
        token = self._tokens.pop((worker, request.job_id), None)
        if token is not None:
            self._known[worker] -= 1
            with suppress(ValueError):  # a coroutine that is closed is closed elsewhere
                _running.reset(token)

    def forget(self) -> None:
        """Forget what was noted, since the tap is taken off."""
        self.take()
        self._lose_track()

    def _lose_track(self) -> None:
        self._tokens.clear()
        self._known.clear()

    def _parent(self, message: BusMessage) -> str | None:
        running = _running.get(None)
        return "" if running is None and self._known[message.source] > 0 else running

    def __call__(self, message: BusMessage) -> None:
        """Note a message."""
        self._left -= 1
        if self._left < 0:
            self.full += 1
            self._lose_track()
            self._take_off(self)
            return
        kind = _KINDS.get(type(message))
        if kind is None:
            if self.wanted == "jobs" or isinstance(message, _UNSEEN):
                return
            kind = (type(message).__name__, None, None)
        what, field, payload = kind
        peer = peer_of(message)
        self._kept.append(
            (
                monotonic(),
                what,
                job_id if isinstance(job_id := getattr(message, "job_id", ""), str) else "",
                message.source,
                message.target,
                None if field is None else getattr(message, field),
                None if peer is None else peer.incarnation,
                self._parent(message) if what is ASKED and peer is None else None,
                self._content(message, payload) if self.wanted == "payloads" else None,
            )
        )

    def _content(self, message: BusMessage, payload: str | None) -> tuple[Any] | None:
        if payload is not None:
            return (getattr(message, payload),)
        own = [name for cls in type(message).__mro__[:-1] for name in own_fields(cls)]
        return ({name: getattr(message, name, None) for name in own if name not in BusMessage.__annotations__},)

    def take(self) -> list[Note]:
        """Return what was noted since the last time, in the order in which it has passed; there is room again."""
        taken, self._kept, self._left = self._kept, [], self._room
        return [Note._make((*told, None if held is None else _as_json(held[0]))) for *told, held in taken]


def _as_json(payload: object) -> str | None:
    if payload is None:
        return None
    try:
        return json.dumps(payload, default=repr)[:LONGEST]
    except Exception:  # noqa: BLE001 - whatever is in it; it is only looked at
        return json.dumps(f"a {type(payload).__name__} that has no JSON")
