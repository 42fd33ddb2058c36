"""Views are served by real sockets, in real time."""

import pytest


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend
