"""Which rights a user of the server needs to be a member."""

from collections.abc import AsyncIterator

import pytest

from support.redis_members import LEASE, PREFIX, Members
from support.redis_servers import RedisServer
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._opening import connect
from workerbus.redis._scripts import COMMANDS
from workerbus.redis._settings import RedisSettings


@pytest.fixture
async def members(server: RedisServer) -> AsyncIterator[Members]:
    """Members that have these rights alone."""
    rights = (f"+{command}" for command in (*COMMANDS, "client", "info"))
    server.add_user("member", "secret", f"~{{{PREFIX}}}:*", *rights)
    connection = await connect(RedisSettings.parse(server.url.replace("redis://", "redis://member:secret@")))
    yield Members(server, connection)
    await connection.aclose()


async def _a_whole_life(members: Members) -> None:
    await members.join("a1")
    await members.join("b1")
    await members.join("c1")
    await members.claim("b1", "worker", "other")
    await members.release("b1", "other")
    members.has_been_silent("b1", LEASE * 1.5)
    members.has_been_silent("a1", LEASE * 0.4)
    members.has_been_silent("c1", LEASE * 0.4)
    assert await members.alive("c1")
    await members.join("a2")
    await members.leave("a2")
    await members.leave("c1")


async def test_one_rule_for_the_prefix_and_a_list_of_commands_suffice(members: Members) -> None:
    """X9."""
    await _a_whole_life(members)
    assert members.all_keys() == set()


async def test_none_of_the_commands_can_be_missing(server: RedisServer, members: Members) -> None:
    """X9: what is not needed is not asked for. Scripts go by their digest, so the text is sent once alone."""
    for command in COMMANDS:
        server.calls(("FLUSHALL",), ("SCRIPT", "FLUSH"), ("ACL", "SETUSER", "member", f"-{command}"))
        with pytest.raises(RedisReplyError):
            await _a_whole_life(members)
        server.call("ACL", "SETUSER", "member", f"+{command}")


async def test_another_prefix_is_out_of_reach(server: RedisServer, members: Members) -> None:
    """X9: the server keeps the networks apart."""
    server.call("ACL", "SETUSER", "member", "resetkeys", "~{other}:*")
    with pytest.raises(RedisReplyError):
        await members.join("a1")
    assert members.all_keys() == set()
