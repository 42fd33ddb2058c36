"""Every async test runs on both backends and ends under a deadline."""

import functools
import inspect
import logging
from typing import Any

import anyio
import pytest

BACKENDS = ("asyncio", "trio")
DEADLINE = 10.0
"""Seconds after which an async test has hung. No test comes near it."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend, for synchronous tests that call `anyio.run` themselves."""
    return str(request.param)


@pytest.fixture
def anyio_backend(backend: str) -> str:
    """What anyio's plugin runs async tests on."""
    return backend


@pytest.fixture(autouse=True)
def quiet_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Capture what the library logs, from the debug level on."""
    caplog.set_level(logging.DEBUG, logger="workerbus")


def _with_deadline(function: Any) -> Any:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(DEADLINE):
            await function(*args, **kwargs)

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _with_deadline(item.obj)
