"""Workers that crash, and what is told of it."""

import logging

import anyio
import pytest

from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BusJobRequestMessage,
    BusMessage,
    BusWorkerErrorMessage,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
    job,
)


class Errors:
    """What a runner's ``on_error`` was told, and what went over its bus."""

    def __init__(self) -> None:
        self.told: list[WorkerErrorData] = []
        self.observer = Plain("observer")

    async def of(self, runner: WorkerRunner) -> "Errors":
        runner.add_event_handler("on_error", lambda _, data: self.told.append(data))
        await runner.bus.subscribe(self.observer)
        return self

    def sent(self, source: str) -> list[str]:
        return [
            message.error
            for message in self.observer.got
            if isinstance(message, BusWorkerErrorMessage) and message.source == source
        ]


def tracebacks(caplog: pytest.LogCaptureFixture, error: BaseException) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]


class Parent(Helper):
    """Notes what it is told of its children."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.failed: list[WorkerErrorData] = []

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.failed.append(data)


class Crashing(Helper):
    """Its `run` raises ``error`` when it is told to by a note, in the way that ``how`` says."""

    def __init__(self, name: str = "w", *, how: str = "run", error: Exception | None = None) -> None:
        super().__init__(name)
        self.how = how
        self.error = error or ValueError("boom")
        self.told = anyio.Event()

    async def break_down(self) -> None:
        await self.told.wait()
        raise self.error

    async def run(self, params: WorkerParams) -> None:
        if self.how == "start":
            await super().start()
            await self.break_down()
        await self.start()
        if self.how == "run":
            await self.break_down()
        elif self.how == "task":
            params.task_group.start_soon(self.break_down)
        await super().run(params)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.told.set()

    @job(name="line", sequential=True)
    async def line(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        await anyio.sleep_forever()

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        pass


async def crash(worker: Crashing, runner: WorkerRunner) -> None:
    await runner.bus.send(note(0, worker.name))
    await worker.wait()
