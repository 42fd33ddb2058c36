"""Two runners on one bus, or on two that a network connects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from support.leaks import task_ids
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    MemoryBus,
    WorkerBus,
    WorkerErrorData,
    WorkerRunner,
)


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
