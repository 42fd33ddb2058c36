"""Workers that answer jobs, and running them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    WorkerRunner,
    job,
)
from workerbus.testing import Behaviour, ScriptedWorker


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


class Doing(BaseWorker):
    """A worker that does, for the job ``do`` or the deferred job ``defer``, what it is given."""

    def __init__(self, name: str, do: Callable[["Doing", BusJobRequestMessage], Awaitable[Any]]) -> None:
        super().__init__(name)
        self._do = do

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> Any:
        return await self._do(self, message)

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> Any:
        return await self._do(self, message)


@asynccontextmanager
async def stuck() -> AsyncIterator[WorkerRunner]:
    """Run a worker, ``stuck``, whose jobs never end."""
    async with WorkerRunner() as runner:
        await runner.add_workers(ScriptedWorker("stuck", Behaviour("hang")))
        yield runner
