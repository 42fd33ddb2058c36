"""asyncio's Task.cancel(), in a task whose scope is being cancelled as well."""

import asyncio

import anyio

from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, job
from workerbus.testing import run


class Slow(BaseWorker):
    """Takes a second to leave a job."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.task: asyncio.Task[object] | None = None
        self.begun = anyio.Event()

    @job(name="leave")
    async def leave(self, message: BusJobRequestMessage) -> None:
        self.task = asyncio.current_task()
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> dict[str, bool]:
        return {"alive": True}


def test_a_native_cancellation_of_a_handler_that_is_being_cancelled_concerns_the_job_alone() -> None:
    """J1, L3: the worker goes on."""

    async def main() -> dict[str, bool]:
        worker = Slow()
        async with running(worker) as runner:
            async with anyio.create_task_group() as tasks:
                context = runner.job("slow", name="leave")

                async def ask() -> None:
                    async with context:
                        await anyio.sleep_forever()

                tasks.start_soon(ask)
                await worker.begun.wait()
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
                assert worker.task is not None
                worker.task.cancel()
            return await runner.job("slow", name="echo", timeout=1)

    assert run(main, backend="asyncio") == {"alive": True}
