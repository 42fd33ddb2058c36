"""Virtual time, for tests of waiting: a test of two seconds takes none."""

from collections.abc import Awaitable, Callable
from typing import Any

from workerbus import testing


def run(function: Callable[..., Awaitable[Any]], *args: Any, backend: str, seed: int = 0, limit: float = 20.0) -> Any:
    """Run an async function in virtual time; after ``limit`` seconds of it, it has hung."""
    return testing.run(function, *args, backend=backend, seed=seed, limit=limit)
