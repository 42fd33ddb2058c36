"""What becomes of a bus whose joining is cut short, or whose answers from the server are lost."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from support.hand_buses import Listener
from support.messages import note
from support.redis_servers import RedisServer, redis_running, until
from support.runners import runner_on
from support.subscribers import Plain
from support.workers import Helper
from workerbus import BusUnavailable, WorkerRunner
from workerbus.redis import RedisBus, RedisSetupError, _lives
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost
from workerbus.redis._life import LifeTrigger
from workerbus.redis._membership import Membership
from workerbus.redis._server_check import check_rights

Then = Callable[[Connection], Awaitable[None]]


async def lose_the_answer(connection: Connection) -> None:
    await connection.aclose()
    raise ConnectionLost(connection.address, "cut by the test", sent=True)


def after_next(monkeypatch: pytest.MonkeyPatch, name: str, then: Then, times: int = 1) -> list[str]:
    """Do something when the server has done what it was asked for next, and before anybody hears of it."""
    done: list[str] = []
    original = getattr(Membership, name)

    async def ask(self: Membership, connection: Connection, *args: Any, **kwargs: Any) -> Any:
        answer = await original(self, connection, *args, **kwargs)
        done.append(args[0])
        if len(done) <= times:
            await then(connection)
        return answer

    monkeypatch.setattr(Membership, name, ask)
    return done


async def hang(_: Connection) -> None:
    await anyio.sleep_forever()


def lose(server: RedisServer, bus: RedisBus) -> None:
    """Let the lease of a bus be over."""
    server.call("ZADD", "{workerbus}:members", 1, bus.incarnation)


def present(server: RedisServer) -> set[str]:
    return {each.decode() for each in server.call("ZRANGE", "{workerbus}:members", 0, -1)}


async def test_a_bus_that_joins_again_does_not_stand_in_its_own_way(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4: its first attempt has come through, and so has its name, but the answer was lost."""
    async with RedisBus(server.url, lease=1.0, name="left") as left, RedisBus(server.url, lease=1.0) as right:
        attempts = after_next(monkeypatch, "join", lose_the_answer)
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and left.peers)
        assert attempts == [left.incarnation, left.incarnation]
        assert present(server) == {left.incarnation, right.incarnation}
        await until(lambda: [peer.incarnation for peer in right.peers] == [left.incarnation])


async def test_a_bus_is_not_kept_out_by_a_former_life_of_its_own(server: RedisServer) -> None:
    """X4: which a server that has come back with old data takes for alive."""
    async with RedisBus(server.url, lease=1.0, name="left") as left, RedisBus(server.url, lease=1.0) as right:
        first = left.incarnation
        info, reports = server.call("HGET", "{workerbus}:info", first), Listener(left)
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and left.peers and right.peers)
        second = left.incarnation
        server.calls(
            ("MULTI",),
            ("ZADD", "{workerbus}:members", 10**15, first),  # it does not run out meanwhile
            ("ZREM", "{workerbus}:members", second),
            ("HSET", "{workerbus}:info", first, info),
            ("HDEL", "{workerbus}:info", second),
            ("HSET", "{workerbus}:runners", "left", first),
            ("EXEC",),
        )
        await until(lambda: left.statistics().lives == 3 and left.peers)
        assert present(server) == {left.incarnation, right.incarnation}
        await until(lambda: [peer.incarnation for peer in right.peers] == [left.incarnation])
        assert not [each for each in reports.heard if "has joined under the name" in str(each)]


