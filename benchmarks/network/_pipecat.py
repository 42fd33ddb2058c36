"""The two processes of Pipecat, by its public interface: its module, then ``ROLE asyncio URL SHARE``."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import anyio
from loguru import logger
from pipecat.bus import BusDataMessage
from pipecat.bus.network.redis import RedisBus
from pipecat.pipeline.job_context import JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner
from redis.asyncio import Redis

from benchmarks.network._measure import Side, serve

logger.remove()


@dataclass
class Note(BusDataMessage):
    """A message that nobody answers."""

    number: int = 0


class Answerer(BaseWorker):
    """Answers jobs, and counts notes."""

    def __init__(self) -> None:
        super().__init__("answerer")
        self.notes = 0
        self.changed = asyncio.Event()

    @job(name="echo")
    async def echo(self, message: Any) -> None:
        """Answer at once."""
        await self.send_job_response(message.job_id, {"ok": True})

    @job(name="report")
    async def report(self, message: Any) -> None:
        """Report progress as fast as it can."""
        for number in range(message.payload["count"]):
            await self.send_job_update(message.job_id, {"number": number})
        await self.send_job_response(message.job_id, {})

    @job(name="counted")
    async def counted(self, message: Any) -> None:
        """Answer when so many notes have come."""
        while self.notes < message.payload["count"]:
            await self.changed.wait()
        self.notes = 0
        await self.send_job_response(message.job_id, {})

    async def on_bus_message(self, message: Any) -> None:
        """Count."""
        await super().on_bus_message(message)
        if isinstance(message, Note):
            self.notes += 1
            self.changed.set()
            self.changed = asyncio.Event()


class Asker(Side):
    """A requester."""

    def __init__(self, worker: BaseWorker, runner: WorkerRunner) -> None:
        self._worker = worker
        self._runner = runner

    async def job(self) -> None:
        """Ask for a job, and wait for its answer."""
        async with self._worker.job("answerer", params=JobParams(name="echo")):
            pass

    async def updates(self, count: int) -> None:
        """Ask for a job that reports its progress."""
        params = JobParams(name="report", payload={"count": count})
        heard = 0
        async with self._worker.job("answerer", params=params) as asked:
            async for _ in asked:
                heard += 1
        assert heard == count, f"{heard} of {count} have come"

    async def one_way(self, count: int) -> None:
        """Send notes."""
        async with self._worker.job("answerer", params=JobParams(name="counted", payload={"count": count})):
            for number in range(count):
                await self._runner.bus.send(Note(source="asker", target="answerer", number=number))


async def main(role: str, url: str, share: float) -> None:
    """Run one of the two processes."""
    redis = Redis.from_url(url)
    runner = WorkerRunner(bus=RedisBus(redis=redis), handle_sigint=False)
    async with anyio.create_task_group() as group:
        worker: BaseWorker = Answerer() if role == "worker" else BaseWorker("asker")
        await runner.add_workers(worker)
        group.start_soon(runner.run)
        if role == "worker":
            await anyio.sleep(0.5)
            print("ready", flush=True)
            await anyio.sleep_forever()
        await anyio.sleep(1.0)
        await serve(Asker(worker, runner), share)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    _, role, _backend, url, share = sys.argv
    asyncio.run(main(role, url, float(share)))
