"""What `workers.Doing` may do for its jobs."""

from typing import Any

import anyio

from support.workers import Doing
from workerbus import CLEANUP_SECONDS, BusJobRequestMessage


async def at_once(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
    """Answer."""
    return {"by": worker.name}


async def never(worker: Doing, message: BusJobRequestMessage) -> None:
    """Wait to be cancelled, and leave at once then."""
    await anyio.sleep_forever()


async def slow_to_leave(worker: Doing, message: BusJobRequestMessage) -> None:
    """Take longer than the job has, if that is three seconds, and less than the clean-up after it."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(4)


async def too_slow_to_leave(worker: Doing, message: BusJobRequestMessage) -> None:
    """Take longer than the clean-up after a cancellation."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(CLEANUP_SECONDS + 1)


async def slow_to_leave_when_cancelled(worker: Doing, message: BusJobRequestMessage) -> None:
    """Wait to be cancelled, and take most of the clean-up then."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS - 0.5)
