"""Two runners on one bus, or on two that a network connects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from support.leaks import task_ids
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusFrameMessage,
    BusMessage,
    MemoryBus,
    WorkerBus,
    WorkerErrorData,
    WorkerRunner,
)
from workerbus._order import PROCESS


class Member(Helper):
    """Keeps the final message that it got."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.finals: list[tuple[type[BusMessage], str | None]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
            self.finals.append((type(message), message.reason))


class Pair:
    """Two runners on one bus, each with a worker of its own, each run in a task of its own."""

    def __init__(self, bus: WorkerBus, **kwargs: Any) -> None:
        self.bus = bus
        self.a, self.b = (runner_on(bus, name, **kwargs) for name in ("A", "B"))
        self.on_a, self.on_b = Member("on a"), Member("on b")
        self.a_over, self.b_over = anyio.Event(), anyio.Event()

    async def run_a(self) -> None:
        await self.a.run(auto_end=False)
        self.a_over.set()

    async def run_b(self) -> None:
        await self.b.run(auto_end=False)
        self.b_over.set()

    async def acquainted(self) -> None:
        """Wait until each runner knows the worker of the other."""
        await self.a.registry.wait_for("on b")
        await self.b.registry.wait_for("on a")


@asynccontextmanager
async def pair(**kwargs: Any) -> AsyncIterator[Pair]:
    """Run the two until the block is left; what still runs then is cancelled."""
    before = task_ids()
    async with MemoryBus() as bus:
        both = Pair(bus, **kwargs)
        async with anyio.create_task_group() as group:
            await both.a.add_workers(both.on_a)
            await both.b.add_workers(both.on_b)
            group.start_soon(both.run_a)
            group.start_soon(both.run_b)
            await both.acquainted()
            yield both
            await both.a.cancel()
            await both.b.cancel()
        assert bus.statistics().subscribers == {}
        assert bus.is_open
    assert task_ids() == before


class Linked(WorkerBus):
    """One of several buses with a network between them that loses nothing and takes no time."""

    def __init__(self, network: list["Linked"]) -> None:
        super().__init__()
        self.network = network
        network.append(self)

    async def publish(self, message: BusMessage) -> None:
        for bus in self.network:
            await bus.deliver(message)


class Abroad(Linked):
    """One of several buses in processes of their own, whose counters have nothing to do with each other.

    Here it is all one process. So what a message says of this process's order is changed on the way, for one end to
    another, as if it came from a process that has another id and has counted further.
    """

    async def publish(self, message: BusMessage) -> None:
        for bus in self.network:
            await bus.deliver(message if bus is self else self._seen_from(bus, message))

    def _seen_from(self, other: Linked, message: BusMessage) -> BusMessage:
        if isinstance(message, BusFrameMessage) and message.process is not None and message.late_since is not None:
            process, late_since = self._translated(other, message.process, message.late_since)
            what = message.frame, message.direction, message.bridge, late_since, process
            return BusFrameMessage(*what, source=message.source, target=message.target)
        if isinstance(message, BusActivateWorkerMessage) and message.after is not None:
            after = dict(self._translated(other, *item) for item in message.after.items())
            return BusActivateWorkerMessage(message.args, after, source=message.source, target=message.target)
        return message

    def _translated(self, other: Linked, process: str, number: int) -> tuple[str, int]:
        if process == PROCESS.id:
            return self.name, number + self._offset
        if process == other.name and isinstance(other, Abroad):
            return PROCESS.id, number - other._offset
        return process, number

    @property
    def _offset(self) -> int:
        return 1_000_000 * (len(self.network) - self.network.index(self))


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[WorkerRunner, WorkerRunner, dict[str, list[WorkerErrorData]]]]:
    """Two runners, each on its own bus, and the errors that each was told of."""
    network: list[Linked] = []
    errors: dict[str, list[WorkerErrorData]] = {"A": [], "B": []}
    a, b = runner_on(Linked(network), "A"), runner_on(Linked(network), "B")
    a.add_event_handler("on_error", lambda _, data: errors["A"].append(data))
    b.add_event_handler("on_error", lambda _, data: errors["B"].append(data))
    async with a, b:
        yield a, b, errors


NETWORKS = ["one bus", "two buses"]


@asynccontextmanager
async def two_runners(network: str) -> AsyncIterator[tuple[WorkerRunner, WorkerRunner]]:
    """Two runners, on one bus or on two with a network between them, whose errors somebody takes."""
    buses: list[Linked] = []
    shared = MemoryBus()
    each: list[WorkerBus] = [shared, shared] if network == "one bus" else [Linked(buses), Linked(buses)]
    a, b = (runner_on(bus, name) for bus, name in zip(each, "AB", strict=True))
    a.add_event_handler("on_error", lambda *_: None)
    b.add_event_handler("on_error", lambda *_: None)
    if network == "one bus":
        async with shared, a, b:
            yield a, b
    else:
        async with a, b:
            yield a, b
