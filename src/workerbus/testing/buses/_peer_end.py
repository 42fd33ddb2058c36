"""An end of a network of peers: a bus, and the task that stores and takes what is due there (X2-X5).

It does what a transport does: it numbers what it stores, it ends its life and begins another one when it was declared
lost or has lost a message, and it claims names. What happens to a message is decided by the network.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from anyio import CancelScope, Event, current_time, move_on_at
from anyio.lowlevel import checkpoint

from workerbus._values import Peer
from workerbus.bus._peer_bus import PeerBus
from workerbus.bus._peers import Arrival, Receipt
from workerbus.errors import BusUnavailable
from workerbus.messages import BusMessage
from workerbus.testing.buses._peer_inbox import Entry, PeerInbox, Sent


class Unstored(NamedTuple):
    """A message that has its place in the line of an end, and is not stored yet; it may be its process's last one."""

    due: float
    sent: Sent
    peers: list[Peer]
    receipt: Receipt
    confirmed: bool
    is_last: bool


class Joined(NamedTuple):
    """What an end learns when it joins."""

    peer: Peer
    inbox: PeerInbox
    peers: list[Peer]
    names_lost: list[tuple[str, str]]


class Switch(Protocol):
    """The network, as its ends see it."""

    def join(self, end: "PeerEnd") -> Joined:
        """Begin a life of an end."""

    def leave(self, end: "PeerEnd", reason: str) -> None:
        """End a life of an end, and tell the others."""

    def accept(self, end: "PeerEnd", message: BusMessage, peers: Sequence[Peer]) -> Unstored:
        """Take a message, and decide when it is stored."""

    def store(self, end: "PeerEnd", sent: Sent, to: Peer, number: int) -> None:
        """Store a message for a peer."""

    def copy(self, sent: Sent) -> BusMessage:
        """Return a message as its receiver sees it."""

    def cuts(self, home: str, end: str) -> bool:
        """Whether a split keeps what is sent at an end from arriving at another."""

    def next_heal(self) -> float:
        """Return when the next split is over."""

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` where a message cannot travel."""

    def kill(self, name: str) -> None:
        """Let the process of an end be gone without a word."""

    def note(self, end: "PeerEnd", event: str, text: str) -> None:
        """Add to the story what has happened to an end."""

    def claim(self, end: "PeerEnd", name: str) -> None:
        """Claim a name for an end."""

    def release(self, end: "PeerEnd", name: str) -> None:
        """Give a name back."""


class PeerEnd(PeerBus):
    """An end of a `PeerNetwork`.

    Attributes:
        me: The end in this life, as its peers know it.
        dead: Whether its process is gone.
        closed: Whether it was opened, and is closed again.
        scope: Of what runs in its process; None where it is not known.
        inbox: What is stored for it in this life.
        fenced_at: When it learns that it was declared lost; infinite while it was not.
    """

    def __init__(
        self, network: Switch, name: str, max_buffer_size: float, max_arrivals: int, send_timeout: float
    ) -> None:
        super().__init__(
            name=name, max_buffer_size=max_buffer_size, max_arrivals=max_arrivals, send_timeout=send_timeout
        )
        self._network = network
        self.me: Peer = Peer(name, self.incarnation)
        self.dead: bool = False
        self.closed: bool = False
        self.scope: CancelScope | None = None
        self.inbox: PeerInbox = PeerInbox()
        self.fenced_at: float = float("inf")
        self._line: deque[Unstored] = deque()
        self._unconfirmed: list[Receipt] = []
        self._woken = Event()

    # --- lives

    async def start(self) -> None:
        """Join the network."""
        await super().start()
        self.closed, self._woken = False, Event()
        self._join()
        self.tasks.start(self._work, name=f"{self.name} network")

    async def stop(self) -> None:
        """Store what is not stored yet, and leave."""
        while self._line:
            self._store(self._line.popleft())
        self.closed = True
        self._network.leave(self, "it has left")
        for receipt in self._unconfirmed:
            receipt.settle(BusUnavailable(self.name, "it was closed", maybe_stored=True))
        self._unconfirmed.clear()
        await super().stop()

    def _join(self) -> None:
        if self.dead:
            self.begin_life(self.incarnation, ())
            return
        joined = self._network.join(self)
        self.inbox, self.fenced_at, self.me = joined.inbox, float("inf"), joined.peer
        self.begin_life(joined.peer.incarnation, joined.peers)
        for name, owner in joined.names_lost:
            self.name_lost(name, owner)

    def _begin_again(self, event: Literal["on_fenced", "on_gap"], reason: str) -> None:
        self._network.note(self, event, f"{reason}, and begins another life")
        self.tell(event, reason)
        self.report(f"{self.name} {reason}")
        self._network.leave(self, reason)
        self.end_life(f"{self.name} {reason}")
        self._join()

    def die(self) -> None:
        """Let its process be gone: it says and hears nothing any more."""
        self.dead = True
        self._line.clear()
        self.inbox = PeerInbox()
        if self.scope is not None:
            self.scope.cancel()

    # --- what goes out

    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
        """Take a message, and store it when that was drawn."""
        if self.dead:
            return None
        unstored = self._network.accept(self, message, peers)
        if not self._line and unstored.due <= current_time():
            self._store(unstored)
        else:
            self._line.append(unstored)
            self.wake()
        if unstored.is_last:
            self._network.kill(self.name)
        return unstored.receipt

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` where the network's wire would not take a message."""
        self._network.check_travels(message)

    def _store(self, unstored: Unstored) -> None:
        receipt = unstored.receipt
        if receipt.withdrawn:
            return
        receipt.written = True
        for peer in unstored.peers:
            session = self.session(peer.incarnation)
            if session is not None:
                self._network.store(self, unstored.sent, peer, session.next_number())
        if unstored.confirmed:
            receipt.settle()
        else:
            self._unconfirmed.append(receipt)

    def lost(self, peer: Peer) -> None:
        """Store nothing more for a peer that is gone."""
        for unstored in self._line:
            if peer in unstored.peers:
                unstored.peers.remove(peer)

    # --- what is due

    def wake(self) -> None:
        """Look what is due now."""
        self._woken.set()

    async def _work(self) -> None:
        while not (self.dead or self.closed):
            self._woken = Event()
            if self._do_what_is_due(current_time()):
                await checkpoint()
            else:
                with move_on_at(self._next_due()):
                    await self._woken.wait()

    def _next_due(self) -> float:
        unstored = self._line[0].due if self._line else float("inf")
        return min(unstored, self.fenced_at, self.inbox.next_due(self._is_cut), self._network.next_heal())

    def _is_cut(self, entry: Entry) -> bool:
        return self._network.cuts(entry.home, self.name)

    def _do_what_is_due(self, now: float) -> bool:
        if self.fenced_at <= now:
            self._begin_again("on_fenced", "learns that it was declared lost")
            return True
        if self._line and self._line[0].due <= now:
            self._store(self._line.popleft())
            return True
        for missing in self.inbox.take_missing(now):
            session = self.session(missing.peer.incarnation)
            if session is not None and session.received < missing.number:
                self._find_gap(missing)
                return True
        entry = self.inbox.take(now, self._is_cut)
        if entry is None:
            return False
        self._take(entry, now)
        return True

    def _take(self, entry: Entry, now: float) -> None:
        if entry.kind == "joined":
            self.meet(entry.peer)
        elif entry.kind == "gone":
            self.lose(entry.peer, entry.reason)
        elif entry.sent is not None:
            message, delay = self._network.copy(entry.sent), now - entry.sent.time
            arrival = self.arrive(message, entry.peer, number=entry.number, delay=delay)
            if arrival is Arrival.GAP:
                self._find_gap(entry)
            elif arrival is Arrival.OVERFLOW:
                self._begin_again("on_gap", f"has no room for more messages of {entry.home}")

    def _find_gap(self, entry: Entry) -> None:
        self._begin_again("on_gap", f"has lost messages of {entry.home}")

    # --- names

    async def claim(self, name: str) -> None:
        """Claim a name on the network."""
        await checkpoint()
        self._network.claim(self, name)

    def release(self, name: str) -> None:
        """Give a name back."""
        self._network.release(self, name)
