"""Time that passes only when nothing else can happen, on both backends, so that a test of two seconds takes none."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from trio.testing import MockClock


class _Skipping(selectors.SelectSelector):
    """A selector that skips the time for which it would sleep."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            return super().select(None)
        if not ready and timeout is not None and timeout > 0:
            self.skipped += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return time.monotonic() + self._skipping.skipped


def options(backend: str) -> dict[str, Any]:
    """The backend options under which idle time is skipped. Real time passes as well, so that a busy loop ends."""
    if backend == "trio":
        return {"clock": MockClock(rate=1.0, autojump_threshold=0)}
    return {"loop_factory": _Loop}


def run(function: Callable[..., Awaitable[Any]], *args: Any, backend: str, limit: float = 20.0) -> Any:
    """Run an async function with idle time skipped; after ``limit`` seconds it has hung."""

    async def limited() -> Any:
        with anyio.fail_after(limit):
            return await function(*args)

    return anyio.run(limited, backend=backend, backend_options=options(backend))
