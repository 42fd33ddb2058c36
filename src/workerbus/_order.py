"""What came before what, without a clock (L8).

A wall clock is set back, frozen by tests, and differs between machines; so nothing here reads one. What happens in a
process is numbered from one counter, and the numbers of one process are in the order of its events. Those of different
processes are never compared: what one knows of another's order is what that one has said in a message.

A process, and a runner, is told apart from every other one, and from its own earlier lives, by an id. Ids are compared
for equality alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Final

id_prefixes: Final[list[str]] = []
"""What the ids of this process begin with, those of its parent, too, if it was forked."""


def id_source() -> Callable[[], str]:
    """Return a function that makes unique ids: a random prefix and a counter.

    An id takes 0.1 µs, where one of `uuid4` takes 3.4.
    """
    prefix = ""
    numbers = count(1)

    def begin() -> None:
        nonlocal prefix
        prefix = os.urandom(6).hex()
        id_prefixes.append(prefix)

    def new_id() -> str:
        return f"{prefix}-{next(numbers):x}"

    begin()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin)  # a forked child must not go on with its parent's ids
    return new_id


new_incarnation = id_source()
"""Makes the id of one life of a process, or of a runner."""

MOST_PROCESSES: Final = 64
"""Of how many other processes, the last ones that were heard of, it is passed on how far they were."""


class Process:
    """This process.

    Attributes:
        id: Its id; a forked child has one of its own.
    """

    __slots__ = ("_numbers", "id")

    def __init__(self) -> None:
        self._numbers = count(1)
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.id: str = new_incarnation()

    def next_number(self) -> int:
        """Number an event: higher than all that this process has numbered before."""
        return next(self._numbers)

    @contextmanager
    def numbered_anew(self) -> Iterator[None]:
        """Number the events within from 1; what `workerbus.testing` runs knows of no others."""
        before, self._numbers = self._numbers, count(1)
        try:
            yield
        finally:
            self._numbers = before


PROCESS: Final = Process()


def merged(*known: Mapping[str, int] | None) -> dict[str, int]:
    """Return how far processes were, by id, from several accounts of it: of each process the highest number.

    The account that comes last is the most recent one, and what it says is forgotten last.
    """
    together: dict[str, int] = {}
    for account in known:
        for process, number in (account or {}).items():
            together[process] = max(number, together.pop(process, number))
    for process in list(together)[:-MOST_PROCESSES]:
        del together[process]
    return together
