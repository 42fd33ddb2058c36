"""Writing batches to the inboxes of peers: as a whole, again where that is unknown, and in order."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import pytest

from support.redis_servers import RedisServer, redis_running, until
from workerbus import Peer
from workerbus.bus._peers import Session
from workerbus.redis import _writer
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._opening import connect
from workerbus.redis._outbox import Outbox, SharedReceipt
from workerbus.redis._protocol import Command
from workerbus.redis._settings import RedisSettings
from workerbus.redis._writer import TOGETHER, TOGETHER_BYTES, Writer

A, B = Peer("a", "a-1"), Peer("b", "b-1")


class World:
    """An outbox, what writes it, and the inboxes of two peers at a server."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.sessions = {peer.incarnation: Session(peer) for peer in (A, B)}
        self.outbox = Outbox("bus", self.sessions.get)
        self.refusals: list[str] = []
        self.writer = Writer(self.outbox, str, lambda: "me-1", inbox_size=100_000, refused=self.refusals.append)
        self.since: float | None = None  # all at once, however busy the machine is
        for peer in (A, B):
            server.call("XADD", peer.incarnation, "1-0", "k", "joined")

    def put(self, data: bytes, *peers: Peer) -> SharedReceipt:
        receipt = SharedReceipt(len(peers), target=True)
        self.since = anyio.current_time() if self.since is None else self.since
        self.outbox.put(data, peers, receipt, self.since)
        return receipt

    def entries(self, peer: Peer) -> list[dict[bytes, bytes]]:
        """The entries of a peer's inbox, each as its fields."""
        entries = self.server.call("XRANGE", peer.incarnation, "(1-0", "+")
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]

    def shared(self, peer: Peer) -> list[list[bytes]]:
        """What each of these entries has."""
        return [fields[b"l"].split(b"\n") if b"l" in fields else [fields[b"m"]] for fields in self.entries(peer)]

    def stored(self, peer: Peer) -> list[tuple[int, bytes]]:
        """The numbers and the data in a peer's inbox."""
        entries = self.entries(peer)
        assert all(each[b"o"] == b"me-1" for each in entries)
        found = zip(entries, self.shared(peer), strict=True)
        return [pair for each, messages in found for pair in enumerate(messages, int(each[b"n"]))]


@pytest.fixture
def world(server: RedisServer) -> World:
    return World(server)


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    connection = await connect(RedisSettings.parse(server.url))
    yield connection
    await connection.aclose()


async def write_all(world: World, connection: Any) -> None:
    """Write until nothing waits."""
    async with anyio.create_task_group() as group:
        group.start_soon(world.writer.run, connection)
        await world.outbox.empty()
        group.cancel_scope.cancel()


async def test_each_peer_gets_its_messages_numbered_and_in_order(world: World, connection: Connection) -> None:
    """X2, X3"""
    receipts = [world.put(b"1", A), world.put(b"2", A, B), world.put(b"3", B)]
    await write_all(world, connection)
    assert world.stored(A) == [(1, b"1"), (2, b"2")]
    assert world.stored(B) == [(1, b"2"), (2, b"3")]
    assert all(receipt.settled and receipt.error is None for receipt in receipts)


class Losing:
    """A connection that does what it is told, and is lost before it says so."""

    address = "here"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def pipeline(self, commands: Iterable[Command], **kwargs: Any) -> list[Any]:
        await self._connection.pipeline(commands, **kwargs)
        raise ConnectionLost("here", "it was lost", sent=True)


async def test_a_batch_whose_outcome_is_unknown_is_written_again_with_its_numbers(
    world: World, connection: Connection
) -> None:
    """X2: those who have it drop it by the number."""
    world.put(b"1", A)
    world.put(b"2", A)
    with pytest.raises(ConnectionLost):
        await world.writer.run(Losing(connection))  # type: ignore[arg-type]  # all that it uses
    world.put(b"3", A)
    await write_all(world, connection)
    assert world.stored(A) == [(1, b"1"), (2, b"2"), (1, b"1"), (2, b"2"), (3, b"3")]
    assert world.writer.retries == 1


