"""Runners that leave the signals alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from workerbus import RunCancelled, WorkerBus, WorkerRunner


@asynccontextmanager
async def cut_short(reason: str | None = None) -> AsyncIterator[None]:
    """Around a block of a runner that a cancel cuts short: it says so, and for what reason."""
    with pytest.raises(RunCancelled) as caught:
        yield
    assert caught.value.reason == reason


def quiet_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


def runner_on(bus: WorkerBus, name: str, **kwargs: Any) -> WorkerRunner:
    return WorkerRunner(bus=bus, name=name, handle_sigint=False, **kwargs)
