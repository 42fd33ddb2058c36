"""The bus over a real server, two of them in one process: what is sent, what arrives, and the lives of a bus."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from support.messages import Note, note
from support.proxies import Proxy
from support.redis_servers import RedisServer, redis_running, until
from support.runners import runner_on
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BusEndMessage,
    BusJobRequestMessage,
    BusUnavailable,
    NameTakenError,
    Peer,
    WorkerGoneData,
    WorkerRunner,
    dump,
)
from workerbus.redis import RedisBus, RedisSetupError
from workerbus.redis._connection import Connection
from workerbus.redis._membership import Membership


@asynccontextmanager
async def buses(server: RedisServer, *names: str, **kwargs: Any) -> AsyncIterator[list[RedisBus]]:
    """Open buses that have met each other."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(RedisBus(server.url, name=name, **kwargs)) for name in names]
        await until(lambda: all(len(bus.peers) == len(names) - 1 for bus in opened))
        yield opened


def lose(server: RedisServer, bus: RedisBus) -> None:
    """Let the lease of a bus be over."""
    server.call("ZADD", "{workerbus}:members", 1, bus.incarnation)


def forge(server: RedisServer, bus: RedisBus, **fields: str | bytes | int) -> None:
    """Write an entry into the inbox of a bus."""
    flat = [each for pair in fields.items() for each in pair]
    server.call("XADD", "{workerbus}:inbox:" + bus.incarnation, "*", *flat)


def cut(server: RedisServer, name: str) -> None:
    """Cut the connection of that name."""
    [client] = [line for line in server.call("CLIENT", "LIST").decode().splitlines() if f" name={name} " in line]
    server.call("CLIENT", "KILL", "ID", client.split()[0].removeprefix("id="))