async def test_names_are_claimed_again_without_another_life(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5: where the answer to the claims was lost, again and again."""
    left = RedisBus(server.url, lease=1.0)
    async with WorkerRunner(bus=left, name="left") as runner, RedisBus(server.url, lease=1.0):
        await runner.add_workers(Helper("worker"))
        claims = after_next(monkeypatch, "claim", lose_the_answer, times=3)
        lose(server, left)
        await until(lambda: len(claims) == 4)
        assert claims == [left.incarnation] * 4
        assert left.statistics().lives == 2
        assert server.call("HGET", "{workerbus}:names", "worker") == left.incarnation.encode()


async def test_each_name_that_another_has_taken_meanwhile_is_told(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5: to the runner whose workers have those names; one that nobody has taken stays theirs."""
    left, right = (RedisBus(server.url, lease=1.0, name=name) for name in ("left", "right"))
    errors: list[str] = []
    async with right, WorkerRunner(bus=left, name="left") as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        await runner.add_workers(*(Helper(name) for name in ("u", "v", "w")))

        async def take(_: Connection) -> None:
            server.call("HSET", "{workerbus}:names", "u", right.incarnation, "w", right.incarnation)

        after_next(monkeypatch, "join", take)
        lose(server, left)
        await until(lambda: left.statistics().lives == 2 and server.call("HGET", "{workerbus}:names", "v"))
        await until(lambda: len([each for each in errors if "name" in each]) == 2)
        assert server.call("HGET", "{workerbus}:names", "v") == left.incarnation.encode()
    told = sorted(each for each in errors if "name" in each)
    assert ("'u'" in told[0], "'w'" in told[1]) == (True, True)


async def test_the_name_of_a_worker_that_leaves_while_its_bus_joins_again_is_free(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5: and those of the others are not."""
    async with (
        RedisBus(server.url, lease=1.0),
        RedisBus(server.url, lease=1.0) as bus,
        runner_on(bus, "left") as runner,
    ):
        leaves, stays = Helper("leaves"), Helper("stays")
        await runner.add_workers(leaves, stays, wait=True)
        after_next(monkeypatch, "join", lambda _: leaves.stop())
        lose(server, bus)
        await until(lambda: server.call("HGETALL", "{workerbus}:names") == [b"stays", bus.incarnation.encode()])
        assert bus.statistics().lives == 2
        await runner.add_workers(Helper("leaves"), wait=True)


async def test_names_are_claimed_and_given_back_in_each_life(server: RedisServer) -> None:
    """X5"""
    async with (
        RedisBus(server.url, lease=1.0),
        RedisBus(server.url, lease=1.0) as bus,
        runner_on(bus, "left") as runner,
    ):
        for lives in (1, 2, 3):
            worker = Helper("w")
            await runner.add_workers(worker, wait=True)
            assert server.call("HGETALL", "{workerbus}:names") == [b"w", bus.incarnation.encode()]
            await worker.stop()
            await until(lambda: server.call("HGETALL", "{workerbus}:names") == [])
            lose(server, bus)
            await until(lambda: bus.statistics().lives == lives + 1 and bus.peers)  # noqa: B023 - awaited in this very step


async def test_a_bus_leaves_the_network_however_long_it_was_there(server: RedisServer) -> None:
    """X4, L4: for leaving it has a second, from then on."""
    async with RedisBus(server.url, lease=1.0) as bus:
        begun = anyio.current_time()
        while anyio.current_time() < begun + _lives._LEAVE_SECONDS:
            round_trip = bus.statistics().round_trip
            await until(lambda: bus.statistics().round_trip != round_trip)  # noqa: B023 - awaited in this very step
    assert server.call("KEYS", "*") == []


async def test_a_name_is_claimed_though_the_server_is_a_replica_for_a_while() -> None:
    """X2, X5: as after a failover; the claim is made again where there is a master."""
    with redis_running() as server:
        async with RedisBus(server.url) as bus, runner_on(bus, "R") as runner:
            await until(lambda: bus.state == "connected")
            server.call("REPLICAOF", "127.0.0.1", "1")

            async def comes_back() -> None:
                await until(lambda: bus.state == "disconnected")
                server.call("REPLICAOF", "NO", "ONE")

            async with anyio.create_task_group() as group:
                group.start_soon(comes_back)
                await runner.add_workers(Helper("w"), wait=True)
            assert server.call("HGET", "{workerbus}:names", "w") == bus.incarnation.encode()


async def test_an_answer_to_the_first_claims_that_is_lost_is_no_reason_for_another_life(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4, X5, X10: those who are there meet it once."""
    met: list[str] = []
    async with RedisBus(server.url, name="right") as right:
        right.add_event_handler("on_peer_joined", lambda _, peer: met.append(peer.incarnation))
        claims = after_next(monkeypatch, "claim", lose_the_answer)
        bus = RedisBus(server.url)
        runner = WorkerRunner(bus=bus, name="left", handle_sigint=False)
        await runner.add_workers(Helper("w"))
        async with runner:
            await until(lambda: met)
            assert claims == [bus.incarnation] * 2
            assert (met, bus.statistics().lives) == ([bus.incarnation], 1)
            assert len(bus.peers) == 1


async def test_rights_are_looked_at_again_where_the_connection_was_lost_meanwhile(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X9: one that is missing is told at the start all the same."""
    looked: list[str] = []

    async def looks(connection: Connection, inbox: str) -> None:
        looked.append(inbox)
        if len(looked) == 1:
            await lose_the_answer(connection)
        await check_rights(connection, inbox)

    monkeypatch.setattr(_lives, "check_rights", looks)
    server.add_user("member", "secret", "~{workerbus}:*", "+@all", "-xtrim")
    with pytest.raises(RedisSetupError, match="xtrim"):
        async with RedisBus(server.url.replace("redis://", "redis://member:secret@")):
            pytest.fail("it has opened")
    assert len(looked) == 2


async def test_a_bus_that_is_closed_while_its_server_hangs_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1, L4, X5: not for what it was to keep for the operator, nor for names that are claimed or given back."""
    monkeypatch.setattr(_lives, "_LEAVE_SECONDS", 0.1)
    outcomes: list[BaseException] = []
    with redis_running() as server:
        async with anyio.create_task_group() as group:

            async def claim(bus: RedisBus, name: str) -> None:
                try:
                    await bus.claim(name)
                except BusUnavailable as exc:
                    outcomes.append(exc)

            async with RedisBus(server.url) as bus:
                await until(lambda: bus.state == "connected")
                server.freeze()
                bus._redis._keep(("from", "x"))
                with anyio.move_on_after(0.01):
                    await bus.claim("cut short")
                bus.release("cut short")
                group.start_soon(claim, bus, "under way")
                await anyio.wait_all_tasks_blocked()
        server.thaw()
    assert ["it is closing" in str(each) for each in outcomes] == [True]


@pytest.mark.slow
async def test_a_send_ends_with_its_bus_though_the_server_hangs() -> None:
    """X2, L1: and not when its own time is over."""
    with redis_running() as server, anyio.fail_after(15):
        async with RedisBus(server.url) as right, anyio.create_task_group() as group:

            async def send(bus: RedisBus) -> None:
                with pytest.raises(BusUnavailable) as caught:
                    await bus.send(note(1, target="it"))
                assert caught.value.maybe_stored

            async with RedisBus(server.url, send_timeout=1000.0) as left:
                await until(lambda: left.peers and right.peers and left.state == "connected")
                server.freeze()
                group.start_soon(send, left)
                await until(lambda: left.statistics().unsent)
            server.thaw()


async def test_what_is_sent_between_two_lives_goes_out_with_the_next(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: it waits until then, and is stored when its send returns."""
    plain = Plain("it")
    async with (
        RedisBus(server.url, lease=1.0, name="left") as left,
        RedisBus(server.url, lease=1.0) as right,
        anyio.create_task_group() as group,
    ):
        await right.subscribe(plain)
        await until(lambda: left.peers and right.peers)

        async def send(target: str | None) -> None:
            await left.send(note(1, target=target))

        async def send_both(_: Connection) -> None:
            group.start_soon(send, None)
            group.start_soon(send, "it")
            await anyio.wait_all_tasks_blocked()

        after_next(monkeypatch, "join", send_both)
        lose(server, left)
        await plain.until(2)
        assert left.statistics().lives == 2


async def test_a_bus_that_is_cancelled_while_it_joins_leaves_nothing(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4: though it does not know whether it has joined."""
    joined = after_next(monkeypatch, "join", hang)

    async def open_it() -> None:
        async with RedisBus(server.url):
            pytest.fail("it has not joined")

    async with anyio.create_task_group() as group:
        group.start_soon(open_it)
        await until(lambda: joined)
        group.cancel_scope.cancel()
    assert server.call("KEYS", "*") == []


async def test_a_bus_that_is_closed_while_it_joins_again_leaves_nothing(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4: neither of its old incarnation nor of its new one."""
    async with AsyncExitStack() as stack:
        right = await stack.enter_async_context(RedisBus(server.url, lease=1.0))
        async with RedisBus(server.url, lease=1.0) as left:
            joined = after_next(monkeypatch, "join", hang)
            lose(server, left)
            await until(lambda: joined)
            assert present(server) == {joined[0], right.incarnation}
        assert present(server) == {right.incarnation}
    assert server.call("KEYS", "*") == []


async def test_processes_with_different_leases_are_warned_of(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """X10: the shortest one counts for all."""
    async with RedisBus(server.url, lease=20.0, name="long"), RedisBus(server.url, lease=20.0, name="same"):
        assert "lease" not in caplog.text
        async with RedisBus(server.url, lease=10.0, name="short"):
            pass
    assert "bus 'short' has a lease of 10 s, and others have another one" in caplog.text
    assert "'long': 20.0" in caplog.text


@pytest.mark.parametrize("lease", [0.1, 2.0, 100.0])
async def test_a_bus_without_a_server_tries_again_several_times_in_a_lease(server: RedisServer, lease: float) -> None:
    """X4: the first one that is back is no reason for the others to be lost."""
    async with RedisBus(server.url, lease=lease) as bus:
        for connection in bus._redis.lives._connections:
            assert connection._backoff.maximum <= min(lease / 4, 1.0)


@pytest.mark.parametrize("right", ["-xadd", "-xread", "-xtrim", "-xlen", "-multi", "-evalsha", "resetkeys"])
async def test_a_right_that_is_missing_is_told_at_the_start(server: RedisServer, right: str) -> None:
    """X9: by an error of the set-up, and not when something is sent; nothing is left behind."""
    server.add_user("member", "secret", "~{workerbus}:*", "+@all")
    server.call("ACL", "SETUSER", "member", right)
    url = server.url.replace("redis://", "redis://member:secret@")
    with pytest.raises(RedisSetupError, match=r"[Nn]o permission") as caught:
        async with RedisBus(url):
            pytest.fail("it has opened")
    assert caught.value.code == "NOPERM"
    assert "secret" not in str(caught.value)
    assert server.call("KEYS", "*") == []


async def test_a_server_that_takes_nothing_in_time_is_unavailable_at_the_start() -> None:
    """X2: as one that is full."""
    with redis_running() as server:
        server.config_set("maxmemory", "1")
        with pytest.raises(BusUnavailable, match=r"could not be opened: the server at 127\.0\.0\.1:\d+ says OOM"):
            async with RedisBus(server.url, send_timeout=0.5):
                pytest.fail("it has opened")


async def test_a_server_that_takes_nothing_for_a_moment_is_waited_for_at_the_start() -> None:
    """X2: until there is room."""
    with redis_running() as server:
        server.config_set("maxmemory", "1")

        async def make_room() -> None:
            await until(lambda: server.clients(name="it:lease"))
            server.config_set("maxmemory", "0")

        async with anyio.create_task_group() as group:
            group.start_soon(make_room)
            async with RedisBus(server.url, name="it") as bus:
                assert bus.state == "connected" or bus.is_alive


@pytest.mark.parametrize("name", ["join", "claim"])
async def test_a_connection_that_is_lost_at_the_start_is_made_again(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """X2: and the same life goes on."""
    done = after_next(monkeypatch, name, lose_the_answer)
    async with RedisBus(server.url, name="it") as bus:
        runner = WorkerRunner(bus=bus, name="R", handle_sigint=False)
        async with runner:
            await runner.add_workers(Helper("w"))
            assert server.call("ZCARD", "{workerbus}:members") == 1
            assert server.call("HGET", "{workerbus}:names", "w") == bus.incarnation.encode()
    assert len(set(done)) == 1


async def test_a_server_that_does_not_answer_at_the_start_is_unavailable(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: and is left, in case it has done what it was asked for."""
    after_next(monkeypatch, "join", hang)
    with pytest.raises(BusUnavailable, match=r"could not be opened: no connection .* it does not answer"):
        async with RedisBus(server.url, send_timeout=0.5):
            pytest.fail("it has opened")
    assert server.call("KEYS", "*") == []


async def test_what_waits_to_be_written_when_a_life_ends_is_not_written_in_the_next() -> None:
    """X3, X4: its session is over, and its sender is told. What is being written may have been stored."""
    plain = Plain("it")
    with redis_running() as server:
        async with RedisBus(server.url, lease=5.0, name="left") as left, RedisBus(server.url, lease=5.0) as right:
            await right.subscribe(plain)
            await until(lambda: left.peers and right.peers)
            server.freeze()
            written = left.transmit(note(0, target="it"), left.peers)
            await until(lambda: written.written)
            waits = left.transmit(note(1, target="it"), left.peers)
            left._redis.lives.over(LifeTrigger.FENCE, "by the test")
            await waits.wait()
            server.thaw()
            assert isinstance(waits.error, BusUnavailable)
            await until(lambda: left.statistics().lives == 2 and left.peers)
            await left.send(note(2, target="it"))
            await until(lambda: note(2, target="it") in plain.got)
    assert note(1, target="it") not in plain.got


async def test_a_name_whose_claim_has_taken_too_long_is_free(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5: though the server has claimed it for whoever has given up waiting."""
    async with RedisBus(server.url, send_timeout=0.3) as bus, runner_on(bus, "R") as runner:
        claims = after_next(monkeypatch, "claim", hang)
        with pytest.raises(BusUnavailable, match=r"claim the name 'w': no answer within 0\.3 s"):
            await runner.add_workers(Helper("w"))
        assert claims
        await until(lambda: server.call("HGETALL", "{workerbus}:names") == [])
        await runner.add_workers(Helper("w"))
        assert server.call("HGET", "{workerbus}:names", "w") == bus.incarnation.encode()


def denied(server: RedisServer) -> int:
    """How often somebody was not let in."""
    entries = [dict(zip(each[::2], each[1::2], strict=True)) for each in server.call("ACL", "LOG")]
    return sum(int(each[b"count"]) for each in entries if each[b"reason"] == b"auth")


@pytest.mark.slow
async def test_what_keeps_the_bus_from_connecting_is_told_once_each_time(server: RedisServer) -> None:
    """X10: though three connections try again, each for itself."""
    errors: list[str] = []
    server.add_user("member", "secret")
    bus = RedisBus(server.url.replace("redis://", "redis://member:secret@"), lease=1.0)
    async with bus, runner_on(bus, "R") as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        for times in (1, 2):
            await until(lambda: bus.state == "connected")
            server.calls(("ACL", "LOG", "RESET"), ("ACL", "SETUSER", "member", "<secret"))
            server.call("CLIENT", "KILL", "USER", "member")
            await until(lambda: denied(server) > 6)
            await until(lambda: len(errors) == times)  # noqa: B023 - awaited in this very step
            server.call("ACL", "SETUSER", "member", ">secret")
            await until(lambda: bus.state == "connected")
            round_trip = bus.statistics().round_trip
            await until(lambda: bus.statistics().round_trip != round_trip)  # noqa: B023 - the same
    assert len(errors) == 2
    assert all("does not take this user and password" in each for each in errors)


def rejected(server: RedisServer, command: str) -> int:
    """How often a command was refused for want of a right."""
    found = re.search(rf"cmdstat_{command}:.*rejected_calls=(\d+)", server.call("INFO", "commandstats").decode())
    return int(found[1]) if found else 0


@pytest.mark.slow
async def test_what_the_server_refuses_again_and_again_is_told_once_each_time(server: RedisServer) -> None:
    """X10: rights may be taken away, given back, and taken away again."""
    server.add_user("member", "secret", "~{workerbus}:*", "+@all")
    errors: list[str] = []
    bus = RedisBus(server.url.replace("redis://", "redis://member:secret@"), lease=1.0)
    async with bus, runner_on(bus, "R") as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        for times in (1, 2):
            before = rejected(server, "evalsha")
            server.call("ACL", "SETUSER", "member", "-evalsha")
            await until(lambda: rejected(server, "evalsha") > before + 2)  # noqa: B023 - awaited in this very step
            await until(lambda: len(errors) == times)  # noqa: B023 - the same
            server.call("ACL", "SETUSER", "member", "+evalsha")
            round_trip = bus.statistics().round_trip
            await until(lambda: bus.statistics().round_trip != round_trip)  # noqa: B023 - the same
    assert len(errors) == 2
    assert all("NOPERM" in each for each in errors)
