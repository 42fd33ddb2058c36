"""Turns: how many jobs of one handler are under way at once, and how many begin in a second (J13).

They begin in the order of arrival: a job stands in line when its request is dispatched, in a plain synchronous call.
Nothing waits for the turn: whoever frees a place is told whose it is now, and has
that one begin. Where there is a rate, a job may have to wait though there is a place: `PacedLimiter.due_at` says until
when, and whoever has a clock asks again then. A limiter knows nothing of what the jobs are.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from attrs import Attribute, field, frozen

T = TypeVar("T")


def _positive(_rate: "Rate", attribute: "Attribute[float]", value: float) -> None:
    name = attribute.name
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Rate: {name} is a number, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"Rate: {name} is a finite number above 0, not {value!r}")


def _whole(_rate: "Rate", _attribute: "Attribute[int]", value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Rate: burst is a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"Rate: burst is at least 1, not {value!r}")


@frozen
class Rate:
    """How many jobs of a handler may begin in a time: ``Rate(100, per=60.0, burst=5)``.

    They begin evenly, one every ``per / count`` seconds. After a pause, up to ``burst`` may begin at once.

    Args:
        count: How many may begin in ``per`` seconds; more than 0, not necessarily a whole number.
        per: Seconds.
        burst: How many may begin at once after a pause, at least 1.

    Raises:
        TypeError: An argument is not a number, or ``burst`` is not a whole number.
        ValueError: An argument is not greater than 0, or not finite.

    Guarantees: J13.
    """

    count: float = field(validator=_positive)
    per: float = field(default=1.0, validator=_positive, kw_only=True)
    burst: int = field(default=1, validator=_whole, kw_only=True)


class Limiter(Generic[T]):
    """Lets at most ``limit`` jobs have a place at once; the others stand in line.

    Args:
        limit: How many jobs may have a place.

    Attributes:
        holders: The jobs that have a place; to what, is up to subclasses.
        paced: Whether a job may have to wait though there is a place.
        place: What those in line wait for, in words.
    """

    __slots__ = ("_limit", "_line", "holders")

    paced: ClassVar[bool] = False
    place: ClassVar[str] = "its turn"

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.holders: dict[T, Any] = {}
        # Not a dict: it would look at all that have left for whom is first now.
        self._line: OrderedDict[T, None] = OrderedDict()

    @property
    def line(self) -> list[T]:
        """The jobs that wait for a place, in order."""
        return list(self._line)

    def waits(self, job: T) -> bool:
        """Whether a job stands in line."""
        return job in self._line

    @property
    def why(self) -> str | None:
        """What those in line wait for, in words, where that is not what others have."""
        return None

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


class PacedLimiter(Limiter[T]):
    """Lets jobs begin at a rate, too.

    Args:
        limit: How many jobs may have a place; infinite for any number.
        rate: How many may begin in which time.
        now: Returns the time, in seconds.

    Attributes:
        watched: Whether somebody will ask again at `due_at`.
        _interval: The seconds between two beginnings.
        _slack: By how many seconds a beginning may be ahead of its time, for the burst.
        _next: When the next beginning is due, if all are even; in the past after a pause.
    """

    __slots__ = ("_interval", "_next", "_now", "_slack", "watched")

    paced: ClassVar[bool] = True

    def __init__(self, limit: float, rate: Rate, now: Callable[[], float]) -> None:
        super().__init__(limit)
        self._now = now
        self._interval = rate.per / rate.count
        self._slack = self._interval * (rate.burst - 1)
        self._next = -math.inf
        self.watched: bool = False

    @property
    def due_at(self) -> float | None:
        """When the first in line may begin, unless another takes its place; None if nobody waits for the time alone."""
        if not self._line or len(self.holders) >= self._limit:
            return None
        return self._next - self._slack

    @property
    def why(self) -> str | None:
        """What those in line wait for, in words, where that is not what others have."""
        due = self.due_at
        return None if due is None else f"for its turn: its handler's rate lets the next one begin at {due:g} s"

    def stand(self, job: T) -> bool:
        """Take a place, or stand in line; returns whether there was a place, and it was time."""
        first = not self._line
        self._line[job] = None
        return first and self.following() is not None

    def leave(self, job: T) -> T | None:
        """Free a job's place, or take the job out of the line; returns the job that is to begin now, if one is."""
        if job in self.holders:
            del self.holders[job]
        else:
            self._line.pop(job, None)
        return self.following()

    def following(self) -> T | None:
        """Give the first in line a place, if there is one and it is time; returns that job, which is to begin now."""
        due, now = self.due_at, self._now()
        if due is None or due > now:
            return None
        self._next = max(self._next, now) + self._interval
        job = self._line.popitem(last=False)[0]
        self.holders[job] = None
        return job
