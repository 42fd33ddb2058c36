"""A redis-server for all tests of this directory, which run in real time, since a server knows no other."""

from collections.abc import Iterator

import pytest

from support.redis_servers import RedisServer


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
