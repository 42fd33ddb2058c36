"""R3, W3, W6: what an operation that is cut, or fails half-way, must not leave behind."""

import asyncio
from typing import Any

import pytest
from anyio import move_on_after, sleep, sleep_forever

from support.leaks import nothing_left
from support.workers import Helper
from workerbus import BaseWorker, BusMessage, MemoryBus, WorkerParams, WorkerRunner
from workerbus.testing import run


class SlowBefore(Helper):
    """Takes a second to be attached."""

    async def attach(self, **kwargs: Any) -> None:
        await sleep(1)
        await super().attach(**kwargs)


async def added_and_asked(runner: WorkerRunner, parent: BaseWorker | None, *workers: BaseWorker) -> None:
    await (parent or runner).add_workers(*workers)
    for worker in workers:
        assert (await runner.job(worker.name, name="echo", timeout=1))["worker"] == worker.name


async def test_a_cancelled_add_workers_takes_no_name_of_those_that_it_did_not_get_to() -> None:
    """R3, W6: with the first one still on its way, the second one is not there, so that its name is free."""
    async with WorkerRunner(handle_sigint=False) as runner:
        with move_on_after(0):
            await runner.add_workers(SlowBefore("first"), Helper("second"))
        assert runner.known_workers() == []
        await added_and_asked(runner, None, Helper("first"), Helper("second"))


class Refusing(Helper):
    async def attach(self, **kwargs: Any) -> None:
        raise OSError("no line")


async def test_a_failed_add_workers_takes_no_name_of_those_that_it_did_not_get_to() -> None:
    """R3, W6."""
    async with WorkerRunner(handle_sigint=False) as runner:
        with pytest.raises(OSError, match="no line"):
            await runner.add_workers(Refusing("first"), Helper("second"))
        assert runner.known_workers() == []
        await added_and_asked(runner, None, Helper("first"), Helper("second"))


class SlowAfter(Helper):
    """Takes another second when it has been attached."""

    async def attach(self, **kwargs: Any) -> None:
        await super().attach(**kwargs)
        await sleep(1)


async def test_a_worker_whose_attaching_was_cancelled_leaves_the_bus() -> None:
    """L1, W6."""
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        with move_on_after(0):
            await runner.add_workers(SlowAfter("worker"))
        assert not runner.bus.has_subscriber("worker")
        await added_and_asked(runner, None, Helper("worker"))


class RefusingLate(Helper):
    async def attach(self, **kwargs: Any) -> None:
        await super().attach(**kwargs)
        raise OSError("no line")


@pytest.mark.parametrize("of", ["runner", "parent"])
async def test_a_worker_whose_attaching_has_failed_leaves_the_bus(of: str) -> None:
    """L1, W6."""
    runner = WorkerRunner(handle_sigint=False)
    async with nothing_left(runner), runner:
        parent = Helper("parent")
        await runner.add_workers(parent)
        await runner.registry.wait_for("parent")
        with pytest.raises(OSError, match="no line"):
            await (runner if of == "runner" else parent).add_workers(RefusingLate("worker"))
        assert not runner.bus.has_subscriber("worker")
        await added_and_asked(runner, None if of == "runner" else parent, Helper("worker"))


async def test_children_that_a_failed_add_workers_did_not_get_to_can_be_added_again() -> None:
    """W5, R3: they are no children, or they would neither be started nor free their names."""
    async with WorkerRunner(handle_sigint=False) as runner:
        parent, second = Helper("parent"), Helper("second")
        await runner.add_workers(parent)
        await runner.registry.wait_for("parent")
        with pytest.raises(OSError, match="no line"):
            await parent.add_workers(Refusing("first"), second)
        assert parent.children == []
        await added_and_asked(runner, parent, Helper("first"), second)


async def test_children_of_a_cancelled_add_workers_are_all_started_or_not_children() -> None:
    """W5, R3."""
    async with WorkerRunner(handle_sigint=False) as runner:
        parent = Helper("parent")
        await runner.add_workers(parent)
        await runner.registry.wait_for("parent")
        with move_on_after(0):
            await parent.add_workers(SlowBefore("first"), Helper("second"))
        for child in parent.children:
            assert (await runner.job(child.name, name="echo", timeout=3))["worker"] == child.name
        if "second" not in [child.name for child in parent.children]:
            await added_and_asked(runner, parent, Helper("second"))


class SlowBus(MemoryBus):
    async def publish(self, message: BusMessage) -> None:
        await sleep(0.01)
        await super().publish(message)


async def test_a_cancelled_hand_over_is_whole_or_has_not_begun() -> None:
    """W3: never neither active because of half an activation, on a bus whose publishing waits."""
    async with WorkerRunner(handle_sigint=False, bus=SlowBus()) as runner:
        one, other = Helper("one"), Helper("other", active=False)
        await runner.add_workers(one, other)
        await runner.registry.wait_for("one")
        await runner.registry.wait_for("other")
        with move_on_after(0):
            await one.activate_worker("other", deactivate_self=True)
        await sleep(0.1)
        assert [one.active, other.active].count(True) == 1


# --- asyncio's own cancellation


def test_a_native_cancel_is_not_lost_while_a_runner_winds_down_for_its_bodys_error() -> None:
    """L3: the body's error had been on its way, but it would hide from the task that it was cancelled."""

    class Slow(Helper):
        async def cleanup(self) -> None:
            await sleep(0.5)

    async def main() -> None:
        async def body() -> None:
            try:
                async with WorkerRunner(handle_sigint=False) as runner:
                    await runner.add_workers(Slow("slow"))
                    await runner.registry.wait_for("slow")
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass

        task = asyncio.create_task(body())
        await sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


@pytest.mark.parametrize("where", ["run", "task", "cleanup", "cleanup after an error"])
def test_a_worker_whose_own_task_is_cancelled_natively_takes_no_other_with_it(where: str) -> None:
    """R4, W7: also when the worker has hooks, whose dispatchers end with it. It does not end in silence either."""

    class Cancelled(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            """A hook, so that there is a task for it."""

        async def be_cancelled(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await sleep(1)

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            if where == "run":
                await self.be_cancelled()
            elif where == "task":
                params.task_group.start_soon(self.be_cancelled)
                await sleep_forever()
            elif where == "cleanup after an error":
                raise ValueError("before that")

        async def cleanup(self) -> None:
            if where.startswith("cleanup"):
                await self.be_cancelled()

    async def main() -> None:
        errors: list[str] = []
        async with WorkerRunner(handle_sigint=False) as runner:
            runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
            await runner.add_workers(Helper("other"), Cancelled("cancelled"))
            await sleep(1)
            assert runner.known_workers() == ["other"]
            assert (await runner.job("other", name="echo"))["worker"] == "other"
        assert len(errors) == (where != "cleanup")

    run(main)
