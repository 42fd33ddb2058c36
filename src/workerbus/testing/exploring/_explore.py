"""`explore`: run a program under many orders of its tasks, and say under which few switches it fails.

1. It runs in the default order first, then as the strategy says, until it fails or the budget is used up.
2. The switches of the run that has failed are made fewer, as long as the same failure comes.
3. It runs once more with those that are left, so that the exception which comes out is of that run, and the words for
   it, too.
"""

import copy
from collections.abc import Awaitable, Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, evolve, field, frozen

from workerbus.errors import add_note
from workerbus.testing._errors import SpinError, TimeLimitError
from workerbus.testing.clock._run import ONE_WEEK, run_steered, virtual_backend
from workerbus.testing.clock._steering import Steering, Switch
from workerbus.testing.exploring._coverage import Coverage
from workerbus.testing.exploring._processes import runs_in
from workerbus.testing.exploring._recorder import Recorder
from workerbus.testing.exploring._runs import Kind, Order, Ran, Scenario, kind_of
from workerbus.testing.exploring._saving import load, save
from workerbus.testing.exploring._schedule import Choice, Following, Schedule, parse
from workerbus.testing.exploring._shrinking import shrink
from workerbus.testing.exploring._strategies import DEFAULT_STRATEGY, ROUND, Search, Strategy
from workerbus.testing.exploring._telling import tell

T = TypeVar("T")

SHRINKING_RUNS: Final = 1_000
"""How many runs a failing schedule may take to be made small."""
SLOW_SHRINKING_RUNS: Final = 30
"""The same for a program that spins or runs out of time: such a run can take many seconds of real time."""


@frozen
class FoundFailure:
    """A failure that `explore` has found.

    Args:
        error: The exception of the scenario, with notes that explain the schedule.
        number: The number of the schedule that failed, from 1; the first is the default order.
        schedule: The shrunk schedule, for `replay`.
        switches: How many of its choices are not the default.
        story: The schedule in words; empty if the scenario fails in the default order, or not reliably.
        faults: How many messages meet a fault in it.
    """

    error: BaseException
    number: int
    schedule: str
    switches: int
    story: str
    faults: int = 0


@frozen
class Exploration:
    """The result of `explore`; with ``resume``, of all calls together.

    Args:
        strategy: The strategy, as it is written.
        backend: The backend on which it ran.
        schedules: How many runs there were, without those for shrinking a failure.
        distinct: How many of them had a new order.
        choices: The largest number of choices in a run.
        exhausted: Whether the strategy had nothing left to try.
        failure: The first failure; None if there was none.
        states: How many different states of the program were seen, one for each turn of the loop. Without ``coverage``,
            only `exhaustive` looks at some of them, and others have 0.
        races: For how many pairs of steps the order was seen to make a difference to the state; likewise 0.
        unknown: The class of an object whose contents cannot be seen, so that states could not be determined; empty if
            there was none.
    """

    strategy: str
    backend: str
    schedules: int
    distinct: int
    choices: int
    exhausted: bool
    failure: FoundFailure | None
    states: int = 0
    races: int = 0
    unknown: str = ""

    def __str__(self) -> str:
        end = "failed" if self.failure is not None else "exhausted" if self.exhausted else "budget used up"
        counts = f"{self.schedules:,} schedules ({self.distinct:,} distinct), at most {self.choices:,} choices"
        if self.states:
            counts += f", {self.states:,} states, {self.races:,} races"
        if self.unknown:
            counts += f", states unknown because of {self.unknown}"
        return f"{self.strategy} on {self.backend}: {counts}, {end}"


