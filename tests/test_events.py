"""Event handlers: adding them, and how they are called."""

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import note
from support.workers import Helper, running
from workerbus import BaseWorker, BusMessage, HandlerTypeError, UnknownEventError, WorkerErrorData, WorkerRunner


@pytest.mark.parametrize("make", [Helper, lambda: WorkerRunner(handle_sigint=False)])
def test_an_unknown_event_is_refused_with_near_names(make: Any) -> None:
    """N3: a typing error is found when the handler is added."""
    emitter = make()
    known = "on_error" if isinstance(emitter, WorkerRunner) else "on_activated"
    with pytest.raises(UnknownEventError, match=known):
        emitter.add_event_handler(known[:-1] + "x", print)
    with pytest.raises(ValueError, match="nothing like it"):
        emitter.event_handler("nothing like it")(print)


@pytest.mark.parametrize("handler", [None, 3, "on_activated"])
def test_a_handler_must_be_callable(handler: Any) -> None:
    """N3: sync or async functions."""
    with pytest.raises(HandlerTypeError, match="on_activated"):
        Helper().add_event_handler("on_activated", handler)
    assert issubclass(HandlerTypeError, TypeError)


def test_the_decorator_returns_the_function() -> None:
    """N3: so that it can be called, and decorated again."""
    worker = Helper()

    @worker.event_handler("on_activated")
    @worker.event_handler("on_deactivated")
    def handler(_: BaseWorker, *args: Any) -> str:
        return "called"

    assert handler(worker) == "called"


async def test_handlers_are_called_in_the_order_in_which_they_were_added() -> None:
    """N3: each is awaited before the next is called."""
    calls: list[int] = []

    async def slow(_: BaseWorker, args: object) -> None:
        await checkpoint()
        calls.append(1)

    worker = Helper("worker")
    worker.add_event_handler("on_activated", slow)
    worker.add_event_handler("on_activated", lambda *_: calls.append(2))
    worker.add_event_handler("on_activated", slow)
    async with running(worker):
        await eventually(lambda: len(calls) == 3)
    assert calls == [1, 2, 1]


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


async def test_any_callable_will_do() -> None:
    """N3: a partial, a bound method, an object with an async ``__call__``."""
    calls: list[str] = []

    class Handler:
        async def __call__(self, worker: BaseWorker, message: BusMessage) -> None:
            calls.append("object")

        async def method(self, worker: BaseWorker, message: BusMessage) -> None:
            calls.append("method")

    async def curried(what: str, worker: BaseWorker, message: BusMessage) -> None:
        calls.append(what)

    worker = Helper("worker")
    for handler in (Handler(), Handler().method, partial(curried, "partial")):
        worker.add_event_handler("on_bus_message", handler)
    async with running(worker) as runner:
        await runner.bus.send(note(0, "worker"))
        await eventually(lambda: len(calls) >= 3)
    assert calls[:3] == ["object", "method", "partial"]


async def test_a_handler_may_add_a_handler() -> None:
    """N3: it counts from the next event on."""
    calls: list[str] = []
    worker = Helper("worker")

    def first(emitter: BaseWorker, message: BusMessage) -> None:
        calls.append("first")
        if calls == ["first"]:
            emitter.add_event_handler("on_bus_message", lambda *_: calls.append("second"))

    worker.add_event_handler("on_bus_message", first)
    async with running(worker) as runner:
        await runner.bus.send(note(0, "worker"))
        await runner.bus.send(note(1, "worker"))
        await eventually(lambda: calls[:3] == ["first", "first", "second"])


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
