"""What runners on one bus tell each other: who has which workers (G4, J4, L8, R6, R9, X4).

A runner that starts sends a snapshot of its workers to all, and each that has workers sends its own to that one alone.
Nobody answers an answer, so that n runners which meet send no more than n x n snapshots. In between, each worker
announces that it is ready, and that it has gone. All of it is entered in the runner's registry, in the step in which it
arrives; who watches is told after that, in a lane. Of another runner nothing is kept but its workers.

A network may bring what one runner and its workers announce in any order, late, or twice. So:

1. Each announcement says in which life of its runner it was made, and carries a number, higher than those before it in
   that life. No clock is read. Numbers of different lives are never compared, and lives only for equality.
2. For each worker of another runner the number of the last news is kept, and what is older than that is dropped.
3. When a worker has gone, its number is kept for a while, so that an older snapshot does not bring it back.
4. What comes from a life that was unknown is the beginning of that one, and the end of the one before: its workers have
   gone. That life is remembered as over, and what still comes of it is dropped.
5. A runner that hears of a life under its own name other than its own, which is one before it, sends its snapshot to
   all once more: some may have heard that one last. A newer snapshot for all is taken from a life that was over, too.
6. Runners on one bus of this process do not tell each other: they share a `Neighbourhood`, of which nothing is kept
   when it has gone. What they announce is for observers. So n runners come up in O(n).
7. An announcement without a life or without a number is taken as one of the life, and of the number, that is known.

Where a bus has peers, each message comes from one of them, in order, and never late. Then there is this, too:

8. A runner that meets a peer sends its snapshot to that one alone, and so does each that is there. Neither is answered.
   So two know of each other whichever came first; a runner whose bus has met its peers before it asks all of them.
9. The life of a runner is over with the session with its peer. Announcements from another peer are those of another
   life, though the runner says that it is the same one: its bus was cut off, and has joined again.
10. The bus is told with which peer each name is. It is that of the worker which the registry returns for the name.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from workerbus._log import about
from workerbus._message_base import peer_of
from workerbus._neighbourhood import Neighbourhood
from workerbus._order import PROCESS
from workerbus._registry import WorkerRegistry
from workerbus._values import Peer, WorkerGoneData, WorkerReadyData
from workerbus.bus._bus import WorkerBus
from workerbus.bus._peer_bus import PeerBus
from workerbus.messages import (
    BusPoolLoadMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    BusWorkerRestartingMessage,
    WorkerRegistryEntry,
)
from workerbus.worker._state import WorkerState

logger = logging.getLogger("workerbus.runner")
K = TypeVar("K")
V = TypeVar("V")

Announcement = (
    BusWorkerReadyMessage
    | BusWorkerRestartingMessage
    | BusWorkerGoneMessage
    | BusWorkerRegistryMessage
    | BusPoolLoadMessage
)

_Life = tuple[str, str | None, str | None]

PART: Final = 1_000
"""So many workers are in one message to other processes, for which a network has a limit of size."""

REMEMBERED: Final = 1_000
"""How many are remembered: workers that have gone, runners without workers, lives that are over; of each the last."""


class _Other:
    """Another runner in one of its lives.

    Attributes:
        runner: The runner's name.
        incarnation: The id of its life; None where its announcements do not say.
        peer: The peer that these come from; None where the bus knows no peers, or the runner is on this very bus.
        here: The names of its workers, each with the number of the last news of it.
        last: The highest number that was heard.
    """

    __slots__ = ("here", "incarnation", "last", "peer", "runner")

    def __init__(self, runner: str, incarnation: str | None, peer: Peer | None) -> None:
        self.runner = runner
        self.incarnation = incarnation
        self.peer = peer
        self.here: dict[str, int] = {}
        self.last = 0

    @property
    def life(self) -> _Life:
        """What no other life of a runner of its name has."""
        return _life(self.runner, self.incarnation, self.peer)


def _life(runner: str, incarnation: str | None, peer: Peer | None) -> _Life:
    return runner, incarnation, None if peer is None else peer.incarnation


class Discovery:
    """What a runner knows of the others on its bus, and tells them.

    Args:
        name: The runner's name.
        bus: The runner's bus.
        registry: The runner's registry.
        workers: Returns the states of the runner's workers.
    """

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        registry: WorkerRegistry,
        workers: Callable[[], Iterable[WorkerState]],
    ) -> None:
        self._name = name
        self._bus = bus
        self._routes = bus if isinstance(bus, PeerBus) else None
        self._registry = registry
        self._workers = workers
        self._others: dict[str, _Other] = {}
        self._at: dict[str, dict[str, _Other]] = {}  # those of each peer, by its incarnation
        # Not dicts: finding the first entry of one takes a look at each that was forgotten before it.
        self._without_workers: OrderedDict[str, _Other] = OrderedDict()
        self._gone: OrderedDict[tuple[_Life, str], int] = OrderedDict()
        self._over: OrderedDict[_Life, int] = OrderedDict()

    # --- what it tells

    def begin(self) -> None:
        """Tell all runners which workers are ready here, and have each tell which are ready there."""
        if self._bus.in_process:
            if self._bus.neighbourhood is None:
                self._bus.neighbourhood = Neighbourhood()
            self._bus.neighbourhood.join(self._registry)
        self._send(self._entries(), None)

    def end(self) -> None:
        """Leave the other runners on the bus."""
        if self._registry.neighbourhood is not None:
            self._registry.neighbourhood.leave(self._registry)

    def _entries(self) -> list[WorkerRegistryEntry]:
        return [
            WorkerRegistryEntry(
                state.name,
                state.parent_name,
                state.active,
                state.worker.bridged,
                state.started_at,
                *(state.shares or ()),
            )
            for state in self._workers()
            if state.announced and self._registry.is_ready(state.name)
        ]

    def _snapshot(
        self, entries: list[WorkerRegistryEntry], target: str | None, *, asks: bool = True
    ) -> list[BusWorkerRegistryMessage]:
        failed = self._registry.failed.of(self._name) or None
        parts = [entries]
        if self._routes is not None:  # nothing of what it sends goes unheard, and so nobody needs it in one piece
            failed = failed and failed[-PART // 10 :]
            parts = [entries[n : n + PART] for n in range(0, len(entries), PART)] or parts
        complete = len(parts) == 1
        return [
            BusWorkerRegistryMessage(
                self._name,
                part,
                self._registry.incarnation,
                PROCESS.next_number(),
                failed if part is parts[0] else None,
                asks=asks and part is parts[0],
                complete=complete,
                source=self._name,
                target=target,
            )
            for part in parts
        ]

    def _send(self, entries: list[WorkerRegistryEntry], target: str | None) -> None:
        for message in self._snapshot(entries, target):
            if self._registry.neighbourhood is not None and target is None:
                self._bus.announce(message)
            else:
                self._bus.post(message)

    # --- peers

    def met(self, peer: Peer) -> None:
        """Tell a peer which workers are ready here."""
        if self._routes is not None:
            for message in self._snapshot(self._entries(), None, asks=False):
                self._routes.post_to(message, peer)

    def lost(self, peer: Peer, reason: str) -> None:
        """Note that a peer is gone, and why: its runners are, and their workers."""
        for other in list(self._at.get(peer.incarnation, {}).values()):
            self._end_life(other, f"runner {other.runner!r} is gone: {reason}")

    # --- what it is told

    def is_own(self, message: Announcement) -> bool:
        """Whether an announcement is one of this runner's own, in this life."""
        return message.runner == self._name and message.incarnation in (None, self._registry.incarnation)

    def handle(self, message: Announcement) -> None:
        """Take note of what another runner, or a worker of another runner, announces."""
        if message.runner == self._name:
            self._hear_other_life(message)
            return
        neighbours = self._registry.neighbourhood
        if neighbours is not None and message.runner in neighbours.registries:
            return  # it is known; the message is for observers
        other = self._in_this_life(message)
        if other is None:
            return
        number = message.number
        if number is not None and number > other.last:
            other.last = number
        if isinstance(message, BusWorkerReadyMessage):
            self._arrived(other, message.source, number, message.pool, message.places)
        elif isinstance(message, BusPoolLoadMessage):
            self._registry.note_load(message.source, message.places, message.taken)
        elif isinstance(message, BusWorkerRestartingMessage):
            self._withdrawn(other, message.source, number)
        elif isinstance(message, BusWorkerGoneMessage):
            self._departed(other, message.source, number, message.error, restarting=message.restarting)
        else:
            self._merge(other, message)

    def _hear_other_life(self, message: Announcement) -> None:
        life = _life(message.runner, message.incarnation, peer_of(message))
        if self.is_own(message) or life in self._over:
            return
        _remember(self._over, life, 0)
        logger.warning(
            "runner %r hears of another runner of its name, or of its own earlier life: names are unique on a bus",
            self._name,
            extra=about(runner=self._name),
        )
        self._send(self._entries(), None)

    def _in_this_life(self, message: Announcement) -> _Other | None:
        """Return the runner that an announcement is of; None if that is of a life that is over."""
        runner, incarnation, peer = message.runner, message.incarnation, peer_of(message)
        other = self._others.get(runner) or self._without_workers.get(runner)
        if other is not None and incarnation in (None, other.incarnation) and peer == other.peer:
            return other
        life = _life(runner, incarnation, peer)
        if self._over and life in self._over:
            for_all = isinstance(message, BusWorkerRegistryMessage) and message.target is None
            if not for_all or (message.number or 0) <= self._over[life]:
                return None
            del self._over[life]
        if other is not None:
            self._end_life(other)
            _remember(self._over, other.life, other.last)
        other = _Other(runner, incarnation, peer)
        if peer is not None:
            self._at.setdefault(peer.incarnation, {})[runner] = other
            self._locate(runner, other)
        self._keep_without_workers(other)
        return other

    def _keep_without_workers(self, other: _Other) -> None:
        forgotten = _remember(self._without_workers, other.runner, other)
        if forgotten is not None:
            self._let_go(forgotten)

    def _end_life(self, other: _Other, error: str | None = None) -> None:
        for name in list(other.here):
            self._remove(other, name, error)
        self._registry.forget_runner(other.runner)
        self._without_workers.pop(other.runner, None)
        self._let_go(other)

    def _let_go(self, other: _Other) -> None:
        if other.peer is None:
            return
        runners = self._at[other.peer.incarnation]
        del runners[other.runner]
        if not runners:
            del self._at[other.peer.incarnation]
        if self._routes is not None:
            self._routes.unlocate(other.runner, other.peer)

    def _merge(self, other: _Other, message: BusWorkerRegistryMessage) -> None:
        if message.asks and message.target is None:  # it starts, perhaps not for the first time
            entries = self._entries()
            # A peer is told in any case: so it knows where this runner is, which may ask its workers for jobs.
            if entries or self._registry.failed.of(self._name) or other.peer is not None:
                self._send(entries, other.runner)
        # What it had and has no more went unheard, while the network was away.
        there = {entry.name for entry in message.workers}
        for name in [name for name in other.here if name not in there] if message.complete else ():
            self._departed(other, name, message.number)
        for entry in message.workers:
            self._arrived(other, entry.name, message.number, entry.pool, entry.places)
        for data in message.failed or ():
            if data.worker_name not in self._registry:
                self._registry.note_failure(data)

    def _arrived(
        self, other: _Other, name: str, number: int | None, pool: str | None = None, places: int | None = None
    ) -> None:
        known = self._known(other, name)
        if number is not None and number < known:
            return
        if not other.here:
            self._without_workers.pop(other.runner, None)
            self._others[other.runner] = other
        other.here[name] = known if number is None else number
        if self._gone:
            self._gone.pop((other.life, name), None)
        data = WorkerReadyData(name, other.runner, pool, places)
        self._registry.note_restarting(name, other.runner, is_so=False)
        watchers = self._registry.enter(data)
        self._locate_worker(name)
        self._registry.tell_later(watchers or (), data)

    def _withdrawn(self, other: _Other, name: str, number: int | None) -> None:
        known = self._known(other, name)
        if name in other.here and (number is None or number >= known):
            other.here[name] = known if number is None else number
            self._registry.withdraw(name, other.runner)
            self._registry.note_restarting(name, other.runner, is_so=True)

    def _departed(
        self, other: _Other, name: str, number: int | None, error: str | None = None, *, restarting: bool = False
    ) -> None:
        known = self._known(other, name)
        if number is not None and number < known:
            return
        _remember(self._gone, (other.life, name), known if number is None else number)
        self._remove(other, name, error)
        self._registry.note_restarting(name, other.runner, is_so=restarting)
        if error is not None and not restarting and name not in self._registry:
            self._registry.note_failure(WorkerGoneData(name, other.runner, error))

    def _remove(self, other: _Other, name: str, error: str | None = None) -> None:
        if other.here.pop(name, None) is not None and not other.here:
            del self._others[other.runner]
            self._keep_without_workers(other)
        data = self._registry.remove(name, other.runner, error)
        if self._routes is not None and other.peer is not None:
            self._routes.unlocate(name, other.peer)
            self._locate_worker(name)
        if data is not None:
            self._registry.tell_gone(WorkerGoneData(name, other.runner, error))
            self._registry.tell_later(self._registry.departure_watchers(name), data, departed=True)

    def _known(self, other: _Other, name: str) -> int:
        """Return the number of the last news of a worker; 0 where there is none."""
        here = other.here.get(name)
        if here is not None:
            return here
        return self._gone.get((other.life, name), 0) if self._gone else 0

    # --- where names are

    def _locate_worker(self, name: str) -> None:
        """Tell the bus with which peer the worker is that the registry returns: with which those are who ask it."""
        data = None if self._routes is None else self._registry.get(name)
        other = None if data is None else self._others.get(data.runner)
        if other is not None:
            self._locate(name, other)

    def _locate(self, name: str, other: _Other) -> None:
        if self._routes is not None and other.peer is not None:
            self._routes.locate(name, other.peer)


def _remember(table: OrderedDict[K, V], key: K, value: V) -> V | None:
    """Add an entry as the last one, and forget the first of too many, which is returned."""
    table.pop(key, None)
    table[key] = value
    return table.popitem(last=False)[1] if len(table) > REMEMBERED else None
