"""The state of a program between two turns of the loop, as a digest: two runs with the same one go on alike.

From the tasks everything is followed that they hold (`_parts`). Objects are numbered in the order in which they are
met, so that the digest says how they hang together, and not where they are in memory.

1. Ids and addresses are compared for equality alone, so that it only matters which are the same. They get numbers, too.
2. What has no order that a program could rely on, as a set, is looked at last, when most of its members have numbers.
   Where two members cannot be told apart, equal states may seem to differ; different ones never seem equal.
3. Of an object of an unknown class, written in another language, nobody knows what is in it. A program that holds one
   has no digest (`UnknownState`), and is compared with nothing.
"""

import re
import types
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from workerbus._order import id_prefixes
from workerbus.testing.clock._steering import Unordered
from workerbus.testing.exploring._parts import (
    ADDRESS,
    BY_NAME,
    CONSTANTS,
    LIBRARIES,
    VALUES,
    Opaque,
    UnknownState,
    name_of,
    parts_of,
)

MOST_OBJECTS: Final = 200_000
"""How many objects are followed, before a state is taken to be unknown."""
LOWEST_ADDRESS: Final = 1 << 44
HIGHEST_ADDRESS: Final = 1 << 48
"""Between these, numbers are taken for addresses of objects, as `id` returns them."""


def digest_of(roots: Iterable[object]) -> bytes:
    """Return a digest of all that can be reached.

    Args:
        roots: Where to begin, in an order that does not depend on the run.

    Raises:
        UnknownState: Something is of an unknown class.
    """
    return _Walk().digest(roots)


class _Walk:
    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._met: list[object] = []  # kept alive, so that no address is used twice
        self._late: list[tuple[str, Sequence[Any]]] = []
        self._tokens: list[str] = []
        self._ids: dict[str, str] = {}
        self._find_ids = re.compile(rf"\b(?:{'|'.join(id_prefixes)})-[0-9a-f]+|{ADDRESS}")

    def digest(self, roots: Iterable[object]) -> bytes:
        self._tokens += [self._ref(each) for each in roots]
        done = 0
        while True:
            while done < len(self._met):
                if done > MOST_OBJECTS:
                    raise UnknownState(f"more than {MOST_OBJECTS:,} objects")
                self._tell(self._met[done])
                done += 1
            if not self._late:
                break
            self._tell_unordered(*self._late.pop(0))
        return blake2b("\n".join(self._tokens).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _ref(self, thing: Any) -> str:
        """Return what stands for a thing where it is mentioned: its value, or its number."""
        number = self._numbers.get(id(thing))
        if number is not None:
            return f"#{number}"
        kind = type(thing)
        if kind in VALUES:
            return self._value(kind, thing)
        if kind in CONSTANTS or (kind is types.FunctionType and _is_constant(thing)):
            return f"{kind.__name__} {name_of(thing)}"
        if isinstance(thing, type):
            return f"type {thing.__module__}.{thing.__qualname__}"
        if isinstance(thing, BY_NAME):
            return f"{kind.__qualname__} {name_of(thing)}"
        self._numbers[id(thing)] = number = len(self._met)
        self._met.append(thing)
        return f"#{number}"

    def _value(self, kind: type, thing: Any) -> str:
        if kind is str:
            return f"str {self._find_ids.sub(self._renamed, thing)!r}"
        if kind is int and thing > LOWEST_ADDRESS:
            return self._address(thing)
        return f"{kind.__name__} {thing!r}"

    def _renamed(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(found[0], f"id-{len(self._ids)}")

    def _address(self, number: int) -> str:
        if number in self._numbers:
            return f"address of #{self._numbers[number]}"
        if number % 16 or number > HIGHEST_ADDRESS:
            return f"int {number}"
        return self._ids.setdefault(str(number), f"id-{len(self._ids)}")

    def _tell(self, thing: object) -> None:
        kind = type(thing)
        tokens = self._tokens
        tokens.append(f"= {kind.__module__}.{kind.__qualname__}")
        for part in parts_of(thing):
            if type(part) is Opaque:
                tokens.append(part)
            elif type(part) is Unordered:
                tokens.append(f"unordered {len(part)}")
                self._late.append((tokens[-1], part))
            else:
                tokens.append(self._ref(part))

    def _tell_unordered(self, head: str, members: Sequence[Any]) -> None:
        singles = [member if type(member) is tuple else (member,) for member in members]
        self._tokens.append(head)
        for single in sorted(singles, key=lambda each: tuple(map(self._place, each))):
            self._tokens += [self._ref(each) for each in single]

    def _place(self, member: Any) -> tuple[int, int, str]:
        number = self._numbers.get(id(member))
        if number is not None:
            return 0, number, ""
        kind = type(member)
        return (1, 0, self._ref(member)) if kind in VALUES or kind in CONSTANTS else (2, 0, kind.__qualname__)


def _is_constant(function: types.FunctionType) -> bool:
    return (
        function.__module__.partition(".")[0] in LIBRARIES
        and function.__closure__ is None
        and function.__defaults__ is None
        and not function.__dict__
    )


NO_STATE: Final = b""
"""What stands for the digest of a state that could not be told."""

Used = tuple[int, int]
"""How many switches and faults there are in a run."""


class StateWatcher:
    """Takes a digest of each state of a run, until it is in one from which all has been run already.

    Args:
        begin: After which choice to begin.
        used: How many switches and faults there are in the run.
        knows: Says whether all was run from a state, with as few of them.

    Attributes:
        states: How many choices there were before each state, and its digest.
        unknown: The class because of which a state could not be told.
    """

    def __init__(self, begin: int, used: Used, knows: Callable[[bytes, Used], bool]) -> None:
        self._begin = begin
        self._used = used
        self._knows = knows
        self._over = False
        self.states: list[tuple[int, bytes]] = []
        self.unknown: str = ""

    def look(self, position: int, state: Callable[[], Iterable[object]]) -> None:
        """Take the digest of a state."""
        if self._over or position <= self._begin:
            return
        try:
            digest = digest_of(state())
        except UnknownState as exc:
            self.unknown = str(exc)
            return
        self.states.append((position, digest))
        self._over = self._knows(digest, self._used)
