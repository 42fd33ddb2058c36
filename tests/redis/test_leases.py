"""Who is lost, who is not, and by which clock; no test waits for a lease to run out."""

import pytest

from support.proxies import Proxy
from support.redis_members import LEASE, PREFIX, Members
from support.redis_servers import RedisServer, redis_running
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._opening import connect
from workerbus.redis._scripts import LOST_AT_ONCE
from workerbus.redis._settings import RedisSettings


async def joined(members: Members, *incarnations: str) -> None:
    for incarnation in incarnations:
        await members.join(incarnation)


async def test_a_beat_renews_the_lease(members: Members) -> None:
    """X4: by the server's clock."""
    await joined(members, "a1", "b1")
    members.has_been_silent("a1", LEASE * 0.9)
    beat = await members.membership.beat(members.connection, "a1")
    assert (beat.alive, beat.members, beat.lost) == (True, 2, 0)
    assert members.now() - 5000 < beat.now <= members.now()
    assert members.silence("a1") < 5


async def test_a_beat_says_how_long_the_inbox_is(members: Members) -> None:
    """X10."""
    await joined(members, "a1", "b1", "c1")
    assert (await members.membership.beat(members.connection, "a1")).inbox == 3  # its own beginning, b1, c1


@pytest.mark.parametrize("by", ["beat", "join"])
async def test_who_is_silent_for_longer_than_the_lease_is_lost(members: Members, by: str) -> None:
    """X4: with the next beat of anybody, or when somebody joins; all others are told, and why."""
    await joined(members, "a1", "b1", "c1")
    await members.claim("b1", "worker")
    members.has_been_silent("b1", LEASE + 0.1)
    if by == "beat":
        beat = await members.membership.beat(members.connection, "a1")
        assert (beat.alive, beat.members, beat.lost) == (True, 2, 1)
    else:
        await members.join("d1")
    others = [] if by == "beat" else ["joined d1"]
    assert members.news("a1") == ["joined b1", "joined c1", "lost b1", *others]
    assert members.news("c1") == ["lost b1", *others]
    assert members.notices("c1")[0].reason == "its lease ran out"
    assert members.membership.inbox("b1") not in members.all_keys()
    assert await members.claim("a1", "worker") == {}


async def test_nobody_is_lost_because_the_server_was_started_anew_several_times(members: Members) -> None:
    """X4: each time for less than half a lease, and one member was never there in between."""
    await joined(members, "a1", "b1", "c1")
    members.has_been_silent("b1", LEASE + 1)
    members.server.call("SET", f"{{{PREFIX}}}:server", "the run id of an earlier one")
    beat = await members.membership.beat(members.connection, "a1")
    assert (beat.alive, beat.members, beat.lost) == (True, 3, 0)
    members.has_been_silent("b1", LEASE + 1)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1, "from then on it is on its own"


async def test_a_server_that_does_not_say_who_it_is_is_taken_for_the_same(members: Members) -> None:
    """X9: the right to INFO is not needed."""
    await joined(members, "a1", "b1")
    members.server.add_user("member", "secret", "~*", "+@all", "-info")
    url = members.server.url.replace("redis://", "redis://member:secret@")
    connection = await connect(RedisSettings.parse(url))
    try:
        members.has_been_silent("b1", LEASE + 1)
        members.server.call("SET", f"{{{PREFIX}}}:server", "another")
        assert (await members.membership.beat(connection, "a1")).lost == 1
    finally:
        await connection.aclose()


async def test_who_is_silent_for_less_is_not(members: Members) -> None:
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", LEASE - 1)
    assert await members.alive("a1")
    assert members.present() == {"a1", "b1"}


