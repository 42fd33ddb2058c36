"""X3, X4, J4: servers that lose data: all of it, or what was written last. Nobody is left waiting, and work goes on."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from support.processes import BASE, OTHER, Hosts, bus_of, incarnations
from support.redis_servers import RedisServer, until
from workerbus import JobError, WorkerRunner

pytestmark = pytest.mark.slow
LEASE = 3.0
"""Seconds in which a process speaks on a busy machine, too."""


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with RedisServer(appendfsync="always") as server:
        yield server


def data_of(server: RedisServer) -> list[Path]:
    return [*server.directory.glob("appendonly*"), *server.directory.glob("*.rdb")]


class Backup:
    """What a server had at some time, to be brought back later. It is restarted for both."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._copies = server.directory / "backup"
        self._copies.mkdir()
        server.kill()
        for path in data_of(server):
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, self._copies / path.name)
        server.start()

    def restore(self) -> None:
        self._server.kill()
        for path in data_of(self._server):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self._copies.iterdir():
            path.rename(self._server.directory / path.name)
        self._server.start()


async def hold(runner: WorkerRunner) -> None:
    """Ask the clerk for what does not end, until it is told that it will not."""
    with pytest.raises(JobError) as caught:
        await runner.job("clerk", name="hold")
    assert caught.value.statuses == {"clerk": "error"}


async def fails(runner: WorkerRunner) -> None:
    with pytest.raises(JobError):
        await works(runner)


async def either(runner: WorkerRunner) -> None:
    with suppress(JobError):
        await works(runner)


async def works(runner: WorkerRunner) -> None:
    answer = await runner.job("clerk", name="add", payload={"number": 1})
    assert answer["number"] == 2


@pytest.mark.parametrize("key", ["everything", "members", "info", "runners", "inbox of one", "inbox of the other"])
async def test_keys_that_are_deleted_leave_nobody_waiting(server: RedisServer, backend: str, key: str) -> None:
    """X4: by hand, or by a server that is to make room."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            if key not in ("info", "runners"):  # without those, all goes on
                group.start_soon(hold, runner)
                await there.said("holds")
            if key == "everything":
                server.call("FLUSHALL")
            elif key.startswith("inbox"):
                server.call("DEL", BASE + "inbox:" + incarnations(server)["here" if key.endswith("one") else "there"])
            else:
                server.call("DEL", BASE + key)
        await works(runner)


async def test_a_server_that_comes_back_empty_leaves_nobody_waiting(backend: str) -> None:
    """X4: one without an append-only file, say."""
    with RedisServer(appendonly="no") as server:
        async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
            there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
            async with anyio.create_task_group() as group:
                group.start_soon(hold, runner)
                await there.said("holds")
                server.restart()
            await works(runner)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_server_that_comes_back_with_old_data_leaves_nobody_waiting(
    own_server: RedisServer, backend: str, killed: bool
) -> None:
    """X4: the worker's process joined later, and may be gone with what was lost."""
    async with Hosts(own_server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        backup = Backup(own_server)
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner)
            await there.said("holds")
            if killed:
                await there.kill()
            backup.restore()
        if not killed:
            await works(runner)
            await until(lambda: [peer.name for peer in bus_of(runner).peers] == ["there"])


async def test_messages_that_are_lost_with_old_data_end_the_sessions(own_server: RedisServer, backend: str) -> None:
    """X3: those that a frozen process had not read."""
    async with Hosts(own_server.url, lease=5.0) as hosts, hosts.joined("here") as runner:
        bus = bus_of(runner)
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        await works(runner)
        backup = Backup(own_server)
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner)
            await there.said("holds")
            there.freeze()
            for function in (either, fails):  # the server answers the read that waits with the first one
                sent = bus.statistics().transmitted
                group.start_soon(function, runner)
                await until(partial(lambda sent: bus.statistics().transmitted > sent, sent))
                await until(lambda: not bus.statistics().unsent)
            backup.restore()
            there.thaw()
        await works(runner)
