"""What the entries of an inbox mean: messages of peers, and what has become of peers (X1, X3, X4, X7).

An entry that is not what it should be is counted, kept for the operator, and stops nobody. A number that is missing
ends the life of the bus.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from anyio import current_time

from workerbus._log import about
from workerbus._values import Peer
from workerbus.bus._peer_bus import PeerBus
from workerbus.bus._peers import Arrival, Session
from workerbus.errors import WireError
from workerbus.messages import BusJobRequestMessage
from workerbus.redis._membership import Notice, read_notice
from workerbus.redis._outbox import MARK
from workerbus.redis._scripts import FORGOTTEN
from workerbus.redis._server_time import ServerTime
from workerbus.wire import Wire

logger = logging.getLogger("workerbus.redis")

REFUSED_KEPT: Final = 1_000
"""About so many messages that could not be decoded are kept for the operator."""
MOST_TAGS: Final = 100
"""Of so many classes that are not known here, one message each is reported."""
_ABSURD: Final = 1 << 53
"""No number of a message is so high, and no time in milliseconds so long."""


class Arrivals:
    """What takes the entries of the inbox of one bus.

    Args:
        bus: The bus.
        wire: Decodes messages.
        server_time: Tells how old an entry is.
        keep: Called with the fields of an entry for the operator, names and values in turn.
        gap: Called with what is missing, in words.

    Attributes:
        malformed: How many entries were no messages.
        unknown: How many were messages of a class that is not registered here.
    """

    def __init__(
        self,
        bus: PeerBus,
        wire: Wire,
        server_time: ServerTime,
        *,
        keep: Callable[[tuple[Any, ...]], None],
        gap: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._wire = wire
        self._server_time = server_time
        self._keep = keep
        self._gap = gap
        self.malformed: int = 0
        self.unknown: int = 0
        self._unknown_tags: set[str] = set()

    def take(self, stored_ms: int, fields: Mapping[bytes, bytes]) -> int:
        """Take an entry.

        Args:
            stored_ms: The server's time when it was stored, in milliseconds.
            fields: Its fields.

        Returns:
            How many messages it had, at least 1; 0 where the life of the bus is over.
        """
        notice = read_notice(fields)
        if notice is not None:
            self._hear(notice)
            return 1
        session = self._bus.session(fields.get(b"o", b"").decode(errors="replace"))
        if session is None:
            self._bus.note_late()
            return 1
        number = _number(fields.get(b"n"))
        if fields.get(b"k") == MARK:
            return self._goes_on(self._bus.pass_over(session, number), session, number)
        lines = fields.get(b"l")
        messages = [fields.get(b"m", b"")] if lines is None else lines.split(b"\n")
        for each in messages:
            if not self._take_message(each, session, number, stored_ms, fields.get(b"w")):
                return 0
            number += 1
        return len(messages)

    def _take_message(self, data: bytes, session: Session, number: int, stored_ms: int, waited: bytes | None) -> bool:
        try:
            message = self._wire.decode(data)
        except WireError as exc:
            self._refuse(data, session.peer, exc)
            verdict = self._bus.pass_over(session, number)
        else:
            delay = 0.0
            if isinstance(message, BusJobRequestMessage) and message.seconds_left is not None:
                delay = self._server_time.age(stored_ms, current_time()) + _number(waited) / 1000
            verdict = self._bus.arrive(message, session.peer, number=number, delay=delay)
        return verdict is Arrival.DELIVERED or self._goes_on(verdict, session, number)

    def _goes_on(self, verdict: Arrival, session: Session, number: int) -> bool:
        if not verdict.ends_life:
            return True
        if verdict is Arrival.GAP:
            text = f"messages of peer {session.peer.name!r} are missing: {number} came after {session.received}"
        else:
            text = f"too many messages of peer {session.peer.name!r} wait here for room"
        self._gap(text)
        return False

    def _hear(self, notice: Notice) -> None:
        if notice.kind == "members":
            known = {member.peer.incarnation for member in notice.members}
            for peer in self._bus.peers:
                if peer.incarnation not in known:
                    self._bus.lose(peer, FORGOTTEN)
            return
        for member in notice.members:
            session = self._bus.session(member.peer.incarnation)
            if notice.kind == "joined":
                self._bus.meet(member.peer)
            elif session is not None:
                self._bus.lose(session.peer, notice.reason or "it has left")

    def _refuse(self, data: bytes, peer: Peer, error: WireError) -> None:
        if error.unknown_tag:
            self.unknown += 1
            if not self._is_new(error.unknown_tag):
                return
        else:
            self.malformed += 1
        text = "bus %r skips a message of peer %r: %s"
        logger.warning(text, self._bus.name, peer.name, error, extra=about(runner=self._bus.opened_by))
        self._keep(("from", peer.name, "why", str(error), "m", data[: self._wire.max_message_size]))

    def _is_new(self, tag: str) -> bool:
        # Frames and other broadcasts go to all, and some programs have no use for them, or do not know them yet.
        if tag in self._unknown_tags or len(self._unknown_tags) >= MOST_TAGS:
            return False
        self._unknown_tags.add(tag)
        return True


def _number(text: bytes | None) -> int:
    try:
        number = int(text or b"0")
    except ValueError:
        return 0
    return number if number < _ABSURD else 0