async def test_a_loss_stands_behind_all_that_the_lost_one_has_written(members: Members) -> None:
    """X4: so that it is told only when all that was read."""
    await joined(members, "a1", "b1")
    inbox = members.membership.inbox("a1")
    for number in range(3):
        members.server.call("XADD", inbox, "NOMKSTREAM", "*", "o", "b1", "n", number, "m", "hello")
    members.has_been_silent("b1", LEASE + 1)
    await members.alive("a1")
    entries = [fields[1] for _, fields in members.server.call("XRANGE", inbox, "-", "+")]
    assert entries == [b"joined", b"joined", b"b1", b"b1", b"b1", b"lost"]


async def test_who_was_declared_lost_learns_so_with_its_next_beat(members: Members) -> None:
    """X4: it is fenced: nothing that it asks for brings it back."""
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", LEASE + 1)
    await members.alive("a1")
    keys = members.all_keys()
    beat = await members.membership.beat(members.connection, "b1")
    assert (beat.alive, beat.members, beat.inbox) == (False, 1, 0)
    assert await members.claim("b1", "worker") is None
    await members.release("b1", "worker")
    assert not await members.leave("b1")
    assert (members.present(), members.all_keys()) == ({"a1"}, keys)
    assert members.news("a1") == ["joined b1", "lost b1"]


async def test_who_is_no_member_declares_nobody_lost(members: Members) -> None:
    """X4: it changes nothing at all."""
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", LEASE + 1)
    assert not await members.alive("stranger")
    assert members.present() == {"a1", "b1"}


async def test_who_comes_too_late_is_lost_though_nobody_had_noticed(members: Members) -> None:
    """X4: and the others are told."""
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", LEASE + 1)
    assert not await members.alive("b1")
    assert members.news("a1") == ["joined b1", "lost b1"]


async def test_who_was_fenced_comes_back_in_another_life(members: Members) -> None:
    """X4."""
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", LEASE + 1)
    assert not await members.alive("b1")
    await members.join("b2", "b")
    assert members.news("a1") == ["joined b1", "lost b1", "joined b2"]
    assert await members.alive("b2")


async def test_nobody_is_lost_when_the_server_was_away(members: Members) -> None:
    """X4: nobody has renewed for half a lease, so all get a whole one from now."""
    await joined(members, "a1", "b1", "c1")
    for incarnation, seconds in (("a1", 100 * LEASE), ("b1", 90 * LEASE), ("c1", LEASE)):
        members.has_been_silent(incarnation, seconds)
    assert (await members.membership.beat(members.connection, "a1")).lost == 0
    assert members.present() == {"a1", "b1", "c1"}
    members.has_been_silent("a1", LEASE * 0.4)  # which all have left
    assert await members.alive("b1")
    assert await members.alive("c1")


async def test_nobody_is_lost_when_the_server_was_away_and_another_one_joins_first(members: Members) -> None:
    """X4: the new one knows all of them."""
    await joined(members, "a1", "b1")
    for incarnation in ("a1", "b1"):
        members.has_been_silent(incarnation, 100 * LEASE)
    assert {member.peer.incarnation for member in (await members.join("c1")).members} == {"a1", "b1"}
    assert await members.alive("a1")


async def test_who_does_not_come_back_after_that_is_lost_a_lease_later(members: Members) -> None:
    """X4: what all were given is a lease, and no more."""
    await joined(members, "a1", "b1")
    for incarnation in ("a1", "b1"):
        members.has_been_silent(incarnation, 100 * LEASE)
    await members.alive("a1")
    assert members.silence("b1") < 5
    members.has_been_silent("b1", LEASE + 0.1)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1


async def test_a_short_outage_does_not_count(members: Members) -> None:
    """X4: for nobody, but for a beat; so who needs a while to connect again has it."""
    await joined(members, "a1", "b1")
    members.has_been_silent("a1", LEASE * 0.45)
    members.has_been_silent("b1", LEASE * 0.9)
    assert await members.alive("a1")
    assert members.silence("b1") == pytest.approx(LEASE * 0.65, abs=LEASE * 0.2)
    members.has_been_silent("a1", LEASE * 0.2)
    members.has_been_silent("b1", LEASE * 0.9)
    assert await members.alive("a1")
    assert members.silence("b1") == pytest.approx(LEASE * 0.9, abs=LEASE * 0.2)


