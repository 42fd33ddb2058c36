"""X2, X5, X10: what a bus does about a server that is unwell, to the moment: in virtual time, at a server in memory."""

import contextlib
import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest

from support.hand_buses import Listener
from support.hand_redis import HandRedis
from support.messages import note
from support.runners import runner_on
from support.subscribers import Plain
from support.workers import Helper
from workerbus import CLEANUP_SECONDS, BusUnavailable, NameTakenError, WorkerRunner
from workerbus._backoff import jitter
from workerbus.redis import RedisBus, RedisReplyError
from workerbus.redis._errors import ConnectionLost
from workerbus.redis._lives import _LEAVE_SECONDS
from workerbus.redis._reader import BLOCK_SECONDS
from workerbus.redis._reconnecting import ConnectionEvent, ConnectionState, ReconnectingConnection
from workerbus.redis._settings import RedisSettings
from workerbus.testing import virtual_backend

LEASE, TIMEOUT, LATENCY = 5.0, 3.0, 0.01
CONNECTING, LOST = ConnectionState.CONNECTING, ConnectionState.LOST
FULL = "OOM command not allowed when used memory > 'maxmemory'."


@pytest.fixture
def anyio_backend(backend: str) -> tuple[str, dict[str, Any]]:
    return virtual_backend(backend)


@pytest.fixture
def server() -> Iterator[HandRedis]:
    server = HandRedis(LEASE)
    server.latency = LATENCY
    with server.reached():
        yield server


def new_bus(name: str) -> RedisBus:
    return RedisBus("redis://server", lease=LEASE, send_timeout=TIMEOUT, name=name)


class Timed(Listener):
    """Notes when it hears of faults of the network."""

    def __init__(self, bus: RedisBus) -> None:
        super().__init__(bus)
        self.reports: list[tuple[float, str]] = []

    def report(self, text: str) -> None:
        self.reports.append((anyio.current_time(), text))


@pytest.mark.parametrize("refused", [FULL, "NOPERM this user has no permissions to run the command"])
async def test_a_name_whose_claim_is_refused_is_unavailable_and_free_when_it_is_not(
    server: HandRedis, refused: str
) -> None:
    """X5: whoever adds the worker gets the error of the bus, with the server's as its cause."""
    async with new_bus("left") as bus, runner_on(bus, "left") as runner:
        server.refuse("CLAIM", refused)
        with pytest.raises(BusUnavailable, match=f"claim the name 'w': the server says {refused[:4]}") as caught:
            await runner.add_workers(Helper("w"))
        assert isinstance(caught.value.__cause__, RedisReplyError)
        server.refuse("CLAIM", None)
        await runner.add_workers(Helper("w"))
        assert server.names == {"w": bus.incarnation}


@pytest.mark.parametrize("after", [0.0, 0.4, 0.8, 1.2])
async def test_of_two_runners_that_claim_one_name_whoever_has_the_worker_has_the_name(
    server: HandRedis, after: float
) -> None:
    """X5: though one of them gives up meanwhile, in whichever order, and at any moment of the other's claim."""
    async with new_bus("left") as bus, runner_on(bus, "one") as one, runner_on(bus, "two") as two:
        for first, second in ((one, two), (two, one)):
            for given_up in (0.2, 0.6, 1.0, 1.4):
                name = f"w{given_up}{first.name}"

                async def add(runner: WorkerRunner, at: float, patience: float, name: str = name) -> None:
                    await anyio.sleep(at * LATENCY)
                    with anyio.move_on_after(patience * LATENCY), contextlib.suppress(NameTakenError):
                        await runner.add_workers(Helper(name))

                async with anyio.create_task_group() as group:
                    group.start_soon(add, first, 0.0, given_up)
                    group.start_soon(add, second, after, 100)
                await anyio.sleep(1.0)
                assert bus.has_subscriber(name) is (name in server.names)


@pytest.mark.parametrize("unwell", ["away", "frozen", "full"])
async def test_a_bus_tries_to_open_for_as_long_as_a_send_may_take_and_no_longer(server: HandRedis, unwell: str) -> None:
    """X2: whatever it is that the server does not do; and it leaves nothing."""
    if unwell == "away":
        server.go_away()
    elif unwell == "frozen":
        server.freeze()
    else:
        server.refuse("JOIN", FULL)
    begun = anyio.current_time()
    with pytest.raises(BusUnavailable, match="could not be opened"):
        async with new_bus("left"):
            pytest.fail("it has opened")
    needed = anyio.current_time() - begun
    if unwell == "full":  # it has left, in case it has joined
        assert TIMEOUT - 1.5 < needed <= TIMEOUT + 2 * LATENCY
    else:
        assert needed == pytest.approx(TIMEOUT)
    assert server.links == []


