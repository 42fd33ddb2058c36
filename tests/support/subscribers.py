"""Subscribers of a bus that are no workers."""

from collections.abc import Callable
from typing import Any

import anyio

from workerbus import BusMessage, BusSubscriber


class Plain(BusSubscriber):
    """A plain subscriber that keeps what it gets.

    `until(n)` waits until it has handled n messages. Give it ``on`` to do something with each.
    """

    def __init__(self, name: str, *, receives: str = "all", on: Callable[[BusMessage], Any] | None = None) -> None:
        self._name = name
        self.receives = receives  # type: ignore[assignment]  # "all" or "own"
        self.got: list[BusMessage] = []
        self._on = on
        self._changed = anyio.Event()

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)
        self._changed.set()
        self._changed = anyio.Event()
        if self._on is not None:
            result = self._on(message)
            if result is not None:
                await result

    def of(self, kind: type[BusMessage]) -> list[BusMessage]:
        return [message for message in self.got if isinstance(message, kind)]

    async def until(self, count: int, kind: type[BusMessage] = BusMessage) -> list[BusMessage]:
        while len(self.of(kind)) < count:
            await self._changed.wait()
        return self.of(kind)
