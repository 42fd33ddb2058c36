"""How long to wait before something is tried again (J20, S1).

The jitter is drawn from one generator, which `workerbus.testing` seeds, so that a run in virtual time can be repeated.
"""

import math
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from attrs import Attribute, field, frozen

_random: Final = Random()  # noqa: S311 - a moment to wait, not a secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)  # else parent and child would try again at the same moments


def seed_jitter(seed: int) -> None:
    """Draw the jitter from a seed from now on."""
    _random.seed(seed)


def jitter() -> Random:
    """Return what the jitter is drawn from."""
    return _random


def _within(low: float, high: float) -> Callable[["Backoff", "Attribute[float]", float], None]:
    def check(_backoff: "Backoff", attribute: "Attribute[float]", value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"Backoff: {attribute.name} is a number, not {value!r}")
        if not (low <= value <= high and value < math.inf):
            bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"Backoff: {attribute.name} is {bounds} and finite, not {value!r}")

    return check


@frozen(kw_only=True)
class Backoff:
    """How long to wait before each new attempt: longer each time, with some random jitter.

    Args:
        initial: The first wait, in seconds.
        factor: By what factor each wait is longer than the one before, at least 1.
        maximum: The longest wait, in seconds, apart from the jitter.
        jitter: The random share, at most, by which each wait is longer or shorter: 0 to 1.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    Guarantees: J20, S1.
    """

    initial: float = field(default=0.1, validator=_within(0, math.inf))
    factor: float = field(default=2.0, validator=_within(1, math.inf))
    maximum: float = field(default=30.0, validator=_within(0, math.inf))
    jitter: float = field(default=0.1, validator=_within(0, 1))

    def delays(self) -> Iterator[float]:
        """Return the waits, in seconds, one after the other, endlessly."""
        delay = self.initial
        while True:
            yield min(delay, self.maximum) * (1 + self.jitter * _random.uniform(-1, 1))
            delay = min(delay * self.factor, self.maximum)
