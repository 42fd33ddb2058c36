"""X2, X3: the line of what is to be written: numbers, batches, and what is done when a write fails."""

from typing import Any

import anyio
import pytest

from workerbus import BusUnavailable, Peer
from workerbus.bus._peers import Session
from workerbus.redis import _outbox
from workerbus.redis._outbox import Entry, Outbox, SharedReceipt

A, B = Peer("a", "a-1"), Peer("b", "b-1")


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend


class World:
    """An outbox, the sessions with two peers, and what was stored."""

    def __init__(self) -> None:
        self.sessions = {peer.incarnation: Session(peer) for peer in (A, B)}
        self.outbox = Outbox("bus", self.sessions.get)

    def put(self, data: bytes, *peers: Peer, target: bool = True) -> SharedReceipt:
        receipt = SharedReceipt(len(peers), target=target)
        self.outbox.put(data, peers, receipt, 0.0)
        return receipt

    def lose(self, peer: Peer) -> None:
        del self.sessions[peer.incarnation]
        self.outbox.drop(peer)

    async def written(self) -> list[tuple[str, int, bytes]]:
        return [_key(entry) for entry in await self.outbox.next_batch()]


def _key(entry: Entry) -> tuple[str, int, bytes]:
    return entry.peer.name, entry.number, entry.data


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_put_in_comes_out_in_order_with_a_number_for_each_peer(world: World) -> None:
    """X3"""
    world.put(b"1", A)
    world.put(b"2", A, B, target=False)
    world.put(b"3", B)
    assert await world.written() == [("a", 1, b"1"), ("a", 2, b"2"), ("b", 1, b"2"), ("b", 2, b"3")]


async def test_a_receipt_is_settled_when_the_message_is_stored_for_all_its_peers(world: World) -> None:
    """X2"""
    receipt = world.put(b"1", A, B, target=False)
    await world.outbox.next_batch()
    world.outbox.settle([True, False])
    assert not receipt.settled
    assert await world.written() == [("b", 1, b"1")]
    world.outbox.settle([True])
    assert receipt.settled
    assert receipt.settled
    assert receipt.error is None
    assert (world.outbox.entries, world.outbox.size) == (0, 0)


async def test_a_batch_whose_outcome_is_unknown_is_the_next_one_again_with_the_same_numbers(world: World) -> None:
    """X2, X3"""
    world.put(b"1", A)
    first = await world.written()
    world.put(b"2", A)
    assert await world.written() == first == [("a", 1, b"1")]


async def test_what_was_not_stored_goes_before_all_that_waits(world: World) -> None:
    """X2"""
    for data in (b"1", b"2", b"3"):
        world.put(data, A)
    await world.outbox.next_batch()
    world.put(b"4", A)
    world.outbox.settle([True, False, False])
    assert await world.written() == [("a", 2, b"2"), ("a", 3, b"3"), ("a", 4, b"4")]


async def test_what_its_sender_has_given_up_is_not_written_and_leaves_no_gap(world: World) -> None:
    """X2, X3: one that was written once goes on, since it may have been stored."""
    first = world.put(b"1", A)
    await world.outbox.next_batch()
    second = world.put(b"2", A)
    world.put(b"3", A)
    first.withdrawn = second.withdrawn = True
    assert (first.written, second.written) == (True, False)
    world.outbox.settle([False])
    assert await world.written() == [("a", 1, b"1"), ("a", 2, b"3")]


@pytest.mark.parametrize("gone", [False, True])
async def test_who_waits_until_nothing_waits_is_told_where_nothing_is_left_to_be_written(
    world: World, gone: bool
) -> None:
    """X2: since its sender has given it up, or its peer is gone."""
    receipt = world.put(b"1", A)
    async with anyio.create_task_group() as group:
        group.start_soon(world.outbox.empty)
        await anyio.wait_all_tasks_blocked()
        if gone:
            del world.sessions[A.incarnation]
        else:
            receipt.withdrawn = True
        group.start_soon(world.outbox.next_batch)
        await anyio.wait_all_tasks_blocked()
        world.put(b"2", B)
    assert receipt.settled is gone
    assert await world.written() == [("b", 1, b"2")]


