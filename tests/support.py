"""Small workers and helpers that many tests use."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    WorkerRunner,
    job,
)


class Plain(BusSubscriber):
    """A plain subscriber that keeps what it gets.

    `until(n)` waits until it has handled n messages. Give it ``on`` to do something with each.
    """

    def __init__(self, name: str, *, receives: str = "all", on: Callable[[BusMessage], Any] | None = None) -> None:
        self._name = name
        self.receives = receives  # type: ignore[assignment]  # "all" or "own"
        self.got: list[BusMessage] = []
        self._on = on
        self._changed = anyio.Event()

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)
        self._changed.set()
        self._changed = anyio.Event()
        if self._on is not None:
            result = self._on(message)
            if result is not None:
                await result

    def of(self, kind: type[BusMessage]) -> list[BusMessage]:
        return [message for message in self.got if isinstance(message, kind)]

    async def until(self, count: int, kind: type[BusMessage] = BusMessage) -> list[BusMessage]:
        while len(self.of(kind)) < count:
            await self._changed.wait()
        return self.of(kind)


class Helper(BaseWorker):
    """A worker with one job of every kind.

    ``begun`` and ``unwound`` tell of the handlers of ``wait``; ``release`` lets them go on.
    """

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.begun = anyio.Event()
        self.unwound = anyio.Event()
        self.release = anyio.Event()
        self.calls: list[str] = []

    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.calls.append(message.job_id)
        return {"worker": self.name, "payload": message.payload}

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        raise ValueError("it went wrong")

    @job(name="wait")
    async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.calls.append(message.job_id)
        self.begun.set()
        try:
            await self.release.wait()
        finally:
            self.unwound.set()
        return {"released": True}


@asynccontextmanager
async def running(*workers: BaseWorker, **kwargs: Any) -> AsyncIterator[WorkerRunner]:
    """Run workers while the block runs, and end them gracefully after it."""
    kwargs.setdefault("handle_sigint", False)
    async with WorkerRunner(**kwargs) as runner:
        await runner.add_workers(*workers)
        for worker in workers:
            await runner.registry.wait_for(worker.name)
        yield runner
