"""J20, S1: how long is waited before each new attempt."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus import Backoff
from workerbus.testing import run

NUMBERS = st.floats(0, 100)


def test_each_wait_is_twice_as_long_up_to_the_longest() -> None:
    """J20: the defaults, but for the jitter."""
    assert list(islice(Backoff(jitter=0).delays(), 10)) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30]


@given(initial=NUMBERS, factor=st.floats(1, 10), maximum=NUMBERS, jitter=st.floats(0, 1))
def test_the_jitter_is_a_share_of_the_wait(initial: float, factor: float, maximum: float, jitter: float) -> None:
    """J20"""
    even = islice(Backoff(initial=initial, factor=factor, maximum=maximum, jitter=0).delays(), 20)
    shaken = islice(Backoff(initial=initial, factor=factor, maximum=maximum, jitter=jitter).delays(), 20)
    for wait, it in zip(even, shaken, strict=True):
        assert wait <= maximum
        assert wait * (1 - jitter) * 0.999 <= it <= wait * (1 + jitter) * 1.001


def test_not_everybody_waits_for_the_same_time() -> None:
    """J20"""
    assert len({next(Backoff().delays()) for _ in range(20)}) > 1


def test_each_wait_of_one_is_shaken_anew_and_some_are_longer_and_some_shorter() -> None:
    """J20: by no more than the share."""
    waits = list(islice(Backoff(initial=1, factor=1, jitter=0.5).delays(), 100))
    assert min(waits) < 1 < max(waits)
    assert len(set(waits)) > 1


def test_in_virtual_time_the_seed_decides(backend: str) -> None:
    """J20: so that a run can be repeated."""

    async def main() -> list[float]:
        return list(islice(Backoff().delays(), 5))

    first, again, other = (run(main, backend=backend, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"initial": -1}, ValueError, "Backoff: initial is at least 0 and finite, not -1"),
        ({"factor": 0.5}, ValueError, "Backoff: factor is at least 1 and finite, not 0.5"),
        ({"maximum": float("inf")}, ValueError, "Backoff: maximum is at least 0 and finite, not inf"),
        ({"jitter": 1.5}, ValueError, "Backoff: jitter is from 0 to 1 and finite, not 1.5"),
        ({"jitter": float("nan")}, ValueError, "Backoff: jitter is from 0 to 1 and finite, not nan"),
        ({"initial": "1"}, TypeError, "Backoff: initial is a number, not '1'"),
        ({"factor": True}, TypeError, "Backoff: factor is a number, not True"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    """N8: where it is made."""
    with pytest.raises(error) as caught:
        Backoff(**arguments)
    assert str(caught.value) == text
