"""What a bus and its subscribers do at the edges, where no other test looks closely."""

import anyio

from support.messages import note
from support.subscribers import Plain
from workerbus import (
    BusJobUpdateMessage,
    BusMessage,
    MemoryBus,
)


async def test_a_subscriber_that_asks_its_base_class_accepts_everything() -> None:
    """N4: by default everything is accepted."""

    class Asking(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return super().accepts_bus_message(message)

    bus, plain = MemoryBus(), Asking("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
        assert await plain.until(1) == [note(1)]


async def test_an_update_finds_room_where_there_is_none() -> None:
    """B9: for the one that asked, and for nobody else."""
    release = anyio.Event()
    bus = MemoryBus(max_buffer_size=1)
    asker, other = Plain("asker", on=lambda _: release.wait()), Plain("other", receives="own", on=lambda _: None)
    await bus.subscribe(asker)
    await bus.subscribe(other)
    async with bus:
        await bus.send(note(1, target="asker"))
        await asker.until(1)
        await bus.send(note(2, target="asker"))
        update = BusJobUpdateMessage("job", source="other", target="asker")
        await bus.send(update)
        assert bus.statistics().subscribers["asker"].depth == 2
        held = BusJobUpdateMessage("job", source="asker", target="other")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.send, held)
                await other.until(1)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        release.set()
        await asker.until(3)
    assert asker.got == [note(1, target="asker"), note(2, target="asker"), update]
    assert other.got == [held]