async def test_after_half_a_lease_nothing_counts(members: Members) -> None:
    """X4: all have a whole lease."""
    await joined(members, "a1", "b1")
    members.has_been_silent("a1", LEASE * 0.6)
    members.has_been_silent("b1", LEASE * 0.9)
    assert await members.alive("a1")
    assert members.silence("b1") < 5


async def test_who_was_dead_before_a_short_outage_is_lost_after_it(members: Members) -> None:
    """X4."""
    await joined(members, "a1", "b1")
    members.has_been_silent("a1", LEASE * 0.45)
    members.has_been_silent("b1", LEASE * 1.3)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1


async def test_one_that_lives_does_not_save_the_dead(members: Members) -> None:
    """X4: whoever renews every fifth of a lease shows that the server is there."""
    await joined(members, "a1", "b1")
    for fifth in range(1, 5):
        members.has_been_silent("a1", LEASE * 0.25)  # later than it should be
        members.has_been_silent("b1", fifth * LEASE / 5)
        assert (await members.membership.beat(members.connection, "a1")).lost == 0
    members.has_been_silent("a1", LEASE * 0.25)
    members.has_been_silent("b1", LEASE + 0.1)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1


async def test_nobody_is_lost_when_the_clock_goes_back(members: Members) -> None:
    """X4: beats in the future do not keep anybody for longer than a lease, either."""
    await joined(members, "a1", "b1")
    for incarnation in ("a1", "b1"):
        members.has_been_silent(incarnation, -3600)
    assert (await members.membership.beat(members.connection, "a1")).lost == 0
    assert 0 <= members.silence("b1") < 5
    members.has_been_silent("b1", LEASE + 0.1)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1


async def test_a_clock_that_is_corrected_a_little_does_not_keep_the_dead(members: Members) -> None:
    """X4: however often it is."""
    await joined(members, "a1", "b1")
    members.has_been_silent("a1", -0.2)
    members.has_been_silent("b1", LEASE + 0.1)
    assert (await members.membership.beat(members.connection, "a1")).lost == 1


async def test_who_has_no_inbox_any_more_is_lost(members: Members) -> None:
    """X3: somebody has deleted it, and what was in it is missing; nobody is left in the belief that it was read."""
    await joined(members, "a1", "b1")
    members.server.call("DEL", members.membership.inbox("b1"))
    await members.join("c1")
    assert members.membership.inbox("b1") not in members.all_keys()
    assert not await members.alive("b1")
    assert members.news("a1")[-1] == "lost b1"
    assert members.notices("c1")[0].reason == "its inbox was deleted"


async def test_an_inbox_that_is_empty_is_an_inbox(members: Members) -> None:
    """X2: all of it was read."""
    await joined(members, "a1", "b1")
    members.server.call("XTRIM", members.membership.inbox("b1"), "MAXLEN", 0)
    assert await members.alive("b1")
    await members.join("c1")
    assert members.news("b1") == ["joined c1"]


async def test_when_all_data_are_gone_all_are_fenced(members: Members) -> None:
    """X4: and may join again."""
    await joined(members, "a1", "b1")
    members.server.call("FLUSHALL")
    assert not await members.alive("a1")
    assert not await members.alive("b1")
    await joined(members, "a2", "b2")
    assert members.news("a2") == ["joined b2"]