async def test_what_is_sent_arrives_in_order_with_the_peer_it_came_from(server: RedisServer) -> None:
    """X2, X3: broadcasts and targeted messages alike."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        for n in range(300):
            await left.send(note(n, target="it" if n % 3 else None))
        await plain.until(300)
        assert plain.got == [note(n, target="it" if n % 3 else None) for n in range(300)]
        assert {message.peer for message in plain.got} == {Peer("left", left.incarnation)}


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_the_end_of_all_is_stored_before_the_process_that_asks_for_it_has_left(
    server: RedisServer, ask: Callable[..., Awaitable[None]]
) -> None:
    """X9, X2"""
    here, there = (WorkerRunner(name=name, bus=RedisBus(server.url)) for name in ("here", "there"))
    await there.add_workers(Helper("helper"))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for runner in (here, there):
                group.start_soon(partial(runner.run, auto_end=False))
            await here.registry.wait_for("helper")
            await ask(here, "it is late", everywhere=True)
    assert there.outcome is not None
    assert there.outcome.reason == "it is late"


async def test_a_message_for_a_subscriber_here_does_not_leave_the_process(server: RedisServer) -> None:
    """X6"""
    here, there = Plain("here"), Plain("there")
    async with buses(server, "left", "right") as (left, right):
        await left.subscribe(here)
        await right.subscribe(there)
        await left.send(note(1, target="here"))
        await left.send(note(2))
        await there.until(1)
        assert here.got == [note(1, target="here"), note(2)]
        assert there.got == [note(2)]
        assert left.statistics().transmitted == 1


async def test_a_send_returns_when_the_message_is_stored(server: RedisServer) -> None:
    """X2"""
    async with buses(server, "left", "right") as (left, _right):
        await left.send(note(1))
        assert left.statistics().unsent == 0


async def test_a_send_that_cannot_be_stored_in_time_says_that_it_may_have_been() -> None:
    """X2"""
    with redis_running() as server:
        async with buses(server, "left", "right") as (left, right):
            plain = Plain("it")
            await right.subscribe(plain)
            server.freeze()
            usual, left.send_timeout = left.send_timeout, 0.2
            with pytest.raises(BusUnavailable, match=r"of 0\.2 s was over; it may have been stored") as caught:
                await left.send(note(1))
            assert caught.value.maybe_stored
            with pytest.raises(BusUnavailable, match="it was not stored, and may be sent again") as caught:
                await left.send(note(2))
            assert not caught.value.maybe_stored
            left.send_timeout = usual
            server.thaw()
            await left.send(note(3))
            await plain.until(2)
            assert plain.got == [note(1), note(3)]


async def test_a_broadcast_that_waits_while_its_bus_is_cut_off_was_not_sent() -> None:
    """X2, X4: its sender is told, though all peers count as gone by then."""
    with redis_running() as server:
        async with buses(server, "left", "right") as (left, _right):
            server.freeze()
            told: list[str] = []

            async def send() -> None:
                with pytest.raises(BusUnavailable) as caught:
                    await left.send(note(1))
                told.append(str(caught.value))

            async with create_task_group() as group:
                group.start_soon(send)
                await until(lambda: left.statistics().unsent == 1)
                left.end_life("it was cut off")
            server.thaw()
    assert "left the network, or was cut off from it" in told[0]


@pytest.mark.slow
async def test_connections_that_hear_nothing_any_more_are_replaced(server: RedisServer) -> None:
    """X2: as where a network drops what belongs to a connection, and tells nobody."""
    here, there = Plain("here"), Plain("there")
    async with (
        Proxy(server.port) as proxy,
        buses(server, "right") as (right,),
        RedisBus(proxy.url, name="left", lease=2.0) as left,
    ):
        await left.subscribe(here)
        await right.subscribe(there)
        await until(lambda: left.peers and right.peers and left.state == "connected")
        proxy.drop_replies_of_open_connections()
        for n in range(3):
            await right.send(note(n, target="here"))
            await left.send(note(n, target="there"))
        for plain in (here, there):
            await plain.until(6)  # what was sent on either side
            for target in ("here", "there"):
                arrived = [message for message in plain.got if message.target == target]
                assert arrived == [note(n, target=target) for n in range(3)]
        assert left.statistics().retries >= 1


async def test_a_server_that_is_killed_and_comes_back_loses_nothing_and_doubles_nothing() -> None:
    """X2"""
    with redis_running(appendfsync="no") as server:
        async with buses(server, "left", "right") as (left, right):
            plain = Plain("it")
            await right.subscribe(plain)

            async def send() -> None:
                for n in range(1000):
                    if n % 10:
                        left.post(note(n))
                    else:
                        await left.send(note(n))

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                for heard in (100, 500):
                    await plain.until(heard)
                    await anyio.to_thread.run_sync(server.restart)
            await plain.until(1000)
            assert plain.got == [note(n) for n in range(1000)]
            assert left.statistics().lives == right.statistics().lives == 1


async def test_who_is_declared_lost_ends_its_sessions_and_joins_again(server: RedisServer) -> None:
    """X4: and both sides hear of it, and meet again."""
    heard: list[Any] = []
    async with buses(server, "left", "right", lease=1.0) as (left, right):
        for bus in (left, right):
            for event in ("on_peer_gone", "on_peer_joined", "on_fenced"):
                bus.add_event_handler(event, lambda bus, *args, event=event: heard.append((bus.name, event, *args)))
        first = left.incarnation
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and left.peers and right.peers)
        assert left.incarnation != first
        assert right.peers == (Peer("left", left.incarnation),)
        await until(lambda: len(heard) == 5)
        second = left.incarnation
    assert [each[1:] for each in heard if each[0] == "right"][:2] == [
        ("on_peer_gone", Peer("left", first), "its lease ran out"),
        ("on_peer_joined", Peer("left", second)),
    ]
    assert ("left", "on_fenced", "the server has declared it lost") in heard


async def test_several_that_are_lost_in_one_step_are_all_lost(server: RedisServer) -> None:
    """X4: one entry tells of them."""
    async with buses(server, "left", "one", "two", "three") as (left, one, two, three):
        forge(server, left, k="lost", p=f"{one.incarnation} {three.incarnation}", r="its lease ran out")
        await until(lambda: left.peers == (Peer("two", two.incarnation),))


async def test_messages_go_on_after_a_new_life(server: RedisServer) -> None:
    """X3, X4: the numbers begin anew."""
    plain = Plain("it")
    async with buses(server, "left", "right", lease=1.0) as (left, right):
        await right.subscribe(plain)
        await left.send(note(1))
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and left.peers and right.peers)
        await left.send(note(2))
        lose(server, right)
        await until(lambda: right.statistics().lives == 2 and left.peers and right.peers)
        await left.send(note(3))
        await plain.until(3)
        assert plain.got == [note(1), note(2), note(3)]


async def test_what_comes_late_from_a_life_that_is_over_is_dropped(server: RedisServer) -> None:
    """X4"""
    plain = Plain("it")
    async with buses(server, "left", "right", lease=1.0) as (left, right):
        await right.subscribe(plain)
        first = left.incarnation
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and right.peers)
        forge(server, right, o=first, n=1, m=b'{"v":1,"t":"tests.note","m":{"source":"me","n":1}}')
        await until(lambda: right.statistics().late == 1)
        assert plain.got == []


async def test_a_peer_that_the_server_has_forgotten_is_lost(server: RedisServer) -> None:
    """X4: it joins again, and one that does not is not waited for; each time."""
    async with buses(server, "left", "right", "third", lease=1.0) as (left, right, third):
        gone: list[str] = []
        left.add_event_handler("on_peer_gone", lambda _bus, peer, reason: gone.append(f"{peer.name}: {reason}"))
        for times in (1, 2):
            server.calls(
                ("ZREM", "{workerbus}:members", right.incarnation), ("DEL", "{workerbus}:inbox:" + right.incarnation)
            )
            await until(lambda: right.statistics().lives == times + 1)  # noqa: B023 - awaited in this very step
            for bus, other in ((left, third), (third, left)):
                there = {right.incarnation, other.incarnation}
                await until(lambda: {peer.incarnation for peer in bus.peers} == there)  # noqa: B023 - the same
            await until(lambda: gone == ["right: the server knows of it no more"] * times)  # noqa: B023 - the same
        assert (left.statistics().lives, third.statistics().lives) == (1, 1)


async def test_all_that_the_server_has_forgotten_are_lost(server: RedisServer) -> None:
    """X4: in one step, as it says who is left."""
    async with buses(server, "left", "right", "third", lease=1.0) as (left, *others):
        gone: list[str] = []
        left.add_event_handler("on_peer_gone", lambda _bus, peer, reason: gone.append(f"{peer.name}: {reason}"))
        server.calls(
            *(("ZREM", "{workerbus}:members", bus.incarnation) for bus in others),
            *(("DEL", "{workerbus}:inbox:" + bus.incarnation) for bus in others),
        )
        await until(lambda: all(bus.statistics().lives == 2 for bus in others))
        await until(lambda: {peer.incarnation for peer in left.peers} == {bus.incarnation for bus in others})
        assert sorted(gone) == [f"{name}: the server knows of it no more" for name in ("right", "third")]


async def test_nobody_asks_who_there_is_where_nothing_is_amiss(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4"""
    asked: list[str] = []
    roll_call = Membership.roll_call

    async def watched(self: Membership, connection: Connection, incarnation: str) -> None:
        asked.append(incarnation)
        await roll_call(self, connection, incarnation)

    async with buses(server, "left", "right", lease=1.0) as both:
        monkeypatch.setattr(Membership, "roll_call", watched)
        for bus in both * 3:
            before = bus.statistics().round_trip
            await until(lambda: bus.statistics().round_trip != before)  # noqa: B023 - awaited in this very step
    assert asked == []


