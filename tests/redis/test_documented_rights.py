"""X9: a user of the server who has the rights that the page names, and no others, can do all that the bus needs."""

import re
import shlex
from pathlib import Path
from typing import Any

import anyio
import hiredis
import pytest

from support.redis_servers import RedisServer, until
from support.workers import Helper
from workerbus import BaseWorker, NameTakenError, WorkerRunner, job
from workerbus.redis import RedisBus
from workerbus.redis._scripts import COMMANDS

PAGE = Path(__file__).parents[2] / "docs/more-than-one-machine.md"
SOURCE = Path(__file__).parents[2] / "src/workerbus/redis"
PASSWORD = "CHANGE-ME"
IN_DB = 1


def rule() -> list[str]:
    """The words of the command in the page."""
    (text,) = re.findall(r"```sh\nredis-cli (ACL SETUSER .*?)```", PAGE.read_text(), re.DOTALL)
    return shlex.split(text.replace("\\\n", " "))


@pytest.fixture
def url(server: RedisServer) -> str:
    server.call(*rule())
    server.call("ACL", "LOG", "RESET")
    server.call("CONFIG", "RESETSTAT")
    return f"redis://workerbus:{PASSWORD}@127.0.0.1:{server.port}/{IN_DB}"


def in_db(server: RedisServer, *command: str | bytes | float) -> Any:
    return server.calls(("SELECT", IN_DB), command)[1]


def denied(server: RedisServer) -> list[Any]:
    return [entry[entry.index(b"object") + 1] for entry in server.call("ACL", "LOG")]


class Streamer(BaseWorker):
    @job(name="stream")
    async def stream(self, message: object) -> Any:
        for n in range(3):
            yield {"n": n}


async def all_that_there_is(server: RedisServer, url: str) -> None:
    """Jobs, streams, claims, an entry that is no message, a process that is lost and joins again, and goodbyes."""
    left, right = RedisBus(url, lease=5.0), RedisBus(url, lease=5.0)
    async with WorkerRunner(bus=left, name="left") as asking, WorkerRunner(bus=right, name="right") as answering:
        await answering.add_workers(Streamer("streamer"), Helper("helper"), wait=True)
        async with asking.job("streamer", name="stream", timeout=60) as streaming:
            assert [chunk["n"] async for chunk in streaming.stream()] == [0, 1, 2]
        with pytest.raises(NameTakenError):
            await asking.add_workers(Helper("helper"))
        in_db(server, "XADD", "{workerbus}:inbox:" + left.incarnation, "*", "o", right.incarnation, "n", "1", "m", "{")
        in_db(server, "ZADD", "{workerbus}:members", 1, right.incarnation)
        await until(lambda: right.statistics().lives == 2 and len(left.peers) == 1)
        async with asking.job("streamer", name="stream", timeout=60) as streaming:
            assert [chunk["n"] async for chunk in streaming.stream()] == [0, 1, 2]
        helper = answering.get_worker("helper")
        assert helper is not None
        await helper.stop()
        await until(lambda: in_db(server, "HGET", "{workerbus}:names", "helper") is None)
        await asking.add_workers(Helper("helper"), wait=True)


async def test_with_the_rights_of_the_page_nothing_is_denied(server: RedisServer, url: str) -> None:
    """X9"""
    with anyio.fail_after(60):
        await all_that_there_is(server, url)
    assert denied(server) == []


def rights() -> list[str]:
    return [word[1:] for word in rule() if re.fullmatch(r"\+[a-z|]+", word)]


@pytest.mark.parametrize("right", rights())
def test_each_right_of_the_page_is_for_something_that_the_bus_does(right: str) -> None:
    """X9"""
    source = "\n".join(path.read_text() for path in SOURCE.glob("*.py"))
    command = right.partition("|")[0].upper()
    assert f'"{command}"' in source or f"redis.call('{command}'" in source


def test_the_page_names_all_rights_that_the_scripts_need() -> None:
    """X9"""
    assert set(COMMANDS) <= set(rights())


def test_with_the_rights_of_the_page_other_keys_are_out_of_reach(server: RedisServer, url: str) -> None:
    """X9"""
    server.call("SET", "secret", "of somebody else")
    login, *replies = server.calls(
        ("AUTH", "workerbus", PASSWORD),
        ("GET", "secret"),
        ("GET", "{workerbus2}:secret"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("KEYS", "*"),
        ("EVAL", "return redis.call('GET', 'secret')", "0"),
    )
    assert login == b"OK"
    assert [str(reply) for reply in replies if not isinstance(reply, hiredis.ReplyError)] == []
