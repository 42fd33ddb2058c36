"""N: names, parameters, both forms of a hook, and what was taken over from later versions."""

from typing import cast

import pytest

from workerbus import (
    BusMessage,
    MemoryBus,
)


@pytest.mark.parametrize("thing", [BusMessage(source="me"), "text", None])
async def test_only_messages_with_a_lane_can_be_sent(thing: object) -> None:
    """N5: anything else is a `TypeError`."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusDataMessage"):
            await bus.send(cast(BusMessage, thing))
