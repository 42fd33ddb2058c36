"""X2, X4: servers that are killed, frozen, full or of no use for a while, and networks that drop and cut, under way."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from support.processes import LEASE, OTHER, Host, Hosts
from support.proxies import Proxy
from support.redis_servers import RedisServer


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that a test may do with as it likes.

    With ``appendfsync everysec``, one that is killed while its disk is slow may lose what it has confirmed just before.
    """
    with RedisServer(appendfsync="always") as server:
        yield server


@asynccontextmanager
async def two_processes(url: str, backend: str, **bus: object) -> AsyncIterator[tuple[Host, Host]]:
    """One that asks and sends, on another backend than the clerk's."""
    async with Hosts(url, **bus) as hosts:
        there = await hosts.start("there", backend, {"clerk": "Clerk"})
        here = await hosts.start("here", OTHER[backend], {"assistant": "Clerk"})
        await here.tell("wait_for", worker="clerk")
        await here.said("found")
        await there.tell("wait_for", worker="assistant")
        await there.said("found")
        yield here, there


def lost_nobody(*hosts: Host) -> bool:
    return not any(host.has_said("on_peer_gone") or host.has_said("on_fenced") for host in hosts)


async def flood(here: Host, there: Host, messages: int, jobs: int) -> None:
    """Begin to send messages, both ways, and to ask for jobs."""
    await here.tell("send_many", target="clerk", count=messages, confirmed=False)
    await there.tell("send_many", target="assistant", count=messages, confirmed=False)
    await here.tell("ask_many", worker="clerk", count=jobs, at_once=20, timeout=None)
    await here.ask("clerk", "count", key="updates", updates=messages)
    await here.ask("clerk", "stream", key="stream", chunks=messages)


async def assert_all_came(here: Host, there: Host, messages: int, jobs: int) -> None:
    """Lost 0, doubled 0, order kept, and all jobs done once."""
    await here.said("sent all")
    await there.said("sent all")
    for key in ("updates", "stream"):
        answered = await here.said("answered", key=key)
        assert (answered["outcome"], answered["updates"]) == ("completed", {"last": messages, "in_order": True})
    asked = await here.said("asked all")
    assert (asked["right"], asked["wrongs"]) == (jobs, 0), asked
    await here.reported("clerk", here.sender, messages)
    await there.reported("assistant", there.sender, messages)
    assert not here.has_said("done twice")
    assert not there.has_said("done twice")
    assert lost_nobody(here, there)


async def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    own_server: RedisServer, backend: str
) -> None:
    """X2: in the middle of 5,000 messages and 1,000 jobs."""
    async with two_processes(own_server.url, backend) as (here, there):
        await flood(here, there, 2500, 1000)
        await here.said("asked", number=200)
        own_server.restart()
        await assert_all_came(here, there, 2500, 1000)


@pytest.mark.slow
async def test_a_server_may_be_killed_several_times(own_server: RedisServer, backend: str) -> None:
    """X2: each time in the middle of what is sent."""
    async with two_processes(own_server.url, backend) as (here, there):
        await flood(here, there, 2500, 2500)
        for number in (200, 600, 1000, 1400):
            await here.said("asked", number=number)
            own_server.restart()
        await assert_all_came(here, there, 2500, 2500)


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.slow
async def test_nobody_is_lost_because_the_server_was_away(own_server: RedisServer, backend: str, how: str) -> None:
    """X4: for two leases; jobs that were under way go on, and what was sent meanwhile comes."""
    lease = 2 * LEASE  # in which a process speaks on a busy machine, too
    async with two_processes(own_server.url, backend, lease=lease) as (here, there):
        await here.ask("clerk", "hold", key="held")
        await there.said("holds")
        if how == "killed":
            own_server.kill()
            await here.said("on_disconnected")
        else:
            own_server.freeze()
        await flood(here, there, 100, 10)
        await anyio.sleep(2 * lease)
        if how == "killed":
            own_server.start()
        else:
            own_server.thaw()
        await assert_all_came(here, there, 100, 10)
        await there.tell("go", worker="clerk")
        assert (await here.said("answered", key="held"))["response"] == {"let go": True}
        assert lost_nobody(here, there)


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.slow
async def test_a_send_that_cannot_be_stored_in_time_says_so(own_server: RedisServer, backend: str, how: str) -> None:
    """X2: whatever is queued before it; and whether it may have been stored."""
    async with two_processes(own_server.url, backend, send_timeout=0.5) as (here, _):
        if how == "killed":
            own_server.kill()
            await here.said("on_disconnected")
        else:
            own_server.freeze()
        await here.tell("send_many", target="clerk", count=1000, confirmed=False)
        await here.said("sent all")
        await here.tell("send", target="clerk", number=5000)
        failed = await here.said("unavailable")
        assert 0.4 < failed["seconds"] < 10.0
        assert "its send_timeout of 0.5 s was over" in failed["error"]
        assert failed["maybe"] is False
        if how == "killed":
            own_server.start()
        else:
            own_server.thaw()
        await here.reported("clerk", here.sender, 1000)


