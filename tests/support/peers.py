"""A switch in this process that buses with peers are plugged into, and that can cut one off.

Each bus has one inbox on the switch for each of its lives, which its reader takes from, one entry at a time. Who joins,
leaves or is lost is an entry in the inboxes of the others, so that it stands behind all that this one has sent.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from anyio import Event
from anyio.lowlevel import checkpoint

from support.leaks import task_ids
from support.runners import runner_on
from workerbus import (
    Arrival,
    BusMessage,
    NameTakenError,
    Peer,
    PeerBus,
    Receipt,
    WorkerRunner,
    wire,
)
from workerbus._order import new_incarnation

Entry = tuple[str, Peer, Any]
WIRE = wire.Wire()


class Switch:
    """What the buses are plugged into.

    Attributes:
        ends: The incarnations that are joined, each with its bus.
        names: Worker name to the incarnation that has claimed it.
    """

    def __init__(self) -> None:
        self.ends: dict[str, SwitchBus] = {}
        self.names: dict[str, str] = {}

    def tell(self, kind: str, peer: Peer, what: object, to: "SwitchBus") -> None:
        to.entries.append((kind, peer, what))
        to.news.set()

    def join(self, bus: "SwitchBus") -> list[Peer]:
        others = list(self.ends.values())
        for other in others:
            self.tell("joined", bus.me, None, other)
        self.ends[bus.me.incarnation] = bus
        return [other.me for other in others]

    def leave(self, bus: "SwitchBus", kind: str, reason: str) -> None:
        """Let a bus be a member no more; the others read so behind what it has sent."""
        if self.ends.pop(bus.me.incarnation, None) is None:
            return
        bus.entries.clear()
        self.names = {name: at for name, at in self.names.items() if at != bus.me.incarnation}
        for other in self.ends.values():
            self.tell(kind, bus.me, reason, other)


class SwitchBus(PeerBus):
    """A bus on a switch.

    Attributes:
        me: This bus in its life, as its peers know it.
        entries: Its inbox.
        held: Whether its reader takes nothing for the time being.
    """

    def __init__(self, switch: Switch, **options: Any) -> None:
        super().__init__(**options)
        self.switch = switch
        self.me = Peer(self.name, self.incarnation)
        self.entries: deque[Entry] = deque()
        self.news = Event()
        self.held = False
        self.arrivals: list[tuple[Arrival, BusMessage]] = []

    async def start(self) -> None:
        await super().start()
        self.tasks.start(self._read, name=f"{self.name} reader")
        self.join()

    async def stop(self) -> None:
        self.switch.leave(self, "left", "it has left")
        await super().stop()

    def join(self) -> None:
        """Begin a life; workers that are here already claim their names, and lose those that others have."""
        self.me = Peer(self.opened_by or self.name, new_incarnation())
        names = self.switch.names
        lost = {name: names[name] for name in self.claimed_names if name in names}
        names.update({name: self.me.incarnation for name in self.claimed_names if name not in lost})
        self.begin_life(self.me.incarnation, self.switch.join(self))
        for name, owner in lost.items():
            self.name_lost(name, self.switch.ends[owner].me.name)

    # --- what may happen to it

    def kill(self) -> None:
        """Let its process be gone: the others are told, and it hears and says nothing more."""
        self.switch.leave(self, "lost", "its lease is over")

    def fence(self, reason: str = "it was declared lost") -> None:
        """Let it be declared lost while it lives, learn so at once, and join again."""
        self.switch.leave(self, "lost", "its lease is over")
        self.end_life(reason)
        self.join()

    def hold(self, *, held: bool = True) -> None:
        """Let its reader take nothing, or again what has come."""
        self.held = held
        self.news.set()

    # --- what a transport does

    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
        data = WIRE.encode(message)
        receipt = Receipt()
        receipt.settle()
        for peer in peers:
            session = self.session(peer.incarnation)
            other = self.switch.ends.get(peer.incarnation)
            if session is not None:
                number = session.next_number()
                if other is not None and self.me.incarnation in self.switch.ends:
                    self.switch.tell("message", self.me, (data, number), other)
        return receipt

    def check_travels(self, message: BusMessage) -> None:
        WIRE.encode(message)

    async def claim(self, name: str) -> None:
        await checkpoint()
        owner = self.switch.names.setdefault(name, self.me.incarnation)
        if owner != self.me.incarnation:
            raise NameTakenError(name, f"runner {self.switch.ends[owner].me.name!r}")

    def release(self, name: str) -> None:
        if self.switch.names.get(name) == self.me.incarnation:
            del self.switch.names[name]

    async def _read(self) -> None:
        while True:
            while self.held or not self.entries:
                self.news = Event()
                await self.news.wait()
            kind, peer, what = self.entries.popleft()
            if kind == "message":
                data, number = what
                message = WIRE.decode(data)
                self.arrivals.append((self.arrive(message, peer, number=number), message))
            elif kind == "joined":
                self.meet(peer)
            else:
                self.lose(peer, what)
            await checkpoint()


@asynccontextmanager
async def processes(*names: str, switch: Switch | None = None, **options: Any) -> AsyncIterator[list[WorkerRunner]]:
    """Run a runner of each name on a bus of its own, as if each were in a process of its own; nothing is left (L1)."""
    switch = Switch() if switch is None else switch
    before = task_ids()
    async with AsyncExitStack() as stack:
        runners = [runner_on(SwitchBus(switch), name, **options) for name in names]
        yield [await stack.enter_async_context(runner) for runner in runners]
    assert task_ids() == before


def bus_of(runner: WorkerRunner) -> SwitchBus:
    assert isinstance(runner.bus, SwitchBus)
    return runner.bus
