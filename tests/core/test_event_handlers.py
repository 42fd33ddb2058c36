"""N3, N7: adding event handlers, and how they are called."""

from collections.abc import Generator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import note
from support.workers import Helper, running
from workerbus import BaseWorker, BusMessage, HandlerTypeError, NotInitializedError, UnknownEventError, WorkerRunner
from workerbus._events import call_handler
from workerbus.worker._core import core_of


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


def test_a_list_of_handlers_is_a_snapshot() -> None:
    """N3: who is added while they are called, is called the next time."""
    worker = Helper("worker")
    worker.add_event_handler("on_activated", print)
    handlers = core_of(worker).events.of("on_activated")
    worker.add_event_handler("on_activated", max)
    assert handlers == [print]
    handlers.clear()
    assert core_of(worker).events.of("on_activated") == [print, max]


async def test_whatever_a_handler_returns_is_awaited_if_it_can_be() -> None:
    """N3: not coroutines alone."""

    class Later:
        def __await__(self) -> Generator[Any, Any, str]:
            yield from anyio.lowlevel.checkpoint().__await__()
            return "at last"

    assert await call_handler(Later) == "at last"


@pytest.mark.parametrize("name", ["it", "other"])
def test_an_event_handler_cannot_be_added_before_the_worker_is_built(name: str) -> None:
    """N3, N8: the error says what is missing."""

    class Eager(Helper):
        def __init__(self, name: str) -> None:
            self.add_event_handler("on_bus_message", print)
            super().__init__(name)

    with pytest.raises(NotInitializedError, match=r"Eager was not initialized: its __init__\(\) has to call super"):
        Eager(name)