def explore(
    scenario: Callable[[], Awaitable[object]],
    *,
    strategy: Strategy = DEFAULT_STRATEGY,
    budget: int = 1_000,
    backend: str = "asyncio",
    seed: int = 0,
    limit: float = ONE_WEEK,
    raises: bool = True,
    faults: int | None = None,
    processes: int = 1,
    resume: str | PathLike[str] | None = None,
    progress: Callable[[Exploration], object] | None = None,
    coverage: bool = False,
) -> Exploration:
    """Run an async function under many orders of its tasks, in virtual time, until it fails.

    A failure is shrunk: as few choices as possible differ from the default, in which the ready task that was started
    first goes first. Then the scenario's own exception is raised, with notes that describe these switches, show the
    steps of their tasks side by side, and give a line with which `replay` runs it again.

    In each run, the function has to create everything that it works on. What it does may depend only on its schedule,
    not on random numbers without a seed, the time of day, or threads.

    Args:
        scenario: An async function without arguments. It fails by raising anything.
        strategy: Which orders are tried: ``random_walk()``, ``pct(depth)`` or ``exhaustive(bound)``.
        budget: How many runs there may be.
        backend: ``"asyncio"`` or ``"trio"``.
        seed: The seed of the strategy's random choices; the same seed gives the same runs.
        limit: Seconds of virtual time that each run may take.
        raises: Whether a failure is raised; if not, it is in the result.
        faults: How many messages on a `FaultyBus` or a `PeerNetwork` may meet a fault in a run: one fault each, out of
            those with a probability in the plan, as the strategy chooses. By default the buses draw their faults.
        processes: In how many forked processes to run. The result does not depend on it.
        resume: A file for the progress. A call with the same file and arguments continues from there; after a failure,
            with the schedule that failed.
        progress: Called with the result so far, after each round of at most 64 runs.
        coverage: Whether to count states and races in every run, with any strategy. This takes two to ten times as
            long, as a new state takes about as long as a small run.

    Returns:
        The result of all runs.

    Raises:
        BaseException: Any exception of the scenario; a `StuckError` if it did not finish.
        TypeError: An argument has the wrong type.
        ValueError: ``budget`` or ``processes`` is less than 1, ``faults`` less than 0, there is no such backend, the
            file is of another exploration, or processes cannot be forked here.

    Guarantees: T1, T2, T6, T7, T8, T9.
    """
    __tracebackhide__ = True
    check_budget(budget)
    _check_faults(faults)
    virtual_backend(backend, limit=limit)
    if not hasattr(strategy, "search"):
        raise TypeError(f"strategy must be one as pct(3) or exhaustive(2), not {strategy!r}")
    what = {"strategy": repr(strategy), "backend": backend, "seed": seed, "faults": faults, "coverage": coverage}
    steered = Scenario(scenario, backend, limit, faults)
    path = None if resume is None else Path(resume)
    saved = None if path is None else load(path, {"scenario": steered.name, **what})
    search = strategy.search(seed, faults or 0, None if saved is None else saved["search"])
    done = _Done(steered, search, Exploration(repr(strategy), backend, 0, 0, 0, exhausted=False, failure=None))
    if coverage:
        done.coverage = Coverage(None if saved is None else saved["coverage"])
    done.restore(saved)
    try:
        done.go_on(budget, processes, progress)
    finally:
        if path is not None:
            save(path, {"scenario": steered.name, **what}, done.saved())
    if raises and done.sofar.failure is not None:
        raise done.sofar.failure.error
    return done.sofar


@define
class _Done:
    scenario: Scenario
    search: Search
    sofar: Exploration
    seen: set[int] = field(factory=set)
    coverage: Coverage | None = None

    def go_on(self, budget: int, processes: int, progress: Callable[[Exploration], object] | None) -> None:
        runs = runs_in(processes, self.scenario, self.search.known, coverage=self.coverage is not None)
        try:
            while budget > 0 and self.sofar.failure is None:
                orders = self.search.following(min(budget, ROUND))
                if not orders:
                    self.sofar = evolve(self.sofar, exhausted=True)
                    break
                budget -= len(orders)
                for order, ran in zip(orders, runs.run(orders), strict=False):
                    self.take(order, ran)
                    if self.sofar.failure is not None:
                        break
                if progress is not None:
                    progress(self.sofar)
        finally:
            runs.close()

    def take(self, order: Order, ran: Ran) -> None:
        number = self.sofar.schedules + 1
        self.seen.add(hash(tuple(ran.choices)))
        failure = None
        if self.coverage is not None:
            self.coverage.learn(ran.states, ran.choices, ran.switches)
        counted = self.search if self.coverage is None else self.coverage
        if ran.error is None:
            self.search.learn(ran)
        else:
            failure = _Found(self.scenario, self.sofar.strategy, number).failure(order, ran)
        self.sofar = evolve(
            self.sofar,
            schedules=number,
            distinct=len(self.seen),
            choices=max(self.sofar.choices, len(ran.choices)),
            failure=failure,
            states=counted.states,
            races=counted.races,
            unknown=self.sofar.unknown or ran.unknown,
        )

    def saved(self) -> dict[str, Any]:
        counts = {name: getattr(self.sofar, name) for name in _COUNTS}
        counts["schedules"] -= self.sofar.failure is not None
        coverage = None if self.coverage is None else self.coverage.saved()
        return {"search": self.search.saved(), "seen": sorted(self.seen), "counts": counts, "coverage": coverage}

    def restore(self, saved: dict[str, Any] | None) -> None:
        if saved is not None:
            self.seen = set(saved["seen"])
            self.sofar = evolve(self.sofar, **{name: saved["counts"][name] for name in _COUNTS})


_COUNTS: Final = ("schedules", "distinct", "choices", "states", "races", "unknown")


def replay(scenario: Callable[[], Awaitable[T]], schedule: str, *, limit: float = ONE_WEEK) -> T:
    """Run an async function under a schedule that `explore` has found, on the backend where it was found.

    Args:
        scenario: The async function.
        schedule: The schedule, as `explore` has written it.
        limit: Seconds of virtual time that the run may take.

    Returns:
        What the function returns.

    Raises:
        BaseException: Any exception of the function.
        TypeError: ``schedule`` is not a string.
        ValueError: It is not a schedule; or the function passed without some of its switches or faults, because the
            program has changed since the schedule was found.

    Guarantees: T2.
    """
    __tracebackhide__ = True
    found = parse(schedule)
    steering = Steering(Following(found.switches), most_faults=float("inf") if found.with_faults else None)
    note = f"in workerbus.testing.replay(…, {schedule!r})"
    result = run_steered(scenario, backend=found.backend, steering=steering, limit=limit, note=note)
    missing = len(found.switches) - len(steering.switches) - len(steering.faults)
    if missing > 0:
        what = "switches and faults" if found.with_faults else "switches"
        raise ValueError(
            f"the schedule does not fit this program: {missing} of its {len(found.switches)} {what} did not come up, "
            "so that it has passed says nothing; explore it anew"
        )
    return result


