"""What a Redis bus tells of itself: its state, and its counts (X10)."""

from typing import Literal

from workerbus._values import value
from workerbus.bus._sessions import PeerBusStatistics

RedisState = Literal["closed", "connecting", "connected", "disconnected", "fenced"]
"""``"closed"``: not open. ``"connecting"``: opening. ``"connected"``: all is well. ``"disconnected"``: it tries to
connect again, and what is sent waits. ``"fenced"``: its peers have declared it lost, or it has lost messages; it is
joining again."""


@value
class RedisBusStatistics(PeerBusStatistics):
    """A snapshot of a Redis bus.

    Args:
        state: The state of the bus; see `RedisState`.
        unsent: How many messages wait to be stored; one for several peers counts once for each.
        unsent_bytes: The size of these messages, in bytes.
        retries: How many times a batch was written again because it was not stored, or may not have been.
        connections_lost: How many times a connection was lost.
        lives: How many incarnations the bus has had.
        malformed: How many messages that arrived could not be decoded; the last ones are kept in ``{prefix}:refused``.
        unknown: How many were of a class that is not registered in this process; the first one of each class is kept,
            too.
        lag: How many entries for this bus are stored and not read, as of the last beat; see ``inbox_size``.
        round_trip: How many seconds the last beat took; None before the first.

    Guarantees: X10.
    """

    state: RedisState = "closed"
    unsent: int = 0
    unsent_bytes: int = 0
    retries: int = 0
    connections_lost: int = 0
    lives: int = 0
    malformed: int = 0
    unknown: int = 0
    lag: int = 0
    round_trip: float | None = None
