"""What is between a bus and each of the others: sessions, numbers, routes, receipts (X2, X3, X4).

A session is with one peer in one of its lives. It begins when the two have met, and is over when the peer has left, was
lost, or lives again under another incarnation; a new one is another session. Messages are numbered in it from 1, for
each direction. That decides what is done with one that arrives:

1. With the number after the last one, it is next.
2. With a lower one, it was sent twice, since its sender did not know whether it was stored the first time.
3. With a higher one, something was lost on the way. No later message can mend that.
4. Of a peer with whom there is no session, it is late: from a life that is over.

Nothing here sends, waits or reads a clock.
"""

from collections import OrderedDict
from enum import Enum, auto
from typing import Final, Protocol

from anyio import Event

from workerbus._concurrency.room import RoomWaiter
from workerbus._values import BATCH, Peer, plain_members
from workerbus.messages import BusMessage

REMEMBERED: Final = 1_000
"""Of so many names it is remembered that they were with a peer that is gone."""


@plain_members
class Arrival(Enum):
    """What has become of a message that has arrived."""

    DELIVERED = auto()
    """It was handed out, to those whom it concerns."""
    REPEATED = auto()
    """It came a second time, and was dropped."""
    LATE = auto()
    """There is no session with its sender: it was dropped."""
    REFUSED = auto()
    """It may not come over a network: it was dropped."""
    GAP = auto()
    """A message before it was lost; it was dropped, and the transport has to end its life."""
    OVERFLOW = auto()
    """It was taken, but too many of its sender wait here for room; the transport has to end its life."""

    @property
    def ends_life(self) -> bool:
        """Whether the transport has to end its life, and to begin another one."""
        return self is Arrival.GAP or self is Arrival.OVERFLOW


class Session:
    """A session with a peer.

    Attributes:
        peer: The peer.
        received: The number of the last message from it; 0 before the first.
        sent: The number of the last message to it.
    """

    __slots__ = ("_line", "_look_at", "peer", "received", "sent")

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer = peer
        self.received: int = 0
        self.sent: int = 0
        self._line: list[RoomWaiter[BusMessage]] = []
        self._look_at: int = BATCH

    def next_number(self) -> int:
        """Number a message to the peer."""
        self.sent += 1
        return self.sent

    def take(self, number: int) -> Arrival:
        """Decide what to do with a message from the peer by its number, and note that it has come."""
        expected = self.received + 1
        if number == expected:
            self.received = number
            return Arrival.DELIVERED
        return Arrival.REPEATED if number < expected else Arrival.GAP

    def stand(self, waiter: RoomWaiter[BusMessage]) -> None:
        """Note that a message from the peer waits for room in a bounded lane."""
        self._line.append(waiter)
        if len(self._line) > self._look_at:
            self._look_at = max(BATCH, 2 * self.waiting)  # so that what was let in is forgotten soon, and cheaply

    @property
    def waiting(self) -> int:
        """How many messages from the peer wait for room; one whose subscriber has left waits no more."""
        self._line = [waiter for waiter in self._line if not waiter.free.is_set()]
        return len(self._line)

    def has_more_waiting_than(self, limit: int) -> bool:
        """Whether more messages than so many wait; counts them only where that may be."""
        return len(self._line) > limit and self.waiting > limit


class Routes:
    """With which peer each name is, as far as that is known.

    A name that was with a peer which is gone is remembered, until that peer lives again: answers to it have nowhere to
    go, and need not be sent to everybody. For all else another one may have the name by now, of whom nobody has heard.
    """

    __slots__ = ("_gone", "_names", "_peers")

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._gone: OrderedDict[str, str] = OrderedDict()

    def get(self, name: str) -> Peer | None:
        """Return the peer where a name is; None where that is not known."""
        return self._peers.get(name)

    def is_gone(self, name: str) -> bool:
        """Whether a name was with a peer, and is there no more."""
        return name in self._gone

    def locate(self, name: str, peer: Peer) -> None:
        """Note with which peer a name is."""
        before = self._peers.get(name)
        if before is not None:
            self._take_from(before, name)
        self._peers[name] = peer
        self._names.setdefault(peer.incarnation, {})[name] = None
        self._gone.pop(name, None)

    def forget(self, name: str, peer: Peer) -> None:
        """Note that a name is not with a peer any more."""
        at = self._peers.get(name)
        if at is None or at.incarnation != peer.incarnation:
            return
        del self._peers[name]
        self._take_from(at, name)
        self._gone[name] = peer.name
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)

    def forget_all(self, peer: Peer) -> None:
        """Note that a peer is gone."""
        for name in list(self._names.get(peer.incarnation, ())):
            self.forget(name, peer)

    def welcome(self, peer: Peer) -> None:
        """Note that a peer has come, perhaps again, and with the names that it had."""
        if self._gone:
            for name in [name for name, of in self._gone.items() if of == peer.name]:
                del self._gone[name]

    def _take_from(self, peer: Peer, name: str) -> None:
        names = self._names[peer.incarnation]
        del names[name]
        if not names:
            del self._names[peer.incarnation]

    def __len__(self) -> int:
        return len(self._peers)


class Receipt:
    """What a transport gives for a message that it has accepted, and settles once.

    Attributes:
        withdrawn: Whether its sender waits no more: what has not been written need not be.
        written: Whether it may have been written; the transport notes that.
        error: What has kept it from being stored; None if it was.
        next: The receipt to wait for when this one is settled: that of a transport, where a message had to wait for a
            connection first. None else.
    """

    __slots__ = ("_settled", "_waiter", "error", "next", "withdrawn", "written")

    def __init__(self) -> None:
        self._settled = False
        self._waiter: Event | None = None
        self.error: Exception | None = None
        self.withdrawn: bool = False
        self.written: bool = False
        self.next: Receipt | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known what has become of the message."""
        return self._settled

    def settle(self, error: Exception | None = None) -> None:
        """Say what has become of the message; only the first time counts."""
        if self._settled:
            return
        self._settled, self.error = True, error
        if self._waiter is not None:
            self._waiter.set()

    async def wait(self) -> None:
        """Wait until it is settled."""
        if not self._settled:
            if self._waiter is None:
                self._waiter = Event()
            await self._waiter.wait()


class PeerListener(Protocol):
    """An object on a bus that is told about its peers: a runner."""

    def met(self, peer: Peer) -> None:
        """Note that a session with a peer has begun."""

    def lost(self, peer: Peer, reason: str) -> None:
        """Note that the session with a peer is over, and why; everything that it sent has been handed out before."""

    def report(self, text: str) -> None:
        """Take note of a fault of the network, in words."""

    def name_lost(self, name: str, owner: str) -> None:
        """Note that a name of a subscriber here was taken by another peer meanwhile."""
