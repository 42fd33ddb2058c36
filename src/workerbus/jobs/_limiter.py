"""Turns: how many jobs of one handler run at once, in the order of arrival (J13).

A job stands in line when its request is dispatched, in a plain synchronous call, so the order is that of arrival and
not of the scheduler. Its task waits for the turn later. A place is freed by `leave`, whoever has it: running, waiting,
or not begun.
"""

from collections import deque

from anyio import Event


class Turn:
    """A place in a limiter's line."""

    __slots__ = ("_event", "_limiter", "taken")

    def __init__(self, limiter: "Limiter") -> None:
        self._limiter = limiter
        self._event: Event | None = None
        self.taken: bool = False

    async def come(self) -> None:
        """Wait until it is this one's turn, or it has left the line."""
        if not self.taken and self in self._limiter.line:
            self._event = Event()
            await self._event.wait()

    def give(self) -> None:
        """Let it go ahead."""
        self.taken = True
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Free the place; again is a no-op."""
        self._limiter.free(self)
        if self._event is not None:
            self._event.set()


class Limiter:
    """Lets at most ``limit`` turns be taken at once.

    Args:
        limit: How many.
    """

    __slots__ = ("_free", "line")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self.line: deque[Turn] = deque()

    def stand(self) -> Turn:
        """Stand in line; the turn may come at once."""
        turn = Turn(self)
        if self._free:
            self._free -= 1
            turn.give()
        else:
            self.line.append(turn)
        return turn

    def free(self, turn: Turn) -> None:
        """Take a turn out of the line, or hand its place to the next."""
        if not turn.taken:
            if turn in self.line:
                self.line.remove(turn)
            return
        turn.taken = False
        if self.line:
            self.line.popleft().give()
        else:
            self._free += 1
