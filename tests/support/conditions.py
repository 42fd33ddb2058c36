"""Waiting for what no event tells of."""

from collections.abc import Callable

from anyio.lowlevel import checkpoint


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the test's deadline bounds it."""
    while not condition():
        await checkpoint()
