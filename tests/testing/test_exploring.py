"""`explore` and `replay`: which orders of tasks are run, what is found, how small it is made, and how it is told."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from trio._core import _run as scheduler

from support.known_bugs import aba_of_names, cancel_against_answer, deadlock_in_a_circle, double_answer, lost_update
from support.programs import plain_environment
from workerbus import BaseWorker, BusJobRequestMessage, WorkerRunner, job
from workerbus._order import PROCESS
from workerbus.testing import (
    DeadlockError,
    TimeLimitError,
    exhaustive,
    explore,
    pct,
    picks,
    random_walk,
    replay,
    strategies,
)
from workerbus.testing.clock._run import run_steered
from workerbus.testing.clock._steering import Steering, TaskStep
from workerbus.testing.exploring._schedule import Following, Schedule, parse
from workerbus.testing.exploring._shrinking import shrink
from workerbus.testing.exploring._strategies import Strategy

ALL: tuple[Strategy, ...] = (random_walk(), pct(1), pct(3), exhaustive(2))


def recorder(*names: str, steps: int = 1) -> tuple[list[str], Callable[[], Awaitable[None]]]:
    """A scenario of some tasks, and the list of the orders in which their steps have run."""
    orders: list[str] = []

    async def scenario() -> None:
        order: list[str] = []

        async def step(name: str) -> None:
            for _ in range(steps):
                await checkpoint()
                order.append(name)

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(step, name)
        orders.append("".join(order))

    return orders, scenario


# --- which orders are run


def test_the_first_order_is_that_in_which_tasks_were_started(backend: str) -> None:
    """T1."""
    for strategy in ALL:
        orders, scenario = recorder(*"abcd")
        explore(scenario, strategy=strategy, budget=1, backend=backend)
        assert orders == ["abcd"]


@pytest.mark.parametrize("strategy", [random_walk(), pct(3)], ids=repr)
def test_every_order_comes(backend: str, strategy: Strategy) -> None:
    """T1."""
    orders, scenario = recorder(*"abc")
    explore(scenario, strategy=strategy, budget=300, backend=backend)
    assert set(orders) == {"".join(order) for order in itertools.permutations("abc")}


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_the_same_seed_gives_the_same_runs(backend: str, strategy: Strategy) -> None:
    """T1."""
    seen = []
    for seed in (1, 1, 2):
        orders, scenario = recorder(*"abcd", steps=2)
        report = explore(scenario, strategy=strategy, budget=40, backend=backend, seed=seed)
        seen.append((orders, report))
    assert seen[0] == seen[1]
    assert seen[0] != seen[2] or strategy == exhaustive(2)


def test_in_each_turn_of_the_loop_every_ready_task_runs_once(backend: str) -> None:
    """T1: as on the real loops; a failure that needs a task to wait for several turns could not come there."""
    for strategy in ALL:
        orders, scenario = recorder(*"abc", steps=3)
        explore(scenario, strategy=strategy, budget=100, backend=backend)
        for order in orders:
            assert [sorted(order[turn : turn + 3]) for turn in (0, 3, 6)] == [list("abc")] * 3


def test_all_orders_within_the_bound_are_run_once_and_those_with_few_switches_first(backend: str) -> None:
    """T1: compared with the choices of a program whose tasks do nothing else."""
    counts = []
    for bound in (1, 2, 3, 20):
        orders, scenario = recorder(*"abc")
        report = explore(scenario, strategy=exhaustive(bound, reduction=False), budget=10_000, backend=backend)
        assert report.exhausted
        assert report.failure is None
        assert report.distinct == report.schedules == len(orders)
        counts.append(report.schedules)
    # Each task is ready in the same turns: at first to begin, then to go on; on trio the main task may be, too.
    assert counts == sorted(set(counts))
    assert counts[-1] % (6 * 6) == 0


def test_what_exhaustive_finds_first_has_the_fewest_switches(backend: str) -> None:
    """T1: here, two of two: in every turn the other one is first."""
    scenario = needs_an_order("ba" * 2)
    report = explore(scenario, strategy=exhaustive(3), budget=5_000, backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.switches == 2
    assert explore(scenario, strategy=exhaustive(1), budget=5_000, backend=backend).exhausted


def test_a_priority_holds_over_the_turns_until_it_changes(backend: str) -> None:
    """T1: with depth 1 nothing changes, so that one order of two tasks stays for the whole run."""
    orders, scenario = recorder(*"ab", steps=4)
    explore(scenario, strategy=pct(1), budget=50, backend=backend)
    assert set(orders) == {"abababab", "babababa"}
    orders, scenario = recorder(*"ab", steps=4)
    explore(scenario, strategy=pct(2), budget=200, backend=backend)
    assert {"abababab", "babababa", "abbababa", "ababbaba", "baababab"} <= set(orders)
    assert "abbaabba" not in orders  # that is three changes


class Drawn:
    """Chooses at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def choose(self, ready: Sequence[TaskStep]) -> int:
        return self.random.randrange(len(ready))

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        return 0