async def test_what_senders_have_given_up_does_not_pile_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2: while there is no server that it could be written to. What the library has posted stays."""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 10)
    world.outbox = Outbox("bus", world.sessions.get)
    world.put(b"first", A)
    for number in range(1000):
        world.put(b"%d" % number, A).withdrawn = True
        assert world.outbox.entries <= 12
    world.put(b"last", A)
    assert await world.written() == [("a", 1, b"first"), ("a", 2, b"last")]
    assert (world.outbox.entries, world.outbox.size) == (2, 9)


async def test_who_waits_for_room_is_told_when_what_was_given_up_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: while there is no server that anything could be written to."""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 10)
    world.outbox = Outbox("bus", world.sessions.get)
    receipts = [world.put(b"x", A) for _ in range(11)]
    let_in: list[bool] = []

    async def wait() -> None:
        await world.outbox.room()
        let_in.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        for receipt in receipts:
            receipt.withdrawn = True
        while world.outbox.entries > 2:
            assert not let_in
            world.put(b"x", A).withdrawn = True
        await anyio.wait_all_tasks_blocked()
        assert let_in
        group.cancel_scope.cancel()


async def test_what_has_a_number_stays_in_the_line_though_its_sender_has_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2, X3: it may be stored already, and else there would be a gap."""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 10)
    world.outbox = Outbox("bus", world.sessions.get)
    written = world.put(b"written", A)
    await world.outbox.next_batch()
    world.outbox.settle([False])
    written.withdrawn = True
    for number in range(100):
        world.put(b"%d" % number, A).withdrawn = True
    world.put(b"last", A)
    assert await world.written() == [("a", 1, b"written"), ("a", 2, b"last")]
    assert (world.outbox.entries, world.outbox.size) == (2, 11)


async def test_a_line_of_what_is_to_be_written_is_swept_seldom(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2: the longer it is, the more seldom, so that it costs each message the same."""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 10)
    world.outbox = Outbox("bus", world.sessions.get)
    swept: list[int] = []
    sweep = world.outbox._sweep

    def counted() -> None:
        swept.append(world.outbox.entries)
        sweep()

    monkeypatch.setattr(world.outbox, "_sweep", counted)
    for number in range(1000):
        world.put(b"%d" % number, A)
    assert swept == [11, 23, 47, 95, 191, 383, 767]


async def test_a_message_for_a_peer_that_is_gone_says_so(world: World) -> None:
    """X2: and whether it may have been stored."""
    first = world.put(b"1", A)
    await world.outbox.next_batch()
    second = world.put(b"2", A)
    async with anyio.create_task_group() as group:
        group.start_soon(world.outbox._change)
        await anyio.wait_all_tasks_blocked()
        world.lose(A)  # whoever waits for room is told
    for receipt, maybe in ((first, True), (second, False)):
        assert isinstance(receipt.error, BusUnavailable)
        assert "'a', where it was to go, is gone" in str(receipt.error)
        assert receipt.error.maybe_stored is maybe
    world.outbox.settle([True])
    assert world.outbox.entries == 0
    world.put(b"3", B)
    assert await world.written() == [("b", 1, b"3")]
    assert (world.outbox.entries, world.outbox.size) == (1, 1)


async def test_what_is_for_the_next_life_of_a_peer_that_is_lost_stays_in_the_line(world: World) -> None:
    """X4: it has the same name, and other numbers."""
    again = Peer("a", "a-2")
    world.sessions[again.incarnation] = Session(again)
    old, new = world.put(b"1", A), world.put(b"2", again)
    await world.outbox.next_batch()
    later = world.put(b"3", again)
    world.lose(A)
    assert old.settled
    assert not new.settled
    world.outbox.settle([True, True])
    assert await world.written() == [("a", 2, b"3")]
    world.outbox.settle([True])
    assert new.error is later.error is None
    assert (world.outbox.entries, world.outbox.size) == (0, 0)


async def test_a_broadcast_is_stored_when_it_is_for_those_that_are_left(world: World) -> None:
    """X2"""
    receipt = world.put(b"1", A, B, target=False)
    world.lose(A)
    assert await world.written() == [("b", 1, b"1")]
    world.outbox.settle([True])
    assert receipt.settled
    assert receipt.error is None


@pytest.mark.parametrize("outcome", [True, None, False])
async def test_a_broadcast_under_way_to_a_peer_that_is_lost_is_counted_once(world: World, outcome: bool | None) -> None:
    """X2: whatever has become of what was written to it."""
    receipt = world.put(b"1", A, B, target=False)
    await world.outbox.next_batch()
    world.lose(A)
    assert not receipt.settled
    for _ in range(2):
        world.outbox.settle([*([outcome] if world.outbox.entries == 2 else []), False])
        assert await world.written() == [("b", 1, b"1")]
        assert not receipt.settled
        assert world.outbox.entries == 1
    world.outbox.settle([True])
    assert receipt.settled


