"""Waiting for what no event tells of."""

from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the test's deadline bounds it."""
    while not condition():
        await checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, of a server or of another thread, in real time; the test's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
        await anyio.sleep(0.001)  # what it waits for happens in another process, and tells nobody