def needs_an_order(fails: str) -> Callable[[], Awaitable[None]]:
    """Several tasks, each a letter, which take turns; it fails when they come in an order."""

    async def scenario() -> None:
        order: list[str] = []

        async def step(name: str) -> None:
            for _ in range(fails.count(name)):
                await checkpoint()
                order.append(name)

        async with anyio.create_task_group() as group:
            for name in sorted(set(fails)):
                group.start_soon(step, name)
        assert "".join(order) != fails

    return scenario


def test_the_bound_on_the_probability_of_pct_holds(backend: str) -> None:
    """T1: a bug of depth 1 comes in at least one of n runs on average; drawn with room for chance."""
    found = 0
    for seed in range(20):
        report = explore(
            needs_an_order("cab" * 6), strategy=pct(1), budget=40, backend=backend, seed=seed, raises=False
        )
        found += report.failure is not None
    assert found == 20  # with drawn orders, each of 6 turns would have to be the one of six


def test_a_program_that_has_not_failed_is_reported(backend: str) -> None:
    """T1."""
    _, scenario = recorder(*"abc")
    report = explore(scenario, strategy=pct(2), budget=20, backend=backend)
    assert report.schedules == 20
    assert 1 < report.distinct <= 20
    assert not report.exhausted
    assert str(report) == (
        f"pct(2) on {backend}: 20 schedules ({report.distinct} distinct), at most {report.choices} choices, "
        "budget used up"
    )


# --- what is found


