"""Strategies: which orders of tasks are tried, one run after the other.

A strategy yields a chooser for each run, and is sent the run's steering when that is over. Before its first one it has
been given that of the run in the default order.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import count
from random import Random
from typing import Final, Protocol

from attrs import field, frozen

from workerbus.testing.clock._steering import Chooser, Steering, TaskStep


class Strategy(Protocol):
    """Which orders of tasks `explore` tries."""

    def choosers(self, first: Steering, seed: int) -> Generator[Chooser, Steering, None]:
        """Yield what decides in each run, until there is nothing left to try.

        Args:
            first: The run in the default order.
            seed: What is drawn is drawn from it.
        """
        ...


def _positive(_strategy: object, attribute: object, value: object) -> None:
    name: str = getattr(attribute, "name", "")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")


Pick = tuple[int, int]
"""What is chosen where it is not the default: the number of the choice, from 0, and the index."""


def _pairs(chosen: Iterable[Sequence[int]]) -> tuple[Pick, ...]:
    pairs = [tuple(pair) for pair in chosen]
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(each, int) for each in pair):
            raise TypeError(f"picks takes pairs of whole numbers, as picks([(3, 1)]), not {pair!r}")
        if min(pair) < 0:
            raise ValueError(f"picks takes numbers of at least 0, not {pair!r}")
    return tuple((position, index) for position, index in pairs)


@frozen(repr=False)
class random_walk:  # noqa: N801 - used like a function, and printed as it is written
    """Each order is drawn, choice by choice, as `run` does from a seed: quick, and blind.

    Guarantees: T1.
    """

    def choosers(self, first: Steering, seed: int) -> Generator[Chooser, Steering, None]:
        """Yield what decides in each run."""
        for number in count():
            yield _Drawn(Random(f"{seed}/{number}"))  # noqa: S311 - a schedule, not a secret

    def __repr__(self) -> str:
        return "random_walk()"


class _Drawn:
    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, ready: Sequence[TaskStep]) -> int:
        return self._random.randrange(len(ready))


@frozen(repr=False)
class pct:  # noqa: N801 - the name in the literature
    """Priorities of tasks are drawn, and change at a few moments: probabilistic concurrency testing.

    Of the tasks that are ready, the one of the highest priority is next. At ``depth - 1`` choices, drawn among as many
    as a run was seen to have, the one that would be next falls behind all others for the rest of the run.

    A bug of depth d is one that d orders between two steps are enough for. With n tasks and k choices in a run, each
    run finds it with a probability of at least ``1 / (n * k ** (d - 1))``, if the steps of each pair are ready in the
    same turn: there each ready task runs once, as on the real loops, so that none is kept waiting for several turns.

    Args:
        depth: d, at least 1.

    Raises:
        TypeError: ``depth`` is no whole number.
        ValueError: It is less than 1.

    Guarantees: T1.
    """

    depth: int = field(default=3, validator=_positive)

    def choosers(self, first: Steering, seed: int) -> Generator[Chooser, Steering, None]:
        """Yield what decides in each run."""
        length = max(len(first.choices), 1)
        for number in count():
            random = Random(f"{seed}/{number}")  # noqa: S311 - a schedule, not a secret
            moments = random.sample(range(length), min(self.depth - 1, length))
            steering = yield _Priorities(random, moments)
            length = max(length, len(steering.choices))

    def __repr__(self) -> str:
        return f"pct({self.depth})"


class _Priorities:
    def __init__(self, random: Random, moments: Sequence[int]) -> None:
        self._random = random
        self._lowered = {moment: -1.0 - index for index, moment in enumerate(moments)}
        self._priorities: dict[str, float] = {}
        self._choices = 0

    def choose(self, ready: Sequence[TaskStep]) -> int:
        priorities = self._priorities
        for step in ready:
            if step.task not in priorities:
                priorities[step.task] = self._random.random()
        highest = self._highest(ready)
        lowered = self._lowered.get(self._choices)
        self._choices += 1
        if lowered is not None:
            priorities[ready[highest].task] = lowered
            highest = self._highest(ready)
        return highest

    def _highest(self, ready: Sequence[TaskStep]) -> int:
        return max(range(len(ready)), key=lambda index: self._priorities[ready[index].task])


@frozen(repr=False)
class exhaustive:  # noqa: N801 - used like a function, and printed as it is written
    """Each order that differs from the default in at most so many choices is run once, those with few switches first.

    The first failure is therefore one with the fewest switches. When all have passed within the budget, there is no
    failure up to the bound, for these inputs and this backend; `Exploration.exhausted` says so.

    Args:
        bound: How many switches a run may have, at least 1.

    Raises:
        TypeError: ``bound`` is no whole number.
        ValueError: It is less than 1.

    Guarantees: T1.
    """

    bound: int = field(default=2, validator=_positive)

    def choosers(self, first: Steering, seed: int) -> Generator[Chooser, Steering, None]:
        """Yield what decides in each run."""
        # Those that a run leads to are kept as that run's picks and numbers, and written out when their turn comes.
        runs: deque[tuple[tuple[Pick, ...], list[int]]] = deque([((), first.ready)])
        while runs:
            picks, ready = runs.popleft()
            begin = picks[-1][0] + 1 if picks else 0
            for position in range(begin, len(ready)):
                for index in range(1, ready[position]):
                    following = (*picks, (position, index))
                    steering = yield _Picked(dict(following))
                    if len(following) < self.bound:
                        runs.append((following, steering.ready))

    def __repr__(self) -> str:
        return f"exhaustive({self.bound})"


@frozen(repr=False)
class picks:  # noqa: N801 - used like a function, and printed as it is written
    """One order: the default, but for a few choices. It is what `workerbus.testing.strategies.schedules` draws.

    Args:
        chosen: Pairs of the number of a choice, from 0, and of the index of the task that goes first there; of the last
            one, if there are fewer.

    Raises:
        TypeError: These are no pairs of whole numbers.
        ValueError: A number is less than 0.
    """

    chosen: tuple[Pick, ...] = field(converter=_pairs)

    def choosers(self, first: Steering, seed: int) -> Generator[Chooser, Steering, None]:
        """Yield what decides in the one run."""
        yield _Picked(dict(self.chosen))

    def __repr__(self) -> str:
        return f"picks({list(self.chosen)})"


class _Picked:
    def __init__(self, picks: dict[int, int]) -> None:
        self._picks = picks
        self._choices = 0

    def choose(self, ready: Sequence[TaskStep]) -> int:
        index = self._picks.get(self._choices, 0)
        self._choices += 1
        return min(index, len(ready) - 1)


DEFAULT_STRATEGY: Final = pct(3)
