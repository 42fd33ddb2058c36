"""Turns: how many jobs of one handler are under way at once, in the order of arrival (J13).

A job stands in line when its request is dispatched, in a plain synchronous call, so the order is that of arrival and
not of the scheduler. Nothing waits for the turn: whoever frees a place is told whose it is now, and has that one begin.
A limiter knows nothing of what the jobs are.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Limiter(Generic[T]):
    """Lets at most ``limit`` jobs have a place at once; the others stand in line.

    Args:
        limit: How many jobs may have a place.

    Attributes:
        holders: The jobs that have a place.
    """

    __slots__ = ("_limit", "_line", "holders")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.holders: dict[T, None] = {}
        # Not a dict: it would look at all that have left for whom is first now.
        self._line: OrderedDict[T, None] = OrderedDict()

    @property
    def line(self) -> list[T]:
        """The jobs that wait for a place, in order."""
        return list(self._line)

    def waits(self, job: T) -> bool:
        """Whether a job stands in line."""
        return job in self._line

    def stand(self, job: T) -> bool:
        """Take a place, or stand in line; returns whether there was a place."""
        if len(self.holders) < self._limit:
            self.holders[job] = None
            return True
        self._line[job] = None
        return False

    def leave(self, job: T) -> T | None:
        """Free a job's place, or take the job out of the line; nothing happens where it is in neither.

        Returns:
            The job that has the place now, and is to begin; None if the line is empty.
        """
        if job not in self.holders:
            self._line.pop(job, None)
            return None
        del self.holders[job]
        if not self._line:
            return None
        following = self._line.popitem(last=False)[0]
        self.holders[following] = None
        return following
