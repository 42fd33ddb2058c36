"""A redis-server for all tests of this directory, which run in real time, since a server knows no other."""

from collections.abc import AsyncIterator, Iterator

import pytest

from support.redis_members import Members
from support.redis_servers import RedisServer
from workerbus.redis._connection import Connection
from workerbus.redis._opening import connect
from workerbus.redis._settings import RedisSettings


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A redis-server without any data. Who kills it, freezes it or changes its settings starts one of his own."""
    shared_server.forget()
    return shared_server


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    connection = await connect(RedisSettings.parse(server.url))
    yield connection
    await connection.aclose()


@pytest.fixture
def members(server: RedisServer, connection: Connection) -> Members:
    """Members of a network at that server."""
    return Members(server, connection)
