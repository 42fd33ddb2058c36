"""Workers that are told to end: some say what they heard, some work, some hang, some crash."""

from typing import Any

import anyio
from anyio import sleep, sleep_forever

from support.remarks import Remark, UrgentRemark
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    WorkerParams,
    WorkerRunner,
    job,
)

SOON = 0.3
"""Seconds within which something happens that waits for nothing."""


class Told(Helper):
    """Keeps what reaches its hooks, the final message included; holds a note up until it is let go on."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.told: list[str] = []
        self.finals: list[BusMessage] = []
        self.held = anyio.Event()
        self.let_go = anyio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
            self.finals.append(message)
        elif isinstance(message, Remark | UrgentRemark):
            self.told.append(message.text)
            if message.text == "hold":
                self.held.set()
                await self.let_go.wait()

    async def tell(self, *texts: str) -> None:
        for text in texts:
            await self.bus.send(Remark(text, source="test", target=self.name))

    def reasons(self) -> list[tuple[type[BusMessage], str | None]]:
        return [(type(message), getattr(message, "reason", None)) for message in self.finals]


class Endless(Told):
    """Its `run()` knows of the end, and does not come to it."""

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await params.wait_for_end()
        await sleep_forever()


class Unstarted(Told):
    """Its `run()` knows of the end, and never comes to `start()`."""

    async def run(self, params: WorkerParams) -> None:
        assert not params.ending
        self.held.set()
        await sleep_forever()


class Crashing(BaseWorker):
    """Its `run()` raises when it is told to."""

    def __init__(self, name: str, *, at_once: bool = False) -> None:
        super().__init__(name)
        self.now = anyio.Event()
        self.at_once = at_once

    async def run(self, params: WorkerParams) -> None:
        if not self.at_once:
            await self.start()
            await self.now.wait()
        raise ValueError(self.name)


class FailingStart(BaseWorker):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        raise ValueError(self.name)


async def outcome(runner: WorkerRunner, worker: str, name: str, into: list[str], **kwargs: Any) -> None:
    """Ask for a job, and write down how it ended."""
    try:
        await runner.job(worker, name=name, **kwargs)
    except JobError as exc:
        into.append(str(exc.statuses.get(worker)))
    else:
        into.append("completed")


class Working(Told):
    """Works for some seconds."""

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        assert message.payload is not None
        self.begun.set()
        try:
            await sleep(message.payload["seconds"])
        finally:
            self.unwound.set()

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        self.begun.set()


HANGING = ("run", "hook", "start", "first on_activated")


def hanging(place: str) -> Told:
    """A worker that does not finish by itself."""

    class Activating(Told):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.held.set()
            await sleep_forever()

    kinds: dict[str, type[Told]] = {"run": Endless, "hook": Told, "start": Unstarted, "first on_activated": Activating}
    return kinds[place]("hanging")
