"""The SDK's exporters in memory, and buses of one process and of several."""

from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

from support.places import KINDS, REAL_TIME, Places
from support.redis_servers import RedisServer
from support.telemetry import Telemetry
from workerbus.testing import virtual_backend


@pytest.fixture(params=["memory", "network by wire", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of the bus, for tests that ask for `places`."""
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest, backend: str) -> Any:
    if "kind" in request.fixturenames and request.getfixturevalue("kind") in REAL_TIME:
        return backend
    return virtual_backend(backend, seed=crc32(request.node.nodeid.encode()) + request.config.getoption("schedule"))


@pytest.fixture(scope="session")
def servers() -> Iterator[list[RedisServer]]:
    started: list[RedisServer] = []
    yield started
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def places(kind: str, servers: list[RedisServer]) -> Places:
    def server() -> RedisServer:
        if not servers:
            servers.append(RedisServer().__enter__())
        return servers[0]

    return KINDS[kind](server)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()
