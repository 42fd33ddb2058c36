"""X10: settings of the server that would lose data."""

from collections.abc import Iterator

import pytest

from support.redis_servers import RedisServer
from workerbus.redis._opening import connect
from workerbus.redis._server_check import ServerCheck, check_server
from workerbus.redis._settings import RedisSettings


@pytest.fixture(scope="module")
def own_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def check(url: str) -> ServerCheck:
    connection = await connect(RedisSettings.parse(url))
    try:
        return await check_server(connection)
    finally:
        await connection.aclose()


async def test_a_server_that_keeps_what_it_is_given_is_not_warned_of(server: RedisServer) -> None:
    assert await check(server.url) == ServerCheck((), ())


@pytest.mark.parametrize(
    ("name", "value", "right", "text"),
    [
        (
            "maxmemory-policy",
            "allkeys-lru",
            "noeviction",
            "maxmemory-policy is 'allkeys-lru': as soon as it has a limit",
        ),
        ("maxmemory-policy", "volatile-ttl", "noeviction", "set it to 'noeviction'"),
        ("appendonly", "no", "yes", "appendonly is 'no'"),
        ("appendfsync", "no", "everysec", "appendfsync is 'no'"),
    ],
)
async def test_a_setting_that_would_lose_data_is_warned_of(
    own_server: RedisServer, name: str, value: str, right: str, text: str
) -> None:
    """X10"""
    own_server.config_set(name, value)
    try:
        found = await check(own_server.url)
    finally:
        own_server.config_set(name, right)
    assert len(found.warnings) == 1
    assert text in found.warnings[0]
    assert found.notes == ()


async def test_a_limit_makes_eviction_certain(own_server: RedisServer) -> None:
    """X10"""
    own_server.calls(("CONFIG", "SET", "maxmemory", "1gb"), ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"))
    try:
        found = await check(own_server.url)
    finally:
        own_server.calls(("CONFIG", "SET", "maxmemory", "0"), ("CONFIG", "SET", "maxmemory-policy", "noeviction"))
    assert "when memory is full the server deletes messages unread" in found.warnings[0]


async def test_what_a_user_may_not_look_at_is_a_note(server: RedisServer) -> None:
    """X10"""
    server.add_user("nothing", "word", "~*", "+xadd")
    server.add_user("info", "word", "~*", "+info")
    found = await check(f"redis://nothing:word@127.0.0.1:{server.port}")
    assert found.warnings == ()
    assert len(found.notes) == 1
    assert "NOPERM" in found.notes[0]
    found = await check(f"redis://info:word@127.0.0.1:{server.port}")
    assert found.warnings == ()
    assert len(found.notes) == 1
    assert "appendfsync" in found.notes[0]


async def test_a_server_in_cluster_mode_is_warned_of() -> None:
    """X10"""
    with RedisServer(cluster_enabled="yes") as server:
        (warning,) = (await check(server.url)).warnings
        assert "part of a cluster" in warning
