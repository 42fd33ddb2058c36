"""How often the event loop wakes up, when there is nothing to do."""

import asyncio
import resource
import selectors
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from benchmarks._run import Run

WAIT = 0.1


class Passes:
    """Counts the passes of the event loop of this process: each asks once what is ready."""

    number = 0


class Selector(selectors.DefaultSelector):
    """Counts how often it is asked."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Count, and wait."""
        Passes.number += 1
        return super().select(timeout)


class Instrument:
    """Counts how often trio asks what is ready; one of `trio.abc.Instrument`, without trio."""

    def before_io_wait(self, _timeout: float) -> None:
        """Count."""
        Passes.number += 1


def counting(backend: str) -> dict[str, Any]:
    """Return the options with which `anyio.run` counts passes."""
    if backend == "trio":
        return {"instruments": [Instrument()]}
    return {"loop_factory": lambda: asyncio.SelectorEventLoop(Selector())}


async def rest(seconds: float) -> dict[str, float]:
    """Sleep, and return what has happened meanwhile."""
    passes, spent = Passes.number, time.process_time()
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    await anyio.sleep(seconds)
    return {
        "passes": Passes.number - passes,
        "switches": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches,
        "spent": time.process_time() - spent,
    }


async def idle(run: Run, workers: AbstractAsyncContextManager[Any]) -> None:
    """Leave in the run what workers do that have nothing to do, for as many seconds as the run counts."""
    alone = await rest(WAIT)
    async with workers:
        await anyio.sleep(WAIT)  # the last of what the start has begun
        found = await rest(run.count)
    run.values |= found | {key: max(0.0, found[key] - alone[key]) for key in ("passes", "switches")}
