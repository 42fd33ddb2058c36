"""X2, X10: a connection that is made anew when it is lost, and says so."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support.proxies import Proxy
from support.redis_servers import RedisServer, free_port, until
from workerbus import Backoff
from workerbus.redis import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._connection import Connection
from workerbus.redis._reconnecting import ConnectionEvent, ConnectionState, ReconnectingConnection
from workerbus.redis._settings import RedisSettings

QUICK = Backoff(initial=0.01, factor=1.5, maximum=0.05, jitter=0.5)
SECRET = "pa55word"

NEW, CONNECTING, CONNECTED, LOST, CLOSED = ConnectionState


@asynccontextmanager
async def reconnecting(
    url: str,
    *,
    credentials: Any = None,
    connect_timeout: float = 1.0,
    on_event: Callable[[ConnectionEvent], None] | None = None,
) -> AsyncIterator[ReconnectingConnection]:
    settings = RedisSettings.parse(url, credentials=credentials)
    connection = ReconnectingConnection(
        settings, "test", backoff=QUICK, connect_timeout=connect_timeout, on_event=on_event
    )
    try:
        yield connection
    finally:
        await connection.aclose()


def changes(events: list[ConnectionEvent]) -> list[ConnectionState]:
    """The states that it went through; attempts that have failed count as one."""
    states = [event.state for event in events]
    return [state for before, state in zip([None, *states], states, strict=False) if state is not before]


async def test_it_connects_when_it_is_needed(server: RedisServer) -> None:
    events: list[ConnectionEvent] = []
    async with reconnecting(server.url, on_event=events.append) as connection:
        assert connection.state is NEW
        assert not server.clients(name="test")
        first = await connection.get()
        assert await first.execute("PING") == b"PONG"
        assert await connection.get() is first
        assert connection.state is CONNECTED
        assert repr(connection) == f"<ReconnectingConnection 'test' to {first.address}, connected>"
    assert events == [ConnectionEvent("test", CONNECTED, first.address, 1)]
    assert first.closed
    await until(lambda: not server.clients(name="test"))


async def test_it_is_made_anew_after_it_was_lost(server: RedisServer) -> None:
    """X2, X10"""
    events: list[ConnectionEvent] = []
    async with reconnecting(server.url, on_event=events.append) as connection:
        first = await connection.open(5)
        server.call("CLIENT", "KILL", "ID", first.server.client_id)
        with pytest.raises(ConnectionLost) as caught:
            await first.execute("PING")
        second = await connection.get()
        assert second is not first
        assert await second.execute("PING") == b"PONG"
        assert connection.connects == 2
    assert changes(events) == [CONNECTED, LOST, CONNECTED]
    assert events[1].reason == caught.value.reason
    assert events[1].retry_in is not None
    assert 0.005 <= events[1].retry_in <= 0.015


async def test_a_server_that_starts_late_is_waited_for() -> None:
    with RedisServer() as server:
        server.kill()
        events: list[ConnectionEvent] = []
        begun = anyio.current_time()
        async with reconnecting(server.url, on_event=events.append) as connection:
            async with anyio.create_task_group() as group:
                group.start_soon(connection.open, 60)
                await until(lambda: len(events) >= 3)
                server.start()
            assert connection.state is CONNECTED
        assert changes(events) == [CONNECTING, CONNECTED]
        failed = events[:-1]
        assert [event.attempt for event in events] == list(range(1, len(events) + 1))
        assert {event.reason for event in failed[:3]} == {"Connection refused"}
        assert all(isinstance(event.error, ConnectionLost) for event in failed)
        waits = [event.retry_in or 0 for event in failed]
        assert len(set(waits)) == len(waits)  # jitter
        assert max(waits) <= 0.075
        assert sum(waits) <= anyio.current_time() - begun


async def test_a_server_that_starts_late_and_can_not_be_used_is_an_error_at_once() -> None:
    """X9: whichever attempt finds that out."""
    with RedisServer(password=SECRET) as server:
        server.kill()
        events: list[ConnectionEvent] = []
        url = f"redis://:wrong@127.0.0.1:{server.port}"
        async with reconnecting(url, on_event=events.append) as connection, anyio.create_task_group() as group:

            async def open_it() -> None:
                with pytest.raises(RedisSetupError) as caught:
                    await connection.open(1000)
                assert caught.value.code == "WRONGPASS"

            group.start_soon(open_it)
            await until(lambda: len(events) >= 3)
            server.start()
        assert all(isinstance(event.error, ConnectionLost) for event in events)


@pytest.mark.parametrize("lost", [False, True])
async def test_one_that_was_closed_is_not_to_be_had(server: RedisServer, lost: bool) -> None:
    """L1: whoever asks for it is told, and has not to ask again."""
    connection = ReconnectingConnection(RedisSettings.parse(server.url), "test")
    first = await connection.get()
    if lost:
        await first.aclose()
    await connection.aclose()
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="it was closed"):
            await connection.get()


async def test_one_that_was_lost_already_is_not_lost_again(server: RedisServer) -> None:
    """X2: whoever finds that out later leaves the next one alone."""
    events: list[ConnectionEvent] = []
    connection = ReconnectingConnection(RedisSettings.parse(server.url), "test", on_event=events.append)
    first = await connection.get()
    await connection.lose(first, "enough")
    second = await connection.get()
    await connection.lose(first, "enough")
    assert await connection.get() is second
    assert not second.closed
    await connection.aclose()
    assert [event.state for event in events].count(LOST) == 1


async def test_it_waits_longer_each_time_unless_a_connection_has_lasted(server: RedisServer) -> None:
    events: list[ConnectionEvent] = []
    backoff = Backoff(initial=0.01, factor=2, maximum=1, jitter=0)
    connection = ReconnectingConnection(
        RedisSettings.parse(server.url), "test", backoff=backoff, on_event=events.append
    )
    for lasted in (0, 0, 2, 0):
        current = await connection.get()
        connection._connected_at -= lasted
        await connection.lose(current, "enough")
    await connection.aclose()
    assert [event.retry_in for event in events if event.state is LOST] == [0.01, 0.02, 0.01, 0.02]


async def test_the_first_connection_is_not_waited_for_longer_than_asked() -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    async with reconnecting(url) as connection:
        with pytest.raises(ConnectionLost, match=r"Connection refused \(tried for 0\.3 seconds\)"):
            await connection.open(0.3)
        assert connection.state is LOST


async def test_a_first_connection_that_can_never_be_is_an_error_at_once(server: RedisServer) -> None:
    events: list[ConnectionEvent] = []
    async with reconnecting(server.url, credentials=("me", SECRET), on_event=events.append) as connection:
        with pytest.raises(RedisSetupError) as caught:
            await connection.open(5)
        assert caught.value.code == "WRONGPASS"
    assert events == []
    assert SECRET not in repr(connection)


async def test_what_somebody_has_to_mend_is_tried_again_once_it_was_connected(server: RedisServer) -> None:
    """X9, X10: credentials that are renewed too late, say."""
    server.add_user("me", SECRET)
    events: list[ConnectionEvent] = []
    async with reconnecting(server.url, credentials=("me", SECRET), on_event=events.append) as connection:
        first = await connection.open(5)
        server.call("ACL", "DELUSER", "me")
        with pytest.raises(ConnectionLost):
            await first.execute("PING")
        async with anyio.create_task_group() as group:
            group.start_soon(connection.get)
            await until(lambda: len(events) >= 4)
            server.add_user("me", SECRET)
        assert changes(events) == [CONNECTED, LOST, CONNECTING, CONNECTED]
        refused = events[2]
        assert isinstance(refused.error, RedisSetupError)
        assert refused.error.code == "WRONGPASS"
        assert SECRET not in repr(events)


async def test_several_who_need_it_share_one(server: RedisServer) -> None:
    got: list[Connection] = []

    async def get(connection: ReconnectingConnection) -> None:
        got.append(await connection.get())

    async with reconnecting(server.url) as connection:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(get, connection)
        assert len(set(got)) == 1
        assert len(server.clients(name="test")) == 1


async def test_a_loop_goes_on_with_a_new_connection_when_the_server_was_killed() -> None:
    """X2"""
    with RedisServer(appendfsync="always") as server:
        read: list[bytes] = []

        async def use(connection: Connection) -> None:
            while b"end" not in read:
                reply = await connection.execute("BLPOP", "list", 0, timeout=None)
                read.append(reply[1])

        async with reconnecting(server.url) as connection, anyio.create_task_group() as group:
            group.start_soon(connection.run, use)
            for round_ in range(3):
                await until(lambda: server.clients(cmd="blpop"))
                server.restart()
                server.call("RPUSH", "list", f"after {round_}")
                await until(lambda: len(read) == round_ + 1)  # noqa: B023 - it is over within the round
            server.call("RPUSH", "list", "end")
        assert read == [b"after 0", b"after 1", b"after 2", b"end"]
        assert connection.connects == 4


async def test_a_writer_learns_what_was_stored_before_the_server_was_killed() -> None:
    """X2: what it does not know of it can write again."""
    with RedisServer(appendfsync="always") as server:
        stored: list[bytes] = []
        doubtful = 0

        async def use(connection: Connection) -> None:
            nonlocal doubtful
            while len(stored) + doubtful < 3000:
                batch = [("XADD", "s", "*", "n", number) for number in range(10)]
                try:
                    stored.extend(await connection.pipeline(batch))
                except ConnectionLost as exc:
                    stored.extend(exc.replies)
                    doubtful += len(batch) - len(exc.replies) if exc.sent else 0
                    raise

        async with reconnecting(server.url) as connection, anyio.create_task_group() as group:
            group.start_soon(connection.run, use)
            for round_ in range(1, 4):
                await until(lambda: len(stored) >= round_ * 500)  # noqa: B023 - it is over within the round
                server.restart()
        kept = {entry[0] for entry in server.call("XRANGE", "s", "-", "+")}
        assert set(stored) <= kept
        assert len(stored) <= len(kept) <= len(stored) + doubtful
        assert connection.connects == 4


async def test_a_connection_that_is_killed_again_and_again_recovers(server: RedisServer) -> None:
    numbers: list[int] = []

    async def use(connection: Connection) -> None:
        while len(numbers) < 500:
            numbers.append(await connection.execute("INCR", "n"))

    async with reconnecting(server.url) as connection, anyio.create_task_group() as group:
        group.start_soon(connection.run, use)
        for _ in range(10):
            await until(lambda: server.clients(name="test"))
            server.call("CLIENT", "KILL", "TYPE", "normal")
    assert 1 < connection.connects <= 11
    assert numbers == sorted(set(numbers))


async def test_a_server_that_became_a_replica_leads_to_another_attempt() -> None:
    """X2: after a failover the old address may lead to the new master later."""
    with RedisServer() as server:
        events: list[ConnectionEvent] = []
        written: list[Any] = []

        async def use(connection: Connection) -> None:
            while len(written) < 2:
                await connection.execute("BLPOP", "go", 0, timeout=None)
                written.append(await connection.execute("SET", "key", "x"))

        async with (
            reconnecting(server.url, on_event=events.append) as connection,
            anyio.create_task_group() as group,
        ):
            group.start_soon(connection.run, use)
            server.call("RPUSH", "go", "")
            await until(lambda: written)
            server.call("REPLICAOF", "127.0.0.1", server.port)
            await until(lambda: events[-1].attempt >= 2)
            assert events[-1].reason == "it is a replica, which cannot be written to"
            server.calls(("REPLICAOF", "NO", "ONE"), ("RPUSH", "go", ""))
        assert changes(events) == [CONNECTED, LOST, CONNECTING, CONNECTED]


async def test_an_answer_that_wants_another_connection_leads_to_one(server: RedisServer) -> None:
    events: list[ConnectionEvent] = []
    used: list[Connection] = []

    async def use(connection: Connection) -> None:
        used.append(connection)
        if len(used) == 1:
            raise RedisReplyError("READONLY You can't write against a read only replica.")

    async with reconnecting(server.url, on_event=events.append) as connection:
        await connection.run(use)
    assert used[0] is not used[1]
    assert used[0].closed
    assert changes(events) == [CONNECTED, LOST, CONNECTED]
    assert events[1].reason == "the server says READONLY You can't write against a read only replica."


async def test_a_loss_inside_a_task_group_of_the_loop_counts_as_well(server: RedisServer) -> None:
    used: list[Connection] = []

    async def use(connection: Connection) -> None:
        used.append(connection)
        if len(used) == 1:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: connection.execute("BLPOP", "list", 0, timeout=None))
                await until(lambda: server.clients(cmd="blpop"))
                server.call("CLIENT", "KILL", "TYPE", "normal")

    async with reconnecting(server.url) as connection:
        await connection.run(use)
    assert len(used) == 2


@pytest.mark.parametrize("error", [KeyError("mine"), RedisReplyError("OOM no"), ConnectionLost("other:1", "gone")])
async def test_other_errors_of_the_loop_are_raised(server: RedisServer, error: Exception) -> None:
    async def use(connection: Connection) -> None:
        raise error

    async with reconnecting(server.url) as connection:
        with pytest.raises(type(error)) as caught:
            await connection.run(use)
        assert caught.value is error


async def test_a_server_that_is_frozen_is_given_up_and_found_again_when_it_thaws() -> None:
    """X2"""
    with RedisServer() as server:
        events: list[ConnectionEvent] = []
        done: list[object] = []

        is_frozen = False

        async def use(connection: Connection) -> None:
            nonlocal is_frozen
            while len(done) < 2:
                done.append(await connection.execute("INCR", "n", timeout=0.1 if is_frozen else 60.0))
                if len(done) == 1:
                    events.clear()
                    server.freeze()
                    is_frozen = True

        async with (
            reconnecting(server.url, connect_timeout=0.1, on_event=events.append) as connection,
            anyio.create_task_group() as group,
        ):
            group.start_soon(connection.run, use)
            await until(lambda: events and events[-1].attempt >= 2)
            is_frozen = False
            server.thaw()
        assert changes(events) == [LOST, CONNECTING, CONNECTED]
        assert [event.reason for event in events[:2]] == [
            "no answer within 0.1 seconds",
            "not connected within 0.1 seconds",
        ]


async def test_somebody_who_looks_can_close_what_waits_for_too_long(server: RedisServer) -> None:
    """X2: so that calls need no clock of their own."""
    events: list[ConnectionEvent] = []

    async def use(connection: Connection) -> None:
        if len(events) == 1:
            await connection.execute("BLPOP", "list", 0, timeout=None)

    async with reconnecting(server.url, on_event=events.append) as connection:
        await connection.close_if_stuck(0)
        first = await connection.get()
        await connection.close_if_stuck(0)
        assert not first.closed
        async with anyio.create_task_group() as group:
            group.start_soon(connection.run, use)
            await until(lambda: server.clients(cmd="blpop"))
            await connection.close_if_stuck(10)
            assert not first.closed
            while not first.closed:
                await connection.close_if_stuck(0.05)
                await anyio.sleep(0.001)
    assert changes(events) == [CONNECTED, LOST, CONNECTED]
    assert events[1].reason == "no answer within 0.05 seconds"


async def test_a_server_that_is_busy_with_a_script_is_waited_for() -> None:
    """X2: as one is that loads its data after a restart."""
    with RedisServer(lua_time_limit=1) as server:
        events: list[ConnectionEvent] = []

        async def spin(connection: Connection) -> None:
            with pytest.raises(RedisReplyError):
                await connection.execute("EVAL", "while true do end", 0)

        async with reconnecting(server.url) as other, reconnecting(server.url, on_event=events.append) as connection:
            async with anyio.create_task_group() as group:
                group.start_soon(spin, await other.get())
                await until(lambda: isinstance(server.calls(("PING",))[0], Exception))
                group.start_soon(connection.open, 60)
                await until(lambda: len(events) >= 2)
                server.call("SCRIPT", "KILL")
            assert connection.state is CONNECTED
        assert events[0].reason.startswith("it says BUSY")


async def test_cancelling_the_loop_leaves_nothing(server: RedisServer) -> None:
    """L1, L3"""

    async def use(connection: Connection) -> None:
        await connection.execute("BLPOP", "list", 0, timeout=None)

    async with reconnecting(server.url) as connection:
        async with anyio.create_task_group() as group:
            group.start_soon(connection.run, use)
            await until(lambda: server.clients(cmd="blpop"))
            group.cancel_scope.cancel()
        await until(lambda: not server.clients(name="test"))


@pytest.mark.parametrize("answered", [True, False])
async def test_closing_it_while_it_connects_is_for_good(answered: bool) -> None:
    """L1"""
    events: list[ConnectionEvent] = []
    with RedisServer() as server:
        async with Proxy(server.port) as proxy:
            proxy.delay = 0.05
            if not answered:
                proxy.drop_replies()
            async with reconnecting(proxy.url, on_event=events.append) as connection:
                async with anyio.create_task_group() as group:

                    async def get() -> None:
                        with pytest.raises(ConnectionLost, match="it was closed"):
                            await connection.get()

                    group.start_soon(get)
                    await until(lambda: server.clients(name="test"))
                    await connection.aclose()
                    if not answered:
                        await proxy.cut()
                assert connection.state is CLOSED
                with pytest.raises(ConnectionLost, match="it was closed"):
                    await connection.get()
                await until(lambda: not server.clients(name="test"))
    assert events == []


async def test_an_acknowledgement_that_is_lost_on_the_way_leaves_it_open_what_was_done() -> None:
    """X2"""
    with RedisServer() as server:
        async with Proxy(server.port) as proxy, reconnecting(proxy.url) as connection:
            first = await connection.get()
            proxy.drop_replies(after=len(b"+OK\r\n"))
            with pytest.raises(ConnectionLost) as caught:
                await first.pipeline([("SET", "a", "1"), ("SET", "b", "2")], timeout=0.5)
            assert (caught.value.sent, caught.value.replies) == (True, (b"OK",))
            await proxy.cut()
            again = await connection.get()
            assert await again.execute("MGET", "a", "b") == [b"1", b"2"]
