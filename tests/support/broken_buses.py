"""Buses on which some cannot subscribe."""

from anyio.lowlevel import checkpoint

from workerbus import BusSubscriber, MemoryBus


class Broken(MemoryBus):
    """A bus, as slow as that of a network, on which nobody of the name ``child`` can subscribe for a while."""

    broken = True

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        for _ in range(5):
            await checkpoint()
        if self.broken and subscriber.name == "child":
            raise OSError("no connection")
        await super().subscribe(subscriber)


class Picky(MemoryBus):
    """A bus that lets some in later, perhaps."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        if subscriber.name in self.refused:
            raise OSError("no room")
        await super().subscribe(subscriber)
