"""What the measurements of workerbus are made of: workers, subscribers, and a runner that runs them."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._run import Countdown
from workerbus import BaseWorker, BusDataMessage, BusJobRequestMessage, BusMessage, BusSubscriber, WorkerRunner, job


class Answerer(BaseWorker):
    """Has a handler for each kind of job."""

    asleep: Countdown
    unwound: Countdown

    @job(name="echo")
    async def echo(self, _message: BusJobRequestMessage) -> dict[str, Any]:
        """Answer at once."""
        return {"ok": True}

    @job(name="sleep")
    async def sleep(self, _message: BusJobRequestMessage) -> None:
        """Sleep until it is cancelled."""
        try:
            self.asleep.tick()
            await anyio.sleep_forever()
        finally:
            self.unwound.tick()

    @job(name="flood")
    async def flood(self, message: BusJobRequestMessage) -> None:
        """Stream as fast as it can."""
        assert message.payload is not None
        await self.send_job_stream_start(message.job_id)
        for chunk in message.payload["chunks"]:
            await self.send_job_stream_data(message.job_id, chunk)
        await self.send_job_stream_end(message.job_id)

    @job(name="report")
    async def report(self, message: BusJobRequestMessage) -> None:
        """Report progress as fast as it can."""
        assert message.payload is not None
        for update in message.payload["updates"]:
            await self.send_job_update(message.job_id, update)

    @job(name="pace")
    async def pace(self, message: BusJobRequestMessage) -> None:
        """Stream, and let the others run after each."""
        assert message.payload is not None
        await self.send_job_stream_start(message.job_id)
        for chunk in message.payload["chunks"]:
            await self.send_job_stream_data(message.job_id, chunk)
            await checkpoint()
        await self.send_job_stream_end(message.job_id)


class Counts:
    """Counts the messages that it handles."""

    countdown = Countdown(0)

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Count."""
        self.countdown.tick()


class Subscriber(Counts, BusSubscriber):
    """A subscriber that counts.

    Args:
        name: Its name.
        own: Whether it receives only what is for it.
    """

    name = ""

    def __init__(self, name: str, *, own: bool = False) -> None:
        self.name = name
        self.receives = "own" if own else "all"


class Counter(Counts, BaseWorker):
    """A worker that counts."""


class Informed(BaseWorker):
    """A worker that counts the progress of its jobs."""

    countdown = Countdown(0)

    async def on_job_update(self, _message: Any) -> None:
        """Count."""
        self.countdown.tick()


@asynccontextmanager
async def running(*workers: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """Run workers; all are ready in the body."""
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(*workers)
        for worker in workers:
            await runner.registry.wait_for(worker.name)
        yield runner


def messages(count: int, target: str | None) -> list[BusDataMessage]:
    """Make messages."""
    return [BusDataMessage(source="bench", target=target) for _ in range(count)]


async def send_all(runner: WorkerRunner, to_send: Iterable[BusMessage]) -> None:
    """Send as fast as it goes."""
    send = runner.bus.send
    for message in to_send:
        await send(message)


class BusySubscriber(BusSubscriber):
    """A subscriber whose handler waits in its first message.

    Args:
        name: Its name.
    """

    name = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started, self.gate = anyio.Event(), anyio.Event()
        self.countdown = Countdown(0)

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Wait, and count."""
        if not self.started.is_set():
            self.started.set()
            await self.gate.wait()
        else:
            self.countdown.tick()


class Busy(BaseWorker):
    """A worker with handlers that wait.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.started = self.streamed = 0
        self.gate = anyio.Event()
        self.open_jobs: list[str] = []

    @job(name="turn", sequential=True)
    async def turn(self, _message: BusJobRequestMessage) -> None:
        """Wait for the gate; those that come later find it open."""
        self.started += 1
        await self.gate.wait()

    @job(name="wait")
    async def wait_for_gate(self, _message: BusJobRequestMessage) -> None:
        """Wait for the gate."""
        self.started += 1
        await self.gate.wait()

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        """Leave it open."""
        self.started += 1
        self.open_jobs.append(message.job_id)

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        """Stream, without a look at who reads."""
        assert message.payload is not None
        await self.send_job_stream_start(message.job_id)
        for chunk in message.payload["chunks"]:
            await self.send_job_stream_data(message.job_id, chunk)
            self.streamed += 1
        await self.send_job_stream_end(message.job_id)

    async def has_started(self, number: int) -> None:
        """Let the others run until so many handlers have begun."""
        while self.started < number:
            await checkpoint()

    async def has_taken(self, number: int) -> None:
        """Let the others run until so many jobs are here, begun or not."""
        while self.statistics().active_jobs < number:
            await checkpoint()
        await settle()

    async def has_streamed_what_it_may(self) -> None:
        """Let the others run until no more results are sent, whether they are all or nobody has read them."""
        before = -1
        while before != self.streamed:
            before = self.streamed
            await settle()


async def settle() -> None:
    """Let what has been begun be under way."""
    for _ in range(3):
        await checkpoint()


async def answered(asker: BaseWorker, left: int) -> None:
    """Let the others run until no more than so many of a worker's groups are open."""
    while asker.statistics().job_groups > left:
        await checkpoint()
