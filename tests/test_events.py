"""Event handlers: adding them, and how they are called."""

from typing import Any

from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import note
from support.workers import Helper, running


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
