"""Who joins, leaves and comes again, and who is told of it."""

from random import Random

import anyio
import pytest

from support.redis_members import LEASE, PREFIX, Members
from support.redis_servers import RedisServer
from workerbus import Peer
from workerbus.redis._connection import Connection
from workerbus.redis._membership import Joined, Member, Membership, Refused, read_notice
from workerbus.redis._opening import connect
from workerbus.redis._settings import RedisSettings


async def test_who_joins_learns_of_all_others(members: Members) -> None:
    """X4: with what they say about themselves, and the server's time."""
    assert (await members.join("a1", info={"host": "here", "pid": 7})).members == ()
    await members.join("b1")
    joined = await members.join("c1")
    assert {member.peer for member in joined.members} == {Peer("a", "a1"), Peer("b", "b1")}
    assert {member.peer.name: member.info for member in joined.members}["a"] == {"name": "a", "host": "here", "pid": 7}
    assert members.now() - 5000 < joined.now <= members.now()


async def test_all_others_are_told_who_has_joined(members: Members) -> None:
    """X4: with what it says about itself."""
    await members.join("a1")
    await members.join("b1", info={"version": "2"})
    await members.join("c1")
    assert members.news("a1") == ["joined b1", "joined c1"]
    assert members.news("b1") == ["joined c1"]
    assert members.news("c1") == []
    first = members.notices("a1")[0]
    assert (first.member.peer, first.member.info, first.reason) == (Peer("b", "b1"), {"name": "b", "version": "2"}, "")


async def test_who_has_joined_is_told_of_before_anything_that_it_writes(members: Members) -> None:
    """X4: so that its messages never come from nobody."""
    await members.join("a1")
    await members.join("b1")
    inbox = members.membership.inbox("a1")
    members.server.call("XADD", inbox, "NOMKSTREAM", "*", "o", "b1", "n", 1, "m", "hello")
    kinds = [fields[0] for _, fields in members.server.call("XRANGE", inbox, "-", "+")]
    assert kinds == [b"k", b"k", b"o"]  # its own beginning, b1 has joined, the message


async def test_a_member_reads_on_from_where_it_has_joined(members: Members) -> None:
    """X4: it is told of nobody whom the answer has named, and of all who come after that."""
    await members.join("a1")
    joined = await members.join("b1")
    await members.join("c1")
    after = f"({joined.position}"
    ((_, fields),) = members.server.call("XRANGE", members.membership.inbox("b1"), after, "+")
    assert fields[:4] == [b"k", b"joined", b"p", b"c1"]


async def test_any_two_learn_of_each_other_and_once(server: RedisServer, members: Members) -> None:
    """X4: the one by the answer, the other by its inbox, however close together they join."""
    answers: dict[str, Joined] = {}

    async def join(incarnation: str) -> None:
        connection = await connect(RedisSettings.parse(server.url))
        answers[incarnation] = await Members(server, connection).join(incarnation, name=incarnation)
        await connection.aclose()

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(join, f"r{number}")
    for incarnation, joined in answers.items():
        told = [notice.member.peer.incarnation for notice in members.notices(incarnation)]
        named = [member.peer.incarnation for member in joined.members]
        assert sorted([incarnation, *told, *named]) == sorted(answers)


async def test_who_joins_again_for_want_of_an_answer_is_told_of_once_and_skips_nothing(members: Members) -> None:
    """X2: the first try may have come through."""
    await members.join("a1")
    first = await members.join("b1")
    await members.join("c1")
    again = await members.join("b1")
    assert again.position == first.position
    assert {member.peer.name for member in again.members} == {"a", "c"}
    assert members.news("a1") == ["joined b1", "joined c1"]
    assert members.news("c1") == []


async def test_all_others_are_told_who_has_left(members: Members) -> None:
    for incarnation in ("a1", "b1", "c1"):
        await members.join(incarnation)
    assert await members.leave("b1")
    assert members.news("a1") == ["joined b1", "joined c1", "left b1"]
    assert members.news("c1") == ["left b1"]
    assert members.present() == {"a1", "c1"}


async def test_who_is_no_member_leaves_without_a_word(members: Members) -> None:
    await members.join("a1")
    await members.join("b1")
    assert await members.leave("b1")
    assert not await members.leave("b1")
    assert not await members.leave("never")
    assert members.news("a1") == ["joined b1", "left b1"]


