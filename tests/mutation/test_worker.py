"""What a worker says and does at the edges, where no other test looks closely."""

from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from support.workers import Helper, running
from workerbus import (
    BusSubscriber,
    MemoryBus,
)


class Refusing(MemoryBus):
    """A bus, as slow as that of a network, on which nobody of the name ``child`` can subscribe for a while."""

    broken = True

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        for _ in range(5):
            await checkpoint()
        if self.broken and subscriber.name == "child":
            raise OSError("no connection")
        await super().subscribe(subscriber)


async def test_a_root_worker_that_could_not_be_attached_is_free_again() -> None:
    """R3."""
    bus, child = Refusing(), Helper("child")
    async with running(bus=bus) as runner:
        with pytest.raises(OSError, match="no connection"):
            await runner.add_workers(child)
        assert runner.known_workers() == []
        bus.broken = False
        await runner.add_workers(child)
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": None}


@pytest.mark.parametrize("child", [False, True])
async def test_what_is_no_worker_is_named_when_it_is_refused(child: bool) -> None:
    """W5: also beside one that is."""
    anything: Any = "a name"
    parent, other = Helper("parent"), Helper("other")
    async with running(parent):
        with pytest.raises(TypeError, match=r"^children are workers, not 'a name'$"):
            await parent.add_workers(*((other, anything) if child else (anything,)))
        assert parent.children == []
    assert other.parent is None