async def test_many_that_are_lost_at_once_are_told_of_in_few_entries(members: Members) -> None:
    """X4: so that it takes the server no longer than one; nobody is told of twice, and nobody is forgotten."""
    dead = [f"b{number}" for number in range(LOST_AT_ONCE + 20)]
    for incarnation in ("a1", "c1", *dead):
        await members.join(incarnation, name=incarnation)
    for incarnation in dead:
        members.has_been_silent(incarnation, LEASE + 1)
    steps = [(await members.membership.beat(members.connection, "a1")).lost for _ in range(3)]
    assert steps == [LOST_AT_ONCE, 20, 0]
    for incarnation in ("a1", "c1"):
        news = [each for each in members.news(incarnation) if each.startswith("lost")]
        assert sorted(news) == sorted(f"lost {each}" for each in dead)
    entries = members.server.call("XRANGE", members.membership.inbox("c1"), "-", "+")
    assert len([fields for _, fields in entries if fields[1] == b"lost"]) == 2


async def test_one_that_is_overdue_among_too_many_for_one_step_does_not_renew(members: Members) -> None:
    """X4: too late is too late, though others come first."""
    many = [f"b{number}" for number in range(LOST_AT_ONCE)]
    for incarnation in ("a1", *many, "c1"):
        await members.join(incarnation, name=incarnation)
    for incarnation in many:
        members.has_been_silent(incarnation, LEASE + 2)
    members.has_been_silent("c1", LEASE + 1)
    assert not await members.alive("c1")
    assert "lost c1" in members.news("a1")


async def test_nobody_is_lost_when_the_server_is_killed_and_comes_back() -> None:
    """X4: with a lease shorter than the outage."""
    with redis_running(appendfsync="no") as server:
        connection = await connect(RedisSettings.parse(server.url))
        members = Members(server, connection, lease=0.05)
        await joined(members, "a1", "b1")
        await members.claim("b1", "worker")
        server.restart()
        await connection.aclose()
        members.connection = await connect(RedisSettings.parse(server.url))
        assert await members.alive("a1")
        assert members.present() == {"a1", "b1"}
        assert members.news("a1") == ["joined b1"]
        await members.connection.aclose()


async def test_a_server_that_is_full_does_nothing_by_halves_and_nobody_is_lost() -> None:
    """X4: nobody can renew, so all have a whole lease when there is room again; and who leaves makes some."""
    with redis_running() as server:
        connection = await connect(RedisSettings.parse(server.url))
        members = Members(server, connection)
        await joined(members, "a1", "b1", "c1")
        keys = members.all_keys()
        server.config_set("maxmemory", "1")
        with pytest.raises(RedisReplyError, match="OOM"):
            await members.alive("a1")
        with pytest.raises(RedisReplyError, match="OOM"):
            await members.join("d1")
        with pytest.raises(RedisReplyError, match="OOM"):
            await members.claim("a1", "worker")
        assert (members.present(), members.all_keys()) == ({"a1", "b1", "c1"}, keys)
        assert await members.leave("c1")
        server.config_set("maxmemory", "0")
        for incarnation in ("a1", "b1"):
            members.has_been_silent(incarnation, 2 * LEASE)
        assert await members.alive("a1")
        assert await members.alive("b1")
        assert members.news("a1") == ["joined b1", "joined c1", "left c1"]
        await connection.aclose()


async def test_a_beat_does_not_wait_for_the_lease_to_run_out(server: RedisServer) -> None:
    """X4: where nothing comes back, there is time for another connection."""
    async with Proxy(server.port) as proxy:
        connection = await connect(RedisSettings.parse(proxy.url))
        members = Members(server, connection, lease=1.0)
        await members.join("a1")
        proxy.drop_replies()
        with pytest.raises(ConnectionLost, match=r"no answer within 0\.\d+ seconds"):
            await members.alive("a1")


async def test_a_lease_is_what_it_says(server: RedisServer, connection: Connection) -> None:
    """X4: in seconds."""
    members = Members(server, connection, lease=60.0)
    await joined(members, "a1", "b1")
    members.has_been_silent("b1", 59.0)
    assert (await members.membership.beat(connection, "a1")).lost == 0
    members.has_been_silent("b1", 60.1)
    assert (await members.membership.beat(connection, "a1")).lost == 1