async def test_when_the_last_one_has_left_nothing_is_left_on_the_server(members: Members) -> None:
    """X4: no inbox, no claim, no key at all."""
    for incarnation in ("a1", "b1", "c1", "a2"):
        await members.join(incarnation)
        await members.claim(incarnation, "shared", f"of {incarnation}")
    members.has_been_silent("b1", LEASE + 1)
    assert await members.alive("c1")
    await members.leave("a2")
    await members.leave("c1")
    assert members.all_keys() == set()


async def test_all_keys_begin_with_the_prefix(members: Members) -> None:
    """X9: one rule of the server's ACL covers them."""
    await members.join("a1")
    await members.claim("a1", "worker")
    assert len(members.all_keys()) == 7
    assert all(key.startswith(f"{{{PREFIX}}}:") for key in members.all_keys())


async def test_networks_with_other_prefixes_do_not_meet(members: Members) -> None:
    await members.join("a1")
    other = await Membership("other", LEASE).join(members.connection, "b1", "a", {}, supersede=False)
    assert isinstance(other, Joined)
    assert other.members == ()
    assert members.news("a1") == []


@pytest.mark.parametrize("prefix", ["", "a b", "wb*", "{wb}", "w?", "w[b]", "w\\b", "n\u00e4", "line\n"])
def test_a_prefix_that_would_mean_something_else_to_the_server_is_refused(prefix: str) -> None:
    """X9: in the rule of its ACL, say."""
    with pytest.raises(ValueError, match="a prefix is made of"):
        Membership(prefix, LEASE)


@pytest.mark.parametrize("lease", [0, -1, 0.001, float("nan"), float("inf")])
def test_a_lease_that_is_no_time_is_refused(lease: float) -> None:
    with pytest.raises(ValueError, match="a lease is a time in seconds"):
        Membership(PREFIX, lease)


def test_a_member_beats_five_times_in_a_lease() -> None:
    """X4."""
    assert Membership(PREFIX, 10.0).interval == 2.0


async def test_a_restart_under_the_same_name_ends_the_former_life_at_once(members: Members) -> None:
    """X4: whatever lease that one has left."""
    await members.join("a1")
    await members.join("b1")
    await members.claim("a1", "worker")
    joined = await members.join("a2")
    assert [member.peer for member in joined.members] == [Peer("b", "b1")]
    assert members.news("b1") == ["lost a1", "joined a2"]
    assert members.notices("b1")[0].reason == "it was restarted"
    assert members.news("a2") == []
    assert members.membership.inbox("a1") not in members.all_keys()
    assert await members.claim("a2", "worker") == {}
    assert not await members.alive("a1")
    assert await members.alive("a2")


async def test_who_is_not_to_end_another_life_is_told_who_has_its_name(members: Members) -> None:
    """X4: one that was fenced comes back, and another process has taken its place."""
    await members.join("a1", info={"host": "there"})
    await members.join("b1")
    answer = await members.membership.join(members.connection, "a2", "a", {}, supersede=False)
    assert isinstance(answer, Refused)
    assert answer.owner == Member(Peer("a", "a1"), {"name": "a", "host": "there"})
    assert members.present() == {"a1", "b1"}
    assert members.news("b1") == []
    assert members.membership.inbox("a2") not in members.all_keys()


@pytest.mark.parametrize("gone", ["left", "lost"])
async def test_the_name_of_one_that_is_gone_is_free(members: Members, gone: str) -> None:
    await members.join("a1")
    await members.join("b1")
    if gone == "left":
        await members.leave("a1")
    else:
        members.has_been_silent("a1", LEASE + 1)
    answer = await members.membership.join(members.connection, "a2", "a", {}, supersede=False)
    assert isinstance(answer, Joined)
    assert members.news("b1") == [f"{gone} a1", "joined a2"]


async def test_a_name_may_be_any_text(members: Members) -> None:
    name = 'a "quoted" näme \N{SNOWMAN} }{*'
    await members.join("a1", name)
    joined = await members.join("b1")
    assert joined.members[0].peer == Peer(name, "a1")
    await members.join("a2", name)
    assert members.news("b1") == ["lost a1", "joined a2"]
    await members.leave("a2")
    await members.leave("b1")
    assert members.all_keys() == set()


