"""Taps: functions that see each message where it passes (O1).

Knows nothing of where that is: the bus tells them, and asks first whether there are any.
"""

import inspect
import logging
from collections.abc import Callable

from workerbus._concurrency.failures import own_error_of_call
from workerbus.errors import HandlerTypeError
from workerbus.messages import BusMessage

logger = logging.getLogger("workerbus.bus")

Tap = Callable[[BusMessage], object]


class Tapped:
    """What taps can be added to.

    Attributes:
        name: Its name in logs.
        _taps: The taps, in the order in which they were added.
    """

    name: str
    _taps: tuple[Tap, ...]

    def add_tap(self, tap: Tap) -> None:
        """Call ``tap(message)`` once for each message that passes here, from now on.

        A message passes where it is handed out: in the step of whoever sends it, just before its receivers get it, or
        when it arrives over a network. One that is refused does not pass, and one that nobody here receives does. On a
        bus with a transport a message passes each time that the transport delivers it here, and not when it leaves.

        A tap is the one piece of your code that runs in a sender's step, so it has to be short: a note, a count, an
        item put into a stream with ``send_nowait``. It must not send anything, nor wait, nor change the message. One
        that raises is logged and taken off, and the message goes on. A tap stays until it is removed, also where the
        bus is closed and opened again.

        Args:
            tap: A sync function; one that was added before is not added again.

        Raises:
            HandlerTypeError: The tap is no sync function; a `TypeError`.

        Guarantees: O1.
        """
        if not callable(tap) or inspect.iscoroutinefunction(tap):
            raise HandlerTypeError(f"a tap is a sync function that gets each message, not {tap!r}")
        if tap not in self._taps:
            self._taps = (*self._taps, tap)

    def remove_tap(self, tap: Tap) -> None:
        """Call a tap no more, not even for a message that is passing now; nothing happens where it was not added."""
        self._taps = tuple(each for each in self._taps if each != tap)

    def _tell_taps(self, message: BusMessage) -> None:
        for tap in self._taps:
            if tap in self._taps:  # else an earlier one has removed it
                try:
                    tap(message)
                except BaseException as exc:
                    error = own_error_of_call(exc)
                    logger.error("a tap of bus %r failed and is taken off: %r", self.name, tap, exc_info=error)
                    self.remove_tap(tap)
