"""A handler that ends the program from inside a task group."""

import anyio
import pytest

from workerbus import BaseWorker, BusJobRequestMessage, WorkerRunner, job
from workerbus.testing import run


class Exits(BaseWorker):
    """Has a job that ends the program, and one that takes its time to leave."""

    def __init__(self) -> None:
        super().__init__("exits")
        self.begun = anyio.Event()
        self.story: list[str] = []

    @job(name="slow")
    async def slow(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            self.story.append("unwound")

    @job(name="exit")
    async def exit(self, message: BusJobRequestMessage) -> None:
        async with anyio.create_task_group():
            raise SystemExit(3)

    async def cleanup(self) -> None:
        self.story.append("cleaned up")


def test_an_exit_in_a_handlers_task_group_lets_the_other_handlers_unwind(backend: str) -> None:
    """W6, L3: the wind-down waits for them, as it does for an exit that comes without a group around it."""
    worker = Exits()

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(worker)
            async with runner.job_group("exits", name="slow"):
                await worker.begun.wait()
                await runner.job("exits", name="exit")

    with pytest.raises(SystemExit):
        run(main, backend=backend)
    assert worker.story == ["unwound", "cleaned up"]
