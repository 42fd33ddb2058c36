"""Scenarios that are cut at every checkpoint, and the ways to cut them."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import pytest
from attrs import frozen

from workerbus.testing import CheckpointReport, cancel_at_every_checkpoint
from workerbus.testing.cancellation._cutting import How

T = TypeVar("T")

WAYS: list[tuple[str, How]] = [
    ("asyncio", "scope"),
    ("asyncio", "native"),
    ("asyncio", "race"),
    ("asyncio", "raise"),
    ("trio", "scope"),
    ("trio", "raise"),
]
SLOW_WAYS = [("asyncio", "scope"), ("asyncio", "native"), ("trio", "scope")]
"""Those that are tried where sending takes time, and there are many more checkpoints."""


@frozen
class Case(Generic[T]):
    """What is done to a program, how that is set up, and what must hold of it afterwards."""

    scenario: Callable[[T], Coroutine[Any, Any, object]]
    set_up: Callable[[], AbstractAsyncContextManager[T]]
    check: Callable[[T], Awaitable[object]]

    def cut(
        self,
        backend: str,
        how: How,
        *,
        check: Callable[[T], Awaitable[object]] | None = None,
        only: int | None = None,
    ) -> CheckpointReport:
        """Cut it at every checkpoint, or at one, each way under a schedule of its own."""
        return cancel_at_every_checkpoint(
            self.scenario,
            set_up=self.set_up,
            check=check or self.check,
            backend=backend,
            how=how,
            seed=WAYS.index((backend, how)),
            error=KeyboardInterrupt,
            only=only,
        )


def cuts_of(names: Iterable[str]) -> Iterator[Any]:
    """Yield each case with each way to cut it, as parameters ``name``, ``backend`` and ``how``."""
    for name in names:
        for backend, how in WAYS:
            if "slow" not in name or (backend, how) in SLOW_WAYS:
                yield pytest.param(name, backend, how, id=f"{name}-{backend}-{how}")
