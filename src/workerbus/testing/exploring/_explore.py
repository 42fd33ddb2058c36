"""`explore`: run a program under many orders of its tasks, and say under which few switches it fails.

1. It runs in the default order first, then as the strategy says, until it fails or the budget is used up.
2. The switches of the run that has failed are made fewer, as long as the same failure comes.
3. It runs once more with those that are left, so that the exception which comes out is of that run, and the words for
   it, too.
"""

import traceback
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, TypeVar

from attrs import frozen

from workerbus.testing._errors import InvariantError, SpinError, StuckError, TimeLimitError
from workerbus.testing.clock._run import ONE_WEEK, run_steered
from workerbus.testing.clock._steering import DEFAULT, Chooser, Steering, Switch
from workerbus.testing.exploring._schedule import Following, Schedule, parse
from workerbus.testing.exploring._shrinking import shrink
from workerbus.testing.exploring._strategies import DEFAULT_STRATEGY, Strategy
from workerbus.testing.exploring._telling import tell
from workerbus.testing.invariants._places import look

T = TypeVar("T")

SHRINKING_RUNS: Final = 1_000
"""How many runs a failing schedule may take to be made small."""
SLOW_SHRINKING_RUNS: Final = 30
"""The same for a program that spins or runs out of time: such a run can take many seconds of real time."""


@frozen
class FoundFailure:
    """A failure that `explore` has found.

    Args:
        error: What the scenario has raised, with notes that tell of the schedule.
        number: Which of the schedules it was that failed, from 1; the first is the default order.
        schedule: The schedule, made small, for `replay`.
        switches: How many choices of it are not the default.
        story: The schedule in words; empty if the scenario fails in the default order, or not each time.
    """

    error: BaseException
    number: int
    schedule: str
    switches: int
    story: str


@frozen
class Exploration:
    """What `explore` has done.

    Args:
        strategy: The strategy, as it is written.
        backend: The backend on which it ran.
        schedules: How many runs there were, those for making a failure small not counted.
        distinct: How many of them had an order that none before had.
        choices: How many choices the run had that had the most.
        exhausted: Whether the strategy had nothing left to try.
        failure: The first failure; None if there was none.
    """

    strategy: str
    backend: str
    schedules: int
    distinct: int
    choices: int
    exhausted: bool
    failure: FoundFailure | None

    def __str__(self) -> str:
        end = "failed" if self.failure is not None else "exhausted" if self.exhausted else "budget used up"
        counts = f"{self.schedules:,} schedules ({self.distinct:,} distinct), at most {self.choices:,} choices"
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
) -> Exploration:
    """Run an async function under many orders of its tasks, in virtual time, until it fails.

    The failure is made small: as few as possible of the choices differ from the default, which is that of the tasks
    that are ready, the one that was started first goes on first. What is raised is the scenario's own exception, with
    notes that say these switches in words, show the steps of their tasks side by side, and give a line with which
    `replay` runs it again.

    The function has to make all that it works on anew in each run. What it does may depend on nothing but its schedule:
    not on random numbers without a seed, the time of day, or threads.

    Args:
        scenario: An async function without arguments. It fails by raising anything.
        strategy: Which orders are tried: ``random_walk()``, ``pct(depth)`` or ``exhaustive(bound)``.
        budget: How many runs there may be.
        backend: ``"asyncio"`` or ``"trio"``.
        seed: What the strategy draws is drawn from it; the same one gives the same runs.
        limit: Seconds of virtual time that each run may take.
        raises: Whether a failure is raised; if not, it is in what is returned.

    Returns:
        What was done.

    Raises:
        BaseException: Whatever the scenario has raised; a `StuckError` if it did not come to its end.
        TypeError: An argument has the wrong type.
        ValueError: ``budget`` is less than 1, or there is no such backend.

    Guarantees: T1, T2.
    """
    __tracebackhide__ = True
    check_budget(budget)
    if not hasattr(strategy, "choosers"):
        raise TypeError(f"strategy must be one as pct(3) or exhaustive(2), not {strategy!r}")
    exploration = _Runs(scenario, backend, limit).explore(strategy, budget, seed)
    if raises and exploration.failure is not None:
        raise exploration.failure.error
    return exploration


def replay(scenario: Callable[[], Awaitable[T]], schedule: str, *, limit: float = ONE_WEEK) -> T:
    """Run an async function under a schedule that `explore` has found, on the backend where it was found.

    Args:
        scenario: The async function.
        schedule: The schedule, as `explore` has written it.
        limit: Seconds of virtual time that the run may take.

    Returns:
        What the function returns.

    Raises:
        BaseException: Whatever the function has raised.
        TypeError: ``schedule`` is no text.
        ValueError: It is no schedule; or the function has passed, and some switch of it has not come up: the program
            is another one than that for which it was found.

    Guarantees: T2.
    """
    __tracebackhide__ = True
    found = parse(schedule)
    steering = Steering(Following(found.switches))
    note = f"in workerbus.testing.replay(…, {schedule!r})"
    result = run_steered(scenario, backend=found.backend, steering=steering, limit=limit, note=note)
    missing = len(found.switches) - len(steering.switches)
    if missing > 0:
        raise ValueError(
            f"the schedule does not fit this program: {missing} of its {len(found.switches)} switches did not come up, "
            "so that it has passed says nothing; explore it anew"
        )
    return result


