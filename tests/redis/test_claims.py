"""Who has which name of a worker."""

import anyio
import pytest

from support.redis_members import LEASE, PREFIX, Members
from support.redis_servers import RedisServer
from workerbus import Peer
from workerbus.redis._opening import connect
from workerbus.redis._settings import RedisSettings

CLAIMED = f"{{{PREFIX}}}:names"


@pytest.fixture
async def members(members: Members) -> Members:
    for incarnation in ("a1", "b1", "c1"):
        await members.join(incarnation)
    return members


async def test_the_second_claim_is_refused_and_says_who_has_the_name(members: Members) -> None:
    """X5: at the second."""
    assert await members.claim("a1", "worker") == {}
    taken = await members.membership.claim(members.connection, "b1", ["worker"])
    assert taken is not None
    assert taken["worker"].peer == Peer("a", "a1")
    assert members.server.call("HGETALL", CLAIMED) == [b"worker", b"a1"]


async def test_of_several_names_those_that_are_free_are_claimed(members: Members) -> None:
    """X5."""
    assert await members.claim("a1", "one", "two") == {}
    assert await members.claim("b1", "two", "three") == {"two": "a1"}
    assert await members.claim("c1", "one", "three", "four") == {"one": "a1", "three": "b1"}


async def test_a_name_may_be_claimed_again_by_its_owner(members: Members) -> None:
    """X5: as after an answer that was lost."""
    assert await members.claim("a1", "worker") == {}
    assert await members.claim("a1", "worker", "other") == {}
    await members.release("a1", "worker")
    assert await members.claim("b1", "worker") == {}


async def test_of_many_that_claim_a_name_at_once_one_gets_it(server: RedisServer, members: Members) -> None:
    """X5: all others are told the same."""
    answers: dict[str, dict[str, str] | None] = {}

    async def claim(incarnation: str) -> None:
        connection = await connect(RedisSettings.parse(server.url))
        answers[incarnation] = await Members(server, connection).claim(incarnation, "worker")
        await connection.aclose()

    async with anyio.create_task_group() as group:
        for incarnation in ("a1", "b1", "c1"):
            group.start_soon(claim, incarnation)
    (owner,) = [incarnation for incarnation, taken in answers.items() if taken == {}]
    assert [taken for taken in answers.values() if taken] == [{"worker": owner}] * 2


async def test_a_name_that_is_released_is_free(members: Members) -> None:
    """X5: and leaves nothing behind."""
    await members.claim("a1", "worker", "other")
    await members.release("a1", "worker")
    assert await members.claim("b1", "worker") == {}
    await members.release("a1", "other")
    await members.release("b1", "worker")
    assert not any("claims" in key or "names" in key for key in members.all_keys())


async def test_one_releases_nothing_but_ones_own(members: Members) -> None:
    """X5."""
    await members.claim("a1", "worker")
    await members.release("b1", "worker", "nobody's")
    assert await members.claim("c1", "worker") == {"worker": "a1"}


@pytest.mark.parametrize("end", ["leaves", "is lost", "is restarted"])
async def test_the_names_of_one_that_is_gone_are_free(members: Members, end: str) -> None:
    """X5: all of them, and nothing of its claims is left."""
    names = [f"worker {number}" for number in range(50)]
    await members.claim("a1", *names)
    await members.claim("b1", "other")
    if end == "leaves":
        await members.leave("a1")
    elif end == "is lost":
        members.has_been_silent("a1", LEASE + 1)
        await members.alive("c1")
    else:
        await members.join("a2")
    assert members.server.call("HGETALL", CLAIMED) == [b"other", b"b1"]
    assert f"{{{PREFIX}}}:claims:a1" not in members.all_keys()
    assert await members.claim("b1", *names) == {}


async def test_a_claim_of_one_that_is_no_member_does_not_count(members: Members) -> None:
    """X5: however it has come to be there."""
    members.server.call("HSET", CLAIMED, "worker", "ghost")
    assert await members.claim("a1", "worker") == {}
    assert await members.claim("b1", "worker") == {"worker": "a1"}


async def test_a_name_that_was_taken_over_stays_with_its_new_owner(members: Members) -> None:
    """X5: when the former one ends, too."""
    await members.claim("a1", "worker")
    members.server.call("HSET", CLAIMED, "worker", "b1")
    await members.leave("a1")
    assert await members.claim("c1", "worker") == {"worker": "b1"}


async def test_a_name_that_was_taken_over_from_somebody_who_is_gone_goes_with_its_new_owner(members: Members) -> None:
    """X4, X5: where the former one has left its name behind, since the server had lost a part of what it knew."""
    for name in ("given back", "left behind"):
        members.server.call("HSET", CLAIMED, name, "somebody")
    assert await members.claim("a1", "given back", "left behind") == {}
    await members.release("a1", "given back")
    assert members.server.call("HGETALL", CLAIMED) == [b"left behind", b"a1"]
    await members.leave("a1")
    assert members.server.call("HGETALL", CLAIMED) == []


async def test_who_is_no_member_claims_nothing(members: Members) -> None:
    """X5: and is told so."""
    assert await members.claim("stranger", "worker") is None
    assert await members.claim("a1", "worker") == {}


async def test_no_names_are_no_mistake(members: Members) -> None:
    assert await members.claim("a1") == {}
    await members.release("a1")


async def test_thousands_of_names_are_claimed_and_given_up_in_one_step(members: Members) -> None:
    """X5: as by a runner that comes back."""
    names = [f"worker {number}" for number in range(20_000)]
    assert await members.claim("a1", *names) == {}
    assert await members.leave("a1")
    assert not members.server.call("EXISTS", CLAIMED)