@pytest.mark.slow
async def test_a_job_whose_time_is_over_while_the_server_is_away_does_not_stay(
    own_server: RedisServer, backend: str
) -> None:
    """J5, J6: the requester is told in time, and the handler that hears of it later does not go on."""
    async with two_processes(own_server.url, backend) as (here, there):
        own_server.kill()
        await here.said("on_disconnected")
        await here.ask("clerk", "hold", timeout=0.3)
        answered = await here.said("answered")
        assert "timeout" in answered["error"]
        assert 0.2 < answered["seconds"] < 30.0
        own_server.start()
        await here.ask("clerk", "add", key="later", number=1)
        await here.said("answered", key="later")
        assert not there.has_said("holds") or await there.said("unwound")
        assert (await there.statistics())["in_flight"] == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.slow
async def test_a_process_ends_in_time_though_the_server_is_away(
    own_server: RedisServer, backend: str, how: str
) -> None:
    """L4: what it could not send any more is lost, and it says so."""
    async with two_processes(own_server.url, backend) as (here, there):
        await here.ask("clerk", "hold")
        await there.said("holds")
        if how == "killed":
            own_server.kill()
            await here.said("on_disconnected")
        else:
            own_server.freeze()
        await here.tell("send_many", target="clerk", count=100, confirmed=False)
        await here.said("sent all")
        began = anyio.current_time()
        await here.tell("end")
        await here.said("ended")
        assert anyio.current_time() - began < 20.0
        assert "could not leave the network" in here.log
        if how == "frozen":
            own_server.thaw()  # for the other one


@pytest.mark.slow
async def test_a_process_may_start_before_the_server_does(own_server: RedisServer, backend: str) -> None:
    """X2: within the time that it has for sending."""
    own_server.kill()
    async with Hosts(own_server.url, send_timeout=1.0) as hosts:
        late = await hosts.launch("late", backend)
        raised = await late.said("raised")
        assert raised["type"] == "BusUnavailable"
        assert "could not be opened: no connection to the Redis server at 127.0.0.1" in raised["error"]
        early = await hosts.launch("early", OTHER[backend], send_timeout=60.0)
        await early.said("opens")
        own_server.start()
        await early.said("ready")


@pytest.mark.slow
async def test_a_process_that_is_cut_off_for_longer_than_its_lease_is_fenced(
    own_server: RedisServer, backend: str
) -> None:
    """X4: what it was asked is answered, what it does is cancelled when it learns so, and it works again."""
    async with Proxy(own_server.port) as proxy, Hosts(own_server.url, lease=LEASE) as hosts:
        there = await hosts.start("there", backend, {"clerk": "Clerk"}, url=proxy.url)
        here = await hosts.start("here", OTHER[backend], {"assistant": "Clerk"})
        await here.ask("clerk", "hold", key="held")
        await there.said("holds")
        await there.ask("assistant", "hold", key="also held")
        await here.said("holds")
        proxy.drop_requests()
        held = await here.said("answered", key="held")
        assert held["outcome"] == "error"
        assert "its lease ran out" in held["error"]
        await here.said("unwound")
        assert not there.has_said("on_fenced")
        await proxy.cut()
        await there.said("on_fenced")
        await there.said("unwound")
        assert (await there.said("answered", key="also held"))["outcome"] == "error"
        await here.ask("clerk", "add", key="again", number=1)
        assert (await here.said("answered", key="again"))["outcome"] == "completed"


@pytest.mark.slow
async def test_what_is_stored_without_anybody_knowing_is_not_doubled(own_server: RedisServer, backend: str) -> None:
    """X2: a network that drops the server's acknowledgements, again and again."""
    async with Proxy(own_server.port) as proxy, two_processes(proxy.url, backend) as (here, there):
        await flood(here, there, 2500, 1000)
        for number in (200, 400, 600):
            await here.said("asked", number=number)
            proxy.drop_replies(after=40)
            await here.tell("send_many", target="nobody", count=1, confirmed=False)
            await anyio.sleep(0.05)
            await proxy.cut()
        await assert_all_came(here, there, 2500, 1000)
        assert (await here.statistics())["retries"] + (await there.statistics())["retries"] > 0


