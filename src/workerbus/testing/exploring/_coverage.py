"""Coverage: in which states a program was, and of which steps it was seen that their order makes a difference.

A turn of the loop leads from one state to the next. Where it leads depends on the state and on what is chosen, and on
nothing else. So two things follow:

1. A turn that is known leads to the same state again, which need not be looked at: that takes long.
2. Two turns from the same state that differ in one switch, and lead to different states, are a race of the two steps.
   It does not matter which of them was run first, nor in which process.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from workerbus.testing.exploring._parts import UnknownState
from workerbus.testing.exploring._states import NO_STATE, digest_of

Turn = tuple[bytes, tuple[int, ...]]
"""A state, and what was chosen in the turn of the loop that follows, up to the last choice that is not the default."""
Pair = tuple[str, str]
"""A step that went first, and the one whose turn it was."""


def turn_of(state: bytes, choices: Sequence[int]) -> Turn:
    """Return a turn.

    Args:
        state: The state before it.
        choices: What was chosen in it.
    """
    end = len(choices)
    while end and not choices[end - 1]:
        end -= 1
    return state, tuple(choices[:end])


class CoverageWatcher:
    """Notes each state of a run.

    Args:
        led_to: To which state each turn leads that is known; it is added to.

    Attributes:
        choices: What was chosen so far.
        states: How many choices there were before each state, and its digest, empty if it could not be told.
        unknown: The class because of which a state could not be told.
    """

    def __init__(self, led_to: dict[Turn, bytes]) -> None:
        self._led_to = led_to
        self.choices: Sequence[int] = ()
        self.states: list[tuple[int, bytes]] = []
        self.unknown: str = ""

    def look(self, position: int, state: Callable[[], Iterable[object]]) -> None:
        """Note a state."""
        begin, before = self.states[-1] if self.states else (0, NO_STATE)
        turn = turn_of(before, self.choices[begin:position])
        digest = None if before == NO_STATE else self._led_to.get(turn)
        if digest is None:
            try:
                digest = digest_of(state())
            except UnknownState as exc:
                self.unknown, digest = str(exc), NO_STATE
            if before != NO_STATE:
                self._led_to[turn] = digest
        self.states.append((position, digest))


class Coverage:
    """The states and races of all runs.

    Args:
        saved: What another one has saved; None for nothing yet.
    """

    def __init__(self, saved: dict[str, Any] | None) -> None:
        self._states: set[bytes] = set()
        self._led_to: dict[Turn, bytes] = {}
        self._open: dict[Turn, list[tuple[Pair, bytes]]] = {}
        self._races: set[Pair] = set()
        if saved is not None:
            self._restore(saved)

    @property
    def states(self) -> int:
        """How many different states were seen."""
        return len(self._states)

    @property
    def races(self) -> int:
        """Of how many pairs of steps it was seen that their order makes a difference."""
        return len(self._races)

    def learn(self, states: Sequence[tuple[int, bytes]], choices: Sequence[int], switches: dict[int, Pair]) -> None:
        """Take note of a run.

        Args:
            states: How many choices there were before each state, and its digest.
            choices: What was chosen.
            switches: The choices that were switches, by their positions, and their steps.
        """
        self._states.update(digest for _, digest in states if digest != NO_STATE)
        for (begin, before), (end, after) in pairwise(states):
            turn = turn_of(before, choices[begin:end])
            if NO_STATE not in (before, after) and turn not in self._led_to:
                self._note(turn, after, switches.get(begin + len(turn[1]) - 1))

    def _note(self, turn: Turn, after: bytes, last: Pair | None) -> None:
        self._led_to[turn] = after
        for pair, other in self._open.pop(turn, ()):
            self._compare(pair, other, after)
        state, choices = turn
        if choices and last is not None:
            without = turn_of(state, choices[:-1])
            if without in self._led_to:
                self._compare(last, after, self._led_to[without])
            else:
                self._open.setdefault(without, []).append((last, after))

    def _compare(self, pair: Pair, after: bytes, usual: bytes) -> None:
        if after != usual:
            self._races.add(pair)

    # --- how far it is

    def saved(self) -> dict[str, Any]:
        """Return what was seen, as JSON has it."""
        return {
            "states": sorted(digest.hex() for digest in self._states),
            "turns": [[state.hex(), choices, after.hex()] for (state, choices), after in self._led_to.items()],
            "open": [
                [state.hex(), choices, [(pair, after.hex()) for pair, after in pairs]]
                for (state, choices), pairs in self._open.items()
            ],
            "races": sorted(self._races),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._states = {bytes.fromhex(digest) for digest in saved["states"]}
        for state, choices, after in saved["turns"]:
            self._led_to[bytes.fromhex(state), tuple(choices)] = bytes.fromhex(after)
        for state, choices, pairs in saved["open"]:
            turn = bytes.fromhex(state), tuple(choices)
            self._open[turn] = [((ran, before), bytes.fromhex(after)) for (ran, before), after in pairs]
        self._races = {(ran, before) for ran, before in saved["races"]}
