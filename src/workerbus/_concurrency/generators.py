"""Async generators of the user's, which are closed in the task that has read them (L7)."""

from collections.abc import AsyncGenerator
from typing import Any

from workerbus._concurrency.failures import without


async def close_generator(generator: AsyncGenerator[Any, None]) -> None:
    """Close a generator; raises what its clean-up raises.

    A task group that it has yielded inside of raises the `GeneratorExit`, which is to close it, in an exception group.
    Then it has closed, and only what else is in that group is raised.
    """
    try:
        await generator.aclose()
    except BaseExceptionGroup as several:
        others = without(several, GeneratorExit)
        if others is several:
            raise
        if others is not None:
            raise others from None
