"""What runners on one bus tell each other: who has which workers (G4, J4, R6).

A runner that starts sends a snapshot of its workers to all, and each that has workers sends its own to that one alone.
Nobody answers an answer, so that n runners which meet send no more than n x n snapshots. In between, each worker
announces that it is ready, and that it has gone. All of it ends up in the runner's registry, and of a runner nothing
is kept but its workers.

A network may bring the messages of one runner's workers in any order, its snapshots among them. Each says when it was
so, by that runner's clock, and what is older than what is known already is no news.
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
"""Of how many workers that have gone from runners elsewhere it is kept when."""


class _Peer:
    """Another runner, as long as it has workers.

    Attributes:
        near: Whether it is on this very bus, which delivers at once: then nothing of it comes late.
        here: Its workers, and when it was so.
    """

    __slots__ = ("here", "near")

    def __init__(self, near: bool) -> None:
        self.near = near
        self.here: dict[str, float] = {}


class Discovery:
    """The other runners on a runner's bus.

    Args:
        name: The runner's name.
        bus: Its bus.
        registry: Its registry.
        workers: Returns its workers.
    """

    def __init__(
        self, name: str, bus: Sender, registry: WorkerRegistry, workers: Callable[[], Iterable[WorkerCore]]
    ) -> None:
        self._name = name
        self._bus = bus
        self._registry = registry
        self._workers = workers
        self._peers: dict[str, _Peer] = {}
        # Not a dict: it would look at all that were forgotten for which is the first now.
        self._gone: OrderedDict[tuple[str, str], float] = OrderedDict()

    def send_snapshot(self) -> None:
        """Tell all which workers are ready here, and have them tell which are there."""
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
        """Take in what another runner, or a worker of its, announces."""
        if isinstance(message, BusWorkerReadyMessage):
            await self._arrived(message.runner, message.source, message.started_at)
        elif isinstance(message, BusWorkerGoneMessage):
            await self._departed(message.runner, message.source, message.finished_at)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self._merge(message)

    async def _merge(self, message: BusWorkerRegistryMessage) -> None:
        if message.target is None and (entries := self._entries()):  # it starts, perhaps not for the first time
            self._send(entries, message.runner)
        neighbour = self._peers.get(message.runner)
        if neighbour is not None:
            there = {entry.name for entry in message.workers}
            for name in [name for name in neighbour.here if name not in there]:
                await self._departed(message.runner, name, message.taken_at)
        near = self._is_near(message.runner)
        for entry in message.workers:
            if not near or self._bus.has_subscriber(entry.name):  # else it left while this waited for a watcher
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
            self._gone.pop((runner, name), None)
            self._gone[runner, name] = known if at is None else at
            if len(self._gone) > REMEMBERED:
                self._gone.popitem(last=False)
        await self._registry.unregister(name, runner)

    def _known(self, neighbour: _Peer | None, runner: str, name: str) -> float:
        """When the last that is known of a worker was so."""
        here = None if neighbour is None else neighbour.here.get(name)
        if here is not None:
            return here
        return self._gone.get((runner, name), -math.inf) if self._gone else -math.inf
