"""Processes in this one: a `PeerNetwork` of buses that can be cut off from it at once, and say what has come."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from support.leaks import task_ids
from support.runners import runner_on
from workerbus import Arrival, BusMessage, Peer, WorkerRunner, wire
from workerbus._order import id_source
from workerbus.testing import PeerNetwork
from workerbus.testing.buses._peer_end import PeerEnd

_new_id = id_source()


class Switch(PeerNetwork):
    """What the buses are plugged into; messages go through it as bytes."""

    def __init__(self) -> None:
        super().__init__(wire=wire.Wire())

    @property
    def names(self) -> dict[str, str]:
        """Worker name to the incarnation that has claimed it."""
        return self._names


class SwitchBus(PeerEnd):
    """A bus on a switch.

    Attributes:
        switch: The switch.
        arrivals: What has come from others, and what has become of it.
    """

    def __init__(
        self,
        switch: Switch,
        *,
        name: str | None = None,
        max_buffer_size: float = float("inf"),
        max_arrivals: int = 10_000,
        send_timeout: float = 10.0,
    ) -> None:
        super().__init__(switch, name or f"bus-{_new_id()}", max_buffer_size, max_arrivals, send_timeout)
        switch._ends[self.name] = self
        self.switch = switch
        self.arrivals: list[tuple[Arrival, BusMessage]] = []

    def arrive(self, message: BusMessage, peer: Peer, *, number: int | None = None, delay: float = 0.0) -> Arrival:
        arrival = super().arrive(message, peer, number=number, delay=delay)
        self.arrivals.append((arrival, message))
        return arrival

    def kill(self) -> None:
        """Let its process be gone: the others are told at once, and hear nothing more of it."""
        self.switch.leave(self, "its lease is over")

    def fence(self, reason: str = "it was declared lost") -> None:
        """Let it be declared lost while it lives, learn so at once, and join again."""
        self.kill()
        self.end_life(reason)
        self.join()

    def join(self) -> None:
        """Begin a life."""
        self._join()


@asynccontextmanager
async def processes(*names: str, switch: Switch | None = None, **options: Any) -> AsyncIterator[list[WorkerRunner]]:
    """Run a runner of each name on a bus of its own, as if each were in a process of its own; nothing is left (L1)."""
    switch = Switch() if switch is None else switch
    before = task_ids()
    async with AsyncExitStack() as stack:
        runners = [runner_on(SwitchBus(switch), name, **options) for name in names]
        yield [await stack.enter_async_context(runner) for runner in runners]
    assert task_ids() == before


def bus_of(runner: WorkerRunner) -> SwitchBus:
    assert isinstance(runner.bus, SwitchBus)
    return runner.bus
