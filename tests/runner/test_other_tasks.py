"""L7: what is entered in one task and left in another is refused, and nothing of it stays behind."""

import asyncio

import anyio
import pytest

from support.conditions import eventually
from support.leaks import nothing_left, task_ids
from support.messages import note
from support.other_tasks import entered_elsewhere
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusMessage, MemoryBus, RunOutcome, WorkerRunner, WrongTaskError
from workerbus.testing import virtual_backend


@pytest.mark.parametrize("over", [True, False])
async def test_a_runner_that_is_left_in_another_task_says_so_and_is_over(over: bool) -> None:
    """L7: its tasks, its workers and its signal handlers have gone, and its jobs were answered."""
    runner, helper = WorkerRunner(name="mine", handle_sigterm=True), Helper("helper")
    async with nothing_left(runner), entered_elsewhere(runner, over=over) as leave:
        await runner.add_workers(helper)
        await runner.registry.wait_for("helper")
        assert await runner.job("helper", name="echo")
        with pytest.raises(WrongTaskError, match="runner 'mine' was entered in one task and left in another") as caught:
            await leave()
        assert caught.value.what == "runner 'mine'"
        await helper.wait()
    assert runner.outcome == RunOutcome("failed", f"WrongTaskError: {caught.value}", None)


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["asyncio"])
async def test_a_runner_that_is_left_in_another_task_is_over_however_often_that_is_cancelled_natively() -> None:
    """L3, L7: the cancellation goes through when nothing of it is left."""
    cleaned: list[str] = []

    class Slow(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)
            cleaned.append(self.name)

    runner = WorkerRunner(name="mine", handle_sigint=False)
    async with nothing_left(runner), entered_elsewhere(runner, over=True) as leave:
        await runner.add_workers(Slow("slow"), wait=True)
        leaving = asyncio.ensure_future(leave())
        for _ in range(3):
            await anyio.sleep(0.2)
            leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert cleaned == ["slow"]


@pytest.mark.parametrize("over", [True, False])
async def test_a_bus_that_is_left_in_another_task_says_so_and_is_closed(over: bool) -> None:
    """L7: handlers that run are cancelled, and it can be opened again."""

    class Stuck(Plain):
        async def on_bus_message(self, message: BusMessage) -> None:
            begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                unwound.set()

    bus, begun, unwound = MemoryBus(name="mine"), anyio.Event(), anyio.Event()
    stuck = Stuck("stuck")
    await bus.subscribe(stuck)
    async with entered_elsewhere(bus, over=over) as leave:
        await bus.send(note(1))
        await begun.wait()
        with pytest.raises(WrongTaskError, match="bus 'mine' was entered in one task and left in another"):
            await leave()
        assert unwound.is_set()
        assert not bus.is_open
    await bus.unsubscribe(stuck)
    before = task_ids()
    async with bus:
        pass
    assert task_ids() == before


async def test_all_handlers_of_a_bus_that_is_left_in_another_task_are_waited_for() -> None:
    """L7: one after the other unwinds, within the time for that, and the task that has entered it is unharmed."""

    class Slow(Plain):
        async def on_bus_message(self, message: BusMessage) -> None:
            begun.append(self.name)
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5 if self.name == "one" else 1)
                unwound.append(self.name)

    bus, begun, unwound = MemoryBus(), list[str](), list[str]()
    for name in ("one", "two"):
        await bus.subscribe(Slow(name))
    async with entered_elsewhere(bus, over=False) as leave:
        await bus.send(note(1))
        await eventually(lambda: len(begun) == 2)
        with pytest.raises(WrongTaskError):
            await leave()
        assert unwound == ["one", "two"]


async def test_tasks_of_a_transport_end_with_a_bus_that_is_left_in_another_task() -> None:
    """L7, L4: at the price of the task that has entered it; they have unwound when the bus has been left."""
    unwound: list[str] = []

    class Reading(MemoryBus):
        async def start(self) -> None:
            self.tasks.start(self.read, name="reader")

        async def read(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
                unwound.append("reader")

    before = task_ids()
    async with entered_elsewhere(Reading(), over=True, cancelled=True) as leave:
        with pytest.raises(WrongTaskError):
            await leave()
        assert unwound == ["reader"]
    assert task_ids() == before


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("timeout", [None, 10])
async def test_a_job_that_is_left_in_another_task_says_so_and_is_withdrawn(timeout: float | None, over: bool) -> None:
    """L7, J5: its handler has unwound, and no deadline is left."""
    helper = Helper("helper")
    async with running(helper) as runner:
        context = runner.job("helper", name="wait", timeout=timeout)
        async with entered_elsewhere(context, over=over) as leave:
            await helper.begun.wait()
            with pytest.raises(WrongTaskError, match=rf"job {context.job_id} of 'helper' was entered in one task"):
                await leave()
            assert helper.unwound.is_set()
            await anyio.sleep(12)
        assert runner.job_client.groups == {}


async def test_a_job_group_that_is_over_is_not_left_in_another_task_either() -> None:
    """L7"""
    async with running(Helper("one"), Helper("two")) as runner:
        context = runner.job_group("one", "two", name="echo")
        async with entered_elsewhere(context, over=True) as leave:
            assert len(context.responses) == 2
            with pytest.raises(WrongTaskError, match=r"job group .* of 'one', 'two'"):
                await leave()
        assert runner.job_client.groups == {}


async def test_a_runner_that_is_left_in_another_task_under_a_cancellation_winds_down_all_the_same() -> None:
    """L7, L4"""
    runner = WorkerRunner()
    async with nothing_left(runner), entered_elsewhere(runner, over=True) as leave:
        await runner.add_workers(Helper("helper"))
        with anyio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(WrongTaskError):
                await leave()
