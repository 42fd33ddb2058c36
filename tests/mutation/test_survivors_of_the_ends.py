"""Begins and ends of buses, runners, jobs and tasks, where changing the code had turned no test red."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from support.workers import Doing, Helper
from workerbus import (
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    testing,
)

# --- a runner


class Lagging(MemoryBus):
    """A bus on which nothing that this side sends arrives before `go_on`, once it lags."""

    publishes_at_once = False

    def __init__(self) -> None:
        super().__init__()
        self.lags, self.go_on = False, anyio.Event()

    async def publish(self, message: BusMessage) -> None:
        if self.lags:
            await self.go_on.wait()
        await super().publish(message)


async def test_an_answer_that_is_on_its_way_when_the_last_worker_leaves_still_counts() -> None:
    """J4, R7: the end of the runner waits for the announcement behind it."""
    bus, outcomes = Lagging(), list[Any]()
    runner = WorkerRunner(bus=bus, handle_sigint=False)

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        bus.lags = True
        return {"by": worker.name}

    doing = Doing("doing", answer)
    await runner.add_workers(doing)

    async def ask() -> None:
        await runner.registry.wait_for("doing")
        async with runner.job_group("doing", name="do", cancel_on_error=False) as group:
            pass
        outcomes.append((group.statuses, group.responses))

    async def stop() -> None:
        while not bus.lags:
            await checkpoint()
        await doing.stop()
        await anyio.wait_all_tasks_blocked()
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("doing")
        tasks.start_soon(ask)
        tasks.start_soon(stop)
    assert outcomes == [({"doing": JobStatus.COMPLETED}, {"doing": {"by": "doing"}})]


@pytest.mark.parametrize("seed", range(8))
def test_an_event_handler_that_unwinds_in_a_step_or_two_is_not_said_to_refuse(
    backend: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """L4: though there is no time left, and whoever runs first."""
    unwound: list[bool] = []

    async def example() -> None:
        runner, told = WorkerRunner(handle_sigint=False), anyio.Event()

        async def hang(*_: object) -> None:
            told.set()
            try:
                await anyio.sleep_forever()
            finally:
                await cancel_shielded_checkpoint()
                unwound.append(True)

        runner.add_event_handler("on_error", hang)
        helper = Helper("helper")
        async with runner:
            await runner.add_workers(helper)
            await runner.registry.wait_for("helper")
            await helper.send_bus_error_message("oh")
            await told.wait()

    testing.run(example, backend=backend, seed=seed)
    assert unwound == [True]
    assert caplog.messages == []