async def test_a_full_server_loses_nothing_and_overtakes_nothing() -> None:
    """X2, X10: a batch is stored as a whole or not at all; it is told once, each time, and tried again."""
    with redis_running() as server:
        world = World(server)
        connection = await connect(RedisSettings.parse(server.url))
        async with anyio.create_task_group() as group:
            group.start_soon(world.writer.run, connection)
            for times in (1, 2):
                server.config_set("maxmemory", "1")
                for number in range(50 * (times - 1), 50 * times):
                    world.put(b"%d" % number, A, B)
                before = world.writer.retries
                await until(lambda: world.writer.retries > before + 2)  # noqa: B023 - awaited in this very step
                assert len(world.stored(A)) == len(world.stored(B)) == 50 * (times - 1)
                server.config_set("maxmemory", "0")
                await world.outbox.empty()
                assert len(world.refusals) == times
            group.cancel_scope.cancel()
        await connection.aclose()
        assert world.stored(A) == world.stored(B) == [(n + 1, b"%d" % n) for n in range(100)]
        assert all(refusal.startswith("OOM") for refusal in world.refusals)


async def test_a_message_says_how_long_it_has_waited(world: World, connection: Connection) -> None:
    """X7: in milliseconds, so that a deadline in it is shorter by that; nothing, if it has not."""
    for waited in (300.0, 25.0, 0.0):
        since = anyio.current_time() - waited
        world.outbox.put(b"%g" % waited, [A], SharedReceipt(1, target=True), since)
    await write_all(world, connection)
    waits = [int(fields.get(b"w", 0)) for fields in world.entries(A)]
    assert waits[2] < 20_000 < 25_000 <= waits[1] < 90_000 < 300_000 <= waits[0] < 390_000


async def test_small_messages_that_go_out_together_share_an_entry(world: World, connection: Connection) -> None:
    """X2, X3: whoever else gets some meanwhile; so many at most."""
    first, others = [b"%d" % number for number in range(TOGETHER)], [b"a", b"b", b"c"]
    for each in first:
        world.put(each, A)
        world.put(each, B)
    for each in others:
        world.put(each, A)
    await write_all(world, connection)
    assert world.shared(A) == [first, others]
    assert world.shared(B) == [first]
    assert world.stored(A) == list(enumerate([*first, *others], 1))