@pytest.mark.slow
async def test_connections_that_are_killed_all_the_time_lose_nothing(own_server: RedisServer, backend: str) -> None:
    """X2: CLIENT KILL again and again, while thousands of messages flow."""
    async with two_processes(own_server.url, backend) as (here, there):
        await flood(here, there, 6000, 4000)
        killed = 0
        for number in range(400, 4000, 400):
            await here.said("asked", number=number)
            killed += own_server.call("CLIENT", "KILL", "TYPE", "normal")
        assert killed > 6
        await assert_all_came(here, there, 6000, 4000)


@pytest.mark.slow
async def test_what_a_full_server_refuses_waits_until_there_is_room(own_server: RedisServer, backend: str) -> None:
    """X2: it answers OOM; nothing is lost, and it is reported."""
    async with two_processes(own_server.url, backend) as (here, there):
        own_server.config_set("maxmemory", "1")
        await flood(here, there, 500, 50)
        assert "OOM" in (await here.said("on_error"))["error"]
        own_server.config_set("maxmemory", "0")
        await assert_all_came(here, there, 500, 50)


@pytest.mark.slow
async def test_a_server_that_is_a_replica_for_a_while_loses_nothing(own_server: RedisServer, backend: str) -> None:
    """X2: it answers READONLY, as one does after a failover that goes back."""
    async with two_processes(own_server.url, backend) as (here, there):
        await here.tell("send_many", target="clerk", count=200, confirmed=False)
        await here.reported("clerk", here.sender, 200)
        own_server.call("REPLICAOF", "127.0.0.1", "1")  # where nobody is: it keeps its data, and takes no more
        await here.tell("send_many", target="clerk", first=201, count=300, confirmed=False)
        await here.said("on_disconnected")
        own_server.call("REPLICAOF", "NO", "ONE")
        await here.reported("clerk", here.sender, 500)
        assert lost_nobody(here, there)


@pytest.mark.slow
async def test_rights_that_are_taken_away_and_given_back_lose_nothing(own_server: RedisServer, backend: str) -> None:
    """X2, X10: what cannot be stored waits, and is reported."""
    own_server.add_user("worker", "secret", "~*", "&*", "+@all")
    url = own_server.url.replace("redis://", "redis://worker:secret@")
    async with two_processes(url, backend) as (here, there):
        own_server.call("ACL", "SETUSER", "worker", "-xadd")
        await flood(here, there, 200, 20)
        assert "xadd" in (await here.said("on_error"))["error"].lower()
        own_server.call("ACL", "SETUSER", "worker", "+xadd")
        await assert_all_came(here, there, 200, 20)


@pytest.mark.slow
async def test_a_password_that_is_changed_and_changed_back_loses_nothing(own_server: RedisServer, backend: str) -> None:
    """X2, X9: connections that are made meanwhile are refused, and made again."""
    own_server.add_user("worker", "secret", "~*", "&*", "+@all")
    url = own_server.url.replace("redis://", "redis://worker:secret@")
    async with two_processes(url, backend) as (here, there):
        own_server.call("ACL", "SETUSER", "worker", "resetpass", ">other")
        own_server.call("CLIENT", "KILL", "USER", "worker")
        await flood(here, there, 200, 20)
        error = (await here.said("on_error"))["error"]
        assert "cannot be used" in error
        assert "secret" not in here.log
        own_server.call("ACL", "SETUSER", "worker", "resetpass", ">secret")
        await assert_all_came(here, there, 200, 20)


async def test_a_wrong_password_is_told_at_the_start(own_server: RedisServer, backend: str) -> None:
    """X9: by an error that names the server and not the password."""
    own_server.add_user("worker", "secret", "~*", "&*", "+@all")
    url = own_server.url.replace("redis://", "redis://worker:wrong-one@")
    async with Hosts(url) as hosts:
        host = await hosts.launch("here", backend)
        raised = await host.said("raised")
        assert raised["type"] == "RedisSetupError"
        assert str(own_server.port) in raised["error"]
        assert "wrong-one" not in raised["error"] + host.log


@pytest.mark.slow
async def test_settings_that_would_lose_data_are_warned_of_at_the_start(backend: str) -> None:
    """X10: an eviction policy, and no append-only file."""
    with RedisServer(appendonly="no", maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        async with Hosts(server.url) as hosts:
            host = await hosts.start("here", backend)
            assert "maxmemory-policy is 'allkeys-lru'" in host.log
            assert "appendonly is 'no'" in host.log
