"""Reading an inbox: in order, trimmed as it is read, and not too much at once."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.redis_servers import RedisServer, until
from workerbus.redis import _reader
from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._opening import connect
from workerbus.redis._protocol import Command
from workerbus.redis._reader import AT_ONCE, ENTRIES, READ_BYTES, Reader
from workerbus.redis._settings import RedisSettings

INBOX = "inbox"


class Watched:
    """A connection whose commands are looked at on their way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.commands: list[Command] = []

    async def pipeline(self, commands: Iterable[Command], **kwargs: Any) -> list[Any]:
        self.commands += (commands := list(commands))
        return await self._connection.pipeline(commands, **kwargs)

    def of(self, name: str) -> list[Command]:
        return [command for command in self.commands if command[0] == name]


class Inbox:
    """What a reader has read."""

    def __init__(self, server: RedisServer, stop_at: int = 10**9, size: int = 100_000) -> None:
        self.server = server
        self.got: list[bytes] = []
        self.refusals: list[str] = []
        self.overflowed = False
        self.reader = Reader(
            INBOX,
            "0-0",
            self._take,
            inbox_size=size,
            overflowed=self._overflow,
            refused=self.refusals.append,
        )
        self._stop_at = stop_at

    def _take(self, stored_ms: int, fields: Mapping[bytes, bytes]) -> int:
        assert stored_ms > 0
        self.got.append(fields[b"m"])
        return len(self.got) < self._stop_at

    def _overflow(self) -> None:
        self.overflowed = True

    def add(self, *values: bytes) -> None:
        self.server.calls(*(("XADD", INBOX, "*", "m", value) for value in values))

    @property
    def length(self) -> int:
        return int(self.server.call("XLEN", INBOX))


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    connection = await connect(RedisSettings.parse(server.url))
    yield connection
    await connection.aclose()


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def test_entries_are_read_in_order_and_trimmed_when_nothing_comes_for_a_moment(
    server: RedisServer, connection: Connection
) -> None:
    """X2: what was read takes no memory at the server, and one that is waited for comes when it is there."""
    inbox = Inbox(server)
    inbox.add(*numbered(3))
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, connection)
        await until(lambda: inbox.length == 0)
        inbox.add(b"late")
        await until(lambda: inbox.got == [*numbered(3), b"late"])
        await until(lambda: inbox.length == 0)
        group.cancel_scope.cancel()
    assert server.call("EXISTS", INBOX) == 1


async def test_whoever_takes_them_says_when_to_stop(server: RedisServer, connection: Connection) -> None:
    """X3"""
    inbox = Inbox(server, stop_at=2)
    inbox.add(*numbered(5))
    await inbox.reader.run(connection)
    assert inbox.got == numbered(2)


async def test_a_reader_goes_on_where_it_was_on_another_connection(server: RedisServer, connection: Connection) -> None:
    """X2: nothing is read twice."""
    inbox = Inbox(server)
    inbox.add(*numbered(3))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.reader.run, connection)
            await until(lambda: len(inbox.got) == 3)
            scope.cancel()
    inbox.add(b"late")
    another = await connect(RedisSettings.parse(server.url))
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, another)
        await until(lambda: inbox.got == [*numbered(3), b"late"])
        group.cancel_scope.cancel()
    await another.aclose()


@pytest.mark.parametrize("count", [40, 64])  # with the second, it is trimmed with the next read
async def test_a_reader_that_is_cut_off_half_way_goes_on_where_it_was(
    server: RedisServer, connection: Connection, count: int
) -> None:
    """X2: what it has taken of a batch is not taken again, and the rest of it is there still."""
    inbox = Inbox(server)
    inbox.add(*numbered(count))
    with anyio.CancelScope() as scope:
        through = inbox.reader._take

        def take(stored_ms: int, fields: Mapping[bytes, bytes]) -> int:
            if len(inbox.got) == 19:
                scope.cancel()
            return through(stored_ms, fields)

        inbox.reader._take = take
        await inbox.reader.run(connection)
    inbox.reader._take = through
    assert 19 < len(inbox.got) < count
    another = await connect(RedisSettings.parse(server.url))
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, another)
        await until(lambda: len(inbox.got) >= count)
        group.cancel_scope.cancel()
    await another.aclose()
    assert inbox.got == numbered(count)


