"""What runners on one bus tell each other: who has which workers (G4, J4, R6).

A runner that starts sends a snapshot of its workers to all, and each that has workers sends its own to that one alone.
Nobody answers an answer, so that n runners which meet send no more than n x n snapshots. In between, each worker
announces that it is ready, and that it has gone. All of it is entered in the runner's registry. Of another runner
nothing is kept but its workers.

A network may bring what one runner and its workers announce in any order. So:

1. Each announcement says of when it is, in seconds since the epoch by the clock of its own runner. Times of different
   runners are never compared.
2. For each worker of another runner the time of the last news is kept, and what is older than that is dropped.
3. When a worker has gone, its time is kept for a while, so that an older snapshot does not bring it back. Where the bus
   is in this process, nothing comes late and that is not needed.
4. An announcement without a time is taken as news of the time that is known.
"""

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from workerbus._registry import WorkerRegistry
from workerbus._values import WorkerReadyData
from workerbus.abc import Sender
from workerbus.bus._bus import in_process
from workerbus.messages import (
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
)
from workerbus.worker._core import WorkerCore

logger = logging.getLogger("workerbus")
REMEMBERED: Final = 1_000
"""For how many workers that have gone, the most recent ones, the time is kept."""


class _Peer:
    """Another runner, as long as it has workers.

    Attributes:
        near: Whether it is on this very bus, in this process, so that nothing of it comes late. It is looked up when
            the first worker arrives: when the last one departs, the runner may have left the bus.
        here: The names of its workers, each with the time of the last news of it.
    """

    __slots__ = ("here", "near")

    def __init__(self, near: bool) -> None:
        self.near = near
        self.here: dict[str, float] = {}


class Discovery:
    """What a runner knows of the others on its bus, and tells them.

    Args:
        name: The runner's name.
        bus: The runner's bus.
        registry: The runner's registry.
        workers: Returns the runner's workers.
    """

    def __init__(
        self, name: str, bus: Sender, registry: WorkerRegistry, workers: Callable[[], Iterable[WorkerCore]]
    ) -> None:
        self._name = name
        self._bus = bus
        self._registry = registry
        self._workers = workers
        self._peers: dict[str, _Peer] = {}
        # Not a dict: finding the first entry of one takes a look at each that was forgotten before it.
        self._gone: OrderedDict[tuple[str, str], float] = OrderedDict()

    def send_snapshot(self) -> None:
        """Tell all runners which workers are ready here, and have each tell which are ready there."""
        self._send(self._entries(), None)

    def _entries(self) -> list[WorkerRegistryEntry]:
        return [
            WorkerRegistryEntry(
                state.name, state.parent_name, state.active, state.worker.bridged, started_at=state.started_at
            )
            for state in (core.state for core in self._workers())
            if state.started_at is not None
        ]

    def _send(self, entries: list[WorkerRegistryEntry], target: str | None) -> None:
        self._bus.post(BusWorkerRegistryMessage(self._name, entries, time.time(), source=self._name, target=target))

    async def handle(self, message: BusMessage) -> None:
        """Take note of what another runner, or a worker of another runner, announces."""
        if isinstance(message, BusWorkerReadyMessage):
            await self._arrived(message.runner, message.source, message.started_at)
        elif isinstance(message, BusWorkerGoneMessage):
            await self._departed(message.runner, message.source, message.finished_at)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self._merge(message)

    async def _merge(self, message: BusWorkerRegistryMessage) -> None:
        if message.target is None and (entries := self._entries()):  # it starts, perhaps not for the first time
            self._send(entries, message.runner)
        # What it had and has no more went unheard: with the runner's last life, or while the network was away.
        neighbour = self._peers.get(message.runner)
        if neighbour is not None:
            there = {entry.name for entry in message.workers}
            for name in [name for name in neighbour.here if name not in there]:
                await self._departed(message.runner, name, message.taken_at)
        near = self._is_near(message.runner)
        for entry in message.workers:
            # Registering waits for watchers, and near runners go on meanwhile: one of these may have left by now.
            if not near or self._bus.has_subscriber(entry.name):
                await self._arrived(message.runner, entry.name, message.taken_at)

    def _is_near(self, runner: str) -> bool:
        return in_process(self._bus) and self._bus.has_subscriber(runner)

    async def _arrived(self, runner: str, name: str, at: float | None) -> None:
        neighbour = self._peers.get(runner)
        known = self._known(neighbour, runner, name)
        if at is not None and at < known:
            return
        if neighbour is None:
            neighbour = self._peers[runner] = _Peer(self._is_near(runner))
        neighbour.here[name] = known if at is None else at
        self._gone.pop((runner, name), None)
        await self._registry.register(WorkerReadyData(name, runner))

    async def _departed(self, runner: str, name: str, at: float | None) -> None:
        neighbour = self._peers.get(runner)
        known = self._known(neighbour, runner, name)
        if at is not None and at < known:
            return
        if neighbour is not None:
            neighbour.here.pop(name, None)
            if not neighbour.here:
                del self._peers[runner]
        if not (self._is_near(runner) if neighbour is None else neighbour.near):
            self._gone.pop((runner, name), None)  # so that it stands last again, and is forgotten last
            self._gone[runner, name] = known if at is None else at
            if len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
        await self._registry.unregister(name, runner)

    def _known(self, neighbour: _Peer | None, runner: str, name: str) -> float:
        """Return the time of the last news of a worker; minus infinity where there is none."""
        here = None if neighbour is None else neighbour.here.get(name)
        if here is not None:
            return here
        return self._gone.get((runner, name), -math.inf) if self._gone else -math.inf
