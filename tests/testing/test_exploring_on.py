"""`explore` with faults of buses among the choices, gone on with from a file, and in several processes."""

import json
import multiprocessing
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.known_bugs import double_answer, lost_update, starvation
from workerbus import MemoryBus, WorkerRunner
from workerbus.testing import (
    EchoWorker,
    Exploration,
    Faults,
    FaultyBus,
    PeerFaults,
    PeerNetwork,
    exhaustive,
    explore,
    pct,
    picks,
    random_walk,
    replay,
)
from workerbus.testing.clock._steering import ChosenFault, Steering, TaskStep
from workerbus.testing.exploring._runs import Ran
from workerbus.testing.exploring._schedule import Following, parse
from workerbus.testing.exploring._strategies import ROUND, Strategy

ALL: tuple[Strategy, ...] = (random_walk(), pct(3), exhaustive(2), exhaustive(1, reduction=False))

# --- faults


async def a_request_over(plan: Faults) -> None:
    """Two jobs over a faulty bus; each has to be answered in time."""
    async with FaultyBus(MemoryBus(), faults=plan) as left, WorkerRunner(bus=left, name="left") as runner:
        await runner.add_workers(EchoWorker("echo"))
        for number in range(2):
            assert await runner.job("echo", payload={"n": number}, timeout=10) == {"n": number}


def test_a_fault_is_a_choice_among_the_others(backend: str) -> None:
    """T7: it is found, alone, told, and comes again."""
    scenario = partial(a_request_over, Faults(lose=0.01))
    explore(scenario, strategy=exhaustive(1), faults=0, budget=1, backend=backend)
    for strategy in (exhaustive(1, reduction=False),):
        report = explore(scenario, strategy=strategy, faults=1, backend=backend, raises=False)
        failure = report.failure
        assert failure is not None
        assert isinstance(failure.error, TimeoutError)
        assert (failure.switches, failure.faults) == (0, 1)
        told = "\n".join(failure.error.__notes__)
        assert "one fault is enough:\n  1. " in told
        assert " is lost\n" in told
        assert re.search(rf'again: replay\(a_request_over, "{backend}!/![^/]+=lost"\)', told)
        with pytest.raises(TimeoutError):
            replay(scenario, failure.schedule)


@pytest.mark.slow
def test_what_has_no_probability_does_not_befall(backend: str) -> None:
    """T7: and of what has one, no more than was asked for."""
    report = explore(partial(a_request_over, Faults()), strategy=exhaustive(1), faults=3, budget=50, backend=backend)
    assert report.failure is None
    kinds = []

    async def scenario() -> None:
        async with FaultyBus(MemoryBus(), faults=Faults(delay=0.5, duplicate=0.5, split=0.5)) as left:
            async with WorkerRunner(bus=left, name="left") as runner:
                await runner.add_workers(EchoWorker("echo"))
                with anyio.move_on_after(10):
                    await runner.job("echo", timeout=5)
            kinds.append(tuple(each.kind for each in left.records if each.kind in ("delayed", "duplicated", "split")))

    explore(scenario, strategy=random_walk(), faults=2, budget=12, backend=backend)
    assert {kind for each in kinds for kind in each} >= {"delayed", "duplicated"}
    chooser = Following([ChosenFault("a", "lost"), ChosenFault("b", "lost"), ChosenFault("c", "twice")])
    steering = Steering(chooser, most_faults=2)
    befallen = [steering.fault(point, ["twice", "lost"], lambda: "a message") for point in "dabca"]
    assert befallen == [None, "lost", "lost", None, None]
    assert steering.fault_words == ["a message is lost"] * 2


def test_without_faults_a_bus_draws_as_ever(backend: str) -> None:
    """T7."""
    stories = []

    async def scenario() -> None:
        async with FaultyBus(MemoryBus(), seed=3, faults=Faults(delay=0.5)) as left:
            async with WorkerRunner(bus=left, name="left") as runner:
                await runner.add_workers(EchoWorker("echo"))
                await runner.job("echo", timeout=50)
            stories.append(left.story())

    explore(scenario, strategy=random_walk(), budget=3, backend=backend)
    assert "is delayed by" in stories[0]


