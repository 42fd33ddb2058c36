"""Programs to be recorded, and records that no program has made."""

from collections.abc import AsyncIterator
from typing import Any

import anyio

from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobGroupError, job
from workerbus.recording import Recording, record
from workerbus.testing import run

SECRET = "hunter2"


class Clerk(BaseWorker):
    """Does one file after the other, and streams pages."""

    @job(name="file", sequential=True)
    async def file(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await anyio.sleep(1)
        await self.send_job_update(message.job_id, {"at": SECRET})
        await anyio.sleep(message.payload.get("seconds", 1))
        if message.payload.get("bad"):
            raise ValueError(f"no {SECRET}, but <b>&amp;")
        return {"secret": SECRET}

    @job(name="pages")
    async def pages(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        for page in range(12):
            await anyio.sleep(0.125)
            yield {"page": page, "secret": SECRET}


class Desk(BaseWorker):
    """Has a group that fails, a stream, and a group that does not."""

    @job(name="day")
    async def day(self, message: BusJobRequestMessage) -> None:
        payloads: dict[str, dict[str, Any]] = {"ann": {"seconds": 3, "secret": SECRET}, "bob": {"bad": 1}}
        try:
            async with self.job_group(name="file", payloads=payloads):
                pass
        except JobGroupError:
            pass
        async with self.job("bob", name="pages") as stream:
            async for _ in stream:
                pass
        async with self.job_group("ann", "bob", name="file"):
            pass


async def two_days(**kwargs: Any) -> Recording:
    """Record two days at one desk, one behind the other; the runner's name is made up."""
    async with running(Clerk("ann"), Clerk("bob"), Desk("desk")) as runner:
        with record(runner, **kwargs) as recording:
            for _ in range(2):
                await runner.job("desk", name="day")
    return recording


def recorded(backend: str = "asyncio", **kwargs: Any) -> Recording:
    """Record them in virtual time."""

    async def main() -> Recording:
        return await two_days(**kwargs)

    return run(main, backend=backend)
