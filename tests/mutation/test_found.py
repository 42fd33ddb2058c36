"""Tests for what was found on the way; each is red without its fix."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.job_handlers import never
from support.listeners import Chooser
from support.messages import note
from support.requesters import Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusSubscriber,
    JobError,
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


@pytest.mark.parametrize("attempt", range(8))
async def test_a_request_in_the_step_of_a_stop_is_answered_by_a_worker_that_chooses(attempt: int) -> None:
    """J1: under any schedule; the request is on its way from the lane to its task when the lane is closed."""

    async def nothing(_: object) -> None:
        return None

    async with MemoryBus() as bus:
        raw, worker = await Raw.on(bus), Chooser("chooser", nothing)
        async with running(worker, bus=bus):
            await bus.send(note(0, "chooser"))
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.stop)
                tasks.start_soon(raw.ask, "job", "chooser", "nothing")
        await raw.settle()
        assert len(raw.answers("job")) == 1


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


async def test_a_handler_that_goes_at_once_is_not_said_to_refuse_when_a_child_took_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: it is cancelled when the time for the children is over."""

    class Slow(BaseWorker):
        async def cleanup(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)

    parent = Doing("parent", never)
    async with running(parent) as runner, anyio.create_task_group() as tasks:
        await parent.add_workers(Slow("child"))
        await runner.registry.wait_for("child")

        async def ask() -> None:
            with pytest.raises(JobError):
                await runner.job("parent", name="do")

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await parent.stop()
    assert [text for text in caplog.messages if "refuse" in text] == []


class Own(Helper):
    """Has a ``run()`` of its own."""

    async def run(self, params: WorkerParams) -> None:
        await super().run(params)


@pytest.mark.parametrize("kind", [Helper, Own])
async def test_a_worker_that_cannot_leave_the_bus_has_failed_with_that_one_error(kind: type[Helper]) -> None:
    """L6, R4, W7: whether or not its run() is the default."""

    class Holding(MemoryBus):
        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "helper":
                raise OSError("connection lost")
            await super().unsubscribe(subscriber)

    runner = WorkerRunner(bus=Holding(), handle_sigint=False)
    helper = kind("helper")
    await runner.add_workers(helper)
    helper.add_event_handler("on_activated", lambda *_: runner.end())
    with pytest.raises(OSError, match="connection lost"):
        await runner.run()
