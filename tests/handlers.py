"""What `asking.Doing` may do for its jobs, and how to test it in no time."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

import anyio

import clock
from asking import Doing
from workerbus import CLEANUP_SECONDS, BusJobRequestMessage

P = ParamSpec("P")


def idle_time_is_skipped(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test that has the parameter ``backend`` in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        clock.run(functools.partial(test, *args, **kwargs), backend=str(kwargs["backend"]))

    return run


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
