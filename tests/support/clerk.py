"""A worker that others ask, and a program that hosts it: ``python -m support.clerk redis://…``."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from support import commands
from workerbus import BaseWorker, BusJobRequestMessage, JobFailure, WorkerRunner, job
from workerbus.redis import RedisBus


class Clerk(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun = anyio.Event()
        self.cancelled = anyio.Event()

    @job(name="add")
    async def add(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"sum": sum((message.payload or {})["numbers"])}

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("not\ntoday")

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        await self.send_job_update(message.job_id, {"half": "way"})
        for number in range(2):
            yield {"number": number}

    @job(name="stop")
    async def stop_here(self, message: BusJobRequestMessage) -> None:
        self.create_task(self.stop)
        await anyio.sleep_forever()

    @job(name="wait")
    async def wait_here(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Teller(Clerk):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        say("ready")


async def main(url: str) -> None:
    """Host a clerk until its job was cancelled."""
    worker = Teller("clerk")
    async with WorkerRunner(bus=RedisBus(url)) as runner:
        await runner.add_workers(worker)
        await worker.begun.wait()
        say("begun")
        await worker.cancelled.wait()
        say("cancelled")


@contextmanager
def hosted(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a clerk, which ends when its job was cancelled."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.clerk", url], stdout=subprocess.PIPE, text=True, env=commands.environment()
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
