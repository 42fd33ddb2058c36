"""B4, X2-X7: what is seen of one peer, its names, messages and claims is the same alone as beside another one."""

import logging
import math
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties.two_sides import SIDES, Sides, program
from workerbus.testing import run

laws = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32)


def _compare(backend: str, seed: int) -> None:
    steps = program(Random(seed))
    size = 1.0 if seed % 3 == 0 else math.inf
    beside, *alone = (
        run(Sides(sees, size).play, steps, backend=backend, seed=seed) for sees in (SIDES, *((side,) for side in SIDES))
    )
    for side in SIDES:
        assert beside[side] == alone[side][side], steps


@settings(laws, max_examples=4)
@given(seeds)
def test_what_is_seen_of_a_peer_is_the_same_alone_as_beside_another_one(
    backend: str, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """B4, X2, X3, X4, X5, X6, X7."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")
    _compare(backend, seed)


@pytest.mark.slow
@settings(laws, max_examples=40)
@given(seeds)
def test_it_is_the_same_in_many_more_programs(backend: str, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """B4, X2, X3, X4, X5, X6, X7."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")
    _compare(backend, seed)
