"""How long a message was on its way, by the server's clock (L8, X7).

Each beat tells the server's time. With it, an entry's id, which is the server's time when it was stored, says how long
ago that was, to within half a round trip; what is uncertain is not counted. The server's clock may be set meanwhile:
what was stored before such a jump is taken to have needed no time, since nothing tells on which side of it that was.
"""

from typing import Final

JUMP: Final = 1.0
"""The server's clock has been set where it differs by more than this, in seconds, from what was expected."""
DRIFT: Final = 0.001
"""By so many seconds two clocks may drift apart in a second: an old answer becomes less certain than a new one."""


class ServerTime:
    """The server's clock, as told by the event loop's.

    Attributes:
        _ahead: How many seconds the server's clock is ahead of this one; None before it was told.
        _uncertain: By how many seconds that may be wrong.
        _at: When it was told.
        _jump: The server's time when its clock was last seen to have been set.
    """

    __slots__ = ("_ahead", "_at", "_jump", "_uncertain")

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._uncertain = 0.0
        self._at = 0.0
        self._jump = 0.0

    def told(self, server_ms: int, began: float, ended: float) -> None:
        """Note the server's time, which it has told between two moments of the event loop's clock.

        Args:
            server_ms: The server's time, in milliseconds.
            began: When it was asked, in seconds.
            ended: When it had answered.
        """
        server, uncertain = server_ms / 1000, (ended - began) / 2
        ahead = server - (began + ended) / 2
        if self._ahead is not None:
            known = self._uncertain + (ended - self._at) * DRIFT
            if abs(ahead - self._ahead) > JUMP + uncertain + known:
                self._jump = server
            elif uncertain > known:
                return  # an earlier answer, which came sooner, says more
        self._ahead, self._uncertain, self._at = ahead, uncertain, ended

    def age(self, stored_ms: int, now: float) -> float:
        """Return for how many seconds, at least, something has been stored; 0 where that is not known.

        Args:
            stored_ms: The server's time when it was stored, in milliseconds.
            now: The event loop's time, in seconds.
        """
        stored = stored_ms / 1000
        if self._ahead is None or stored < self._jump:
            return 0.0
        return max(0.0, now + self._ahead - self._uncertain - stored)
