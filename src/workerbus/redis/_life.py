"""The life of a member as it sees it itself, as a table: state x event -> state (X3, X4).

Rule 1: what comes next is decided here; there is no await in this file. Who is a member is not: that the server decides
(`_scripts`), and this table only says what to do when its word is here.

Rule 2: there is one way back from whatever broke a life, be it that others declared it lost, or that it found a gap
itself: all sessions end, the old incarnation leaves, a new one joins.

Rule 3: a pair that is not in the table changes nothing: the state stays. LEFT is final.

The connection is no part of this. A member that cannot reach the server stays one until the server says otherwise.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final


class LifeState(Enum):
    """Where a member is."""

    JOINING = "joining"
    """It has a new incarnation, and no word from the server yet. It has no peers, and writes nothing."""
    JOINED = "joined"
    """It is a member: it renews its lease, and has sessions."""
    FENCED = "fenced"
    """Its life is broken: it ends its sessions, and whatever is under way in them unwinds."""
    LEFT = "left"
    """It is no member and will be none."""


class LifeTrigger(Enum):
    """What can happen to a member."""

    ADMIT = "is let in"
    """The server has let it in."""
    REFUSE = "is refused"
    """The server has not: another one has its name."""
    FENCE = "is fenced"
    """The server says that it is no member: it was declared lost, or restarted under its name."""
    GAP = "finds a gap"
    """It has found that a part of what was sent to it is missing."""
    UNWOUND = "has unwound"
    """All sessions of the broken life have ended."""
    LEAVE = "leaves"
    """It is to stop."""


_JOINING, _JOINED, _FENCED, _LEFT = LifeState

LIFE_TABLE: Final[Mapping[LifeState, Mapping[LifeTrigger, LifeState]]] = MappingProxyType(
    {
        _JOINING: MappingProxyType({LifeTrigger.ADMIT: _JOINED, LifeTrigger.REFUSE: _LEFT, LifeTrigger.LEAVE: _LEFT}),
        _JOINED: MappingProxyType({LifeTrigger.FENCE: _FENCED, LifeTrigger.GAP: _FENCED, LifeTrigger.LEAVE: _LEFT}),
        _FENCED: MappingProxyType({LifeTrigger.UNWOUND: _JOINING, LifeTrigger.LEAVE: _LEFT}),
        _LEFT: MappingProxyType({}),
    }
)


def next_life(state: LifeState, event: LifeTrigger) -> LifeState:
    """Return the state of a member after an event."""
    return LIFE_TABLE[state].get(event, state)
