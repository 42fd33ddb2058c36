"""Whose batch is next, where many lanes have much to do, so that a flood of broadcasts keeps nobody else waiting (B2).

All that waits in the lanes of a bus could be handled in one pass of the loop; whoever sleeps meanwhile would wake late.
So the lanes take turns. One that has handled a batch stands in line for the next, where it costs nothing and goes on
collecting. A lane that begins its turn calls as many others as fill the next pass. That costs less than senders that
pause more often: then each lane would have a small batch in every pass, and to go on costs as much as several items.

A turn is over, for those in line, when it has begun: a handler that takes its time holds up no other lane. A lane that
sleeps is not in line. The next item wakes it at once.
"""

from collections import deque
from typing import Final, Protocol

from anyio.lowlevel import cancel_shielded_checkpoint

AT_ONCE: Final = 8
"""So few lanes need not stand in line; they yield."""

TAKES: Final = 256
"""So many items a lane handles at most when its turn in the line has come."""

_PASS: Final = 800
_TURN: Final = 4  # what it costs to call a lane, in items
_ROUND: Final = 25_600
_PASSES: Final = 2 * _ROUND // _PASS


class Caller(Protocol):
    """What takes turns.

    Attributes:
        called: The pass in which it was called, while it has not begun; else 0.
    """

    called: int

    def wake(self) -> int:
        """Let it begin in the next pass, and return how many items wait; let it sleep if there are none."""


class Turns:
    """The turns of the lanes of one bus.

    While somebody stands in line, somebody is called, who will call others; so each one's turn comes. For what fills a
    pass is lanes that were called for it, and the first of them to begin makes room for the next.

    Attributes:
        called: How many lanes have been called and have not begun.
        passes: How many passes of the loop have been noticed, and one.
        line: The lanes that will be called, first come, first served.
        _planned: How much is called for the next pass, in items.
        _delivered: How many deliveries there have been since a sender last waited for the lanes.
        _caught_up: Whether a lane that was called since had nothing left to do.
    """

    __slots__ = ("_caught_up", "_delivered", "_planned", "called", "line", "passes")

    def __init__(self) -> None:
        self.called: int = 0
        self.passes: int = 1
        self.line: deque[Caller] = deque()
        self._planned = 0
        self._delivered = 0
        self._caught_up = False

    def call(self, lane: Caller) -> None:
        """Note that a lane will begin in the next pass."""
        lane.called = self.passes
        self.called += 1

    def begin(self, lane: Caller) -> None:
        """Note that a lane which was called begins, or never will, and call the next ones."""
        if lane.called == self.passes:  # it was called in the pass before this one, and is the first to begin in this
            self.passes += 1
            self._planned = 0
        lane.called = 0
        self.called -= 1
        while self.line and self._planned < _PASS:
            following = self.line.popleft()
            items = following.wake()
            if items:
                self._planned += _TURN + min(items, TAKES)
                self.call(following)
            elif self._caught_up and self.called:
                break  # the others may stay awake while something comes in
            else:
                self._caught_up = True

    async def catch_up(self, deliveries: int) -> None:
        """Count so many deliveries; after a round, wait until a lane has nothing left to do, but not for ever."""
        self._delivered += deliveries
        if self._delivered >= _ROUND:
            self._delivered = 0
            self._caught_up = False
            for _ in range(_PASSES):
                if self._caught_up or not self.line:
                    break
                await cancel_shielded_checkpoint()
