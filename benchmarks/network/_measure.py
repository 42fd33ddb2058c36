"""What a requester measures, whichever library it asks with: times of the wall, since a server has its part in them."""

import gc
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import quantiles
from typing import Any

import anyio

AT_ONCE = 50
"""So many jobs are under way at once."""


class Side(ABC):
    """A requester, connected to a worker in another process."""

    @abstractmethod
    async def job(self) -> None:
        """Ask for a job, and wait for its answer."""

    @abstractmethod
    async def updates(self, count: int) -> None:
        """Ask for a job that reports its progress so often, and wait until all of it has come."""

    @abstractmethod
    async def one_way(self, count: int) -> None:
        """Send so many messages that nobody answers, and wait until all have come there."""


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    cuts = quantiles(seconds, n=100)
    return cuts[49], cuts[98]


async def measure(side: Side, share: float) -> dict[str, float]:
    """Measure everything once.

    Args:
        side: The requester.
        share: How much of it is done.
    """
    singles, jobs = int(1_000 * share), int(6_000 * share)
    updates, messages = int(20_000 * share), int(5_000 * share)
    for _ in range(50):
        await side.job()
    gc.collect()
    taken: list[float] = []
    for _ in range(singles):
        begun = time.perf_counter()
        await side.job()
        taken.append(time.perf_counter() - begun)
    p50, p99 = percentiles(taken)
    values = {"one p50": p50, "one p99": p99}

    taken.clear()

    async def ask() -> None:
        for _ in range(jobs // AT_ONCE):
            begun = time.perf_counter()
            await side.job()
            taken.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(ask)
    values["at once"] = (time.perf_counter() - begun) / len(taken)
    values["at once p50"], values["at once p99"] = percentiles(taken)

    begun = time.perf_counter()
    await side.updates(updates)
    values["update"] = (time.perf_counter() - begun) / updates
    begun = time.perf_counter()
    await side.one_way(messages)
    values["one-way"] = (time.perf_counter() - begun) / messages
    return values


async def serve(side: Side, share: float) -> None:
    """Measure once for each line of the input, and answer each with a line."""
    print("ready", flush=True)
    while await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        answer: dict[str, Any] = await measure(side, share)
        print(json.dumps(answer), flush=True)