@pytest.mark.slow
def test_a_fault_of_a_network_of_peers_is_a_choice_too(backend: str) -> None:
    """T7."""

    async def scenario() -> None:
        network = PeerNetwork(faults=PeerFaults(lose=0.1))
        async with (
            WorkerRunner(bus=network.end("left"), name="left") as left,
            WorkerRunner(bus=network.end("right"), name="right") as right,
        ):
            await right.add_workers(EchoWorker("echo"))
            await left.job("echo", timeout=60)
        assert "is lost" not in network.story()

    strategy = exhaustive(1, reduction=False)
    report = explore(scenario, strategy=strategy, faults=1, backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.faults == 1
    assert "=lost" in report.failure.schedule
    with pytest.raises(type(report.failure.error)):
        replay(scenario, report.failure.schedule)


@pytest.mark.slow
def test_a_failure_may_need_a_fault_and_a_switch(backend: str) -> None:
    """T7: and neither is left out."""

    async def scenario() -> None:
        order: list[str] = []

        async def say(name: str) -> None:
            await checkpoint()
            order.append(name)

        async with (
            FaultyBus(MemoryBus(), faults=Faults(delay=1.0)) as left,
            WorkerRunner(bus=left, name="left") as runner,
            anyio.create_task_group() as group,
        ):
            await runner.add_workers(EchoWorker("echo"))
            group.start_soon(say, "a")
            group.start_soon(say, "b")
            begun = anyio.current_time()
            await runner.job("echo")
        assert order == ["a", "b"] or anyio.current_time() == begun

    report = explore(scenario, strategy=random_walk(), faults=2, backend=backend, raises=False)
    assert report.failure is not None
    assert (report.failure.switches, report.failure.faults) == (1, 1)
    told = "\n".join(report.failure.error.__notes__)
    assert "one switch and one fault are enough:" in told
    schedule = parse(report.failure.schedule)
    assert parse(str(schedule)) == schedule
    with pytest.raises(ValueError, match="1 of its 2 switches and faults did not come up"):
        replay(scenario, report.failure.schedule.replace("left", "nobody"))


def test_wrong_faults_are_refused() -> None:
    """T7."""
    for wrong, error in ((-1, ValueError), (True, TypeError), ("1", TypeError)):
        with pytest.raises(error, match="faults must be"):
            explore(double_answer, faults=wrong)  # type: ignore[arg-type]  # that is the mistake


# --- gone on with


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_what_was_stopped_goes_on_as_if_it_had_not(backend: str, strategy: Strategy, tmp_path: Path) -> None:
    """T8: in parts of any size, in the same runs."""
    whole = explore(starvation, strategy=strategy, budget=69, backend=backend, raises=False)
    path = tmp_path / "explored.json"
    for budget in (1, 33, 35):
        part = explore(starvation, strategy=strategy, budget=budget, backend=backend, raises=False, resume=path)
        if part.failure is not None or part.exhausted:
            break
    assert str(part) == str(whole)
    assert (part.failure is None) == (whole.failure is None)
    if part.failure is not None and whole.failure is not None:
        assert (part.failure.number, part.failure.schedule) == (whole.failure.number, whole.failure.schedule)


READY = [TaskStep(name, 0) for name in ("0", "0.1", "0.2")]


def orders_of(strategy: Strategy, parts: Sequence[int]) -> list[list[int]]:
    """Return what all orders choose that a search hands out, where it is stopped after each part, and goes on."""
    chosen: list[list[int]] = []
    saved: dict[str, Any] | None = None
    for part in parts:
        search = strategy.search(7, 2, saved)
        left = part
        while left:
            orders = search.following(min(left, ROUND))
            left -= len(orders)
            for order in orders:
                chosen.append([order.chooser.choose(READY) for _ in range(60)])
                chosen[-1] += [order.chooser.fault("a message", ["lost"]) for _ in range(20)]
                ready = [3] * (len(chosen) * 7 % 50)  # one run has more choices than another
                search.learn(Ran([], ready, range(len(chosen) % 20), (), "", {}))
        saved = json.loads(json.dumps(search.saved()))
    return chosen


@pytest.mark.parametrize("strategy", [pct(3), random_walk()], ids=repr)
@pytest.mark.parametrize("parts", [(1, 149), (10, 60, 80), (64, 1, 85), (100, 50), (65, 65, 20)])
def test_what_is_drawn_is_the_same_wherever_it_was_stopped(strategy: Strategy, parts: Sequence[int]) -> None:
    """T8: also where the runs so far had more choices than those from which the round was drawn."""
    assert orders_of(strategy, parts) == orders_of(strategy, [150])


def test_what_is_exhausted_stays_so(backend: str, tmp_path: Path) -> None:
    """T8."""
    path = tmp_path / "explored.json"
    first = explore(starvation, strategy=exhaustive(1), backend=backend, resume=path)
    assert first.exhausted
    assert explore(starvation, strategy=exhaustive(1), backend=backend, resume=path) == first


def test_after_a_failure_it_goes_on_with_the_schedule_that_has_failed(backend: str, tmp_path: Path) -> None:
    """T8: to see whether it is mended."""
    path = tmp_path / "explored.json"
    first = explore(double_answer, strategy=exhaustive(1), backend=backend, raises=False, resume=path)
    again = explore(double_answer, strategy=exhaustive(1), budget=1, backend=backend, raises=False, resume=path)
    assert first.failure is not None
    assert again.failure is not None
    assert again.failure.number == first.failure.number > 1


async def mended() -> None:
    await starvation(mended=True)


@pytest.mark.parametrize("strategy", [*ALL, picks([(0, 1)])], ids=repr)
def test_an_exploration_that_is_interrupted_goes_on_where_it_was(
    backend: str, strategy: Strategy, tmp_path: Path
) -> None:
    """T8: whatever has ended it, what was learned is in the file."""
    path, told = tmp_path / "explored.json", list[Exploration]()

    def interrupt(report: Exploration) -> None:
        told.append(report)
        raise KeyboardInterrupt

    whole = explore(mended, strategy=strategy, budget=5, backend=backend)
    with pytest.raises(KeyboardInterrupt):
        explore(mended, strategy=strategy, budget=5, backend=backend, resume=path, progress=interrupt)
    budget = 5 - told[-1].schedules
    assert explore(mended, strategy=strategy, budget=budget, backend=backend, resume=path) == whole


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """T8: and left as it is."""
    path = tmp_path / "explored.json"
    explore(starvation, budget=3, resume=path)
    before = path.read_text()
    different: tuple[tuple[str, dict[str, Any]], ...] = (
        ("scenario", {}),
        ("strategy", {"strategy": pct(2)}),
        ("backend", {"backend": "trio"}),
        ("seed", {"seed": 1}),
        ("faults", {"faults": 1}),
    )
    for differs, options in different:
        scenario = starvation if options else double_answer
        with pytest.raises(ValueError, match=f"is of an exploration with {differs} "):
            explore(scenario, resume=path, **options)
    assert path.read_text() == before
    for text in ("", "{}", "[]", json.dumps({"what": 1})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"is (no file )?of an exploration"):
            explore(starvation, resume=path)


# --- progress


def test_progress_is_told_after_each_round(backend: str) -> None:
    """T8."""
    told: list[Exploration] = []
    report = explore(starvation, strategy=random_walk(), budget=100, backend=backend, progress=told.append)
    assert [each.schedules for each in told][-1] == 100
    assert len(told) == 3  # the default order, and two rounds
    assert told[-1] == report
    assert all("schedules (" in str(each) for each in told)


# --- several processes


def explored(scenario: Callable[[], Awaitable[None]], strategy: Strategy, backend: str, processes: int) -> object:
    report = explore(scenario, strategy=strategy, budget=130, backend=backend, raises=False, processes=processes)
    failure = report.failure
    return str(report), failure and (failure.number, failure.schedule, failure.story)


def test_it_does_not_matter_how_many_processes_there_are(backend: str) -> None:
    """T8: what is run and found is the same."""
    strategy = exhaustive(1)
    assert explored(starvation, strategy, backend, 1) == explored(starvation, strategy, backend, 2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_each_strategy_does_the_same_in_several_processes(backend: str, strategy: Strategy) -> None:
    """T8."""
    assert explored(lost_update, strategy, backend, 1) == explored(lost_update, strategy, backend, 3)


class RefusesError(Exception):
    """An error that cannot be sent to another process."""

    def __reduce__(self) -> str:
        raise TypeError("not me")


def failing(error: Callable[[], BaseException]) -> Callable[[], Awaitable[None]]:
    async def scenario() -> None:
        order: list[int] = []

        async def step(number: int) -> None:
            await checkpoint()
            order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(step, number)
        if order == [1, 0]:
            raise error()

    return scenario


def test_any_error_comes_out_of_another_process(backend: str) -> None:
    """T8: as it is, since the schedule is run again in this one."""
    with pytest.raises(RefusesError):
        explore(failing(RefusesError), strategy=exhaustive(1), backend=backend, processes=2)
    with pytest.raises(KeyboardInterrupt):
        explore(failing(KeyboardInterrupt), strategy=exhaustive(1), backend=backend, processes=2)


def test_no_process_outlives_an_exploration_whatever_ends_it(backend: str) -> None:
    """T8."""

    def interrupt(report: Exploration) -> None:
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        explore(double_answer, backend=backend, processes=2, progress=interrupt)
    assert multiprocessing.active_children() == []
    assert caught.value.__traceback__  # what is in its frames is still there: nothing was ended by being thrown away


def test_wrong_numbers_of_processes_are_refused() -> None:
    """T8."""
    for wrong, error in ((0, ValueError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="processes must be"):
            explore(double_answer, processes=wrong)  # type: ignore[arg-type]  # that is the mistake


# --- in whichever process


@contextmanager
def handled_by(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_schedule_of_workers_fits_whoever_handles_sigint(backend: str) -> None:
    """T2: a runner listens to it, with a task of its own; and a signal that comes meanwhile is not lost."""
    come: list[int] = []

    async def scenario(fails: bool = True) -> None:
        orders: list[int] = []

        async def ask(number: int) -> None:
            await runner.job("echo")
            orders.append(number)

        async with WorkerRunner(name="r") as runner:
            await runner.add_workers(EchoWorker("echo"))
            async with anyio.create_task_group() as group:
                for number in range(2):
                    group.start_soon(ask, number)
        if not fails:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert orders == [0, 1] or not fails

    usual = explore(scenario, strategy=random_walk(), backend=backend, raises=False)
    assert usual.failure is not None
    for handler in (signal.SIG_IGN, lambda number, _: come.append(number)):
        with handled_by(handler):
            report = explore(scenario, strategy=random_walk(), backend=backend, raises=False)
            assert report.failure is not None
            assert (str(report), report.failure.schedule) == (str(usual), usual.failure.schedule)
            with pytest.raises(AssertionError):
                replay(scenario, usual.failure.schedule)
            assert signal.getsignal(signal.SIGINT) is handler
            explore(partial(scenario, False), budget=1, backend=backend)
    assert come == [signal.SIGINT]