@pytest.mark.parametrize(
    ("messages", "shared"),
    [
        ([b"x" * TOGETHER_BYTES, b"1", b"2"], [1, 2]),
        ([b"1", b"x" * TOGETHER_BYTES, b"2"], [1, 1, 1]),
        ([b"x" * (TOGETHER_BYTES // 2)] * 3, [2, 1]),
        ([b"1", b"two\nlines", b"3", b"4"], [1, 1, 2]),
        ([b"two\nlines", b"2", b"3"], [1, 2]),
    ],
    ids=["a large one first", "a large one", "halves", "lines", "lines first"],
)
async def test_messages_that_are_large_or_have_lines_share_no_entry_with_too_many(
    world: World, connection: Connection, messages: list[bytes], shared: list[int]
) -> None:
    """X2"""
    for each in messages:
        world.put(each, A)
    await write_all(world, connection)
    assert [len(each) for each in world.shared(A)] == shared


async def test_messages_for_two_lives_of_a_peer_share_no_entry(world: World, connection: Connection) -> None:
    """X4: each goes to the inbox of its own."""
    again = Peer(A.name, "a-2")
    world.sessions[again.incarnation] = Session(again)
    world.server.call("XADD", again.incarnation, "1-0", "k", "joined")
    for data, peer in ((b"1", A), (b"2", again), (b"3", A), (b"4", again)):
        world.put(data, peer)
    await write_all(world, connection)
    assert world.stored(A) == [(1, b"1"), (2, b"3")]
    assert world.stored(again) == [(1, b"2"), (2, b"4")]


async def test_an_entry_says_how_long_the_last_of_its_messages_has_waited(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X7: all have waited so long, at least; one that was sent much later has an entry of its own."""
    monkeypatch.setattr(_writer, "current_time", lambda: 10.0)
    for since in (8.997, 9.0, 9.5):
        world.outbox.put(b"%g" % since, [A], SharedReceipt(1, target=True), since)
    await write_all(world, connection)
    assert [(fields.get(b"l", fields.get(b"m")), fields[b"w"]) for fields in world.entries(A)] == [
        (b"8.997\n9", b"1000"),
        (b"9.5", b"500"),
    ]


async def test_a_mark_shares_its_entry_with_no_message(world: World, connection: Connection) -> None:
    """X3"""
    world.put(b"1", A)
    await write_all(world, connection)
    world.outbox.mark([A], anyio.current_time())
    world.put(b"3", A)
    world.put(b"4", A)
    await write_all(world, connection)
    fields = [{key: each[key] for key in each if key in b"nmlk"} for each in world.entries(A)]
    assert fields == [{b"n": b"1", b"m": b"1"}, {b"n": b"2", b"k": b"mark"}, {b"n": b"3", b"l": b"3\n4"}]


async def test_a_small_inbox_counts_messages(world: World, connection: Connection) -> None:
    """X3: so that it keeps about as many as it says."""
    world.writer = Writer(world.outbox, str, lambda: "me-1", inbox_size=1_999, refused=world.refusals.append)
    for _ in range(5):
        world.put(b"x", A)
    await write_all(world, connection)
    assert len(world.entries(A)) == 5


@pytest.mark.parametrize("peers", [[A], [A, B]])
async def test_a_server_that_has_become_a_replica_is_left(peers: list[Peer]) -> None:
    """X2: there is another one to write to, or will be; in one command or in a transaction."""
    with redis_running() as server:
        world = World(server)
        connection = await connect(RedisSettings.parse(server.url))
        server.call("REPLICAOF", "127.0.0.1", "1")
        for data in (b"1", b"2"):
            world.put(data, *peers)
        with pytest.raises(RedisReplyError, match="READONLY") as caught:
            await world.writer.run(connection)
        assert caught.value.reconnect
        server.call("REPLICAOF", "NO", "ONE")
        await write_all(world, connection)
        await connection.aclose()
        for peer in peers:
            assert world.stored(peer) == [(1, b"1"), (2, b"2")]


async def test_an_inbox_of_a_wrong_type_keeps_its_peers_messages_waiting_and_no_others(
    world: World, connection: Connection
) -> None:
    """X2: somebody has spoilt a key."""
    world.server.calls(("DEL", B.incarnation), ("SET", B.incarnation, "spoilt"))
    async with anyio.create_task_group() as group:
        group.start_soon(world.writer.run, connection)
        for data in (b"1", b"2"):
            world.put(data, A, B)
        await until(lambda: len(world.stored(A)) == 2)
        await until(lambda: world.writer.retries > 1)
        world.server.calls(("DEL", B.incarnation), ("XADD", B.incarnation, "1-0", "k", "joined"))
        await world.outbox.empty()
        group.cancel_scope.cancel()
    assert world.stored(A) == world.stored(B) == [(1, b"1"), (2, b"2")]
    assert world.refusals
    assert world.refusals[0].startswith("WRONGTYPE")


async def test_nothing_brings_back_the_inbox_of_a_peer_that_is_gone(world: World, connection: Connection) -> None:
    """X4"""
    world.server.call("DEL", B.incarnation)
    receipts = [world.put(b"1", B), world.put(b"2", A)]
    await write_all(world, connection)
    assert world.server.call("EXISTS", B.incarnation) == 0
    assert receipts[0].error is not None
    assert receipts[1].error is None


async def test_an_inbox_is_bounded(server: RedisServer, connection: Connection) -> None:
    """X3: by the server, in whole nodes of its own; what is pushed out is a gap for whoever reads."""
    world = World(server)
    world.writer = Writer(world.outbox, str, lambda: "me-1", inbox_size=10, refused=world.refusals.append)
    for number in range(1000):
        world.put(b"%d" % number, A)
    await write_all(world, connection)
    assert 10 <= server.call("XLEN", A.incarnation) <= 210
