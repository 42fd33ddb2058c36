"""Contexts that one task enters and another leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import trio

Enter = Callable[[], Awaitable[None]]


def sniffed() -> str:
    """The backend that runs this."""
    return "trio" if "trio" in type(anyio.Event()).__module__ else "asyncio"


@asynccontextmanager
async def entered_elsewhere(
    context: AbstractAsyncContextManager[Any], *, over: bool, cancelled: bool = False
) -> AsyncIterator[Enter]:
    """A context that another task has entered, which is over or still waits; gives what leaves it here.

    The other task is not to be harmed, unless it is ``cancelled``.
    """
    entered, done, unharmed = anyio.Event(), anyio.Event(), anyio.Event()

    async def enter() -> None:
        await context.__aenter__()
        entered.set()
        if not over or sniffed() == "trio":
            await done.wait()
            await anyio.lowlevel.checkpoint()
        unharmed.set()

    async def leave() -> None:
        await context.__aexit__(None, None, None)

    # Tasks of the backends' own: anyio's refuse to end with a scope open.
    if sniffed() == "asyncio":
        task = asyncio.create_task(enter())
        await entered.wait()
        await anyio.wait_all_tasks_blocked()
        yield leave
        done.set()
        await asyncio.wait([task])
    else:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter)
                await entered.wait()
                await anyio.wait_all_tasks_blocked()
                yield leave
                done.set()
        except* RuntimeError as complaints:  # trio's, of a task that ends with a nursery open
            if "stack corrupted" not in str(complaints.exceptions[0]):
                raise
    assert cancelled or unharmed.is_set()
