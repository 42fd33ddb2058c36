"""Known kinds of bugs: each strategy finds them, in few schedules, and makes them small."""

import pytest

from support.known_bugs import KNOWN_BUGS, Scenario, starvation
from workerbus.testing import exhaustive, explore, pct, random_walk, run
from workerbus.testing.exploring._strategies import Strategy

BUDGET = 2_000


def name_of(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "")


@pytest.mark.parametrize("scenario", KNOWN_BUGS, ids=name_of)
def test_a_known_bug_hides_in_the_default_order(backend: str, scenario: Scenario) -> None:
    """T1."""
    explore(scenario, budget=1, backend=backend)
    if backend == "asyncio":
        run(scenario, backend=backend, seed=None)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [random_walk(), pct(2), pct(3), exhaustive(2)], ids=repr)
@pytest.mark.parametrize("scenario", KNOWN_BUGS, ids=name_of)
def test_each_strategy_finds_a_known_bug(backend: str, scenario: Scenario, strategy: Strategy) -> None:
    """T1, T2: but for the one that takes more switches than the bound allows."""
    report = explore(scenario, strategy=strategy, budget=BUDGET, backend=backend, raises=False)
    if scenario is starvation and strategy == exhaustive(2):
        assert report.failure is None
        return
    assert report.failure is not None
    assert report.failure.number <= BUDGET
    assert report.failure.switches <= (8 if scenario is starvation else 2)
    assert report.failure.story.count("went on before") == report.failure.switches


def test_priorities_find_soon_what_drawn_orders_seldom_have(backend: str) -> None:
    """T1: eight turns in a row in which the same task is first."""
    numbers = [
        report.failure.number
        for seed in range(10)
        if (report := explore(starvation, strategy=pct(3), backend=backend, seed=seed, raises=False)).failure
    ]
    assert len(numbers) == 10
    assert max(numbers) < 100
