"""A real server whose clock is set while processes are in the network; libfaketime does that."""

from collections.abc import Iterator

import anyio
import pytest

from support.processes import BASE, OTHER, Hosts, bus_of, incarnations
from support.redis_servers import LIBFAKETIME, RedisServer, redis_running
from workerbus import JobError, WorkerRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBFAKETIME, reason="needs libfaketime: apt install faketime, or its path in LIBFAKETIME"),
]
LEASE = 2.0
"""Seconds in which a process speaks on a busy machine, too."""
BY = [-3600.0, -0.7 * LEASE, 0.7 * LEASE, 3600.0]
"""By so many seconds a clock is set."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_running(own_clock=True) as server:
        yield server


async def beats(server: RedisServer, name: str, count: int) -> None:
    """Wait for so many beats of a member: each has a time of its own."""
    key, times = BASE + "members", set[bytes]()
    while len(times) <= count:
        times.add(server.call("ZSCORE", key, incarnations(server)[name]))
        await anyio.sleep(0.01)


async def hold(runner: WorkerRunner, why: str) -> None:
    """Ask the clerk for what does not end, until its process is gone."""
    with pytest.raises(JobError, match=why):
        await runner.job("clerk", name="hold")


@pytest.mark.parametrize("seconds", BY)
async def test_nobody_is_lost_when_the_clock_of_the_server_is_set(
    server: RedisServer, backend: str, seconds: float
) -> None:
    """X4: a job goes on as if nothing had been."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        await there.ask("clerk", "hold", key="held")
        await there.said("holds")
        before = incarnations(server)
        server.set_clock(seconds)
        await beats(server, "there", 7)  # more than a lease
        await there.tell("go", worker="clerk")
        assert (await there.said("answered", key="held"))["outcome"] == "completed"
        assert incarnations(server) == before
        assert bus_of(runner).statistics().lives == (await there.statistics())["lives"] == 1


@pytest.mark.parametrize("seconds", BY)
async def test_a_process_that_is_started_again_is_a_new_one_at_once_though_the_servers_clock_was_set_meanwhile(
    server: RedisServer, backend: str, seconds: float
) -> None:
    """X4: whatever the clocks say; nobody else is lost of it."""
    async with Hosts(server.url, lease=60.0) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        before = incarnations(server)
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner, "it was restarted")
            await there.said("holds")
            await there.kill()
            server.set_clock(seconds)
            again = await hosts.start("there", backend, {"clerk": "Clerk"})
        answer = await runner.job("clerk", name="add", payload={"number": 1})
        assert (answer["number"], answer["pid"]) == (2, again.pid)
        after = incarnations(server)
        assert after["here"] == before["here"]
        assert after["there"] != before["there"]


@pytest.mark.parametrize("seconds", [-3600.0, -0.7 * LEASE])
async def test_who_is_killed_is_lost_though_the_servers_clock_was_set_back(
    server: RedisServer, backend: str, seconds: float
) -> None:
    """X4: it is not kept until the clock is where it was."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner, "its lease ran out")
            await there.said("holds")
            await there.kill()
            server.set_clock(seconds)
            killed = anyio.current_time()
        assert anyio.current_time() - killed < 4 * LEASE + 8.0
        assert list(incarnations(server)) == ["here"]
