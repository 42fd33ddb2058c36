"""Coverage: the states and races that `explore` counts, with any strategy, in one process or several."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from textwrap import dedent

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.known_bugs import bystander, double_answer, mended, starvation
from workerbus import MemoryBus, WorkerRunner
from workerbus.testing import (
    EchoWorker,
    Exploration,
    Faults,
    FaultyBus,
    exhaustive,
    explore,
    pct,
    picks,
    random_walk,
)
from workerbus.testing.clock._run import ONE_WEEK
from workerbus.testing.exploring._bounded import States
from workerbus.testing.exploring._coverage import Coverage
from workerbus.testing.exploring._runs import Scenario
from workerbus.testing.exploring._strategies import Strategy

pytest_plugins = ["pytester"]

DRAWN: tuple[Strategy, ...] = (random_walk(), pct(3))
ALL: tuple[Strategy, ...] = (*DRAWN, exhaustive(2), exhaustive(1, reduction=False), picks([(1, 1)]))


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


async def two_that_add() -> None:
    """One pair of steps whose order can be seen, and a task that concerns nobody."""
    order: list[int] = []

    async def add(number: int) -> None:
        await checkpoint()
        order.append(number)
        await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(add, 1)
        group.start_soon(add, 2)
        group.start_soon(bystander)


async def apart() -> None:
    """Two that do not see each other."""

    async def walk() -> None:
        for _ in range(3):
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(walk)
        group.start_soon(walk)


async def over_a_bad_line() -> None:
    """A job over a bus that may lose a message."""
    async with (
        FaultyBus(MemoryBus(), faults=Faults(duplicate=0.1)) as bus,
        WorkerRunner(bus=bus, name="left") as runner,
    ):
        await runner.add_workers(EchoWorker("echo"))
        await runner.job("echo", timeout=10)


def counted(
    scenario: Callable[[], Awaitable[object]], strategy: Strategy, backend: str, budget: int = 20
) -> Exploration:
    return explore(scenario, strategy=strategy, budget=budget, backend=backend, raises=False, coverage=True)


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_each_strategy_counts_states_and_races(backend: str, strategy: Strategy) -> None:
    """T9: it runs the same as without."""
    report = counted(two_that_add, strategy, backend)
    plain = explore(two_that_add, strategy=strategy, budget=20, backend=backend)
    assert (report.schedules, report.distinct, report.exhausted) == (plain.schedules, plain.distinct, plain.exhausted)
    assert report.states >= max(plain.states, 4)
    assert report.races >= 1 or not isinstance(strategy, type(exhaustive(1)))
    assert f", {report.states:,} states, {report.races:,} races" in str(report)


@pytest.mark.slow
def test_strategies_that_run_all_orders_count_the_same(backend: str) -> None:
    """T9: whichever was first, and with or without reduction."""
    reports = [counted(two_that_add, strategy, backend, 600) for strategy in (random_walk(), pct(4), exhaustive(9))]
    assert len({report.states for report in reports}) == 1
    assert {report.races for report in reports} == {reports[0].races}


def test_steps_that_do_not_meet_are_no_race(backend: str) -> None:
    """T9: but that asyncio ends tasks in the order in which they ended is a state, too."""
    report = counted(apart, random_walk(), backend)
    assert report.races == 0 or (backend == "asyncio" and report.races <= 1)


def looked_at_each_time(
    scenario: Callable[[], Awaitable[object]], strategy: Strategy, backend: str, budget: int
) -> Coverage:
    coverage = Coverage(None)
    search = strategy.search(0, 1, None)
    runs = Scenario(scenario, backend, ONE_WEEK, 1)
    while budget > 0 and (orders := search.following(budget)):
        budget -= len(orders)
        for order in orders:
            ran = runs.try_order(order, States(), {})
            coverage.learn(ran.states, ran.choices, ran.switches)
            search.learn(ran)
    return coverage


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [pct(3), exhaustive(1)], ids=repr)
@pytest.mark.parametrize("scenario", [over_a_bad_line, mended(starvation)], ids=["over a bad line", "starvation"])
def test_a_turn_that_is_known_leads_where_it_led(
    backend: str, scenario: Callable[[], Awaitable[object]], strategy: Strategy
) -> None:
    """T9: the numbers are those of looking at every state."""
    looked = looked_at_each_time(scenario, strategy, backend, 8)
    report = explore(scenario, strategy=strategy, budget=8, backend=backend, faults=1, coverage=True)
    assert (report.states, report.races) == (looked.states, looked.races)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [pct(3), exhaustive(1)], ids=repr)
@pytest.mark.parametrize("scenario", [over_a_bad_line, double_answer])
def test_several_processes_count_the_same(
    backend: str, scenario: Callable[[], Awaitable[object]], strategy: Strategy
) -> None:
    """T8, T9: also where a run fails."""
    reports = [
        explore(
            scenario,
            strategy=strategy,
            budget=12,
            backend=backend,
            raises=False,
            coverage=True,
            processes=processes,
            faults=1,
        )
        for processes in (1, 2)
    ]
    assert len(set(map(str, reports))) == 1
    assert reports[0].states


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_what_was_stopped_counts_on(backend: str, strategy: Strategy, tmp_path: Path) -> None:
    """T8, T9: the numbers are those of one call."""
    whole = counted(two_that_add, strategy, backend, 40)
    path = tmp_path / "explored.json"
    for budget in (1, 15, 24):
        part = explore(
            two_that_add, strategy=strategy, budget=budget, backend=backend, coverage=True, resume=path, processes=1
        )
    assert str(part) == str(whole)


def test_a_file_without_coverage_is_refused_with_it(tmp_path: Path) -> None:
    """T8: the numbers would be of a part."""
    path = tmp_path / "explored.json"
    explore(two_that_add, budget=2, resume=path)
    with pytest.raises(ValueError, match="is of an exploration with coverage False, and not True"):
        explore(two_that_add, budget=2, resume=path, coverage=True)


def test_progress_has_them(backend: str) -> None:
    """T8, T9: and they only grow."""
    told: list[Exploration] = []
    explore(two_that_add, budget=10, backend=backend, coverage=True, progress=told.append)
    assert [each.states for each in told] == sorted(each.states for each in told)
    assert told[0].states > 0


def test_states_that_nobody_can_tell_are_not_counted(backend: str) -> None:
    """T9: and the report says why."""

    async def scenario() -> None:
        view: object = None
        await checkpoint()
        view = memoryview(b"abc")
        await checkpoint()
        assert view
        view = None
        await checkpoint()

    report = counted(scenario, random_walk(), backend, 3)
    assert report.unknown == "builtins.memoryview"
    assert report.states > 2
    assert report.races == 0


TESTS = """
import anyio
import pytest
from anyio.lowlevel import checkpoint

@pytest.mark.explore(pct=3, schedules=5, coverage=True)
async def test_two():
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint)
        group.start_soon(checkpoint)
"""


def test_the_report_of_a_test_that_passes_has_them(pytester: pytest.Pytester) -> None:
    """T9."""
    pytester.makeconftest('pytest_plugins = ["workerbus.testing.fixtures"]')
    pytester.makepyfile(dedent(TESTS))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["pct(3) on asyncio: 5 schedules * states, * races, *"])
