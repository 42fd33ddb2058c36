"""Code for subscribers that is held up, and what waits behind it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from support.listeners import KINDS, listening
from support.messages import Alarm, Note
from workerbus import BusMessage, WorkerBus


class Gate:
    """Code for a subscriber: it says when a handler has begun, and keeps it until it is opened."""

    def __init__(self) -> None:
        self.begun: list[BusMessage] = []
        self.ended: list[BusMessage] = []
        self.entered = anyio.Event()
        self.opened = anyio.Event()

    async def __call__(self, message: BusMessage) -> None:
        self.begun.append(message)
        self.entered.set()
        await self.opened.wait()
        self.ended.append(message)


every_kind = pytest.mark.parametrize("kind", KINDS)


def lanes(got: Sequence[BusMessage]) -> tuple[list[int], list[int]]:
    """Return the numbers of the notes and of the alarms, each in the order of handling."""
    return [m.n for m in got if isinstance(m, Note)], [m.n for m in got if isinstance(m, Alarm)]


class Log:
    """Code for a subscriber that keeps what it gets; the first note waits for `release`."""

    def __init__(self, *, holds: type[Note] | type[Alarm] | None = None) -> None:
        self.got: list[BusMessage] = []
        self.done: list[BusMessage] = []
        self.entered = anyio.Event()
        self.release = anyio.Event()
        self._holds = holds

    async def __call__(self, message: BusMessage) -> None:
        self.got.append(message)
        if type(message) is self._holds and not self.release.is_set():
            self.entered.set()
            await self.release.wait()
        self.done.append(message)


@asynccontextmanager
async def held(kind: str, size: float, lane: type[Note] | type[Alarm] = Note) -> AsyncIterator[tuple[WorkerBus, Log]]:
    """Run a subscriber ``"it"`` whose first handler of a lane is suspended: what comes from now on waits."""
    log = Log(holds=lane)
    async with listening(kind, log, max_buffer_size=size) as bus:
        await bus.send(lane(0, source="me", target="it"))
        await log.entered.wait()
        try:
            yield bus, log
        finally:
            log.release.set()


class Sending:
    """A task that sends, and whether it is through."""

    def __init__(self, tasks: anyio.abc.TaskGroup, bus: WorkerBus, *messages: BusMessage) -> None:
        self.done = False
        self.scope = anyio.CancelScope()
        tasks.start_soon(self._run, bus, messages)

    async def _run(self, bus: WorkerBus, messages: Sequence[BusMessage]) -> None:
        with self.scope:
            for message in messages:
                await bus.send(message)
            self.done = True
