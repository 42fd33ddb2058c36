"""Which rights a user of the server needs to be a member."""

import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.messages import Note, note
from support.redis_members import LEASE, PREFIX, Members
from support.redis_servers import RedisServer, until
from support.subscribers import Plain
from support.workers import Helper
from workerbus import WorkerRunner
from workerbus.redis import RedisBus
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


def documented_rule() -> list[str]:
    """What docs/more-than-one-machine.md says to tell the server, word by word."""
    page = (Path(__file__).parents[2] / "docs" / "more-than-one-machine.md").read_text()
    command = page[page.index("redis-cli ACL SETUSER workerbus") :].partition("```")[0]
    return shlex.split(command.replace("\\\n", ""))[1:]


async def test_the_documented_rule_suffices_for_a_whole_bus(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """X9: for two that meet, send to each other, claim names, lose each other, and leave."""
    rule = documented_rule()
    assert {f"+{command}" for command in COMMANDS} <= set(rule)
    server.call(*rule)
    url = server.url.replace("redis://", "redis://workerbus:CHANGE-ME@")
    plain = Plain("it")
    left = RedisBus(url, lease=1.0)
    async with WorkerRunner(bus=left, name="left") as runner, RedisBus(url, lease=1.0) as right:
        await runner.add_workers(Helper("worker"))
        await right.subscribe(plain)
        await until(lambda: left.peers and right.peers)
        await left.send(note(1, target="it"))
        server.call("XADD", f"{{workerbus}}:inbox:{right.incarnation}", "*", "o", left.incarnation, "m", "nonsense")
        await until(lambda: right.statistics().malformed)
        server.call("ZADD", "{workerbus}:members", 1, left.incarnation)
        await until(lambda: left.statistics().lives == 2 and right.peers)
        await left.send(note(2, target="it"))
        await until(
            lambda: [n for n in plain.got if isinstance(n, Note)] == [note(1, target="it"), note(2, target="it")]
        )
        await until(lambda: server.call("XLEN", "{workerbus}:refused") == 1)
    assert "refuses" not in caplog.text
    assert "could not" not in caplog.text
    assert server.call("KEYS", "*") == [b"{workerbus}:refused"]


async def test_another_prefix_is_out_of_reach(server: RedisServer, members: Members) -> None:
    """X9: the server keeps the networks apart."""
    server.call("ACL", "SETUSER", "member", "resetkeys", "~{other}:*")
    with pytest.raises(RedisReplyError):
        await members.join("a1")
    assert members.all_keys() == set()
