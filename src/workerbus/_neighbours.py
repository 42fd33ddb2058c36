"""What runners on one bus tell each other: who has which workers (G4, J4, R6).

A runner sends a snapshot of its workers when it starts and to every runner that it meets; in between, each worker
announces that it is ready, and that it has gone. All of it ends up in the runner's registry.
"""

import logging
from collections.abc import Callable, Iterable

from workerbus._registry import WorkerRegistry
from workerbus._vocabulary import WorkerReadyData
from workerbus._worker import BaseWorker
from workerbus.abc import Sender
from workerbus.messages import (
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
)

logger = logging.getLogger("workerbus")


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

    def send_snapshot(self, target: str | None = None) -> None:
        """Tell a runner, or all, which workers are ready here."""
        entries = [
            WorkerRegistryEntry(worker.name, worker.parent, worker.active, worker.bridged, worker.started_at)
            for worker in self._workers()
            if worker.started_at is not None
        ]
        self._bus.post(BusWorkerRegistryMessage(self._name, entries, source=self._name, target=target))

    async def handle(self, message: BusMessage) -> None:
        """Take in what another runner, or a worker of its, announces."""
        if isinstance(message, BusWorkerReadyMessage):
            await self._registry.register(WorkerReadyData(message.source, message.runner))
        elif isinstance(message, BusWorkerGoneMessage):
            await self._registry.unregister(message.source, message.runner)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self._merge(message)

    async def _merge(self, message: BusWorkerRegistryMessage) -> None:
        if message.runner not in self._known:
            self._known.add(message.runner)
            self.send_snapshot(message.runner)
        there = {entry.name for entry in message.workers}
        for name in set(self._registry.workers_of(message.runner)) - there:
            await self._registry.unregister(name, message.runner)
        for entry in message.workers:
            await self._registry.register(WorkerReadyData(entry.name, message.runner))
