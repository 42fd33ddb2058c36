"""How far the clock of another process is ahead of this one's, from questions and answers (L8, O7).

For people: it says where in time a page shows what another process tells, and decides nothing. No wall clock is read.
A question that was on its way for as long as its answer gives the difference exactly; how much that may be wrong is
half of the time that both were on their way, so the quickest exchange counts.
"""

from typing import Final

WINDOW: Final = 60.0
"""Seconds after which an exchange is old: two clocks do not run equally fast."""


class ClockOffset:
    """How far a clock is ahead.

    Attributes:
        seconds: By how many seconds, as far as is known.
    """

    def __init__(self) -> None:
        self.seconds: float = 0.0
        self._doubt = float("inf")
        self._since = 0.0

    def learn(self, asked: float, taken: float, told: float, read: float) -> None:
        """Learn from an exchange.

        Args:
            asked: When the question was sent, by this clock.
            taken: When it has arrived, by the other clock.
            told: When the answer was sent, by the other clock.
            read: When it has arrived, by this clock.
        """
        doubt = max(0.0, (read - asked) - (told - taken)) / 2
        seconds = ((taken - asked) + (told - read)) / 2
        old = read - self._since > WINDOW
        # Where both may be right, what was shown so far stays where it is.
        if doubt < self._doubt / 2 or (old and abs(seconds - self.seconds) > doubt + self._doubt):
            self.seconds = seconds
        if doubt < self._doubt or old:
            self._doubt, self._since = doubt, read
