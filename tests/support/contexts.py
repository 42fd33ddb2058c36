"""What goes on in the context of a job, and who answers it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio
from anyio.lowlevel import checkpoint

from support.requesters import Raw
from support.workers import Helper
from workerbus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusWorkerReadyMessage,
    JobContext,
    JobStatus,
    WorkerRunner,
    job,
)


class SlowToUnwind(Helper):
    """Its job ``hold`` unwinds when it is let go."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(name)
        self.unwinds = anyio.Event()
        self.let_go = anyio.Event()
        self.seconds: float | None = None

    @job(name="hold")
    async def hold(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.unwinds.set()
            with anyio.move_on_after(8, shield=True):
                await (self.let_go.wait() if self.seconds is None else anyio.sleep(self.seconds))
            self.unwound.set()


@asynccontextmanager
async def ghost(runner: WorkerRunner, *names: str) -> AsyncIterator[list[Raw]]:
    """Remote workers that answer as the test wants it."""
    ghosts = []
    for name in names:
        ghosts.append(await Raw.on(runner.bus, name))
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source=name))
    for name in names:
        await runner.registry.wait_for(name)
    yield ghosts


async def fail(error: Exception, *after: anyio.Event) -> NoReturn:
    for event in after:
        await event.wait()
    raise error


async def read_and_fail(asked: JobContext[Any], error: Exception) -> NoReturn:
    async for _ in asked:
        pass
    raise error


async def answer_as(runner: WorkerRunner, job_id: str, worker: str, status: JobStatus, error: str = "oh") -> None:
    """Answer a job of the runner in the name of a worker."""
    await runner.bus.send(BusJobResponseMessage(job_id, status, {"error": error}, source=worker, target=runner.name))


async def answer_at_once(runner: WorkerRunner, job_id: str, worker: str, status: Any, *, to: str | None = None) -> None:
    """Answer in a worker's place, and let it be handled."""
    said = BusJobResponseMessage(job_id, status, {"error": "timeout"}, source=worker, target=to or runner.name)
    await runner.bus.send(said)
    await checkpoint()
