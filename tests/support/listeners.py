"""Subscribers of every kind that do with a message what they are given."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from support.messages import Alarm, Note
from support.subscribers import Plain
from workerbus import (
    BaseWorker,
    BusMessage,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
)

Code = Callable[[BusMessage], Awaitable[None]]


class Listener(BaseWorker):
    """A worker whose ``on_bus_message`` does with notes and alarms what it is given."""

    def __init__(self, name: str, code: Code) -> None:
        super().__init__(name)
        self.code = code

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            await self.code(message)


class Chooser(Listener):
    """The same, with an ``accepts_bus_message`` of its own."""

    def __init__(self, name: str, code: Code) -> None:
        super().__init__(name, code)
        self.refused: tuple[int, ...] = ()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not (isinstance(message, Note | Alarm) and message.n in self.refused)


KINDS: Final = ("plain", "worker", "choosing worker")


@asynccontextmanager
async def listening(
    kind: str, code: Code, *, before: Sequence[BusMessage] = (), **bus_options: Any
) -> AsyncIterator[WorkerBus]:
    """Run a subscriber ``"it"`` of a kind with this code for notes and alarms; ``before`` is sent before the start."""
    bus = MemoryBus(**bus_options)
    if kind == "plain":

        async def on(message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                await code(message)

        await bus.subscribe(Plain("it", on=on))
        for message in before:
            await bus.send(message)
        async with bus:
            yield bus
        return
    runner = WorkerRunner(bus=bus, handle_sigint=False, grace_period=0.1)
    await runner.add_workers((Listener if kind == "worker" else Chooser)("it", code))
    for message in before:
        await bus.send(message)
    async with runner:
        await runner.registry.wait_for("it")
        yield bus
