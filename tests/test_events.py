"""Event handlers: adding them, and how they are called."""

import asyncio
import logging
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import note
from support.workers import Helper, running
from workerbus import WorkerErrorData, WorkerRunner


async def test_the_method_is_called_before_the_handlers() -> None:
    """N3: the hook's own form comes first."""
    calls: list[str] = []

    class Worker(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await checkpoint()
            calls.append("method")

    worker = Worker("worker")
    worker.add_event_handler("on_activated", lambda *_: calls.append("handler"))
    async with running(worker):
        await eventually(lambda: len(calls) == 2)
    assert calls == ["method", "handler"]


async def test_handlers_belong_to_one_object() -> None:
    """N3: another worker of the class has none of them."""
    calls: list[str] = []
    first, second = Helper("first"), Helper("second")
    first.add_event_handler("on_bus_message", lambda worker, _: calls.append(worker.name))
    async with running(first, second) as runner:
        await runner.bus.send(note(0))
        await eventually(lambda: calls)
    assert set(calls) == {"first"}


async def test_a_runners_handler_that_raises_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N3, W7: an exception of a handler harms nobody."""
    told: list[WorkerErrorData] = []

    def bad(*_: object) -> None:
        raise ZeroDivisionError("it broke")

    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", bad)
    runner.add_event_handler("on_error", lambda _, data: told.append(data))
    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: worker.started_at)
        await worker.send_bus_error_message("first")
        await worker.send_bus_error_message("second")
        await eventually(lambda: len(told) == 2)
    assert [data.error for data in told] == ["first", "second"]
    errors = [record.exc_info and record.exc_info[0] for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [ZeroDivisionError] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_in_a_runners_handler_harms_nobody() -> None:
    """N3, W7: on asyncio, awaiting a task that somebody else has cancelled raises `CancelledError` in the handler."""
    told: list[str] = []

    async def stale(_: WorkerRunner, data: WorkerErrorData) -> None:
        told.append(data.error)
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", stale)
    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: worker.started_at)
        await worker.send_bus_error_message("first")
        await worker.send_bus_error_message("second")
        await eventually(lambda: len(told) == 2)
    assert told == ["first", "second"]


async def test_on_ready_comes_when_the_first_workers_have_started() -> None:
    """Seeds: after the runner's initialization; a handler may add workers."""
    started: list[bool] = []
    runner = WorkerRunner(handle_sigint=False)
    workers = [Helper(f"worker-{n}") for n in range(3)]

    @runner.event_handler("on_ready")
    async def on_ready(emitter: WorkerRunner) -> None:
        started.extend(worker.started_at is not None for worker in workers)
        await emitter.add_workers(Helper("late"))

    await runner.add_workers(*workers)
    async with runner:
        await runner.registry.wait_for("late")
    assert started == [True] * 3