def raised_by(scenario: Callable[[], Awaitable[object]], backend: str, strategy: Strategy = ALL[0]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the tests look at it
        explore(scenario, strategy=strategy, backend=backend)
    return caught.value


def test_a_failure_is_raised_as_it_is_and_tells_its_schedule(backend: str) -> None:
    """T2."""
    error = raised_by(double_answer, backend)
    assert isinstance(error, AssertionError)
    assert str(error).startswith("the requester was told")
    told = "\n".join(error.__notes__)
    assert f"in workerbus.testing.explore(double_answer, backend={backend!r})" in told
    assert "of random_walk(); one switch is enough:\n  1. 'answer' 2 (at _checks.py:" in told
    assert "     went on before 'answer' 1 (at _checks.py:" in told
    assert f'again: replay(double_answer, "{backend}/0' in told


def test_a_program_numbers_its_events_on_after_it_has_explored_others(backend: str) -> None:
    """L8: whether or not those have failed; their numbers begin with 1, so that runs are alike."""
    firsts: list[int] = []

    async def fails() -> None:
        firsts.append(PROCESS.next_number())
        raise ValueError("no text")

    before = [PROCESS.next_number() for _ in range(100)][-1]
    with pytest.raises(ValueError, match="no text"):
        explore(fails, strategy=random_walk(), budget=1, backend=backend)
    assert set(firsts) == {1}
    assert PROCESS.next_number() > before


def test_what_the_tasks_did_is_shown_line_by_line(backend: str) -> None:
    """T2: with a dot under the name of the task; the switch has a mark."""
    report = explore(double_answer, strategy=random_walk(), backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.story.splitlines()[2] == (
        "     so it read answers ([]) before the other one had set it (to ['done'])"
    )
    picture = report.failure.story.partition("what they did in _checks.py, in order (* = a switch):\n")[2].splitlines()
    assert picture[:3] == [
        "    'answer' 1: text='done', after=2",
        "    'answer' 2: text='time is up', after=3",
        "    'main'  'answer' 1  'answer' 2",
    ]
    assert [" ".join(re.sub(r" \d+ .*?   +", " ", row).split()) for row in picture[3:]] == [
        "│ ● │ answers is []",
        "│ │ ●* answers is []",
        "│ ● │ answers: [] → ['done']",
        "│ │ ● answers: ['done'] → ['done', 'time is up']",
        "● │ │ answers is ['done', 'time is up'], raises AssertionError: the requester was told done and t…",
    ]


def test_one_line_runs_it_again(backend: str) -> None:
    """T2."""
    for scenario in (lost_update, double_answer, deadlock_in_a_circle, cancel_against_answer, aba_of_names):
        report = explore(scenario, backend=backend, raises=False)
        assert report.failure is not None
        for _ in range(3):
            with pytest.raises(type(report.failure.error)) as caught:
                replay(scenario, report.failure.schedule)
            assert str(caught.value) == str(report.failure.error)


def test_tasks_are_called_what_the_program_calls_them() -> None:
    """T2: those that asyncio names by itself, by what they run."""

    async def program() -> None:
        order: list[str] = []

        async def work(name: str) -> None:
            order.append(name)

        tasks = [asyncio.create_task(work("a")), asyncio.create_task(work("b"), name="the other")]
        await asyncio.gather(*tasks)
        assert order == ["a", "b"]

    [note] = [note for note in raised_by(program, "asyncio").__notes__ if "switch" in note]
    assert "1. 'the other' (at its beginning)\n     went on before 'work' (at its beginning)" in note


def test_a_replay_is_exact_with_all_switches_of_any_run(backend: str) -> None:
    """T2: whatever was chosen, the switches are enough to choose it again."""

    async def scenario() -> None:
        order: list[str] = []

        async def work(name: str, depth: int) -> None:
            async with anyio.create_task_group() as group:
                for number in range(2 if depth else 0):
                    await checkpoint()
                    group.start_soon(work, f"{name}{number}", depth - 1)
                await anyio.sleep(len(name))
                order.append(name)

        await work("t", 2)
        raise RuntimeError(" ".join(order))

    for number in range(30):
        first = Steering(Drawn(number))
        with pytest.raises(RuntimeError) as caught:
            run_steered(scenario, backend=backend, steering=first, limit=60, note="")
        switches = parse(str(Schedule(backend, tuple(first.switches)))).switches
        again = Steering(Following(switches))
        with pytest.raises(RuntimeError, match=str(caught.value)):
            run_steered(scenario, backend=backend, steering=again, limit=60, note="")
        assert (again.choices, again.ready) == (first.choices, first.ready)
        assert len(first.switches) >= 3


PROGRAM = """
import sys
from support.known_bugs import KNOWN_BUGS
from workerbus.testing import explore, random_walk
for scenario in KNOWN_BUGS:
    report = explore(scenario, strategy=random_walk(), backend=sys.argv[1], raises=False)
    print(report, report.failure.schedule, report.failure.story)
"""


@pytest.mark.slow
def test_another_process_finds_the_same(backend: str) -> None:
    """T1: nothing depends on hashes, or on addresses of objects."""
    told = set()
    for seed in ("1", "2"):
        environment = plain_environment(PYTHONHASHSEED=seed, PYTHONPATH=os.pathsep.join(sys.path))
        program = [sys.executable, "-c", PROGRAM, backend]
        told.add(subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(told) == 1


def test_a_program_of_workers_is_explored_as_any_other(backend: str) -> None:
    """T1, T2."""

    class Account(BaseWorker):
        balance = 0

        @job(name="deposit")
        async def deposit(self, message: BusJobRequestMessage) -> None:
            before = self.balance
            for _ in range(message.payload["steps"]):
                await checkpoint()
            self.balance = before + 10

    async def deposits() -> None:
        account = Account("account")

        async def deposit(seconds: float, steps: int) -> None:
            await anyio.sleep(seconds)
            await runner.job("account", name="deposit", payload={"steps": steps})

        async with WorkerRunner() as runner:
            await runner.add_workers(account)
            async with anyio.create_task_group() as group:
                group.start_soon(deposit, 1, 1)
                group.start_soon(deposit, 1, 1)
        assert account.balance == 20

    error = raised_by(deposits, backend)
    assert isinstance(error, AssertionError)


def test_a_hang_is_a_failure_and_says_who_waits(backend: str) -> None:
    """T2."""
    error = raised_by(deadlock_in_a_circle, backend, pct(3))
    assert isinstance(error, DeadlockError)
    assert "wait for each other" in str(error) or "waits for a lock" in str(error)
    assert any("went on before" in note for note in error.__notes__)


def test_a_program_that_fails_in_any_order_needs_no_switch(backend: str) -> None:
    """T2."""

    async def broken() -> None:
        raise ValueError("always")

    report = explore(broken, backend=backend, raises=False)
    assert report.failure is not None
    assert (report.failure.number, report.failure.switches, report.failure.schedule) == (1, 0, backend)
    assert "It fails in the default order of tasks; no switch is needed." in "\n".join(report.failure.error.__notes__)
    with pytest.raises(ValueError, match="always"):
        replay(broken, backend)


def test_no_switch_of_a_small_schedule_can_be_left_out(backend: str) -> None:
    """T2."""
    for scenario in (lost_update, deadlock_in_a_circle, aba_of_names):
        report = explore(scenario, strategy=random_walk(), backend=backend, raises=False)
        assert report.failure is not None
        head, *switches = report.failure.schedule.split("/")
        for left_out in switches:
            others = [each for each in switches if each != left_out]
            # It passes then, or the others do not come up without it.
            with suppress(ValueError):
                replay(scenario, "/".join([head, *others]))


@given(st.integers(1, 8), st.sets(st.frozensets(st.integers(0, 7), max_size=8)))
def test_of_what_is_shrunk_nothing_can_be_left_out(count: int, pass_with: set[frozenset[int]]) -> None:
    """T2: also what could not be left out before something else was."""

    def fails(items: Sequence[int]) -> Sequence[int] | None:
        return None if frozenset(items) in pass_with else items

    left = shrink(range(count), fails, 1000)
    assert not any(fails([item for item in left if item != each]) for each in left)
    assert shrink(range(4), lambda items: items if 2 in items and (0 in items or 3 not in items) else None, 99) == (2,)


def test_shrinking_does_not_slide_to_another_failure(backend: str) -> None:
    """T2: it is the same one if it is of the same class and comes from the same line."""

    async def two_failures() -> None:
        order: list[str] = []

        async def step(name: str) -> None:
            await checkpoint()
            order.append(name)

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(step, name)
        if order == ["c", "b", "a"]:
            raise ValueError("the other way round")
        if order[0] != "a":
            raise ValueError("not a first")

    for seed in range(30):
        with pytest.raises(ValueError, match=r"not a first|the other way round"):
            explore(two_failures, strategy=random_walk(), backend=backend, seed=seed, budget=100)
        report = explore(two_failures, strategy=random_walk(), backend=backend, seed=seed, budget=100, raises=False)
        assert report.failure is not None
        if "the other way round" in str(report.failure.error):
            assert report.failure.switches == 2
            break
    else:
        pytest.fail("no seed has found the rare one first")


def test_a_program_that_runs_out_of_time_is_not_run_a_thousand_times(backend: str) -> None:
    """T2: each of these runs may take long."""
    runs = 0

    async def endless() -> None:
        nonlocal runs
        runs += 1
        order: list[str] = []

        async def step(name: str) -> None:
            for _ in range(40):
                await checkpoint()
                order.append(name)

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(step, name)
        if sum(order[turn] != "a" for turn in range(0, 120, 3)) > 10:
            for _ in itertools.count():
                await anyio.sleep(1)

    report = explore(endless, strategy=random_walk(), limit=5, backend=backend, raises=False)
    assert report.failure is not None
    assert isinstance(report.failure.error, TimeLimitError)
    assert runs <= report.schedules + 31
    assert f'"{report.failure.schedule}", limit=5)' in "\n".join(report.failure.error.__notes__)
    with pytest.raises(TimeLimitError):
        replay(endless, report.failure.schedule, limit=5)


def test_a_program_that_depends_on_more_than_its_schedule_is_told_so(backend: str) -> None:
    """T2."""
    runs = itertools.count()

    async def flaky() -> None:
        if next(runs) == 5:
            raise ValueError("in the sixth run")

    report = explore(flaky, strategy=random_walk(), backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.number == 6
    assert report.failure.story == ""
    assert "did not come again with the same one" in "\n".join(report.failure.error.__notes__)


def test_a_schedule_that_does_not_fit_the_program_is_refused(backend: str) -> None:
    """T2."""
    _, scenario = recorder(*"ab")
    with pytest.raises(ValueError, match="1 of its 1 switches did not come up"):
        replay(scenario, f"{backend}/0.7@3-0.8@2")


@pytest.mark.parametrize("wrong", ["", "curio", "asyncio/1", "trio/0@1-0", "asyncio/0@1-0@1/"])
def test_what_is_no_schedule_is_refused(wrong: str) -> None:
    """T2."""
    _, scenario = recorder("a")
    with pytest.raises(ValueError, match="a schedule is a text as"):
        replay(scenario, wrong)
    with pytest.raises(TypeError, match="a schedule is a text"):
        replay(scenario, 7)  # type: ignore[arg-type]  # that is the mistake


def test_a_replay_returns_what_the_function_does(backend: str) -> None:
    """T2."""

    async def seven() -> int:
        return 7

    assert replay(seven, backend) == 7


def test_wrong_arguments_are_refused() -> None:
    """T1."""
    _, scenario = recorder("a")
    for budget in (0, -1):
        with pytest.raises(ValueError, match="budget must be at least 1 run"):
            explore(scenario, budget=budget)
    for what in ("many", True):
        with pytest.raises(TypeError, match="budget must be a number of runs"):
            explore(scenario, budget=what)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(TypeError, match="strategy must be one as pct"):
        explore(scenario, strategy="pct")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ValueError, match="backend must be one of"):
        explore(scenario, backend="curio")
    for strategy in (pct, exhaustive):
        with pytest.raises(ValueError, match="must be at least 1"):
            strategy(0)
        with pytest.raises(TypeError, match="must be a whole number"):
            strategy(1.5)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(TypeError, match="pairs of whole numbers"):
        picks([(1, 2, 3)])
    with pytest.raises(ValueError, match="at least 0"):
        picks([(-1, 2)])


def test_what_is_neither_an_exception_nor_an_interrupt_is_a_failure_as_well(backend: str) -> None:
    """T2: it is raised as it is, and the schedule is told."""

    class Panic(BaseException):
        """What a native extension may raise."""

    orders, two = recorder("a", "b")

    async def scenario() -> None:
        await two()
        if orders[-1] == "ba":
            raise Panic

    error = raised_by(scenario, backend, exhaustive(1))
    assert isinstance(error, Panic)
    assert "one switch is enough" in "".join(error.__notes__)


def test_tasks_that_no_task_has_started_are_told_apart() -> None:
    """T2: callbacks of asyncio's loop start them."""

    async def scenario() -> None:
        loop, order, tasks = asyncio.get_running_loop(), list[int](), list[asyncio.Task[None]]()

        async def work(number: int) -> None:
            order.append(number)

        def start(number: int) -> None:
            tasks.append(loop.create_task(work(number)))

        for number in range(3):
            loop.call_soon(start, number)
        while len(order) < 3:
            await checkpoint()
        assert order != [1, 0, 2]

    report = explore(scenario, strategy=exhaustive(1), raises=False)
    assert report.failure is not None
    assert report.failure.switches == 1
    with pytest.raises(AssertionError):
        replay(scenario, report.failure.schedule)


def test_an_interrupt_from_the_keyboard_is_no_failure(backend: str) -> None:
    """T1."""

    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        explore(interrupted, backend=backend)
    assert "schedule" not in "\n".join(caught.value.__notes__)


def test_trio_is_left_as_it_was() -> None:
    """T1."""
    before = scheduler._r, scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    raised_by(double_answer, "trio")
    assert (scheduler._r, scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before
    trio.run(trio.lowlevel.checkpoint)


# --- hypothesis


def test_hypothesis_draws_orders_that_shrink_to_the_default(backend: str) -> None:
    """T1: and what is printed can be pasted."""

    @settings(max_examples=200, database=None, deadline=None)
    @given(schedule=strategies.schedules(), late=st.integers(0, 3))
    def law(schedule: picks, late: int) -> None:
        explore(partial(three, late), strategy=schedule, budget=2, backend=backend)

    async def three(late: int) -> None:
        order: list[str] = []

        async def step(name: str) -> None:
            await checkpoint()
            order.append(name)

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(step, name)
        assert late < 2 or order[0] != "c"

    with pytest.raises(AssertionError) as caught:
        law()
    told = "\n".join(caught.value.__notes__)
    assert "one switch is enough" in told
    assert "again: replay(three, " in told
    assert repr(picks([(3, 1)])) == "picks([(3, 1)])"
