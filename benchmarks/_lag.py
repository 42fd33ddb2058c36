"""How late the event loop wakes who has slept."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from benchmarks._run import Run

INTERVAL = 0.001


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that is not exceeded by so many percent of them."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@asynccontextmanager
async def lag_of(run: Run) -> AsyncIterator[None]:
    """Let a task sleep and wake while the body runs, and leave in the run how late it was."""
    late: list[float] = []
    over = anyio.Event()

    async def probe() -> None:
        while True:
            due = time.perf_counter() + INTERVAL
            await anyio.sleep(INTERVAL)
            late.append(time.perf_counter() - due)
            if over.is_set():
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(probe)
        await anyio.sleep(3 * INTERVAL)
        late.clear()
        yield
        over.set()  # when it has been woken from its last sleep, too
    run.values |= {"p50": percentile(late, 50), "p99": percentile(late, 99), "most": max(late)}
