"""The ``@every`` methods of a worker: one task for each, which calls it when it is due (W10).

Each call runs in a task of the worker's own, so that its error is reported, and ends neither this one nor the worker.
The method is looked up at each call (N7).
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import current_time, sleep_until

from workerbus._concurrency.own_tasks import TaskHandle
from workerbus._methods import awaitable
from workerbus.jobs._handlers import Periodic


async def call_periodically(
    worker: Any, attribute: str, when: Periodic, start: Callable[[Awaitable[Any], str], TaskHandle]
) -> None:
    """Call a method of a worker whenever it is due.

    Args:
        worker: The worker.
        attribute: The name of the method.
        when: When it is due.
        start: Starts a task of the worker's own.
    """
    due = current_time() + (0.0 if when.at_once else when.seconds)
    while True:
        await sleep_until(due)
        call = start(_called(worker, attribute), attribute)
        if not when.overlapping:
            await call.wait()
        due = _next_due(due, when.seconds, current_time())


def _next_due(due: float, seconds: float, now: float) -> float:
    """Return when the next call is due, at an even distance from the last one, and not in the past."""
    return due + seconds * max(1, math.ceil((now - due) / seconds))


async def _called(worker: Any, attribute: str) -> None:
    await awaitable(getattr(worker, attribute)(), worker, attribute)