async def test_a_broadcast_of_a_bus_that_is_cut_off_was_not_stored(world: World) -> None:
    """X2: though each of its peers counts as gone; one that was being written may have been."""
    under_way = world.put(b"1", A, B, target=False)
    await world.outbox.next_batch()
    waiting = world.put(b"2", A, B, target=False)
    for peer in (A, B):
        world.outbox.drop(peer, "it was cut off")
    for receipt, maybe in ((under_way, True), (waiting, False)):
        assert isinstance(receipt.error, BusUnavailable)
        assert "it was cut off" in str(receipt.error)
        assert receipt.error.maybe_stored is maybe


async def test_an_inbox_that_is_not_there_is_one_of_a_peer_that_is_gone(world: World) -> None:
    """X2"""
    receipt = world.put(b"1", A)
    await world.outbox.next_batch()
    async with anyio.create_task_group() as group:
        group.start_soon(world.outbox.empty)
        await anyio.wait_all_tasks_blocked()
        world.outbox.settle([None])  # whoever waits until nothing waits is told
    assert isinstance(receipt.error, BusUnavailable)
    assert world.outbox.entries == 0


async def test_what_could_not_be_stored_for_a_peer_that_is_lost_meanwhile_leaves_the_line(world: World) -> None:
    """X2, X4"""
    world.put(b"1", A)
    world.put(b"2", B)
    await world.outbox.next_batch()
    world.lose(A)
    world.outbox.settle([False, False])
    assert await world.written() == [("b", 1, b"2")]
    assert world.outbox.entries == 1


async def test_a_life_that_is_over_leaves_nothing_in_the_line(world: World) -> None:
    """X4"""
    receipts = [world.put(b"1", A), world.put(b"2", B)]
    await world.outbox.next_batch()
    receipts.append(world.put(b"3", A))
    async with anyio.create_task_group() as group:
        group.start_soon(world.outbox.empty)
        await anyio.wait_all_tasks_blocked()
        world.outbox.drop_all()  # whoever waits for room is told
    assert all(receipt.settled for receipt in receipts)
    assert (world.outbox.entries, world.outbox.size) == (0, 0)
    world.put(b"of the next life", A)
    assert await world.written() == [("a", 2, b"of the next life")]
    world.outbox.settle([True])
    assert (world.outbox.entries, world.outbox.size) == (0, 0)


async def test_a_batch_is_bounded_in_entries_and_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2"""
    monkeypatch.setattr(_outbox, "BATCH_ENTRIES", 3)
    monkeypatch.setattr(_outbox, "BATCH_BYTES", 10)
    sizes = []
    for length in (1, 1, 1, 1, 12, 1, 1):
        world.put(b"x" * length, A)
    while world.outbox.entries:
        batch = await world.outbox.next_batch()
        sizes.append([len(entry.data) for entry in batch])
        world.outbox.settle([True] * len(batch))
    assert sizes == [[1, 1, 1], [1, 12], [1, 1]]


async def test_the_writer_sleeps_until_there_is_something(world: World) -> None:
    """X2"""
    got: list[Any] = []

    async def write() -> None:
        got.extend(await world.written())

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        world.put(b"1", A)
    assert got == [("a", 1, b"1")]


async def test_senders_wait_while_too_much_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """X2: for the line to be short, and for it to be empty."""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 2)
    told: list[str] = []

    async def wait(what: str) -> None:
        await getattr(world.outbox, what)()
        told.append(what)

    for data in (b"1", b"2", b"3", b"4"):
        world.put(data, A)
    async with anyio.create_task_group() as group:
        for what in ("room", "empty"):
            group.start_soon(wait, what)
        await anyio.wait_all_tasks_blocked()
        await world.outbox.next_batch()
        world.outbox.settle([True, False, False, False])
        await anyio.wait_all_tasks_blocked()
        assert told == []
        await world.outbox.next_batch()
        world.outbox.settle([True, False, False])
        await anyio.wait_all_tasks_blocked()
        assert told == ["room"]
        await world.outbox.next_batch()
        world.outbox.settle([True, True])
    assert told == ["room", "empty"]


@pytest.mark.parametrize(("entries", "size", "crowded"), [(2, 10, False), (3, 10, True), (2, 11, True)])
async def test_a_line_is_crowded_by_entries_or_by_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch, entries: int, size: int, crowded: bool
) -> None:
    """X2"""
    monkeypatch.setattr(_outbox, "HIGH_ENTRIES", 2)
    monkeypatch.setattr(_outbox, "HIGH_BYTES", 10)
    for number in range(entries):
        world.put(b"x" * (size // entries + (number < size % entries)), A)
    assert world.outbox.crowded is crowded
