"""Wall clocks that cannot be relied upon."""

import logging
import time
from collections.abc import Callable

import pytest

HOUR = 3600.0


def frozen() -> Callable[[], float]:
    """What tests that freeze time do."""
    return lambda: 1_000_000_000.0


def backwards() -> Callable[[], float]:
    """Each look at it shows an hour less."""
    seen = [2_000_000_000.0]

    def look() -> float:
        seen[0] -= HOUR
        return seen[0]

    return look


def broken() -> Callable[[], float]:
    """Shows the beginning of time, or what has become of it."""
    return lambda: float("nan")


CLOCKS = pytest.mark.parametrize("clock", [frozen, backwards, broken])
"""Whatever the wall clock does, nothing depends on it: for a test that takes a ``clock``."""


def set_clock(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], Callable[[], float]]) -> None:
    """Put a clock in the place of the real one."""
    monkeypatch.setattr(time, "time", clock())
    logging.getLogger("workerbus").setLevel(logging.CRITICAL)  # until `caplog` ends: a record bears the time, never nan
