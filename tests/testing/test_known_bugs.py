"""Known kinds of bugs: each strategy finds them, in few schedules, and makes them small; mended, they never fail."""

import pytest

from support.known_bugs import DEEPER_BUGS, KNOWN_BUGS, Bug, mended, starvation, two_producers_and_a_consumer
from workerbus.testing import exhaustive, explore, pct, random_walk
from workerbus.testing.exploring._strategies import Strategy

BUDGET = 2_000
DEEPER = {"starvation": 8, "writer_starvation": 4}
"""Those that take more switches than two."""
SOME = KNOWN_BUGS[::4]
OTHERS = [bug for bug in KNOWN_BUGS if bug not in SOME]


def name_of(bug: Bug) -> str:
    return bug.__name__


def is_found(bug: Bug, backend: str) -> None:
    explore(bug, budget=1, backend=backend)
    report = explore(bug, strategy=pct(3), budget=BUDGET, backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.number <= BUDGET
    assert report.failure.switches <= DEEPER.get(name_of(bug), 2)
    assert 1 <= report.failure.story.count("went on before") <= report.failure.switches
    assert "what they did in" in report.failure.story


def test_there_are_thirty() -> None:
    """T1."""
    assert len({name_of(bug) for bug in KNOWN_BUGS}) == 30


@pytest.mark.parametrize("bug", SOME, ids=name_of)
def test_a_known_bug_hides_in_the_default_order_and_is_found(backend: str, bug: Bug) -> None:
    """T1, T2: here some of them, and the others below."""
    is_found(bug, backend)
    explore(mended(bug), strategy=pct(3), budget=2, backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("bug", OTHERS, ids=name_of)
def test_each_known_bug_hides_in_the_default_order_and_is_found(backend: str, bug: Bug) -> None:
    """T1, T2."""
    is_found(bug, backend)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [pct(3), exhaustive(2)], ids=repr)
@pytest.mark.parametrize("bug", KNOWN_BUGS, ids=name_of)
def test_a_program_without_the_bug_does_not_fail(backend: str, bug: Bug, strategy: Strategy) -> None:
    """T1: no false alarm."""
    explore(mended(bug), strategy=strategy, budget=10, backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("bug", KNOWN_BUGS, ids=name_of)
def test_two_switches_find_each_known_bug(backend: str, bug: Bug) -> None:
    """T1, T2: but for those that take more switches than the bound allows."""
    if name_of(bug) in DEEPER:
        assert explore(bug, strategy=exhaustive(2), budget=BUDGET, backend=backend).exhausted
        return
    report = explore(bug, strategy=exhaustive(2), budget=BUDGET, backend=backend, raises=False)
    assert report.failure is not None


@pytest.mark.slow
@pytest.mark.parametrize("bug", DEEPER_BUGS, ids=name_of)
def test_bugs_behind_several_races_are_found_and_need_each_of_them(backend: str, bug: Bug) -> None:
    """T1, T2: one switch alone never shows them, and none of those that are told can be left out."""
    assert explore(bug, strategy=exhaustive(1), budget=BUDGET, backend=backend).exhausted
    report = explore(bug, strategy=random_walk(), budget=BUDGET, backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.switches == (2 if bug is two_producers_and_a_consumer else 3)
    assert explore(mended(bug), strategy=exhaustive(2), budget=50, backend=backend).failure is None


def test_priorities_find_soon_what_drawn_orders_seldom_have(backend: str) -> None:
    """T1: eight turns in a row in which the same task is first."""
    numbers = [
        report.failure.number
        for seed in range(4)
        if (report := explore(starvation, strategy=pct(3), backend=backend, seed=seed, raises=False)).failure
    ]
    assert len(numbers) == 4
    assert max(numbers) < 100
