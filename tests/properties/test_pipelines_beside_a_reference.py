"""P1, P3, P5, P6: every processor does, at every moment, what a pipeline does that is simple enough to be read."""

import logging
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from properties.pipeline_machines import Notes
from properties.pipeline_player import Player
from properties.pipeline_reference import Reference
from properties.pipeline_scripts import Script, scripts
from workerbus.testing import run
from workerbus.testing import strategies as these

pytestmark = pytest.mark.slow


def sorted_out(notes: Notes | None) -> dict[Any, Any]:
    """What was seen, each thing in its order where there is one: of a lane."""
    return {
        key: seen if key[0] in ("data", "system") else sorted(seen, key=str)
        for key, seen in sorted((notes or {}).items(), key=str)
        if seen
    }


def expected(script: Script, orders: int) -> dict[Any, Any] | None:
    """What the reference sees; None where that depends on the order of what happens at the same moment."""
    first = sorted_out(Reference(script, None).play())
    others = (sorted_out(Reference(script, Random(seed)).play()) for seed in range(orders))
    return first if first and all(other == first for other in others) else None


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(script=scripts(), seed=these.seeds())
def test_a_pipeline_does_what_the_reference_does(
    backend: str, caplog: pytest.LogCaptureFixture, script: Script, seed: int
) -> None:
    """P1, P3, P5, P6: frames, interruptions, pauses, branches, flushes, observers, bridges, in any mixture."""
    told = expected(script, orders=2)
    assume(told is not None)
    assert told is not None
    caplog.set_level(logging.CRITICAL, logger="workerbus")
    seen = sorted_out(run(Player(script).play, backend=backend, seed=seed, limit=10_000.0))
    told.pop(("no heartbeat",), None)
    assume(seen == told or expected(script, orders=50) is not None)
    for key in {*told, *seen}:
        assert seen.get(key, []) == told.get(key, []), key