async def test_what_was_pushed_out_of_an_inbox_is_a_gap_whatever_it_was(server: RedisServer) -> None:
    """X3: a notice that somebody has joined, say, whose messages would be those of a stranger."""
    async with buses(server, "left", "right", inbox_size=200) as (left, right):
        gaps: list[str] = []
        right.add_event_handler("on_gap", lambda _bus, text: gaps.append(text))
        inbox, before = "{workerbus}:inbox:" + right.incarnation, right.incarnation
        many = [("XADD", inbox, "MAXLEN", "~", 200, "*", "k", "joined", "p", f"p{number}") for number in range(500)]
        server.calls(("MULTI",), *many, ("EXEC",))
        await until(lambda: right.incarnation != before and left.peers == (Peer("right", right.incarnation),))
        assert right.peers == (Peer("left", left.incarnation),)
        assert gaps == ["200 messages or more waited to be read, and the server keeps no more: some may be missing"]


async def test_a_gap_ends_the_life_of_who_has_it(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """X3: it is told, counted, and the bus joins again."""
    gaps: list[str] = []
    async with buses(server, "left", "right") as (left, right):
        right.add_event_handler("on_gap", lambda _bus, text: gaps.append(text))
        await left.send(note(1))
        forge(server, right, o=left.incarnation, n=7, m=b'{"v":1,"t":"tests.note","m":{"source":"me","n":1}}')
        await until(lambda: right.statistics().lives == 2 and left.peers and right.peers)
        assert right.statistics().gaps == 1
        assert left.statistics().lives == 1
        await until(lambda: gaps)
    assert gaps == ["messages of peer 'left' are missing: 7 came after 1"]
    assert next(record.levelno for record in caplog.records if "are missing" in record.message) == logging.ERROR


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b'{"v":1}', b'{"v":9,"t":"tests.note","m":{}}', b'{"v":1,"t":"x","m":{}}']
)
async def test_a_message_that_is_none_is_skipped_counted_and_kept(server: RedisServer, garbage: bytes) -> None:
    """X1: and the next one arrives."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        await left.send(note(1))
        forge(server, right, o=left.incarnation, n=2, m=garbage)
        await until(lambda: right.statistics().malformed + right.statistics().unknown == 1)
        session = left.session(right.incarnation)
        assert session is not None
        session.sent += 1  # the forged one has taken its number
        await left.send(note(3))
        await plain.until(2)
        await until(lambda: server.call("XLEN", "{workerbus}:refused") == 1)
        assert right.statistics().lives == 1


def lines(*numbers: int) -> bytes:
    """Several messages in one entry."""
    return b"\n".join(b'{"v":1,"t":"tests.note","m":{"source":"me","n":%d}}' % number for number in numbers)


async def test_messages_that_share_an_entry_are_numbered_one_by_one(server: RedisServer) -> None:
    """X1, X3: one that has come before is dropped, and one that is none skipped; the others arrive."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        await left.send(note(1))
        forge(server, right, o=left.incarnation, n=1, l=lines(1, 2) + b"\nnone\n" + lines(4))
        session = left.session(right.incarnation)
        assert session is not None
        session.sent = 4
        await left.send(note(5))
        await plain.until(4)
        assert [message.n for message in plain.got] == [1, 2, 4, 5]  # type: ignore[attr-defined]  # notes
        seen = right.statistics()
        assert (seen.repeated, seen.malformed, seen.lives) == (1, 1, 1)