def check_budget(budget: int) -> None:
    """Refuse what is no number of runs.

    Args:
        budget: How many runs there may be.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is less than 1.
    """
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(f"budget must be a number of runs, not {budget!r}")
    if budget < 1:
        raise ValueError(f"budget must be at least 1 run, not {budget!r}")


def _check_faults(faults: int | None) -> None:
    if faults is None:
        return
    if isinstance(faults, bool) or not isinstance(faults, int):
        raise TypeError(f"faults must be a number of faults, not {faults!r}")
    if faults < 0:
        raise ValueError(f"faults must be at least 0, not {faults!r}")


@frozen
class _Found:
    """A failure, to be made small.

    Args:
        scenario: What has failed.
        strategy: With which strategy.
        number: In which schedule.
    """

    scenario: Scenario
    strategy: str
    number: int

    def failure(self, order: Order, ran: Ran) -> FoundFailure:
        steering, again = ran.steering, ran.error
        if steering is None:  # of another process
            steering, again = self.scenario.run(copy.deepcopy(order.chooser))
        assert ran.error is not None
        if again is None:
            return self.flaky(ran.error, steering)
        kind = kind_of(again)

        def fails(choices: Sequence[Choice]) -> Sequence[Choice] | None:
            tried, error = self.scenario.run(Following(choices))
            return _choices_of(tried) if error is not None and kind_of(error) == kind else None

        if kind[0] in (SpinError, TimeLimitError):
            choices: Sequence[Choice] = shrink(_choices_of(steering), fails, SLOW_SHRINKING_RUNS)
        else:
            choices = self.narrowed(shrink(_choices_of(steering), fails, SHRINKING_RUNS), kind)
        recorder = Recorder()
        told, error = self.scenario.run(Following(choices), recorder=recorder)
        if error is None or kind_of(error) != kind:
            return self.flaky(again, steering)
        schedule = self.schedule(told)
        add_note(error, self.words(told, schedule, story := tell(told, recorder, error)))
        return FoundFailure(error, self.number, str(schedule), len(told.switches), story, len(told.faults))

    def flaky(self, error: BaseException, steering: Steering) -> FoundFailure:
        add_note(
            error,
            f"It came with schedule {self.number} of {self.strategy}, and did not come again with the same one: what "
            "the program does depends on more than its schedule, as on random numbers, the time of day, or threads.",
        )
        schedule = self.schedule(steering)
        return FoundFailure(error, self.number, str(schedule), len(steering.switches), "", len(steering.faults))

    def schedule(self, steering: Steering) -> Schedule:
        scenario = self.scenario
        return Schedule(scenario.backend, tuple(_choices_of(steering)), scenario.most_faults is not None)

    def narrowed(self, choices: Sequence[Choice], kind: Kind) -> Sequence[Choice]:
        # A step that went first may have to go before one other only: then the switch is about those two.
        steering, _ = self.scenario.run(Following(choices))
        count = len(steering.switches)
        for number in range(count):
            if len(_choices_of(steering)) != len(choices) or len(steering.switches) != count:
                return choices
            ran = steering.switches[number].ran
            for before in reversed(steering.overtaken[number][1:]):
                other = _choices_of(steering)
                other[number] = Switch(ran, before)
                tried, error = self.scenario.run(Following(other))
                if error is not None and kind_of(error) == kind and len(_choices_of(tried)) == len(choices):
                    steering = tried
                    break
        return _choices_of(steering)

    def words(self, steering: Steering, schedule: Schedule, story: str) -> str:
        limit = "" if self.scenario.limit == ONE_WEEK else f", limit={self.scenario.limit!r}"
        line = f'again: replay({self.scenario.name}, "{schedule}"{limit})'
        if not schedule.switches:
            head = "It fails in the default order of tasks; no switch is needed."
            return "\n".join(filter(None, [head, story, line]))
        counts = [
            _counted(count, one, more)
            for count, one, more in (
                (len(steering.switches), "one switch", "switches"),
                (len(steering.faults), "one fault", "faults"),
            )
            if count
        ]
        are = "is" if len(schedule.switches) == 1 else "are"
        found = f"Found with schedule {self.number} of {self.strategy}; {' and '.join(counts)} {are} enough"
        return f"{found}:\n{story}\n{line}"


def _counted(count: int, one: str, more: str) -> str:
    return one if count == 1 else f"{count} {more}"


def _choices_of(steering: Steering) -> list[Choice]:
    return [*steering.switches, *steering.faults]
