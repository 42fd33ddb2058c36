"""Strategies: which orders of tasks are tried, one run after the other.

A strategy begins a search, which says what to run next, and learns from each run. What it says depends on what it has
learned, and never on how many runs are made at once, or in which process.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final, Protocol

from attrs import field, frozen

from workerbus.testing.clock._steering import DEFAULT, Chooser, TaskStep
from workerbus.testing.exploring._bounded import BoundedSearch, Pick, Picked
from workerbus.testing.exploring._runs import Known, Order, Ran
from workerbus.testing.exploring._states import Used

ROUND: Final = 64
"""How many runs are drawn at once: what one of them has shown counts from the next ones on."""


class Search(Protocol):
    """What a strategy does in one exploration."""

    @property
    def known(self) -> Known:
        """The states from which all has been run."""

    @property
    def states(self) -> int:
        """How many different ones were seen; 0 if they are not looked at."""

    @property
    def races(self) -> int:
        """Of how many pairs of steps it was seen that their order makes a difference."""

    def following(self, most: int) -> Sequence[Order]:
        """Return the next orders to run; none if there is nothing left. All of the last ones were learned before.

        Args:
            most: How many there may be.
        """
        ...

    def learn(self, ran: Ran) -> None:
        """Take note of a run, in the order in which `following` has returned them."""
        ...

    def saved(self) -> dict[str, Any]:
        """Return how far it is, as JSON has it; what was returned and not learned counts as not begun."""
        ...


class Strategy(Protocol):
    """Which orders of tasks `explore` tries."""

    def search(self, seed: int, faults: int, saved: dict[str, Any] | None) -> Search:
        """Begin; the first order is always the default.

        Args:
            seed: What is drawn is drawn from it.
            faults: How many messages something may befall.
            saved: How far another one was; None for from the beginning.
        """
        ...


def _positive(_strategy: object, attribute: object, value: object) -> None:
    name: str = getattr(attribute, "name", "")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")


def _pairs(chosen: Iterable[Sequence[int]]) -> tuple[Pick, ...]:
    pairs = [tuple(pair) for pair in chosen]
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(each, int) for each in pair):
            raise TypeError(f"picks takes pairs of whole numbers, as picks([(3, 1)]), not {pair!r}")
        if min(pair) < 0:
            raise ValueError(f"picks takes numbers of at least 0, not {pair!r}")
    return tuple((position, index) for position, index in pairs)


class _NothingKnown:
    def knows(self, digest: bytes, used: Used) -> bool:
        return False


class _DrawnSearch:
    """Orders that are drawn, each from the seed and its number.

    How many choices and faults there may be is learned from the runs, round by round.
    """

    def __init__(self, draw: Callable[[Random, int, int], Chooser], seed: int, saved: dict[str, Any] | None) -> None:
        self._draw = draw
        self._seed = seed
        self._number: int = 0
        self._handed_out: int = 0
        self._lengths: tuple[int, int] = (0, 0)
        self._longest: tuple[int, int] = (0, 0)
        self.known: Known = _NothingKnown()
        self.states: int = 0
        self.races: int = 0
        if saved is not None:
            self._number = self._handed_out = saved["number"]
            self._lengths, self._longest = tuple(saved["lengths"]), tuple(saved["longest"])

    def following(self, most: int) -> Sequence[Order]:
        begin = self._handed_out
        if begin == 0:
            self._handed_out = 1
            return [Order(DEFAULT)]
        end = min(begin + most, (begin - 1) // ROUND * ROUND + ROUND + 1)
        self._handed_out = end
        # Seeds are counted from the first one that is drawn.
        return [Order(self._draw(Random(f"{self._seed}/{number - 1}"), *self._lengths)) for number in range(begin, end)]  # noqa: S311 - a schedule, not a secret

    def learn(self, ran: Ran) -> None:
        choices, faults = self._longest
        self._longest = max(choices, len(ran.ready) - len(ran.points)), max(faults, len(ran.points))
        if self._number % ROUND == 0:
            self._lengths = self._longest
        self._number += 1

    def saved(self) -> dict[str, Any]:
        return {"number": self._number, "lengths": self._lengths, "longest": self._longest}


class _DrawnFaults:
    """At some of the moments when something may befall a message, it does."""

    def __init__(self, random: Random, most: int, moments: int) -> None:
        count = min(random.randint(0, most), moments) if most else 0
        self._chosen = set(random.sample(range(moments), count))
        self._drawn = random
        self._moment = 0

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        moment, self._moment = self._moment, self._moment + 1
        return self._drawn.randint(1, len(kinds)) if moment in self._chosen else 0


@frozen(repr=False)
class random_walk:  # noqa: N801 - used like a function, and printed as it is written
    """Draws each order choice by choice, as `run` does from a seed: fast, but undirected.

    Guarantees: T1.
    """

    def search(self, seed: int, faults: int, saved: dict[str, Any] | None) -> Search:
        """Begin."""
        return _DrawnSearch(lambda random, _, moments: _Drawn(random, faults, moments), seed, saved)

    def __repr__(self) -> str:
        return "random_walk()"


class _Drawn(_DrawnFaults):
    def __init__(self, random: Random, faults: int, moments: int) -> None:
        super().__init__(random, faults, moments)
        self._random = random

    def choose(self, ready: Sequence[TaskStep]) -> int:
        return self._random.randrange(len(ready))


@frozen(repr=False)
class pct:  # noqa: N801 - the name in the literature
    """Draws priorities of tasks, which change at a few moments: probabilistic concurrency testing.

    The ready task with the highest priority is next. At ``depth - 1`` random choices, the task that would be next falls
    behind all others for the rest of the run.

    A bug has depth d if it shows whenever d pairs of steps come in a certain order. With n tasks and k choices in a
    run, each run finds it with a probability of at least ``1 / (n * k ** (d - 1))``, if the steps of each pair are
    ready in the same turn of the loop. As on the real loops, each ready task runs once in a turn, so none is kept
    waiting for several turns.

    Args:
        depth: d, at least 1.

    Raises:
        TypeError: ``depth`` is not a whole number.
        ValueError: It is less than 1.

    Guarantees: T1.
    """

    depth: int = field(default=3, validator=_positive)

    def search(self, seed: int, faults: int, saved: dict[str, Any] | None) -> Search:
        """Begin."""

        def draw(random: Random, choices: int, moments: int) -> Chooser:
            length = max(choices, 1)
            changes = random.sample(range(length), min(self.depth - 1, length))
            return _Priorities(random, changes, faults, moments)

        return _DrawnSearch(draw, seed, saved)

    def __repr__(self) -> str:
        return f"pct({self.depth})"


class _Priorities(_DrawnFaults):
    def __init__(self, random: Random, changes: Sequence[int], faults: int, moments: int) -> None:
        super().__init__(random, faults, moments)
        self._random = random
        self._lowered = {moment: -1.0 - index for index, moment in enumerate(changes)}
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
    """Tries each order that differs from the default in at most ``bound`` choices, those with few switches first.

    The first failure is therefore one with the fewest switches. When all have passed within the budget, there is no
    failure up to the bound, for these inputs and this backend; `Exploration.exhausted` says so.

    With ``reduction``, an order is not run if it would show nothing new. After each switch the state of the program,
    which is everything that its tasks hold, including plain variables, is compared with earlier ones. If it is known,
    everything that can follow was run from there, or will be. So if orders differ only in which of two independent
    steps comes first, what follows is run once. Nothing is assumed about which steps are independent.

    Args:
        bound: How many switches a run may have, at least 1.
        reduction: Whether to leave out what follows a known state; if not, each order is run.

    Raises:
        TypeError: ``bound`` is not a whole number.
        ValueError: It is less than 1.

    Guarantees: T1, T6.
    """

    bound: int = field(default=2, validator=_positive)
    reduction: bool = True

    def search(self, seed: int, faults: int, saved: dict[str, Any] | None) -> Search:
        """Begin."""
        return BoundedSearch((self.bound, faults), reduction=self.reduction, saved=saved)

    def __repr__(self) -> str:
        return f"exhaustive({self.bound}{'' if self.reduction else ', reduction=False'})"


@frozen(repr=False)
class picks:  # noqa: N801 - used like a function, and printed as it is written
    """One order: the default, except for a few choices. `workerbus.testing.strategies.schedules` draws such orders.

    Args:
        chosen: Pairs of the number of a choice, from 0, and the index of the task that goes first there (the last task,
            if there are fewer).

    Raises:
        TypeError: They are not pairs of whole numbers.
        ValueError: A number is less than 0.
    """

    chosen: tuple[Pick, ...] = field(converter=_pairs)

    def search(self, seed: int, faults: int, saved: dict[str, Any] | None) -> Search:
        """Begin."""
        return _OneOrder(self.chosen, saved)

    def __repr__(self) -> str:
        return f"picks({list(self.chosen)})"


class _OneOrder:
    def __init__(self, chosen: tuple[Pick, ...], saved: dict[str, Any] | None) -> None:
        self._orders: list[Order] = [Order(DEFAULT), Order(Picked(dict(chosen)))]
        self._learned: int = 0 if saved is None else saved["number"]
        self._handed_out = self._learned
        self.known: Known = _NothingKnown()
        self.states: int = 0
        self.races: int = 0

    def following(self, most: int) -> Sequence[Order]:
        begin = self._handed_out
        self._handed_out = min(begin + most, len(self._orders))
        return self._orders[begin : self._handed_out]

    def learn(self, ran: Ran) -> None:
        self._learned += 1

    def saved(self) -> dict[str, Any]:
        return {"number": self._learned}


DEFAULT_STRATEGY: Final = pct(3)