async def test_nothing_is_taken_of_an_entry_behind_a_gap(server: RedisServer) -> None:
    """X3: it is one for all messages that share it."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        await left.send(note(1))
        forge(server, right, o=left.incarnation, n=3, l=lines(3, 4))
        await until(lambda: right.statistics().lives == 2)
        assert right.statistics().gaps == 1
        assert len(plain.got) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"x": "y"},
        {"o": "nobody", "n": 1, "m": b"{}"},
        {"k": "strange", "p": "x"},
        {"k": "lost"},
        {"k": "joined"},
        {"k": "joined", "p": "", "i": "[[["},
    ],
)
async def test_an_entry_that_says_nothing_harms_nobody(server: RedisServer, fields: dict[str, Any]) -> None:
    """X1"""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        forge(server, right, **(fields or {"": ""}))
        await left.send(note(1))
        await plain.until(1)
        assert [peer.name for peer in right.peers] == ["left"]


def note_line(n: int) -> bytes:
    """A note, as it goes over the wire."""
    return b'{"v":1,"t":"tests.note","m":{"source":"me","n":%d}}' % n


async def test_messages_that_come_again_are_dropped_however_they_share_entries(server: RedisServer) -> None:
    """X2: as where it was not known what had become of the first writing, and a part of it was."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        for first, last in ((1, 3), (1, 3), (2, 5), (5, 5), (1, 5), (4, 8)):
            lines = b"\n".join(map(note_line, range(first, last + 1)))
            forge(server, right, o=left.incarnation, n=first, **({"l": lines} if first < last else {"m": lines}))
        await plain.until(8)
        assert [message.n for message in plain.got if isinstance(message, Note)] == list(range(1, 9))
        assert (right.statistics().repeated, right.statistics().lives) == (3 + 2 + 1 + 5 + 2, 1)


