"""One connection to a server: commands and replies, several at once, and what ends it."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from support.redis_servers import RedisServer, until
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._opening import connect
from workerbus.redis._protocol import ProtocolError, ReplyParser
from workerbus.redis._settings import RedisSettings


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    connection = await connect(RedisSettings.parse(server.url))
    yield connection
    await connection.aclose()


async def test_a_command_is_answered(connection: Connection) -> None:
    assert await connection.execute("SET", "key", b"\0value") == b"OK"
    assert await connection.execute("GET", "key") == b"\0value"
    assert await connection.execute("STRLEN", "key") == 6
    assert await connection.execute("GET", "none") is None
    assert await connection.execute("MGET", "key", "none") == [b"\0value", None]


async def test_an_error_is_raised_with_its_code_and_the_connection_goes_on(connection: Connection) -> None:
    await connection.execute("SET", "key", "value")
    with pytest.raises(RedisReplyError, match="WRONGTYPE Operation against a key") as caught:
        await connection.execute("XLEN", "key")
    assert caught.value.code == "WRONGTYPE"
    assert await connection.execute("GET", "key") == b"value"


async def test_replies_stand_in_the_order_of_the_commands_and_errors_in_their_places(connection: Connection) -> None:
    ok, wrong, counted, unknown = await connection.pipeline(
        [("SET", "a", "x"), ("INCR", "a"), ("INCR", "b"), ("NONSENSE", "secret")]
    )
    assert (ok, counted) == (b"OK", 1)
    assert isinstance(wrong, RedisReplyError)
    assert isinstance(unknown, RedisReplyError)
    assert unknown.code == "ERR"
    assert "NONSENSE" in str(unknown)
    assert "secret" not in str(unknown)


async def test_nothing_is_sent_for_no_commands(connection: Connection) -> None:
    assert await connection.pipeline([]) == []


@pytest.mark.parametrize("argument", [None, ["a"], True, object()])
async def test_an_argument_that_cannot_be_sent_is_refused_before_anything_is(
    connection: Connection, argument: object
) -> None:
    with pytest.raises(TypeError):
        await connection.pipeline([("SET", "key", "value"), ("SET", "key", argument)])  # type: ignore[list-item]  # wrong on purpose
    assert await connection.execute("GET", "key") is None


async def test_large_commands_and_replies_travel_whole(connection: Connection) -> None:
    values = [bytes([number]) * 500_000 for number in range(10)]
    await connection.pipeline([("SET", str(number), value) for number, value in enumerate(values)])
    assert await connection.execute("MGET", *map(str, range(10))) == values
    assert await connection.pipeline([("GET", str(number)) for number in range(10)]) == values


async def test_calls_of_several_tasks_do_not_mix(connection: Connection) -> None:
    seen: dict[int, list[object]] = {}

    async def ask(number: int) -> None:
        seen[number] = await connection.pipeline([("ECHO", f"{number}-{part}") for part in range(number)])

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, number)
    assert seen == {number: [f"{number}-{part}".encode() for part in range(number)] for number in range(20)}


async def test_a_transaction_is_done_as_one(connection: Connection) -> None:
    assert await connection.pipeline([("MULTI",), ("SET", "a", "1"), ("INCR", "a"), ("EXEC",)]) == [
        b"OK",
        b"QUEUED",
        b"QUEUED",
        [b"OK", 2],
    ]
    *_, refused = await connection.pipeline([("MULTI",), ("SET", "a"), ("INCR", "a"), ("EXEC",)])
    assert isinstance(refused, RedisReplyError)
    assert refused.code == "EXECABORT"
    assert await connection.execute("GET", "a") == b"2"


async def test_an_error_inside_a_script_has_the_code_of_that_error(server: RedisServer, connection: Connection) -> None:
    await connection.execute("SET", "key", "value")
    with pytest.raises(RedisReplyError) as caught:
        await connection.execute("EVAL", "return redis.call('XLEN', KEYS[1])", 1, "key")
    assert caught.value.code == "WRONGTYPE"


async def test_a_read_that_blocks_has_the_time_that_it_blocks_for_besides(connection: Connection) -> None:
    reply = await connection.execute("XREAD", "BLOCK", 300, "STREAMS", "s", "$", timeout=0.25, blocks=5.0)
    assert reply is None


async def test_a_call_without_an_answer_in_time_closes_the_connection(connection: Connection) -> None:
    with pytest.raises(ConnectionLost, match=r"no answer within 0\.3 seconds") as caught:
        await connection.pipeline([("SET", "a", "1"), ("BLPOP", "list", 0)], timeout=0.3)
    assert caught.value.replies == (b"OK",)
    assert caught.value.sent
    assert connection.closed_by == caught.value.reason
    with pytest.raises(ConnectionLost, match=caught.value.reason) as again:
        await connection.execute("PING")
    assert not again.value.sent


@pytest.mark.parametrize("command", [("BLPOP", "list", 0), ("XREAD", "BLOCK", 0, "STREAMS", "s", "$")])
async def test_a_call_that_is_cancelled_closes_the_connection(
    server: RedisServer, connection: Connection, command: tuple[str | int, ...]
) -> None:
    """L3: half a call would leave its replies to the next one."""
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: connection.pipeline([("SET", "a", "1"), command, ("SET", "a", "2")], timeout=None))
        await until(lambda: server.clients(cmd=str(command[0]).lower()))
        group.cancel_scope.cancel()
    assert connection.closed
    await until(lambda: not server.clients(cmd=str(command[0]).lower()))
    assert server.call("GET", "a") == b"1"


async def test_a_cancelled_task_that_waits_for_its_turn_leaves_the_connection_as_it_is(
    server: RedisServer, connection: Connection
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: connection.execute("BLPOP", "list", 0, timeout=None))
        await until(lambda: server.clients(cmd="blpop"))
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(connection.execute, "PING")
            await until(lambda: connection._turn.statistics().tasks_waiting)
            waiting.cancel_scope.cancel()
        server.call("RPUSH", "list", "x")
    assert await connection.execute("PING") == b"PONG"


async def test_a_call_whose_turn_comes_on_a_closed_connection_has_sent_nothing(
    server: RedisServer, connection: Connection
) -> None:
    """X2: and its caller knows that."""
    lost: list[ConnectionLost] = []

    async def ping() -> None:
        with pytest.raises(ConnectionLost) as caught:
            await connection.execute("PING")
        lost.append(caught.value)

    async with anyio.create_task_group() as group, anyio.create_task_group() as first:
        first.start_soon(lambda: connection.execute("BLPOP", "list", 0, timeout=None))
        await until(lambda: server.clients(cmd="blpop"))
        for _ in range(3):
            group.start_soon(ping)
        await until(lambda: connection._turn.statistics().tasks_waiting == 3)
        first.cancel_scope.cancel()
    assert [(error.sent, error.reason) for error in lost] == [(False, "a call was cut short")] * 3


async def test_closing_ends_a_call_that_waits(server: RedisServer, connection: Connection) -> None:
    """L1"""
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(ConnectionLost, match="it was closed"):
                await connection.execute("BLPOP", "list", 0, timeout=None)

        group.start_soon(wait)
        await until(lambda: server.clients(cmd="blpop"))
        await connection.aclose()
    await until(lambda: not server.clients(id=str(connection.server.client_id)))
    await connection.aclose()  # once more does nothing


async def test_a_frozen_server_does_not_hold_up_closing() -> None:
    """L4"""
    with RedisServer() as server:
        connection = await connect(RedisSettings.parse(server.url))
        server.freeze()
        async with anyio.create_task_group() as group:
            # More than the socket takes, so that the sending itself waits.
            group.start_soon(lambda: connection.execute("SET", "key", b"x" * 50_000_000))
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert connection.closed


@pytest.mark.parametrize("url", ["url", "unix_url"])
async def test_a_server_that_dies_ends_the_call_that_waits_and_those_to_come(url: str) -> None:
    with RedisServer() as server:
        connection = await connect(RedisSettings.parse(getattr(server, url)))
        idle = await connect(RedisSettings.parse(getattr(server, url)))

        async def wait() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await connection.pipeline([("SET", "a", "1"), ("BLPOP", "list", 0)], timeout=None)
            assert caught.value.replies == (b"OK",)
            assert caught.value.sent

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await until(lambda: server.clients(cmd="blpop"))
            server.kill()
        assert connection.closed
        with pytest.raises(ConnectionLost, match=r"closed|reset|Broken") as caught:
            await idle.execute("PING")
        assert caught.value.sent  # nobody can know


async def test_a_connection_that_the_server_closes_is_lost(server: RedisServer, connection: Connection) -> None:
    server.call("CLIENT", "KILL", "ID", connection.server.client_id)
    with pytest.raises(ConnectionLost, match=r"the Redis server at 127\.0\.0\.1"):
        await connection.execute("PING")


async def test_a_paused_server_answers_late_and_that_is_all(server: RedisServer, connection: Connection) -> None:
    server.call("CLIENT", "PAUSE", 100, "ALL")
    assert await connection.execute("SET", "key", "value") == b"OK"


async def test_a_full_server_refuses_what_adds_and_takes_the_rest() -> None:
    with RedisServer(maxmemory="100kb") as server:
        connection = await connect(RedisSettings.parse(server.url))
        full, read, deleted = await connection.pipeline([("SET", "key", "x"), ("GET", "key"), ("DEL", "key")])
        assert isinstance(full, RedisReplyError)
        assert (full.code, full.temporary, full.reconnect) == ("OOM", True, False)
        assert (read, deleted) == (None, 0)
        with pytest.raises(RedisReplyError) as caught:
            await connection.execute("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "key")
        assert caught.value.code == "OOM"
        await connection.aclose()


async def test_a_server_that_became_a_replica_wants_another_connection(connection: Connection) -> None:
    with RedisServer() as other:
        connection = await connect(RedisSettings.parse(other.url))
        other.call("REPLICAOF", "127.0.0.1", other.port)
        for command in (("SET", "key", "x"), ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "key")):
            with pytest.raises(RedisReplyError) as caught:
                await connection.execute(*command)
            assert (caught.value.code, caught.value.temporary, caught.value.reconnect) == ("READONLY", True, True)
        await connection.aclose()


def test_bytes_that_are_no_replies_are_noticed() -> None:
    for data in (b"HTTP/1.1 400 Bad Request\r\n", b"+OK\r\n+OK\r\n"):
        with pytest.raises(ProtocolError):
            ReplyParser().feed(data, [], 1)


def test_replies_may_come_in_any_pieces() -> None:
    data = b"+OK\r\n:7\r\n$5\r\na\r\nbc\r\n*2\r\n$-1\r\n-OOM no memory\r\n"
    for size in range(1, len(data)):
        parser, replies = ReplyParser(), list[Any]()
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size], replies, 4)
        assert replies[:3] == [b"OK", 7, b"a\r\nbc"]
        nothing, error = replies[3]
        assert nothing is None
        assert isinstance(error, RedisReplyError)
        assert error.code == "OOM"
