"""The two processes of workerbus: ``python -m benchmarks.network._workerbus ROLE BACKEND URL SHARE``."""

import sys

import anyio

from benchmarks.network._measure import Side, serve
from workerbus import BaseWorker, BusDataMessage, BusJobRequestMessage, WorkerRunner, bus_message, job
from workerbus.redis import RedisBus
from workerbus.wire import register


@register
@bus_message
class Note(BusDataMessage):
    """A message that nobody answers."""

    number: int


class Answerer(BaseWorker):
    """Answers jobs, and counts notes."""

    def __init__(self) -> None:
        super().__init__("answerer")
        self.notes = 0
        self.changed = anyio.Event()

    @job(name="echo")
    async def echo(self, _message: BusJobRequestMessage) -> dict[str, bool]:
        """Answer at once."""
        return {"ok": True}

    @job(name="report")
    async def report(self, message: BusJobRequestMessage) -> None:
        """Report progress as fast as it can."""
        for number in range(message.payload["count"]):
            await self.send_job_update(message.job_id, {"number": number})

    @job(name="counted")
    async def counted(self, message: BusJobRequestMessage) -> None:
        """Answer when so many notes have come."""
        while self.notes < message.payload["count"]:
            await self.changed.wait()
        self.notes = 0

    async def on_bus_message(self, message: object) -> None:
        """Count."""
        if isinstance(message, Note):
            self.notes += 1
            self.changed.set()
            self.changed = anyio.Event()


class Asker(Side):
    """A requester."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner

    async def job(self) -> None:
        """Ask for a job, and wait for its answer."""
        await self._runner.job("answerer", name="echo")

    async def updates(self, count: int) -> None:
        """Ask for a job that reports its progress."""
        async with self._runner.job("answerer", name="report", payload={"count": count}) as asked:
            heard = [event async for event in asked]
        assert len(heard) == count

    async def one_way(self, count: int) -> None:
        """Send notes, as many at once as there is room for."""
        counted = self._runner.job("answerer", name="counted", payload={"count": count})
        bus = self._runner.bus

        async def send(numbers: range) -> None:
            for number in numbers:
                await bus.send(Note(number, source="asker", target="answerer"))

        async with counted, anyio.create_task_group() as group:
            for first in range(50):
                group.start_soon(send, range(first, count, 50))


async def main(role: str, url: str, share: float) -> None:
    """Run one of the two processes."""
    runner = WorkerRunner(bus=RedisBus(url), name=role, handle_sigint=False)
    async with runner:
        if role == "worker":
            await runner.add_workers(Answerer())
            print("ready", flush=True)
            await anyio.sleep_forever()
        else:
            await serve(Asker(runner), share)


if __name__ == "__main__":
    _, role, backend, url, share = sys.argv
    anyio.run(main, role, url, float(share), backend=backend)
