"""All orders up to a bound, those with few switches and faults first, and each state only once.

A run that was made leads to others: the same up to one of its choices, another one there, and the default from then on.
They are tried in the order in which the runs were that lead to them, so that those with fewer switches come first.

States cut that short. Where a run comes to one from which all was run with as few switches, or fewer, nothing new can
follow, since the program does not know how it got there: the choices behind that moment lead to no others. What is
within a turn of the loop, between two such moments, is not cut. The last level needs no states, as nothing follows.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from attrs import define

from workerbus.testing.clock._steering import DEFAULT, TaskStep
from workerbus.testing.exploring._runs import Order, Ran
from workerbus.testing.exploring._states import NO_STATE, Used

Pick = tuple[int, int]
"""What is chosen where it is not the default: the number of the choice, from 0, and the index."""


class Picked:
    """Chooses the default, but for some choices.

    Args:
        picks: What is chosen instead, by the number of the choice.
    """

    def __init__(self, picks: dict[int, int]) -> None:
        self._picks = picks
        self._choices = 0

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return the index of the step that is next; the last one, if there are fewer."""
        return self._next(len(ready))

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        """Return what befalls a message, likewise."""
        return self._next(len(kinds) + 1)

    def _next(self, among: int) -> int:
        index = self._picks.get(self._choices, 0)
        self._choices += 1
        return min(index, among - 1)


class States:
    """Which states were reached, and with how many switches and faults at least.

    Attributes:
        log: The same, in the order in which they came.
    """

    def __init__(self) -> None:
        self._used: dict[bytes, list[Used]] = {}
        self.log: list[tuple[bytes, Used]] = []

    def knows(self, digest: bytes, used: Used) -> bool:
        """Whether a state was reached with as few switches and faults, or fewer."""
        return any(each[0] <= used[0] and each[1] <= used[1] for each in self._used.get(digest, ()))

    def add(self, digest: bytes, used: Used) -> None:
        """Note that a state was reached."""
        self._used.setdefault(digest, []).append(used)
        self.log.append((digest, used))

    def __len__(self) -> int:
        return len(self._used)


@define
class _Item:
    """A run that leads to others.

    Args:
        picks: What it has chosen.
        used: How many of these are switches, and how many faults.
        ready: Among how many each choice was, up to where it leads no further.
        points: Which of its choices were about faults.
        states: Its states, by the number of choices before them.
        position: The choice at which another one is to be tried next.
        index: What is to be chosen there.
    """

    picks: tuple[Pick, ...]
    used: Used
    ready: Sequence[int]
    points: frozenset[int]
    states: dict[int, bytes]
    position: int
    index: int = 1

    def after(self, position: int) -> bytes:
        """Return its first state after a choice."""
        return self.states.get(min((each for each in self.states if each > position), default=-1), NO_STATE)


@define
class _Begun:
    picks: tuple[Pick, ...]
    used: Used
    usual: bytes = NO_STATE


class BoundedSearch:
    """Tries all orders up to a bound.

    Args:
        bound: How many switches and faults there may be in a run.
        reduction: Whether states are looked at.
        saved: How far another one was; None for from the beginning.
    """

    def __init__(self, bound: Used, *, reduction: bool, saved: dict[str, Any] | None) -> None:
        self._bound = bound
        self._reduction = reduction
        self._items: deque[_Item] = deque()
        self._again: deque[_Begun] = deque([_Begun((), (0, 0))])
        self._races: set[tuple[str, str]] = set()
        self.known = States()
        if saved is not None:
            self._restore(saved)

    @property
    def states(self) -> int:
        """How many different states were seen."""
        return len(self.known)

    @property
    def races(self) -> int:
        """Of how many pairs of steps it was seen that their order makes a difference."""
        return len(self._races)

    def following(self, most: int) -> Sequence[Order]:
        """Return the next orders to run."""
        while len(self._again) < most and (begun := self._next()) is not None:
            self._again.append(begun)
        return [self._order(each) for each in islice(self._again, most)]

    def _order(self, begun: _Begun) -> Order:
        last = begun.picks[-1][0] if begun.picks else -1
        chooser = Picked(dict(begun.picks)) if begun.picks else DEFAULT
        return Order(chooser, last if self._reduction and self._leads_on(begun) else None, begun.used)

    def _leads_on(self, begun: _Begun) -> bool:
        return begun.used[0] < self._bound[0] or begun.used[1] < self._bound[1]

    def _next(self) -> _Begun | None:
        while self._items:
            item = self._items[0]
            for position in range(item.position, len(item.ready)):
                used = self._used(item, position)
                if used is not None and item.index < item.ready[position]:
                    picks = (*item.picks, (position, item.index))
                    item.position, item.index = position, item.index + 1
                    return _Begun(picks, used, item.after(position))
                item.index = 1
            self._items.popleft()
        return None

    def _used(self, item: _Item, position: int) -> Used | None:
        switches, faults = item.used
        used = (switches, faults + 1) if position in item.points else (switches + 1, faults)
        return used if used[0] <= self._bound[0] and used[1] <= self._bound[1] else None

    def learn(self, ran: Ran) -> None:
        """Take note of a run: it leads to others up to where its state is known."""
        begun = self._again.popleft()
        begin = begun.picks[-1][0] + 1 if begun.picks else 0
        end, states = len(ran.ready), dict[int, bytes]()
        for position, digest in ran.states if self._reduction and self._leads_on(begun) else ():
            if position < begin or digest == NO_STATE:
                continue
            states.setdefault(position, digest)  # of a turn with one ready task there is no choice
            if self.known.knows(digest, begun.used):
                end = position
                break
            self.known.add(digest, begun.used)
        self._note_race(begun, ran, next(iter(states.values()), NO_STATE))
        if begin < end and self._leads_on(begun):
            points = frozenset(each for each in ran.points if begin <= each < end)
            self._items.append(_Item(begun.picks, begun.used, ran.ready[:end], points, states, begin))

    def _note_race(self, begun: _Begun, ran: Ran, state: bytes) -> None:
        pair = ran.switches.get(begun.picks[-1][0]) if begun.picks else None
        if pair is not None and NO_STATE != state != begun.usual != NO_STATE:
            self._races.add(pair)

    # --- how far it is

    def saved(self) -> dict[str, Any]:
        """Return how far it is, as JSON has it."""
        return {
            "again": [[each.picks, each.used, each.usual.hex()] for each in self._again],
            "items": [
                [
                    each.picks,
                    each.used,
                    each.ready,
                    sorted(each.points),
                    _written(each.states),
                    each.position,
                    each.index,
                ]
                for each in self._items
            ],
            "states": [[digest.hex(), used] for digest, used in self.known.log],
            "races": sorted(self._races),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._again = deque(
            _Begun(_picks(picks), tuple(used), bytes.fromhex(usual)) for picks, used, usual in saved["again"]
        )
        for picks, used, ready, points, states, position, index in saved["items"]:
            known = {number: bytes.fromhex(digest) for number, digest in states}
            self._items.append(_Item(_picks(picks), tuple(used), ready, frozenset(points), known, position, index))
        for digest, used in saved["states"]:
            self.known.add(bytes.fromhex(digest), tuple(used))
        self._races = {(ran, before) for ran, before in saved["races"]}


def _written(states: dict[int, bytes]) -> list[tuple[int, str]]:
    return [(position, digest.hex()) for position, digest in states.items()]


def _picks(saved: list[list[int]]) -> tuple[Pick, ...]:
    return tuple((position, index) for position, index in saved)
