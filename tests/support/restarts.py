"""Workers that are supervised: they fail when they are asked to, and say which of their kind they are."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from workerbus import Backoff, BaseWorker, BusJobRequestMessage, JobError, WorkerRunner, job

SOON = Backoff(initial=0.5, jitter=0)
LATE = Backoff(initial=100, maximum=100, jitter=0)


class Fragile(BaseWorker):
    """Says which of its kind it is, and fails when it is asked to; it takes ``lingers`` seconds to clean up."""

    made = 0
    lingers = 0.0

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        Fragile.made += 1
        self.number = Fragile.made

    @job(name="which")
    async def which(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"number": self.number}

    @job(name="wait")
    async def wait_for_ever(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}

    @job(name="take a second")
    async def take_a_second(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await anyio.sleep(1)
        return {"number": self.number}

    @job(name="stop")
    async def end_it(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await self.stop()
        return {}

    @job(name="break")
    async def break_it(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.broken.set()
        await anyio.sleep_forever()
        return {}

    async def run(self, params: Any) -> None:
        self.broken = anyio.Event()
        await self.start()
        async with anyio.create_task_group() as group:
            group.start_soon(self._fail)
            await params.wait_for_end()
            group.cancel_scope.cancel()

    async def _fail(self) -> None:
        await self.broken.wait()
        raise ValueError("broken")

    async def cleanup(self) -> None:
        await anyio.sleep(self.lingers)
        await super().cleanup()


class Lingering(Fragile):
    """Takes a second to clean up."""

    lingers = 1.0


def fragile(name: str = "w", kind: type[Fragile] = Fragile, **options: Any) -> Callable[[], Fragile]:
    return lambda: kind(name, **options)


async def fail(runner: WorkerRunner, name: str = "w") -> None:
    """Have a worker fail, and wait until it has gone."""
    worker = runner.get_worker(name)
    assert worker is not None
    with pytest.raises(JobError):
        await runner.job(name, name="break")
    await worker.wait()


async def begin_to_fail(runner: WorkerRunner, name: str = "w") -> None:
    """Have a worker fail, and wait until its jobs are answered: it cleans up yet."""
    with pytest.raises(JobError, match="raised ValueError: broken"):
        await runner.job(name, name="break")
    assert runner.get_worker(name) is not None


async def which(runner: WorkerRunner, name: str = "w") -> int:
    answer = await runner.job(name, name="which", timeout=100)
    number: int = answer["number"]
    return number


def count_anew() -> None:
    Fragile.made = 0
