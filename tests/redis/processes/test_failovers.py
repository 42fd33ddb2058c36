"""X2-X4: a replica that takes the master's place, with sentinels that say so. Nobody is left waiting."""

from collections.abc import Iterator

import pytest

from support.processes import LEASE, OTHER, Hosts
from support.redis_servers import RedisServer, until

pytestmark = pytest.mark.slow


@pytest.fixture
def master() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def replica(master: RedisServer) -> Iterator[RedisServer]:
    """It has all that the master has."""
    with RedisServer(repl_diskless_sync_delay=0) as server:
        server.call("REPLICAOF", "127.0.0.1", master.port)
        yield server


@pytest.fixture
def sentinel(master: RedisServer) -> Iterator[RedisServer]:
    with RedisServer(sentinel=True) as server:
        server.calls(
            ("SENTINEL", "MONITOR", "main", "127.0.0.1", master.port, 1),
            ("SENTINEL", "SET", "main", "down-after-milliseconds", 1000, "failover-timeout", 1000),
        )
        yield server


def follows(replica: RedisServer) -> bool:
    return b"master_link_status:up" in replica.call("INFO", "replication")


def knows(sentinel: RedisServer, replica: RedisServer) -> bool:
    """Whether a sentinel has found the replica, and that it is fit."""
    (found,) = sentinel.call("SENTINEL", "REPLICAS", "main") or [[]]
    told = dict(zip(found[::2], found[1::2], strict=True))
    return told.get(b"port") == b"%d" % replica.port and told.get(b"master-link-status") == b"ok"


def address_of_master(sentinel: RedisServer) -> bytes:
    return bytes(sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])


async def test_a_failover_leaves_nobody_waiting(
    master: RedisServer, replica: RedisServer, sentinel: RedisServer, backend: str
) -> None:
    """X2, X4: the master is killed under way; what its replica had not got yet may be lost, and is noticed."""
    await until(lambda: follows(replica))
    await until(lambda: knows(sentinel, replica))
    async with Hosts(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", lease=3 * LEASE) as hosts:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        here = await hosts.start("here", backend)
        await here.tell("wait_for", worker="clerk")
        await here.said("found")
        await here.tell("ask_many", worker="clerk", count=2000, at_once=20, timeout=None)
        await here.said("asked", number=200)
        master.kill()
        asked = await here.said("asked all")
        assert asked["right"] + asked["wrongs"] == 2000
        assert asked["wrongs"] <= 20  # those that were under way
        assert address_of_master(sentinel) == b"%d" % replica.port
        await here.ask("clerk", "add", number=1)
        assert (await here.said("answered"))["response"]["number"] == 2
        assert not there.has_said("done twice")