async def test_others_get_a_turn_behind_an_entry_with_many_messages(
    server: RedisServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: so that answers are on their way while the rest is taken."""
    inbox = Inbox(server)
    inbox.add(*numbered(4))
    seen: list[int] = []

    def take(_stored_ms: int, _fields: Mapping[bytes, bytes]) -> int:
        inbox.got.append(b"entry")
        return (AT_ONCE + 1) // 2

    async def turn() -> None:
        seen.append(len(inbox.got))
        await checkpoint()

    monkeypatch.setattr(_reader, "checkpoint", turn)
    inbox.reader._take = take
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, connection)
        await until(lambda: 4 in seen)
        group.cancel_scope.cancel()
    assert set(seen) == {2, 4}


@pytest.mark.parametrize(("size", "count"), [(10, ENTRIES), (READ_BYTES // 100, 100), (READ_BYTES // 4, 4)])
async def test_as_many_are_read_at_once_as_have_room(
    server: RedisServer, connection: Connection, size: int, count: int
) -> None:
    """X1: large messages do not come by the hundred."""
    inbox = Inbox(server, stop_at=3)
    watched: Any = Watched(connection)
    inbox.add(b"x" * size)
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, watched)
        await until(lambda: len(watched.of("XREAD")) == 2)
        group.cancel_scope.cancel()
    assert [command[2] for command in watched.of("XREAD")] == [ENTRIES // 8, count]


async def test_an_answer_is_on_its_way_before_it_is_read_again(server: RedisServer, connection: Connection) -> None:
    """X2: whoever has asked waits for the answer, and nobody for the reading."""
    Inbox(server).add(b"request")
    watched: Any = Watched(connection)
    heard = anyio.Event()

    def take(_stored_ms: int, _fields: Mapping[bytes, bytes]) -> int:
        heard.set()
        return True

    reader = Reader(INBOX, "0-0", take, inbox_size=100_000, overflowed=heard.set, refused=print)

    async def answer() -> None:
        await heard.wait()  # as a worker does: it is woken, starts a task, and wakes whoever writes
        for _ in range(3):
            await checkpoint()
        watched.commands.append(("the answer",))

    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        group.start_soon(reader.run, watched)
        await until(lambda: len(watched.of("XREAD")) == 2)
        group.cancel_scope.cancel()
    assert [command[0] for command in watched.commands] == ["XREAD", "the answer", "XREAD"]


async def test_an_inbox_that_has_lost_entries_is_read_no_further(server: RedisServer, connection: Connection) -> None:
    """X3: whatever they were."""
    inbox = Inbox(server, size=200)
    inbox.add(*numbered(3))
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, connection)
        await until(lambda: inbox.length == 0)
        assert not inbox.overflowed
        many = [("XADD", INBOX, "MAXLEN", "~", 200, "*", "m", value) for value in numbered(500)]
        server.calls(("MULTI",), *many, ("EXEC",))  # in one step, so that nothing is read meanwhile
        await until(lambda: inbox.overflowed)
    assert inbox.got == numbered(3)


@pytest.mark.parametrize("count", [199, 200])
async def test_an_inbox_has_room_for_as_many_as_it_keeps(
    server: RedisServer, connection: Connection, count: int
) -> None:
    """X3: with one less than that, nothing can be missing."""
    inbox = Inbox(server, stop_at=count, size=200)
    inbox.add(*numbered(count))
    await inbox.reader.run(connection)
    assert inbox.overflowed is (count == 200)
    assert inbox.got == ([] if inbox.overflowed else numbered(count))


async def test_a_server_that_refuses_is_asked_again_and_told_of_once(
    server: RedisServer, connection: Connection
) -> None:
    """X9, X10: rights may come back."""
    inbox = Inbox(server)
    inbox.add(*numbered(1))
    server.add_user("reader", "secret", "~*", "+@all", "-xread")
    limited = await connect(RedisSettings.parse(server.url.replace("redis://", "redis://reader:secret@")))
    watched: Any = Watched(limited)
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, watched)
        await until(lambda: len(watched.of("XREAD")) > 2)
        server.call("ACL", "SETUSER", "reader", "+xread")
        await until(lambda: inbox.got == numbered(1))
        group.cancel_scope.cancel()
    await limited.aclose()
    (refusal,) = inbox.refusals
    assert refusal.startswith("NOPERM")


async def test_what_the_server_does_not_trim_is_trimmed_when_it_does(
    server: RedisServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2, X10: all is read meanwhile, and it is told once; later nothing else has to come for that."""
    monkeypatch.setattr(_reader, "BLOCK_SECONDS", 0.1)
    inbox = Inbox(server)
    inbox.add(*numbered(3))
    server.add_user("reader", "secret", "~*", "+@all", "-xtrim")
    limited = await connect(RedisSettings.parse(server.url.replace("redis://", "redis://reader:secret@")))
    watched: Any = Watched(limited)
    async with anyio.create_task_group() as group:
        group.start_soon(inbox.reader.run, watched)
        for value in (b"more", b"last"):
            before = len(watched.of("XTRIM"))
            await until(lambda: len(watched.of("XTRIM")) > before + 1)  # noqa: B023 - awaited in this very step
            inbox.add(value)
        await until(lambda: inbox.got == [*numbered(3), b"more", b"last"])
        assert inbox.length == 5
        server.call("ACL", "SETUSER", "reader", "+xtrim")
        await until(lambda: inbox.length == 0)
        group.cancel_scope.cancel()
    await limited.aclose()
    (refusal,) = inbox.refusals
    assert refusal.startswith("NOPERM")


async def test_one_that_wants_another_connection_is_left_to_whoever_makes_it(server: RedisServer) -> None:
    """X2: after a failover, say."""
    inbox = Inbox(server)

    class Failed:
        async def pipeline(self, *_: object, **__: object) -> list[Any]:
            return [RedisReplyError("UNBLOCKED client unblocked")]

    failed: Any = Failed()
    with pytest.raises(RedisReplyError, match="UNBLOCKED"):
        await inbox.reader.run(failed)