async def test_an_absurd_time_on_the_way_harms_nobody(server: RedisServer) -> None:
    """X1, X7: it counts as none."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        forge(server, right, o=left.incarnation, n=1, w=b"9" * 400, m=request(5.0))
        await plain.until(1)
        (message,) = plain.got
        assert isinstance(message, BusJobRequestMessage)
        assert message.seconds_left is not None
        assert 0 < message.seconds_left <= 5


def request(seconds_left: float) -> bytes:
    """A request for a job, as it goes over the wire."""
    fields = f'"source":"me","target":"it","job_id":"j","job_name":null,"payload":null,"seconds_left":{seconds_left}'
    return b'{"v":1,"t":"bus.job_request","m":{%s}}' % fields.encode()


def server_ms(server: RedisServer) -> int:
    """The server's time, in milliseconds."""
    seconds, microseconds = server.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


@pytest.mark.parametrize("stored", [0.0, 20.0])
@pytest.mark.parametrize("waited", [0.0, 30.0])
async def test_a_job_has_less_time_by_what_its_request_waited_here_and_there(
    server: RedisServer, stored: float, waited: float
) -> None:
    """X7: before it was stored, while there was no server, say, and since, while its receiver read nothing."""
    plain = Plain("it")
    async with buses(server, "left", "right") as (left, right):
        await right.subscribe(plain)
        fields = {b"o": left.incarnation.encode(), b"n": b"1", b"w": b"%d" % (waited * 1000), b"m": request(1000.0)}
        assert right._redis.arrivals.take(server_ms(server) - round(stored * 1000), fields)
        await plain.until(1)
        (message,) = plain.got
        assert isinstance(message, BusJobRequestMessage)
        assert message.seconds_left is not None
        assert message.seconds_left == pytest.approx(1000.0 - stored - waited, abs=8.0)


async def test_a_clock_of_the_server_that_is_set_back_is_noticed_with_the_next_beat(server: RedisServer) -> None:
    """X7, L8: else what is sent now would seem to be old, and a job to have no time left."""
    plain = Plain("it")
    async with buses(server, "left", "right", lease=1.0) as (left, right):
        await right.subscribe(plain)
        right._redis.arrivals._server_time._ahead += 3_600  # type: ignore[operator]  # it was told when it joined
        for _ in range(2):
            before = right.statistics().round_trip
            await until(lambda: right.statistics().round_trip != before)  # noqa: B023 - awaited in this very step
        forge(server, right, o=left.incarnation, n=1, m=request(100.0))
        await plain.until(1)
        (message,) = plain.got
        assert isinstance(message, BusJobRequestMessage)
        assert message.seconds_left is not None
        assert message.seconds_left > 50


async def test_an_end_without_a_target_stays_in_its_process_and_one_from_elsewhere_is_refused(
    server: RedisServer,
) -> None:
    """X9"""
    async with buses(server, "left", "right") as (left, right):
        await left.send(BusEndMessage("now", source="me"))
        assert left.statistics().transmitted == 0
        forge(server, right, o=left.incarnation, n=1, m=b'{"v":1,"t":"bus.end","m":{"source":"me"}}')
        await until(lambda: right.statistics().refused == 1)


async def test_the_name_of_a_worker_is_claimed_and_given_back(server: RedisServer) -> None:
    """X5: the second is refused, and told whose it is."""
    async with buses(server, "left", "right") as (left, right):
        left_runner = WorkerRunner(bus=left, name="L", handle_sigint=False)
        right_runner = WorkerRunner(bus=right, name="R", handle_sigint=False)
        async with left_runner, right_runner:
            first = Helper("w")
            await left_runner.add_workers(first, wait=True)
            with pytest.raises(NameTakenError, match=r"'w' is taken on the network at .* of runner 'left'"):
                await right_runner.add_workers(Helper("w"), wait=True)
            await first.stop()
            await until(lambda: server.call("HGETALL", "{workerbus}:names") == [])
            await right_runner.add_workers(Helper("w"), wait=True)


