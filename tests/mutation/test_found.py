"""Tests for what was found on the way; each is red without its fix."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusSubscriber,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
)


class SlowToSubscribe(MemoryBus):
    """A bus on which subscribing takes a few steps, as on that of a network."""

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        for _ in range(3):
            await checkpoint()
        await super().subscribe(subscriber)


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize(
    ("kind", "handle_sigint"), [(MemoryBus, True), (SlowToSubscribe, False)], ids=["signals", "slow bus"]
)
async def test_a_worker_that_is_added_while_a_run_begins_is_started_once(
    steps: int, kind: type[MemoryBus], handle_sigint: bool
) -> None:
    """R3: at whatever step."""
    runs: list[str] = []

    class Counting(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            runs.append(self.name)
            await super().run(params)

    runner = WorkerRunner(bus=kind(), handle_sigint=handle_sigint)

    async def use() -> None:
        async with runner:
            await runner.registry.wait_for("counting")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        for _ in range(steps):
            await checkpoint()
        await runner.add_workers(Counting("counting"))
    assert runs == ["counting"]


async def test_a_runner_s_event_handler_that_goes_at_once_is_not_said_to_refuse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: the log names those that do."""
    told, helper = anyio.Event(), Helper("helper")

    async def hang(*_: object) -> None:
        told.set()
        await anyio.sleep_forever()

    async with running(helper) as runner:
        runner.add_event_handler("on_error", hang)
        await helper.send_bus_error_message("oh")
        await told.wait()
    assert caplog.messages == []