def check_budget(budget: int) -> None:
    """Refuse what is no number of runs.

    Args:
        budget: How many runs there may be.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less than 1.
    """
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(f"budget must be a number of runs, not {budget!r}")
    if budget < 1:
        raise ValueError(f"budget must be at least 1 run, not {budget!r}")


@frozen
class _Runs:
    scenario: Callable[[], Awaitable[object]]
    backend: str
    limit: float

    @property
    def name(self) -> str:
        function = getattr(self.scenario, "func", self.scenario)  # of a `partial`
        return getattr(function, "__name__", None) or repr(self.scenario)

    def explore(self, strategy: Strategy, budget: int, seed: int) -> Exploration:
        number, choices, exhausted = 1, 0, False
        seen: set[int] = set()
        steering, error = self.run(DEFAULT)
        choosers = strategy.choosers(steering, seed)
        chooser = None
        while True:
            seen.add(hash(tuple(steering.choices)))
            choices = max(choices, len(steering.choices))
            if error is not None or number >= budget:
                break
            chooser = _next(choosers, None if chooser is None else steering)
            if chooser is None:
                exhausted = True
                break
            steering, error = self.run(chooser)
            number += 1
        found = None if error is None else self.found(error, steering, f"{strategy!r}", number)
        return Exploration(repr(strategy), self.backend, number, len(seen), choices, exhausted, found)

    def run(self, chooser: Chooser, *, telling: bool = False) -> tuple[Steering, BaseException | None]:
        steering = Steering(chooser, look if telling else None)
        note = f"in workerbus.testing.explore({self.name}, backend={self.backend!r})"
        try:
            run_steered(self.scenario, backend=self.backend, steering=steering, limit=self.limit, note=note)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is what was looked for
            return steering, exc
        return steering, None

    def found(self, error: BaseException, steering: Steering, strategy: str, number: int) -> FoundFailure:
        kind = _kind(error)

        def fails(switches: Sequence[Switch]) -> Sequence[Switch] | None:
            steering, error = self.run(Following(switches))
            return steering.switches if error is not None and _kind(error) == kind else None

        if kind[0] in (SpinError, TimeLimitError):
            switches: Sequence[Switch] = shrink(steering.switches, fails, SLOW_SHRINKING_RUNS)
        else:
            switches = self.narrowed(shrink(steering.switches, fails, SHRINKING_RUNS), kind)
        told, again = self.run(Following(switches), telling=True)
        if again is None or _kind(again) != kind:
            schedule = Schedule(self.backend, tuple(steering.switches))
            error.add_note(
                f"It came with schedule {number} of {strategy}, and did not come again with the same one: what the "
                "program does depends on more than its schedule, as on random numbers, the time of day, or threads."
            )
            return FoundFailure(error, number, str(schedule), len(steering.switches), "")
        schedule = Schedule(self.backend, tuple(told.switches))
        again.add_note(self.words(strategy, number, schedule, story := tell(told)))
        return FoundFailure(again, number, str(schedule), len(told.switches), story)

    def narrowed(self, switches: Sequence[Switch], kind: tuple[Any, ...]) -> Sequence[Switch]:
        # A step that went first may have to go before one other only: then the switch is about those two.
        steering, _ = self.run(Following(switches))
        for number in range(len(switches)):
            if len(steering.switches) != len(switches):
                return switches
            ran = steering.switches[number].ran
            for before in reversed(steering.overtaken[number][1:]):
                other = [*steering.switches[:number], Switch(ran, before), *steering.switches[number + 1 :]]
                tried, error = self.run(Following(other))
                if error is not None and _kind(error) == kind and len(tried.switches) == len(switches):
                    steering = tried
                    break
        return steering.switches

    def words(self, strategy: str, number: int, schedule: Schedule, story: str) -> str:
        count = len(schedule.switches)
        limit = "" if self.limit == ONE_WEEK else f", limit={self.limit!r}"
        line = f'again: replay({self.name}, "{schedule}"{limit})'
        if not count:
            return f"It fails in the default order of tasks; no switch is needed.\n{line}"
        switches = "one switch is" if count == 1 else f"{count} switches are"
        return f"Found with schedule {number} of {strategy}; {switches} enough:\n{story}\n{line}"


def _next(choosers: Generator[Chooser, Steering, None], steering: Steering | None) -> Chooser | None:
    try:
        return next(choosers) if steering is None else choosers.send(steering)
    except StopIteration:
        return None


def _kind(error: BaseException) -> tuple[Any, ...]:
    # Where it was raised belongs to it, so that shrinking does not slide to another failure. Of one that is stuck, the
    # kind is all: other tasks may wait, in other places, for the same reason.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, InvariantError):
        return (type(error), error.check)
    if isinstance(error, StuckError) or error.__traceback__ is None:
        return (type(error),)
    if isinstance(error, BaseExceptionGroup):
        return (type(error), *sorted({repr(_kind(each)) for each in error.exceptions}))
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return (type(error), frame.f_code.co_filename, line)
