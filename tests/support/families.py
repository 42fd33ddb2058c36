"""Parents and children."""

from typing import Any

import anyio

from support.messages import Note
from support.workers import Helper
from workerbus import BusMessage, WorkerErrorData, WorkerParams, WorkerReadyData


class Parent(Helper):
    """Notes which workers it is told of, and what it hears."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.ready: list[str] = []
        self.failed: list[WorkerErrorData] = []
        self.notes: list[int] = []
        self.changed = anyio.Event()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.ready.append(data.worker_name)

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.failed.append(data)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.notes.append(message.n)
            self.changed.set()


class Unattachable(Helper):
    async def attach(self, **kwargs: Any) -> None:
        raise OSError("no device")


class FailingWhenCancelled(Helper):
    async def run(self, params: WorkerParams) -> None:
        await self.start()
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("broken")


class Arriving(Helper):
    """Takes a second to be attached; ``harm`` is raised then, if there is one."""

    def __init__(self, name: str, harm: BaseException | None = None) -> None:
        super().__init__(name)
        self.harm = harm
        self.arriving = anyio.Event()

    async def attach(self, **kwargs: Any) -> None:
        self.arriving.set()
        await anyio.sleep(1)
        if self.harm is not None:
            raise self.harm
        await super().attach(**kwargs)
