"""What runners on one bus tell each other: who has which workers (G4, J4, L8, R6, R9).

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
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from workerbus._log import about
from workerbus._order import PROCESS
from workerbus._registry import Neighbourhood, WorkerRegistry
from workerbus._values import WorkerGoneData, WorkerReadyData
from workerbus.bus._bus import WorkerBus
from workerbus.messages import (
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

Announcement = BusWorkerReadyMessage | BusWorkerRestartingMessage | BusWorkerGoneMessage | BusWorkerRegistryMessage

REMEMBERED: Final = 1_000
"""How many are remembered: workers that have gone, runners without workers, lives that are over; of each the last."""


class _Peer:
    """Another runner in one of its lives.

    Attributes:
        runner: The runner's name.
        incarnation: The id of its life; None where its announcements do not say.
        here: The names of its workers, each with the number of the last news of it.
        last: The highest number that was heard.
    """

    __slots__ = ("here", "incarnation", "last", "runner")

    def __init__(self, runner: str, incarnation: str | None) -> None:
        self.runner = runner
        self.incarnation = incarnation
        self.here: dict[str, int] = {}
        self.last = 0


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
        self._registry = registry
        self._workers = workers
        self._peers: dict[str, _Peer] = {}
        # Not dicts: finding the first entry of one takes a look at each that was forgotten before it.
        self._without_workers: OrderedDict[str, _Peer] = OrderedDict()
        self._gone: OrderedDict[tuple[str, str | None, str], int] = OrderedDict()
        self._over: OrderedDict[tuple[str, str | None], int] = OrderedDict()

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
                state.name, state.parent_name, state.active, state.worker.bridged, started_at=state.started_at
            )
            for state in self._workers()
            if state.announced and self._registry.is_ready(state.name)
        ]

    def _send(self, entries: list[WorkerRegistryEntry], target: str | None) -> None:
        stamp = self._registry.incarnation, PROCESS.next_number()
        failed = self._registry.failed.of(self._name) or None
        message = BusWorkerRegistryMessage(self._name, entries, *stamp, failed, source=self._name, target=target)
        if self._registry.neighbourhood is not None and target is None:
            self._bus.announce(message)
        else:
            self._bus.post(message)

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
        peer = self._peer_in_this_life(message)
        if peer is None:
            return
        number = message.number
        if number is not None and number > peer.last:
            peer.last = number
        if isinstance(message, BusWorkerReadyMessage):
            self._arrived(peer, message.source, number)
        elif isinstance(message, BusWorkerRestartingMessage):
            self._withdrawn(peer, message.source, number)
        elif isinstance(message, BusWorkerGoneMessage):
            self._departed(peer, message.source, number, message.error, restarting=message.restarting)
        else:
            self._merge(peer, message)

    def _hear_other_life(self, message: Announcement) -> None:
        key = message.runner, message.incarnation
        if self.is_own(message) or key in self._over:
            return
        _remember(self._over, key, 0)
        logger.warning(
            "runner %r hears of another runner of its name, or of its own earlier life: names are unique on a bus",
            self._name,
            extra=about(runner=self._name),
        )
        self._send(self._entries(), None)

    def _peer_in_this_life(self, message: Announcement) -> _Peer | None:
        """Return the runner that an announcement is of; None if that is of a life that is over."""
        runner, incarnation = message.runner, message.incarnation
        peer = self._peers.get(runner) or self._without_workers.get(runner)
        if peer is not None and incarnation in (None, peer.incarnation):
            return peer
        key = runner, incarnation
        if self._over and key in self._over:
            for_all = isinstance(message, BusWorkerRegistryMessage) and message.target is None
            if not for_all or (message.number or 0) <= self._over[key]:
                return None
            del self._over[key]
        if peer is not None:
            self._end_life(peer)
        peer = _Peer(runner, incarnation)
        _remember(self._without_workers, runner, peer)
        return peer

    def _end_life(self, peer: _Peer) -> None:
        for name in list(peer.here):
            self._remove(peer, name)
        self._registry.forget_runner(peer.runner)
        _remember(self._over, (peer.runner, peer.incarnation), peer.last)

    def _merge(self, peer: _Peer, message: BusWorkerRegistryMessage) -> None:
        if message.target is None:  # it starts, perhaps not for the first time
            entries = self._entries()
            if entries or self._registry.failed.of(self._name):
                self._send(entries, peer.runner)
        # What it had and has no more went unheard, while the network was away.
        there = {entry.name for entry in message.workers}
        for name in [name for name in peer.here if name not in there]:
            self._departed(peer, name, message.number)
        for name in there:
            self._arrived(peer, name, message.number)
        for data in message.failed or ():
            if data.worker_name not in self._registry:
                self._registry.note_failure(data)

    def _arrived(self, peer: _Peer, name: str, number: int | None) -> None:
        known = self._known(peer, name)
        if number is not None and number < known:
            return
        if not peer.here:
            self._without_workers.pop(peer.runner, None)
            self._peers[peer.runner] = peer
        peer.here[name] = known if number is None else number
        if self._gone:
            self._gone.pop((peer.runner, peer.incarnation, name), None)
        data = WorkerReadyData(name, peer.runner)
        self._registry.note_restarting(name, peer.runner, is_so=False)
        self._registry.tell_later(self._registry.enter(data) or (), data)

    def _withdrawn(self, peer: _Peer, name: str, number: int | None) -> None:
        known = self._known(peer, name)
        if name in peer.here and (number is None or number >= known):
            peer.here[name] = known if number is None else number
            self._registry.withdraw(name, peer.runner)
            self._registry.note_restarting(name, peer.runner, is_so=True)

    def _departed(
        self, peer: _Peer, name: str, number: int | None, error: str | None = None, *, restarting: bool = False
    ) -> None:
        known = self._known(peer, name)
        if number is not None and number < known:
            return
        _remember(self._gone, (peer.runner, peer.incarnation, name), known if number is None else number)
        self._remove(peer, name, error)
        self._registry.note_restarting(name, peer.runner, is_so=restarting)
        if error is not None and not restarting and name not in self._registry:
            self._registry.note_failure(WorkerGoneData(name, peer.runner, error))

    def _remove(self, peer: _Peer, name: str, error: str | None = None) -> None:
        if peer.here.pop(name, None) is not None and not peer.here:
            del self._peers[peer.runner]
            _remember(self._without_workers, peer.runner, peer)
        data = self._registry.remove(name, peer.runner)
        if data is not None:
            self._registry.tell_gone(WorkerGoneData(name, peer.runner, error))
            self._registry.tell_later(self._registry.departure_watchers(name), data, departed=True)

    def _known(self, peer: _Peer, name: str) -> int:
        """Return the number of the last news of a worker; 0 where there is none."""
        here = peer.here.get(name)
        if here is not None:
            return here
        return self._gone.get((peer.runner, peer.incarnation, name), 0) if self._gone else 0


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    """Add an entry as the last one, and forget the first of too many."""
    table.pop(key, None)
    table[key] = value
    if len(table) > REMEMBERED:
        table.popitem(last=False)
