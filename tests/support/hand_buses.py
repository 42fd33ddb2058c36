"""A bus whose network is in the test's own hands, and who listens to it."""

from collections.abc import Iterable, Sequence
from typing import Any

from anyio import Event

from workerbus import BusMessage, NameTakenError, Peer, PeerBus, Receipt
from workerbus._order import new_incarnation

LEFT, RIGHT, FAR = (Peer(name, f"{name} 1") for name in ("left", "right", "far"))


class HandBus(PeerBus):
    """A bus that keeps what it is to transmit, and whose receipts and claims are the test's.

    Args:
        peers: The peers that are there when it opens.
        joins: Whether it begins its first life when it opens; otherwise the test calls `join`.
        settles: Whether receipts are settled at once.
    """

    def __init__(self, *peers: Peer, joins: bool = True, settles: bool = True, **kwargs: Any) -> None:
        super().__init__(**{"name": "bus", **kwargs})
        self.around: Iterable[Peer] = peers
        self.joins = joins
        self.settles = settles
        self.fails: Exception | None = None
        self.sent: list[tuple[Any, tuple[Peer, ...]]] = []
        self.receipts: list[Receipt] = []
        self.owners: dict[str, str] = {}
        self.claims: list[str] = []
        self.released: list[str] = []
        self.answers: Event | None = None
        self.rooms = 0
        self.has_room: Event | None = None
        self.lost_to: list[Peer] = []

    @property
    def messages(self) -> list[Any]:
        return [message for message, _ in self.sent]

    def to(self, peer: Peer) -> list[Any]:
        return [message for message, peers in self.sent if peer in peers]

    def join(self, *peers: Peer) -> None:
        self.begin_life(new_incarnation(), peers or self.around)

    async def start(self) -> None:
        await super().start()
        if self.joins:
            self.join()

    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
        if self.fails is not None:
            raise self.fails
        self.sent.append((message, tuple(peers)))
        receipt = Receipt()
        self.receipts.append(receipt)
        if self.settles:
            receipt.settle()
        return receipt

    async def room(self) -> None:
        self.rooms += 1
        if self.has_room is not None:
            await self.has_room.wait()

    async def claim(self, name: str) -> None:
        self.claims.append(name)
        if self.answers is not None:
            await self.answers.wait()
        if name in self.owners:
            raise NameTakenError(name, f"the network, by {self.owners[name]!r}")

    def release(self, name: str) -> None:
        self.released.append(name)

    def lost(self, peer: Peer) -> None:
        self.lost_to.append(peer)


class Listener:
    """Keeps what a bus tells those who listen to it."""

    def __init__(self, bus: PeerBus) -> None:
        self.heard: list[tuple[Any, ...]] = []
        bus.add_listener(self)

    def met(self, peer: Peer) -> None:
        self.heard.append(("met", peer))

    def lost(self, peer: Peer, reason: str) -> None:
        self.heard.append(("lost", peer, reason))

    def report(self, text: str) -> None:
        self.heard.append(("report", text))

    def name_lost(self, name: str, owner: str) -> None:
        self.heard.append(("name lost", name, owner))
