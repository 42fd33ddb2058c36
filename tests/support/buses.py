"""Buses that take a while to publish, as those of a network do."""

from typing import Any

from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from workerbus import (
    BusMessage,
    MemoryBus,
    WorkerBus,
)


class PoliteBus(MemoryBus):
    """A bus whose publishing takes a step, as that of a network does."""

    async def publish(self, message: BusMessage) -> None:
        await cancel_shielded_checkpoint()
        await super().publish(message)


class Wire(WorkerBus):
    """A bus that takes a while to publish, as a network does. What it publishes arrives on every bus in ``ends``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published: list[BusMessage] = []
        self.ends: list[WorkerBus] = [self]

    async def publish(self, message: BusMessage) -> None:
        self.published.append(message)
        await checkpoint()
        for end in self.ends:
            await end.deliver(message)
