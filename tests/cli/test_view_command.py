"""O7, O8: ``workerbus view``: the page of a whole network, for as long as the command runs."""

import json
import signal
import socket
from collections.abc import Iterator
from urllib.request import ProxyHandler, build_opener

import pytest
from anyio import to_thread

from support import commands
from support.clerk import Clerk
from support.redis_servers import RedisServer, redis_running
from support.workers import running
from workerbus.redis import RedisBus


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_running() as server:
        yield server


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend


def get(url: str, path: str = "", **headers: str) -> bytes:
    opener = build_opener(ProxyHandler({}))
    opener.addheaders = list(headers.items())
    with opener.open(url + path, timeout=60) as answer:
        data: bytes = answer.read()
    return data


@pytest.mark.slow
async def test_a_command_serves_the_page_of_a_network(server: RedisServer) -> None:
    """O7, O8: until Ctrl-C; it says where, and is under a name of its own, so that two may run."""
    async with running(Clerk("clerk"), name="office", bus=RedisBus(server.url)):
        first = commands.start("view", server.url, "--port", "0", "--name", "kitchen")
        second = commands.start("view", server.url, "--port", "0", "--token", "secret")
        assert first.stdout is not None
        assert second.stdout is not None
        url = (await to_thread.run_sync(first.stdout.readline)).strip()
        other = (await to_thread.run_sync(second.stdout.readline)).strip()
        state = json.loads(await to_thread.run_sync(get, url, "api/state"))
        assert state["about"]["runner"] == "kitchen"
        assert state["workers"]["clerk"]["runner"] == "office"
        assert await to_thread.run_sync(get, url, "readyz") == b"ready\n"
        authorized = await to_thread.run_sync(lambda: get(other, "api/state", Authorization="Bearer secret"))
        assert json.loads(authorized)["about"]["runners"] == 1
        for process in (first, second):
            process.send_signal(signal.SIGINT)
            _, errors = await to_thread.run_sync(process.communicate)
            assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://127.0.0.1:8765/"], "view needs the bus itself: redis://…"),
        (["redis://localhost", "--host", "0.0.0.0"], "at 0.0.0.0 everybody could read it: give it a --token"),
        (["redis://localhost", "--port", "70000"], "a number from 0 to 65535, not '70000'"),
        (["redis://localhost", "--prefix", "{"], "prefix"),
    ],
)
def test_a_command_that_is_called_wrongly_says_so_in_one_line(arguments: list[str], said: str) -> None:
    """O8"""
    ended = commands.run("view", *arguments)
    assert said in ended.stderr
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (2, 1, "")


@pytest.mark.slow
def test_what_keeps_the_page_from_being_served_is_said_in_one_line(server: RedisServer) -> None:
    """O8: a port that is taken, and a server that cannot be reached."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = commands.run("view", server.url, "--port", str(taken.getsockname()[1]))
    assert "cannot be listened at" in ended.stderr
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    ended = commands.run("view", "redis://127.0.0.1:1", "--port", "0")
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (1, 1, "")