@pytest.mark.parametrize(
    "info", ["", "no JSON", "[1]", "[" * 100_000, '{"name": {}}', '{"host": "x"}', "\\ud800", "null"]
)
async def test_one_that_says_nonsense_about_itself_stops_nobody(members: Members, info: str) -> None:
    """X1: its name is its incarnation then."""
    await members.join("a1")
    members.server.call("HSET", f"{{{PREFIX}}}:info", "a1", info)
    joined = await members.join("b1")
    assert joined.members[0].peer == Peer("a1", "a1")
    await members.leave("a1")
    assert members.news("b1") == ["left a1"]
    again = await members.membership.join(members.connection, "a2", "a", {}, supersede=False)
    assert isinstance(again, Joined)


async def test_one_that_gives_itself_the_name_of_another_does_not_take_it_along(members: Members) -> None:
    """X4: when it leaves."""
    await members.join("a1")
    await members.join("b1")
    members.server.call("HSET", f"{{{PREFIX}}}:info", "a1", '{"name": "b"}')
    await members.leave("a1")
    assert isinstance(await members.membership.join(members.connection, "b2", "b", {}, supersede=False), Refused)


async def test_a_roll_call_tells_the_members_behind_what_was_told_of_them(members: Members) -> None:
    """X4: so it says nothing new to whom nothing was kept from."""
    await members.join("a1")
    await members.join("b1")
    await members.leave("b1")
    await members.join("c1")
    await members.membership.roll_call(members.connection, "a1")
    assert members.news("a1") == ["joined b1", "left b1", "joined c1", "members c1"]


async def test_a_roll_call_for_one_that_is_no_member_writes_nothing(members: Members) -> None:
    """X4"""
    await members.membership.roll_call(members.connection, "a1")
    assert members.all_keys() == set()


def test_an_entry_that_is_about_no_member_is_no_notice() -> None:
    assert read_notice({b"o": b"a1", b"n": b"1", b"m": b"..."}) is None
    assert read_notice({b"k": b"of the future", b"p": b"a1"}) is None


def test_unknown_fields_of_an_entry_are_ignored() -> None:
    notice = read_notice({b"k": b"lost", b"p": b"a1", b"r": b"gone", b"new": b"field"})
    assert notice is not None
    assert (notice.kind, [each.peer.incarnation for each in notice.members], notice.reason) == ("lost", ["a1"], "gone")


async def test_notices_do_not_let_an_inbox_grow_without_end(server: RedisServer, connection: Connection) -> None:
    """X3: the oldest go; an inbox that is read never has so many."""
    members = Members(server, connection, inbox_entries=50)
    await members.join("a1")
    for number in range(200):
        await members.join(f"b{number}")
    assert server.call("XLEN", members.membership.inbox("a1")) < 50 + 100  # Redis cuts off whole pages of 100
    assert members.news("a1")[-1] == "joined b199"


class _Network:
    """Does things at random, and follows what each member knows of the others."""

    def __init__(self, members: Members, seed: int) -> None:
        self.members = members
        self.random = Random(seed)
        self.known: dict[str, set[str]] = {}  # at joining
        self.lives = 0

    async def step(self) -> None:
        act = self.random.choice((self.join, self.join, self.leave, self.fall_silent, self.beat, self.beat))
        await act(self.random.choice(sorted(self.known)) if self.known else "none")

    async def join(self, _: str) -> None:
        self.lives += 1
        incarnation = f"{self.random.choice('abcdefgh')}{self.lives}"
        joined = await self.members.join(incarnation)
        self.known[incarnation] = {member.peer.incarnation for member in joined.members}

    async def leave(self, incarnation: str) -> None:
        await self.members.leave(incarnation)

    async def fall_silent(self, incarnation: str) -> None:
        self.members.has_been_silent(incarnation, LEASE + 1)

    async def beat(self, incarnation: str) -> None:
        await self.members.alive(incarnation)

    def check(self) -> None:
        """What a member knows: whom the answer has named, and what it was told since then."""
        present = self.members.present()
        for incarnation in present:
            known = set(self.known[incarnation])
            for notice in self.members.notices(incarnation):
                other = notice.member.peer.incarnation
                assert (other in known) == (notice.kind != "joined")
                known ^= {other}
            assert known == present - {incarnation}


@pytest.mark.parametrize("seed", range(4))
async def test_what_each_member_knows_of_the_others_is_right_after_every_step(members: Members, seed: int) -> None:
    """X4: whoever joins, leaves, dies and restarts, in whatever order."""
    network = _Network(members, seed)
    for _ in range(40):
        await network.step()
        network.check()
    for incarnation in members.present():
        await members.leave(incarnation)
    assert members.all_keys() == set()
