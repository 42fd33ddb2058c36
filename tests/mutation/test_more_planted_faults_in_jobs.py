"""Jobs, groups and lanes, once more: faults that were planted there had turned no test red."""

import pytest
from anyio import CancelScope, sleep

from support.messages import note
from support.subscribers import Plain
from workerbus import (
    CLEANUP_SECONDS,
    BusMessage,
    MemoryBus,
)
from workerbus.testing import settle


async def test_a_subscriber_that_keeps_a_bus_from_closing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4: whichever it is."""

    async def refuse(message: BusMessage) -> None:
        with CancelScope(shield=True):
            await sleep(CLEANUP_SECONDS + 1)

    async with MemoryBus() as bus:
        for name in ("first", "second", "third"):
            await bus.subscribe(Plain(name, on=refuse if name == "second" else None))
        await bus.send(note(1))
        await settle()
    assert [each.split("cancellation: ")[1] for each in caplog.messages if "refuse cancellation" in each] == [
        "'second'"
    ]
