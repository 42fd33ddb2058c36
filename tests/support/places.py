"""Every bus on which runners hear of each other, in one list: for what holds on all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Final

from attrs import frozen

from support.redis_servers import RedisServer, until
from support.runners import runner_on
from workerbus import MemoryBus, PeerBus, WorkerBus, WorkerRunner
from workerbus.redis import RedisBus
from workerbus.testing import PeerFaults, PeerNetwork
from workerbus.wire import Wire

_numbers: Final = count(1)


@frozen
class Places:
    """Buses of one kind that belong together.

    Attributes:
        bus: Returns the bus of the runner of some name.
        in_one_process: Whether all runners are on the same bus.
        by_wire: Whether messages become bytes between runners.
    """

    bus: Callable[[str], WorkerBus]
    in_one_process: bool = False
    by_wire: bool = True

    @asynccontextmanager
    async def runners(self, *names: str) -> AsyncIterator[list[WorkerRunner]]:
        """Run runners that have heard of each other, each as if it was in a process of its own."""
        async with AsyncExitStack() as stack:
            if self.in_one_process:
                await stack.enter_async_context(self.bus(""))
            runners = [await stack.enter_async_context(runner_on(self.bus(name), name)) for name in names]
            buses = [runner.bus for runner in runners if isinstance(runner.bus, PeerBus)]
            await until(lambda: all(len(bus.peers) == len(names) - 1 for bus in buses))
            yield runners


Server = Callable[[], RedisServer]


def _memory(_server: Server) -> Places:
    bus = MemoryBus()
    return Places(lambda _name: bus, in_one_process=True, by_wire=False)


def _network(_server: Server) -> Places:
    return Places(PeerNetwork().end, by_wire=False)


def _network_by_wire(_server: Server) -> Places:
    return Places(PeerNetwork(wire=Wire()).end)


def _bad_network_by_wire(_server: Server) -> Places:
    return Places(PeerNetwork(seed=3, faults=PeerFaults(delay=0.05, duplicate=0.2), wire=Wire()).end)


def _redis(server: Server) -> Places:
    url, prefix = server().url, f"places-{next(_numbers)}"
    return Places(lambda name: RedisBus(url, prefix=prefix, name=name))


KINDS: Final[dict[str, Callable[[Server], Places]]] = {
    "memory": _memory,
    "network": _network,
    "network by wire": _network_by_wire,
    "bad network by wire": _bad_network_by_wire,
    "redis": _redis,
}
"""The kinds of buses. What makes one gets a function that returns a running redis-server."""
REAL_TIME: Final = frozenset({"redis"})
"""Those that know no virtual time."""
