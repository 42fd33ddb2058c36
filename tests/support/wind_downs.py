"""What takes its time, refuses or hangs when it is to end, and what can be seen of that."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope, sleep, sleep_forever

from support.remarks import Remark
from support.workers import Helper
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerGoneMessage,
    JobError,
    MemoryBus,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)

BOUND = CLEANUP_SECONDS + 0.5

LONG = 15.0
"""Seconds for which something hangs: a shield that nothing opens would outlast the test's own deadline otherwise."""


def on_ready(runner: WorkerRunner, do: Callable[[], Any]) -> None:
    """Do something as soon as the workers that were added before have started."""

    async def call(_: WorkerRunner) -> None:
        result = do()
        if result is not None:
            await result

    runner.add_event_handler("on_ready", call)


class Logged(Helper):
    """A worker that writes its end into a log."""

    def __init__(self, name: str, log: list[str], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.log = log

    async def cleanup(self) -> None:
        self.log.append(f"cleanup {self.name}")
        await super().cleanup()


class Published(MemoryBus):
    """A bus with a log of what is published, and of its start and stop."""

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__()
        self.log: list[str] = [] if log is None else log
        self.messages: list[BusMessage] = []

    async def start(self) -> None:
        await super().start()
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")
        await super().stop()

    async def publish(self, message: BusMessage) -> None:
        self.messages.append(message)
        if isinstance(message, BusJobResponseMessage):
            self.log.append(f"answer {message.source} {message.status}")
        elif isinstance(message, BusWorkerGoneMessage):
            self.log.append(f"gone {message.source}")
        await super().publish(message)


class Busy(Helper):
    """A worker with something of everything under way."""

    @worker_ready(name="nobody")
    async def nobody_came(self, data: WorkerReadyData) -> None:
        """Nobody comes."""

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        """Answers never."""

    async def run(self, params: WorkerParams) -> None:
        params.task_group.start_soon(self._ask_nobody)
        await super().run(params)

    async def _ask_nobody(self) -> None:
        with suppress(JobError):
            await self.job("nobody", timeout=100)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await self.request_job(data.worker_name, name="wait", timeout=50)
        await self.request_job(data.worker_name, name="later", timeout=50)
        self.release.set()
        async with self.job(data.worker_name, name="wait", timeout=50):
            await sleep_forever()


REFUSAL = 5.0


async def refuse(log: list[str], begun: anyio.Event | None = None) -> None:
    """Wait for the cancellation, and go on for some seconds after it."""
    try:
        if begun is not None:
            begun.set()
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await sleep(REFUSAL)
        log.append("unwound")


class Stubborn(BaseWorker):
    """Refuses cancellation in one place."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name)
        self.place = place
        self.log: list[str] = []
        self.begun = anyio.Event()
        if place == "event handler":
            self.add_event_handler("on_bus_message", Stubborn.on_note)

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        if self.place == "task":
            params.task_group.start_soon(refuse, self.log, self.begun)
        if self.place == "run":
            await refuse(self.log, self.begun)
        await sleep_forever()

    async def on_note(self, message: BusMessage) -> None:
        if isinstance(message, Remark):
            await refuse(self.log, self.begun)

    async def on_bus_message(self, message: BusMessage) -> None:
        if self.place == "hook":
            await self.on_note(message)
        elif self.place == "last hook" and isinstance(message, BusCancelWorkerMessage):
            with CancelScope(shield=True):
                await sleep(REFUSAL)
            self.log.append("unwound")

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        await refuse(self.log, self.begun)

    @job(name="refuse after the answer")
    async def answer_and_refuse(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id)
        await refuse(self.log, self.begun)

    async def cleanup(self) -> None:
        if self.place == "cleanup":
            with CancelScope(shield=True):
                await sleep(REFUSAL)
            self.log.append("unwound")
        await super().cleanup()

    async def provoke(self, runner: WorkerRunner) -> None:
        """Let it come to the place where it refuses."""
        if self.place in ("hook", "event handler"):
            await runner.bus.send(Remark("now", source="test", target=self.name))
        elif self.place == "handler":
            await runner.bus.send(BusJobRequestMessage("1", "refuse", source=runner.name, target=self.name))
        elif self.place == "answered handler":
            await runner.bus.send(
                BusJobRequestMessage("1", "refuse after the answer", source=runner.name, target=self.name)
            )
        if self.place not in ("cleanup", "last hook"):
            await self.begun.wait()


def named(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """The warnings of the library that name somebody."""
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in texts if repr(name) in text]


class HangingBus(MemoryBus):
    async def stop(self) -> None:
        await sleep(LONG)