class Heir(Helper):
    """Adds a worker of a name as soon as it hears that the last one of that name has gone."""

    def __init__(self, name: str, left: str) -> None:
        super().__init__(name)
        self.left = left
        self.errors: list[Exception] = []
        self.added: Helper | None = None

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        self.added = Helper(self.left)
        try:
            await self.add_workers(self.added, wait=True)
        except NameTakenError as exc:
            self.errors.append(exc)


async def test_whoever_hears_that_a_worker_has_gone_may_have_its_name(server: RedisServer) -> None:
    """X5: it is free when that is told, though what claims names is not there at the moment."""
    async with (
        runner_on(RedisBus(server.url), "L") as left,
        runner_on(RedisBus(server.url), "R") as right,
    ):
        worker, heir = Helper("w"), Heir("heir", "w")
        await left.add_workers(worker, wait=True)
        await right.registry.wait_for("w")
        await right.add_workers(heir, wait=True)
        await heir.watch_workers("w")
        cut(server, f"{left.bus.name}:lease")
        await worker.stop()
        await until(lambda: heir.errors or (heir.added and heir.added.started_at))
        assert heir.errors == []


async def test_names_of_workers_that_were_added_before_are_claimed_when_the_bus_opens(server: RedisServer) -> None:
    """X5"""
    async with buses(server, "left") as (left,), WorkerRunner(bus=left, name="L", handle_sigint=False) as runner:
        await runner.add_workers(Helper("w"), wait=True)
        second = WorkerRunner(bus=RedisBus(server.url), name="R", handle_sigint=False)
        await second.add_workers(Helper("w"))
        with pytest.raises(NameTakenError, match="'w' is taken"):
            await second.run()
        await until(lambda: server.call("ZCARD", "{workerbus}:members") == 1)


async def test_nothing_is_left_on_the_server_when_all_have_left(server: RedisServer) -> None:
    """X4"""
    async with (
        buses(server, "left", "right") as (left, right),
        WorkerRunner(bus=left, name="L", handle_sigint=False) as runner,
    ):
        await runner.add_workers(Helper("w"), wait=True)
        await right.send(note(1))
    assert server.call("KEYS", "*") == []


async def test_what_was_sent_before_the_end_is_stored_before_the_bus_leaves(server: RedisServer) -> None:
    """X2, B4"""
    plain = Plain("it")
    async with buses(server, "right") as (right,):
        await right.subscribe(plain)
        async with RedisBus(server.url, name="left") as left:
            for n in range(500):
                left.post(note(n))
        await plain.until(500)
        assert plain.got == [note(n) for n in range(500)]


async def test_a_bus_may_be_opened_again(server: RedisServer) -> None:
    bus = RedisBus(server.url, name="left")
    for _ in range(2):
        async with bus:
            await until(lambda: bus.state == "connected")
            assert bus.statistics().lives == 1
        assert bus.state == "closed"


