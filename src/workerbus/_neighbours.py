"""What runners on one bus tell each other: who has which workers (G4, J4, R6).

A runner sends a snapshot of its workers when it starts and to every runner that it meets; in between, each worker
announces that it is ready, and that it has gone. All of it ends up in the runner's registry.

A network may bring the messages of one runner's workers in any order, its snapshots among them. Each says when it was
so, by that runner's clock, and what is older than what is known already is no news.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Final

from workerbus._registry import WorkerRegistry
from workerbus._vocabulary import WorkerReadyData
from workerbus.abc import Sender
from workerbus.messages import (
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
)
from workerbus.worker import BaseWorker

logger = logging.getLogger("workerbus")
REMEMBERED: Final = 1_000
"""Of how many workers that have gone it is kept when."""


class Neighbours:
    """The other runners on a runner's bus.

    Args:
        name: The runner's name.
        bus: Its bus.
        registry: Its registry.
        workers: Returns its workers.
    """

    def __init__(
        self, name: str, bus: Sender, registry: WorkerRegistry, workers: Callable[[], Iterable[BaseWorker]]
    ) -> None:
        self._name = name
        self._bus = bus
        self._registry = registry
        self._workers = workers
        self._known: set[str] = set()
        self._here: dict[tuple[str, str], float] = {}
        self._gone: dict[tuple[str, str], float] = {}

    def send_snapshot(self, target: str | None = None) -> None:
        """Tell a runner, or all, which workers are ready here."""
        entries = [
            WorkerRegistryEntry(worker.name, worker.parent, worker.active, worker.bridged, worker.started_at)
            for worker in self._workers()
            if worker.started_at is not None
        ]
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
        if message.target is None or message.runner not in self._known:  # it starts, perhaps not for the first time
            self._known.add(message.runner)
            self.send_snapshot(message.runner)
        there = {entry.name for entry in message.workers}
        for name in set(self._registry.workers_of(message.runner)) - there:
            await self._departed(message.runner, name, message.taken_at)
        for entry in message.workers:
            await self._arrived(message.runner, entry.name, message.taken_at)

    async def _arrived(self, runner: str, name: str, at: float | None) -> None:
        if self._is_news(runner, name, at, self._here):
            await self._registry.register(WorkerReadyData(name, runner))

    async def _departed(self, runner: str, name: str, at: float | None) -> None:
        if self._is_news(runner, name, at, self._gone):
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]
            await self._registry.unregister(name, runner)

    def _is_news(self, runner: str, name: str, at: float | None, table: dict[tuple[str, str], float]) -> bool:
        key = runner, name
        known = max(self._here.get(key, -math.inf), self._gone.get(key, -math.inf))
        if at is not None and at < known:
            return False
        self._here.pop(key, None)
        self._gone.pop(key, None)
        table[key] = known if at is None else at
        return True
