"""W7, W9: an error of a hook stops nothing, is logged, and reaches whom it concerns."""

import asyncio
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Errors, Parent, tracebacks
from support.hooks import HOOKS, Peer, job_id_of, provoke, with_hook
from support.messages import Note, note
from support.workers import Helper, running
from workerbus import (
    BusMessage,
    BusSubscriber,
    BusWorkerLocalErrorMessage,
    MemoryBus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    worker_ready,
)
from workerbus.testing import settle


@pytest.mark.parametrize("form", ["method", "handler"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_is_logged_and_reported_and_stops_nothing(
    hook: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W7"""
    raised: list[tuple[ValueError, str | None]] = []

    async def fail(_: object, *args: Any) -> None:
        raised.append((ValueError(f"boom {len(raised)}"), job_id_of(args)))
        raise raised[-1][0]

    subject, peer = with_hook(hook, fail, form=form, active=hook != "on_activated"), Peer("peer")
    async with running(subject, peer) as runner:
        errors = await Errors().of(runner)
        for count in (1, 2):
            await provoke(hook, subject, peer, runner)
            await eventually(lambda: len(raised) == count)  # noqa: B023 - awaited at once
        await anyio.wait_all_tasks_blocked()
        if hook == "on_deactivated":
            await peer.activate_worker("subject")
        assert (await runner.job("subject", name="echo"))["worker"] == "subject"
        assert subject.statistics().failed_hooks == 2
        subject.release.set()
    for (error, job_id), data, sent in zip(raised, errors.told, errors.sent("subject"), strict=True):
        assert data.worker_name == "subject"
        assert str(error) in data.error
        assert str(error) in sent
        (record,) = tracebacks(caplog, error)
        assert job_id is None or job_id in record.getMessage()


async def test_a_ready_handler_that_raises_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    error = ValueError("boom")

    class Watching(Helper):
        @worker_ready(name="peer")
        async def met(self, data: WorkerReadyData) -> None:
            raise error

    async with running(Watching("w")) as runner:
        errors = await Errors().of(runner)
        await runner.add_workers(Helper("peer"))
        await eventually(lambda: errors.told and errors.sent("w"))
        assert errors.told[0].worker_name == "w"
        assert (await runner.job("w", name="echo"))["worker"] == "w"
    assert tracebacks(caplog, error)


async def test_each_function_of_a_hook_runs_whatever_the_others_raise() -> None:
    """W7"""
    called: list[str] = []

    class Failing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                called.append("method")
                raise ValueError("method")

    worker = Failing("w")

    @worker.event_handler("on_bus_message")
    def first(_: object, message: BusMessage) -> None:
        if isinstance(message, Note):
            called.append("first")
            raise ValueError("first")

    @worker.event_handler("on_bus_message")
    async def second(_: object, message: BusMessage) -> None:
        if isinstance(message, Note):
            called.append("second")

    async with running(worker) as runner:
        errors = await Errors().of(runner)
        await runner.bus.send(note(0, "w"))
        await eventually(lambda: len(errors.told) == 2)
    assert called == ["method", "first", "second"]


@pytest.mark.parametrize("backend", ["asyncio"])
@pytest.mark.parametrize("hook", ["on_bus_message", "on_job_cancelled"])
async def test_a_hook_that_awaits_something_cancelled_stops_nothing(hook: str) -> None:
    """W7: a `CancelledError` that is no cancellation of the worker"""
    called: list[object] = []

    async def await_a_cancelled_future(*args: Any) -> None:
        called.append(args)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    subject = with_hook(hook, await_a_cancelled_future, active=hook != "on_activated")
    peer = Peer("peer")
    async with running(subject, peer, grace_period=0.1) as runner:
        for count in (1, 2):
            await provoke(hook, subject, peer, runner)
            await anyio.wait_all_tasks_blocked()
            assert len(called) == count
        subject.release.set()


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_hook_behind_one_that_was_cancelled_natively_runs_in_a_task_of_its_own() -> None:
    """W7: in a task that was cancelled, its task groups could not catch their own cancellation."""
    tasks: list[object] = []

    class Cancelled(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                task = asyncio.current_task()
                assert task is not None
                tasks.append(task)
                if message.n == 0:
                    task.cancel()
                    await anyio.sleep(1)

    async with running(Cancelled("w")) as runner:
        for n in range(2):
            await runner.bus.send(note(n, "w"))
        await settle()
    assert len(tasks) == len(set(tasks)) == 2


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_event_handlers_behind_a_hook_that_was_cancelled_natively_are_called() -> None:
    """W7, W9: each of them, also behind an event handler that was."""
    called: list[str] = []

    async def be_cancelled(name: str) -> None:
        called.append(name)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    class Cancelled(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await be_cancelled("method")

    async def first(_: Helper, message: BusMessage) -> None:
        if isinstance(message, Note):
            await be_cancelled("first")

    async def second(_: Helper, message: BusMessage) -> None:
        if isinstance(message, Note):
            await anyio.sleep(0.01)
            called.append("second")

    worker = Cancelled("w")
    for handler in (first, second):
        worker.add_event_handler("on_bus_message", handler)
    async with running(worker) as runner:
        await runner.bus.send(note(0, "w"))
        await eventually(lambda: len(called) == 3)
    assert called == ["method", "first", "second"]


async def test_hooks_that_raise_at_everything_do_not_answer_each_other_for_ever() -> None:
    """W7: an error that is caused by the report of one is not reported"""

    class Touchy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            self.calls.append(type(message).__name__)
            raise ValueError("boom")

    one, two, child = Touchy("one"), Touchy("two"), Touchy("child")
    async with running(one, two) as runner:
        await one.add_workers(child)
        await runner.registry.wait_for("child")
        errors = await Errors().of(runner)
        for name in ("one", "two", "child"):
            await runner.bus.send(note(0, name))
        await anyio.wait_all_tasks_blocked()
        assert len(errors.told) < 10
        assert {"Note"} <= set(one.calls) & set(two.calls) & set(child.calls)


@pytest.mark.parametrize("crash", [False, True])
async def test_an_error_of_a_child_reaches_its_parent_alone(crash: bool) -> None:
    """W7"""

    class Breaking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note) and not crash:
                raise ValueError("boom")

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            if crash:
                raise ValueError("boom")
            await super().run(params)

    root, parent, child = Parent("root"), Parent(), Breaking("child")
    async with running(root) as runner:
        errors = await Errors().of(runner)
        await root.add_workers(parent)
        await runner.registry.wait_for("parent")
        await parent.add_workers(child)
        await runner.bus.send(note(0, "child"))
        await eventually(lambda: parent.failed)
        await anyio.wait_all_tasks_blocked()
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert [data.worker_name for data in parent.failed] == ["child"]
    assert "boom" in parent.failed[0].error
    assert root.failed == []
    assert crash or errors.told == []
    assert errors.sent("child") == []
    local = [message for message in errors.observer.got if isinstance(message, BusWorkerLocalErrorMessage)]
    assert [message.target for message in local] == ["parent"]


async def test_an_error_that_a_worker_reports_itself_goes_the_same_way() -> None:
    """W7"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner:
        errors = await Errors().of(runner)
        await parent.add_workers(child)
        await child.send_bus_error_message("mine")
        await eventually(lambda: parent.failed)
        await parent.send_bus_error_message("ours")
        await eventually(lambda: errors.told and errors.sent("parent"))
    assert parent.failed == [WorkerErrorData("child", "mine")]
    assert errors.told == [WorkerErrorData("parent", "ours")]
    assert errors.sent("parent") == ["ours"]


async def test_a_hook_whose_tasks_fail_is_logged_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """W7, L6: as the one error that it was."""
    told: list[Any] = []

    async def fail() -> None:
        raise ValueError("in a task of the hook")

    class Grouped(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                async with anyio.create_task_group() as group:
                    group.start_soon(fail)

    worker = Grouped("worker")
    async with running(worker) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await worker.send_bus_message(note(1, "worker"))
        await settle()
        assert worker.statistics().failed_hooks == 1
    assert told == [WorkerErrorData("worker", "on_bus_message: ValueError: in a task of the hook")]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


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
