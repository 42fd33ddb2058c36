"""A supervised worker's life as a table, and how often there may be another one (S1).

All here is pure: no await, no clock. Three rules:

1. Whoever is to be restarted is in RESTARTING from when its worker begins to go, over failed attempts too, until there
   is a new one.
2. FAILED is final. Who has ended is made anew only where all are.
3. The end of the host, or of the supervision, wins over everything that has not come to its own end.
"""

from collections import deque
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

Restart = Literal["never", "on_failure", "always"]
Strategy = Literal["one_for_one", "all_for_one"]


class SupervisedState(Enum):
    """Where a supervised worker is."""

    RUNNING = "running"
    RESTARTING = "restarting"
    ENDED = "ended"
    FAILED = "failed"


class SupervisedTrigger(Enum):
    """What happens to a supervised worker."""

    GOES = "goes and is wanted back"
    COMES = "comes"
    ENDS = "ends for good"
    ALL = "all are made anew"
    GIVE_UP = "is given up"
    STOP = "stop"


_R, _A, _E, _F = SupervisedState
SUPERVISION_TABLE: Final = MappingProxyType(
    {
        _R: MappingProxyType(
            {
                SupervisedTrigger.GOES: _A,
                SupervisedTrigger.ENDS: _E,
                SupervisedTrigger.GIVE_UP: _F,
                SupervisedTrigger.STOP: _E,
            }
        ),
        _A: MappingProxyType({SupervisedTrigger.COMES: _R, SupervisedTrigger.GIVE_UP: _F, SupervisedTrigger.STOP: _E}),
        _E: MappingProxyType({SupervisedTrigger.ALL: _A}),
        _F: MappingProxyType({}),
    }
)


def wants_back(restart: Restart, *, failed: bool) -> bool:
    """Whether a worker that has gone is to be made anew."""
    return restart == "always" or (restart == "on_failure" and failed)


class RestartIntensity:
    """Counts restarts: so many within so many seconds, and no more.

    Args:
        max_restarts: How many.
        within: The seconds.
    """

    def __init__(self, max_restarts: int, within: float) -> None:
        self._max = max_restarts
        self._within = within
        self._at: deque[float] = deque()

    def calm(self, now: float) -> bool:
        """Whether there was no restart within the last seconds."""
        while self._at and now - self._at[0] > self._within:
            self._at.popleft()
        return not self._at

    def permits(self, now: float) -> bool:
        """Count one more restart; returns False, and counts nothing, if that is one too many."""
        self.calm(now)
        if len(self._at) >= self._max:
            return False
        self._at.append(now)
        return True
