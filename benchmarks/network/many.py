"""What a network costs as it grows: ``python -m benchmarks.network.many``.

Buses without workers, all in this process, on one Redis server: what sending takes here, and what it takes the server,
which tells how long it was busy. Then the lease alone, of many members without inboxes that anybody reads.
"""

import argparse
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio
from attrs import frozen
from rich.console import Console
from rich.table import Table

from benchmarks.network.__main__ import redis_server
from benchmarks.network._workerbus import Note
from workerbus import BusMessage, BusSubscriber
from workerbus.redis import RedisBus
from workerbus.redis._connection import Connection
from workerbus.redis._membership import Membership
from workerbus.redis._opening import connect
from workerbus.redis._settings import RedisSettings


class Counter(BusSubscriber):
    """Counts what arrives."""

    def __init__(self) -> None:
        self.got = 0

    @property
    def name(self) -> str:
        """Its name."""
        return "counter"

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Count."""
        self.got += 1


@frozen
class Cost:
    """What one message costs.

    Args:
        here: Seconds until its `send` has returned.
        server: Seconds for which the server was busy.
    """

    here: float
    server: float


async def busy(connection: Connection) -> float:
    """Return for how many seconds the server has been busy."""
    told = dict(line.split(b":") for line in (await connection.execute("INFO", "cpu")).split(b"\r\n") if b":" in line)
    return float(told[b"used_cpu_user"]) + float(told[b"used_cpu_sys"])


async def sends(bus: RedisBus, connection: Connection, target: str | None, count: int) -> Cost:
    """Send so many messages, ten at a time."""

    async def some() -> None:
        for number in range(count // 10):
            await bus.send(Note(number, source="asker", target=target))

    busy_before, begun = await busy(connection), time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(some)
    return Cost((time.perf_counter() - begun) / count, (await busy(connection) - busy_before) / count)


async def runners(url: str, count: int, messages: int) -> tuple[Cost, Cost]:
    """Return what a targeted message and a broadcast cost among so many buses."""
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(RedisBus(url, name=f"bus {n}", lease=60.0)) for n in range(count + 1)]
        counter = Counter()
        await buses[1].subscribe(counter)
        buses[0].locate("counter", next(peer for peer in buses[0].peers if peer.name == "bus 1"))
        connection = await connect(RedisSettings.parse(url))
        stack.push_async_callback(connection.aclose)
        targeted = await sends(buses[0], connection, "counter", messages)
        return targeted, await sends(buses[0], connection, None, max(10, messages // count))


async def lease(url: str, members: int) -> dict[str, float]:
    """Return how long a beat, a join and a departure take among so many members, in seconds."""
    membership = Membership("many", 60.0)
    connection = await connect(RedisSettings.parse(url))
    took: dict[str, Any] = {}
    try:
        begun = time.perf_counter()
        for number in range(members):
            await membership.join(connection, f"member-{number}", f"runner-{number}", {})
        took["join"] = (time.perf_counter() - begun) / members
        begun = time.perf_counter()
        for _ in range(200):
            await membership.beat(connection, "member-0")
        took["beat"] = (time.perf_counter() - begun) / 200
        begun = time.perf_counter()
        for number in range(members - 20, members):
            await membership.leave(connection, f"member-{number}")
        took["leave"] = (time.perf_counter() - begun) / 20
        await connection.execute("FLUSHALL")
    finally:
        await connection.aclose()
    return took


def microseconds(seconds: float) -> str:
    """Return a time as text."""
    return f"{seconds * 1e6:,.0f} µs"


async def main(sizes: list[int], members: list[int], messages: int, console: Console) -> None:
    """Measure, and show it."""
    with redis_server() as url:
        table = Table("runners", "targeted: send", "server", "to all: send", "server", title="a message, stored")
        for count in sizes:
            targeted, broadcast = await runners(url, count, messages)
            times = (targeted.here, targeted.server, broadcast.here, broadcast.server)
            table.add_row(f"{count}", *map(microseconds, times))
        console.print(table)
        table = Table("members", "beat", "join", "leave", title="the lease, with the way to the server and back")
        for count in members:
            took = await lease(url, count)
            table.add_row(f"{count:,}", *(microseconds(took[name]) for name in ("beat", "join", "leave")))
        console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network.many", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works")
    if parser.parse_args().quick:
        anyio.run(main, [1, 3], [10], 100, Console())
    else:
        anyio.run(main, [1, 10, 100], [10, 100, 1_000], 2_000, Console())
