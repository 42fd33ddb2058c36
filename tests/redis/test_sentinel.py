"""X2, X9: sentinels say where the master is."""

from collections.abc import Iterator

import pytest

from support.redis_servers import RedisServer, free_port, until
from workerbus import Backoff
from workerbus.redis import ConnectionLost, RedisSetupError
from workerbus.redis._opening import connect
from workerbus.redis._reconnecting import ReconnectingConnection
from workerbus.redis._settings import RedisSettings


@pytest.fixture(scope="module")
def sentinel() -> Iterator[RedisServer]:
    with RedisServer(sentinel=True) as sentinel:
        yield sentinel


def watch(sentinel: RedisServer, master: RedisServer) -> None:
    sentinel.calls(("SENTINEL", "REMOVE", "main"), ("SENTINEL", "MONITOR", "main", "127.0.0.1", master.port, 1))


def settings_for(*ports: int, service: str = "main") -> RedisSettings:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return RedisSettings.parse(f"redis+sentinel://{hosts}/{service}")


async def test_the_master_that_a_sentinel_names_is_connected_to(server: RedisServer, sentinel: RedisServer) -> None:
    watch(sentinel, server)
    connection = await connect(settings_for(free_port(), sentinel.port))
    assert connection.address == f"127.0.0.1:{server.port}"
    assert await connection.execute("PING") == b"PONG"
    await connection.aclose()
    await until(lambda: len(sentinel.clients()) == 1)


async def test_it_is_asked_for_again_at_each_connect(server: RedisServer, sentinel: RedisServer) -> None:
    """X2: after a failover it is another one."""
    with RedisServer() as other:
        watch(sentinel, other)
        connection = ReconnectingConnection(
            settings_for(sentinel.port), "test", backoff=Backoff(initial=0.01, maximum=0.05)
        )
        first = await connection.get()
        assert first.address.endswith(str(other.port))
        watch(sentinel, server)
        other.kill()
        with pytest.raises(ConnectionLost):
            await first.execute("PING")
        second = await connection.get()
        assert second.address.endswith(str(server.port))
        await connection.aclose()


async def test_a_server_that_is_no_master_any_more_is_not_taken(sentinel: RedisServer) -> None:
    with RedisServer() as old:
        watch(sentinel, old)
        old.call("REPLICAOF", "127.0.0.1", free_port())
        with pytest.raises(ConnectionLost, match="it is a replica"):
            await connect(settings_for(sentinel.port))


async def test_a_service_that_no_sentinel_knows_is_refused(server: RedisServer, sentinel: RedisServer) -> None:
    with pytest.raises(RedisSetupError, match="watches no service 'other'"):
        await connect(settings_for(sentinel.port, service="other"))
    with pytest.raises(ConnectionLost, match=r"watches no service 'other'; .* Connection refused"):
        await connect(settings_for(sentinel.port, free_port(), service="other"))  # that one may know it
    with pytest.raises(RedisSetupError, match="it is no sentinel"):
        await connect(settings_for(server.port))


async def test_a_sentinel_that_does_not_know_the_service_does_not_keep_the_next_from_being_asked(
    server: RedisServer, sentinel: RedisServer
) -> None:
    """X2: nor one that is none, or several of them."""
    watch(sentinel, server)
    with RedisServer(sentinel=True) as other:
        connection = await connect(settings_for(other.port, server.port, free_port(), sentinel.port))
        assert connection.address == f"127.0.0.1:{server.port}"
        await connection.aclose()


async def test_a_sentinel_that_hangs_does_not_keep_the_next_from_being_asked(
    server: RedisServer, sentinel: RedisServer
) -> None:
    watch(sentinel, server)
    with RedisServer(sentinel=True) as frozen:
        frozen.freeze()
        connection = await connect(settings_for(frozen.port, sentinel.port), timeout=1.5)
        assert await connection.execute("PING") == b"PONG"
        await connection.aclose()
        with pytest.raises(ConnectionLost, match="does not answer"):
            await connect(settings_for(frozen.port), timeout=0.2)


async def test_sentinels_have_credentials_of_their_own(server: RedisServer) -> None:
    """X9"""
    with RedisServer(sentinel=True, password="pa55word") as sentinel:
        watch(sentinel, server)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
        connection = await connect(RedisSettings.parse(url, sentinel_credentials="pa55word"))
        assert connection.address.endswith(str(server.port))
        await connection.aclose()
        with pytest.raises(RedisSetupError) as caught:
            await connect(RedisSettings.parse(url))
        assert caught.value.code == "NOAUTH"


@pytest.mark.slow
async def test_a_failover_leads_to_the_new_master() -> None:
    """X2"""
    with RedisServer() as master, RedisServer() as replica, RedisServer(sentinel=True) as sentinel:
        replica.call("REPLICAOF", "127.0.0.1", master.port)
        await until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"))
        watch(sentinel, master)
        await until(lambda: sentinel.call("SENTINEL", "REPLICAS", "main"))
        sentinel.call("SENTINEL", "SET", "main", "down-after-milliseconds", 200)
        connection = ReconnectingConnection(settings_for(sentinel.port), "test")
        first = await connection.get()
        assert first.address.endswith(str(master.port))
        master.kill()
        with pytest.raises(ConnectionLost):
            await first.execute("SET", "key", "x")
        second = await connection.get()
        assert second.address.endswith(str(replica.port))
        assert await second.execute("SET", "key", "x") == b"OK"
        await connection.aclose()
