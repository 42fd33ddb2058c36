"""Scripts that run on the server."""

from collections.abc import AsyncIterator

import pytest

from support.redis_servers import RedisServer
from workerbus.redis import RedisReplyError
from workerbus.redis._connection import Connection
from workerbus.redis._opening import connect
from workerbus.redis._script import Script
from workerbus.redis._settings import RedisSettings

ADD = Script("return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}")


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    connection = await connect(RedisSettings.parse(server.url))
    yield connection
    await connection.aclose()


async def test_a_server_that_does_not_know_a_script_is_given_its_text(
    server: RedisServer, connection: Connection
) -> None:
    for total in (3, 6):
        assert await ADD.run(connection, ["{wb}:n"], [3, b"\xff"]) == [total, b"\xff"]
        assert server.call("SCRIPT", "EXISTS", ADD.digest) == [1]
    server.call("SCRIPT", "FLUSH")
    assert await ADD.run(connection, ["{wb}:n"], [3, ""]) == [9, b""]


async def test_a_script_runs_in_a_pipeline(connection: Connection) -> None:
    before, digest, after = await connection.pipeline(
        [ADD.command(["n"], [1, ""]), ADD.load(), ADD.command(["n"], [1, ""])]
    )
    assert isinstance(before, RedisReplyError)
    assert before.code == "NOSCRIPT"
    assert digest == ADD.digest.encode()
    assert after == [1, b""]


async def test_the_error_of_a_script_is_raised_and_it_is_not_run_again(connection: Connection) -> None:
    script = Script("redis.call('INCR', 'runs'); return redis.call('INCR', KEYS[1])")
    await connection.execute("SET", "n", "x")
    for runs in (b"1", b"2"):
        with pytest.raises(RedisReplyError, match="value is not an integer"):
            await script.run(connection, ["n"])
        assert await connection.execute("GET", "runs") == runs


async def test_a_user_needs_the_right_to_run_scripts(server: RedisServer) -> None:
    """X9"""
    server.add_user("me", "word", "~*", "+evalsha")
    connection = await connect(RedisSettings.parse(server.url, credentials=("me", "word")))
    with pytest.raises(RedisReplyError) as caught:
        await ADD.run(connection, ["n"], [1, ""])
    assert caught.value.code == "NOPERM"
    await connection.aclose()