async def test_all_that_would_lose_data_is_told_when_a_bus_opens(
    server: HandRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """X10: once, though it needs several attempts."""
    server.refuse("XADD", FULL)
    server.about |= {
        "memory": "maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n",
        "persistence": "aof_enabled:0\r\naof_last_write_status:err\r\n",
    }
    async with anyio.create_task_group() as group:

        async def opens() -> None:
            async with new_bus("left"):
                pass

        group.start_soon(opens)
        await anyio.sleep(1.0)
        server.refuse("XADD", None)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [each.split()[2] for each in told] == ["maxmemory-policy", "appendonly", "the"]


@pytest.mark.parametrize("command", ["BEAT", "XREAD", "XADD", "JOIN"])
async def test_what_a_server_refuses_is_told_at_once(server: HandRedis, command: str) -> None:
    """X10: when it has said so, and once; what it takes again is done as if nothing had been."""
    ear = Plain("it")
    async with new_bus("right") as right, new_bus("left") as bus, anyio.create_task_group() as group:
        await right.subscribe(ear)
        await anyio.sleep(LEASE)
        listener = Timed(bus)
        server.refuse(command, FULL)
        refuses = anyio.current_time()
        if command == "JOIN":
            server.forget(bus.incarnation)
        if command == "XADD":
            group.start_soon(bus.send, note(1, target="it"))
        await anyio.sleep(2.0)
        told = [at for at, text in listener.reports if "OOM" in text]
        asked = [at for at, purpose, what in server.done if what == command and purpose.startswith("left")]
        assert told == pytest.approx([next(at for at in asked if at >= refuses) + LATENCY])
        server.refuse(command, None)
        if command != "XADD":
            await bus.send(note(1, target="it"))
        await ear.until(1)
        await anyio.sleep(LEASE)
        assert bus.state == right.state == "connected"
        assert len([text for _, text in listener.reports if "OOM" in text]) == 1


@pytest.mark.parametrize("unwell", ["away", "frozen", "full"])
async def test_a_bus_that_closes_with_something_unsent_leaves_nothing_for_the_next_time(
    server: HandRedis, unwell: str
) -> None:
    """L1, L4, X2, X4: neither a connection, nor a member where the server lets it leave, nor what was being written."""
    ear = Plain("it")
    async with new_bus("right") as right:
        await right.subscribe(ear)
        async with new_bus("left") as bus:
            await anyio.sleep(LEASE)
            if unwell == "away":
                server.go_away()
            elif unwell == "frozen":
                server.freeze()
            else:
                server.refuse("XADD", FULL)
            unsent = bus.transmit(note(1, target="it"), bus.peers)
            begun = anyio.current_time()
        assert anyio.current_time() - begun <= CLEANUP_SECONDS + _LEAVE_SECONDS
        assert bus.state == "closed"
        assert isinstance(unsent.error, BusUnavailable)
        assert unsent.error.maybe_stored
        assert bus.statistics().unsent == bus.statistics().unsent_bytes == 0
        assert not [link.purpose for link in server.links if link.purpose.startswith("left")]
        assert (bus.incarnation in server.members) is (unwell != "full")
        server.well()
        async with bus:
            await bus.send(note(2, target="it"))
            await ear.until(1)
            await anyio.sleep(2 * LEASE)
            assert bus.state == right.state == "connected"
            assert set(server.members) == {bus.incarnation, right.incarnation}
    assert ear.got == [note(2, target="it")]


async def test_a_connection_says_how_soon_it_tries_again_and_does(server: HandRedis) -> None:
    """X2, X10: after each attempt that has failed, and after a loss."""
    events: list[tuple[float, ConnectionEvent]] = []
    connection = ReconnectingConnection(
        RedisSettings.parse("redis://server"),
        "test",
        on_event=lambda event: events.append((anyio.current_time(), event)),
    )
    for _ in range(2):
        server.go_away()
        async with anyio.create_task_group() as group:
            group.start_soon(connection.get)
            await anyio.sleep(5.0)
            server.come_back()
        await connection.lose(await connection.get(), "by the test")
    await connection.aclose()
    ahead = [(then - at, event, after) for (at, event), (then, after) in pairwise(events) if event.retry_in is not None]
    waits = [(waited, event.retry_in, event.state) for waited, event, after in ahead if after.state is CONNECTING]
    assert {state for _, _, state in waits} == {CONNECTING, LOST}
    assert [waited for waited, _, _ in waits] == pytest.approx([(told or 0) + LATENCY for _, told, _ in waits])
    attempts = [event.attempt for _, event in events if event.state is not LOST]
    second = attempts.index(1, 1)
    assert attempts == [*range(1, second + 1), *range(1, len(attempts) - second + 1)]


async def test_a_connection_that_is_closed_at_any_moment_is_closed_for_good(server: HandRedis) -> None:
    """L1: while it waits to try again, too."""
    for moment in range(24):
        server.go_away()
        connection = ReconnectingConnection(RedisSettings.parse("redis://server"), "test")

        async def get(connection: ReconnectingConnection = connection) -> None:
            with contextlib.suppress(ConnectionLost):
                await connection.get()

        async with anyio.create_task_group() as group:
            group.start_soon(get)
            await anyio.sleep(0.1)
            server.come_back()
            await anyio.sleep(moment * LATENCY)
            await connection.aclose()
        connects = connection.connects
        await anyio.sleep(0.3)
        assert (connection.state, connection.connects, server.links) == (ConnectionState.CLOSED, connects, [])


@pytest.mark.parametrize("purpose", ["writer", "reader"])
async def test_a_connection_that_is_answered_no_more_is_made_anew_each_time(server: HandRedis, purpose: str) -> None:
    """X2: though the others are well."""
    ears = {name: Plain(f"ear {name}", receives="own") for name in ("left", "right")}
    async with new_bus("right") as right, new_bus("left") as bus:
        for name, each in (("left", bus), ("right", right)):
            await each.subscribe(ears[name])
        await anyio.sleep(0.5)
        for times in (1, 2):
            server.hang(f"left:{purpose}")
            unsent = bus.transmit(note(times, target="ear right"), bus.peers)
            await right.send(note(times, target="ear left"))
            limit = LEASE / 2 + (BLOCK_SECONDS if purpose == "reader" else 0)
            await anyio.sleep(limit + LEASE / 5 + 0.5)
            assert unsent.settled
            assert [len(ear.got) for ear in ears.values()] == [times, times]
            assert (bus.state, bus.statistics().connections_lost) == ("connected", times)


@pytest.mark.parametrize("command", ["XADD", "BEAT", "JOIN", "CLAIM"])
async def test_what_is_refused_again_is_tried_again_and_told_as_the_first_time(
    server: HandRedis, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2, X10: as soon, and once each time."""
    monkeypatch.setattr(jitter(), "uniform", lambda _low, _high: 0.0)
    async with new_bus("right") as right, new_bus("left") as bus:
        await right.subscribe(Plain("ear", receives="own"))
        bus.keep_name("w")
        tried: list[list[float]] = []
        listener = Timed(bus)
        for times in (1, 2, 3):
            await anyio.sleep(2.0)
            server.refuse(command, FULL)
            if command in ("JOIN", "CLAIM"):
                server.forget(bus.incarnation)
            if command == "XADD":
                bus.transmit(note(times, target="ear"), bus.peers)
            before = len(server.done)
            await anyio.sleep(2.5)
            server.refuse(command, None)
            at = [at for at, whose, name in server.done[before:] if whose.startswith("left") and name == command]
            tried.append([round(each - at[0], 3) for each in at])
            assert len([text for _, text in listener.reports if "OOM" in text]) == times
        shortest = min(map(len, tried))
        assert shortest > 1
        assert tried[0][:shortest] == tried[1][:shortest] == tried[2][:shortest]


@pytest.mark.parametrize("seconds", [-1_000.0, 1_000.0])
async def test_each_life_reads_its_own_inbox_though_the_clock_of_the_server_was_set(
    server: HandRedis, seconds: float
) -> None:
    """X3, X4: from its beginning; of one that is set back, all is older there than what was read before."""
    ear = Plain("it", receives="own")
    async with new_bus("right") as right, new_bus("left") as bus:
        await bus.subscribe(ear)
        await anyio.sleep(0.5)
        for times in (1, 2, 3):
            await right.send(note(times, target="it"))
            await anyio.sleep(0.5)
            assert len(ear.got) == times
            server.set_clock(seconds)
            server.forget(bus.incarnation)
            await anyio.sleep(2.0)
            assert bus.statistics().lives == 1 + times


async def test_what_could_not_be_trimmed_is_trimmed_when_the_server_allows_it(server: HandRedis) -> None:
    """X4: also where nothing else comes."""
    ear = Plain("it")
    async with new_bus("right") as right, new_bus("left") as bus:
        await right.subscribe(ear)
        await anyio.sleep(LEASE)
        server.refuse("XTRIM", FULL)
        await bus.send(note(1, target="it"))
        await anyio.sleep(1.0)
        assert server.inboxes[right.incarnation]
        server.refuse("XTRIM", None)
        await anyio.sleep(2 * BLOCK_SECONDS)
        assert not server.inboxes[right.incarnation]


async def test_each_message_that_is_none_is_counted_and_kept(server: HandRedis) -> None:
    """X10: and what comes behind it arrives."""
    ear = Plain("it")
    async with new_bus("right") as right, new_bus("left") as bus:
        await right.subscribe(ear)
        await anyio.sleep(LEASE)
        for n in range(3):
            server.spoil(right.incarnation, lambda fields: [b"{" if n == 5 else each for n, each in enumerate(fields)])
            await bus.send(note(n, target="it"))
        await bus.send(note(3, target="it"))
        await ear.until(1)
        await anyio.sleep(1.0)
        assert [note.n for note in ear.got] == [3]  # type: ignore[attr-defined]  # those that arrive are notes
        assert right.statistics().malformed == 3
        assert [fields[:2] for fields in server.refused] == [[b"from", b"left"]] * 3