async def test_a_connection_that_is_lost_is_told_of_and_made_again(server: RedisServer) -> None:
    """X10"""
    heard: list[str] = []
    async with buses(server, "left", "right") as (left, _right):
        await until(lambda: left.state == "connected")
        left.add_event_handler("on_disconnected", lambda _bus, _reason: heard.append("lost"))
        left.add_event_handler("on_connected", lambda _bus: heard.append("found"))
        server.call("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: heard == ["lost", "found"])
        assert left.statistics().connections_lost >= 1
        await left.send(note(1))


async def test_each_connection_that_is_lost_counts_and_an_outage_is_told_once() -> None:
    """X10"""
    heard: list[str] = []
    with redis_running() as server:
        async with buses(server, "left", "right", lease=1.0) as (left, _right), create_task_group() as group:
            await until(lambda: left.state == "connected")
            left.add_event_handler("on_disconnected", lambda _bus, _reason: heard.append("lost"))
            left.add_event_handler("on_connected", lambda _bus: heard.append("found"))
            for outages in (1, 2):
                server.kill()
                group.start_soon(left.send, note(1))
                lost = 3 * outages
                await until(lambda: left.statistics().connections_lost == lost)  # noqa: B023 - awaited in this very step
                server.start()
                await until(lambda: heard == ["lost", "found"] * outages)  # noqa: B023 - the same
            assert left.statistics().connections_lost == 6


async def test_a_runner_is_not_ready_while_its_server_is_away_and_lives() -> None:
    """O2, X10: a new process would find no server, either."""
    with RedisServer() as server:
        async with runner_on(RedisBus(server.url), "r") as runner:
            await until(lambda: runner.health().ready)
            server.kill()
            await until(lambda: runner.health().bus == "disconnected")
            health = runner.health()
            assert (health.live, health.ready, health.reasons) == (True, False, ("its bus is disconnected",))
            server.start()
            await until(lambda: runner.health().ready)


async def test_a_dump_says_that_the_server_is_away_and_what_waits_for_it() -> None:
    """O6, X10"""
    with RedisServer() as server:
        async with runner_on(RedisBus(server.url), "l") as left, runner_on(RedisBus(server.url), "r"):
            await until(lambda: left.health().ready and "with the peers 'r'" in dump())
            server.kill()
            await until(lambda: left.health().bus == "disconnected")
            async with create_task_group() as group:
                group.start_soon(left.bus.send, note(1), name="sends")
                await until(lambda: "task 'sends'\n    waits for a Note" in dump())
                text = dump()
                group.cancel_scope.cancel()
            server.start()
            await until(lambda: left.health().ready)
    away = r"'RedisBus-\S+', which is disconnected"
    assert re.search(
        rf"runner 'l' runs, with 0 workers, on bus {away}, with the peers 'r', messages that are not stored yet: \d+",
        text,
    )
    assert re.search(rf"task 'sends'\n    waits for a Note to all to be stored by the network of bus {away}", text)


async def test_no_server_is_an_error_in_time(server: RedisServer) -> None:
    """X2"""
    bus = RedisBus("redis://127.0.0.1:1", send_timeout=0.1)
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1"):
        async with bus:
            pass
    assert bus.state == "closed"


async def test_a_wrong_password_is_an_error_at_once_that_does_not_repeat_it(server: RedisServer) -> None:
    """X9"""
    bus = RedisBus(f"redis://somebody:secret@127.0.0.1:{server.port}")
    with pytest.raises(RedisSetupError, match="does not take this user and password") as caught:
        async with bus:
            pass
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(bus)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"prefix": ""}, "prefix"),
        ({"prefix": "{a}"}, "prefix"),
        ({"prefix": "a*"}, "prefix"),
        ({"lease": 0.0}, "lease"),
        ({"lease": float("inf")}, "lease"),
        ({"inbox_size": 0}, "inbox_size"),
        ({"send_timeout": 0.0}, "send_timeout"),
        ({"max_arrivals": 0}, "max_arrivals"),
        ({"max_message_size": 0}, "max_message_size"),
    ],
)
def test_arguments_out_of_their_bounds_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RedisBus("redis://localhost", **arguments)


async def test_networks_with_other_prefixes_know_nothing_of_each_other(server: RedisServer) -> None:
    async with RedisBus(server.url, prefix="a") as left, RedisBus(server.url, prefix="b") as right:
        assert left.peers == right.peers == ()
        await until(lambda: server.call("ZCARD", "{a}:members") == 1)


async def test_a_class_that_is_not_known_here_is_reported_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """X1: frames go to all, also to programs without pipelines, and need not be a line in the log each."""
    unknown = b'{"v":1,"t":"tests.unheard","m":{"source":"me"}}'
    frame = b'{"v":1,"t":"bus.frame","m":{"source":"me","direction":1,"frame":{"t":"tests.unseen","id":1,"f":{}}}}'
    async with buses(server, "left", "right") as (left, right):
        for number, data in enumerate([unknown, frame, unknown, frame, unknown], 1):
            forge(server, right, o=left.incarnation, n=number, m=data)
        await until(lambda: right.statistics().unknown == 5)
        await until(lambda: server.call("XLEN", "{workerbus}:refused") == 2)
        assert right.statistics().malformed == 0
        assert right.statistics().lives == 1
    said = [record.getMessage() for record in caplog.records if "skips a message" in record.getMessage()]
    assert [each.partition("there is ")[2][:22] for each in said] == [
        "no class 'tests.unhear",
        "no frame 'tests.unseen",
    ]
