"""Tasks that run beside those of a bug, and change nothing: they make its order one of many."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

import anyio
from anyio.lowlevel import checkpoint


class Bug(Protocol):
    """A scenario with a bug, or without it."""

    __name__: str

    async def __call__(self, *, mended: bool = False) -> None:
        """Run it."""
        ...


def mended(bug: Bug) -> Callable[[], Awaitable[None]]:
    """Return a scenario without its bug."""
    return partial(bug, mended=True)


async def bystander() -> None:
    """Be ready often, and change nothing."""
    for _ in range(6):
        await checkpoint()


async def heartbeat() -> None:
    """Be ready each second, and change nothing."""
    for _ in range(4):
        await anyio.sleep(1)


def locked(lock: anyio.Lock, mended: bool) -> AbstractAsyncContextManager[Any]:
    """Return the lock if the program is mended; else nothing that keeps others away."""
    return lock if mended else nullcontext()
