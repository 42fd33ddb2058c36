"""A signal at which a program tells who waits for what (O6, L1, L7, R5).

The text is made in the signal handler itself, so that it comes when the event loop stands still, too, and is not of
some later moment. It is written past the buffers of standard error: what was interrupted may be writing there.

A process has one handler per signal, and may have several runners that ask for the same one: the first to begin takes
the signal, and the last to end gives it back. A handler that the program had is called, too. One that somebody has set
meanwhile stays. A forked child has what was there before.
"""

import os
import signal
import sys
import threading
from select import select
from types import FrameType
from typing import Any, Final

from workerbus.diagnosis._program import PATIENCE, dump

_OTHERS: Final = ("SIGKILL", "SIGSTOP", "SIGINT", "SIGTERM", "SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS", "SIGABRT")
"""Signals that cannot be handled, or mean something else."""


class _Taken:
    """A signal that some runners have asked for.

    Attributes:
        earlier: The handler that was there before.
        users: How many have asked for it.
    """

    def __init__(self, earlier: Any) -> None:
        self.earlier = earlier
        self.users = 0


_taken: dict[signal.Signals, _Taken] = {}


class DumpSignal:
    """The signal of one runner.

    Args:
        given: Its name or its number.

    Raises:
        TypeError: It is neither.
        ValueError: This platform has no such signal, or it is not for that.
    """

    def __init__(self, given: str | int) -> None:
        self._number = _checked(given)
        self._begun = False

    def begin(self) -> str:
        """Take the signal.

        Returns:
            Why it was not taken, in words: off the main thread, or where it could not be given back. Else empty.
        """
        number = self._number
        if threading.current_thread() is not threading.main_thread():
            return f"{number.name} dumps nothing: this is not the main thread"
        if number not in _taken and signal.getsignal(number) is None:
            return f"{number.name} dumps nothing: something outside of Python handles it"
        if number not in _taken:
            _taken[number] = _Taken(signal.signal(number, _handle))
        _taken[number].users += 1
        self._begun = True
        return ""

    def end(self) -> None:
        """Give it back, if nobody else has asked for it."""
        if not self._begun:
            return
        self._begun = False
        taken = _taken[self._number]
        taken.users -= 1
        if not taken.users:
            del _taken[self._number]
            if signal.getsignal(self._number) is _handle:
                signal.signal(self._number, taken.earlier)


def _checked(given: str | int) -> signal.Signals:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise TypeError(f"dump_signal is the name or the number of a signal, not {given!r}")
    try:
        number = signal.Signals[given] if isinstance(given, str) else signal.Signals(given)
    except (KeyError, ValueError):
        names = ", ".join(sorted(each.name for each in signal.Signals if each.name not in _OTHERS))
        raise ValueError(f"dump_signal: {sys.platform} has no signal {given!r}; it has {names}") from None
    if number.name in _OTHERS:
        raise ValueError(f"dump_signal: {number.name} is not for that; SIGUSR1 is, where there is one")
    return number


def _handle(number: int, frame: FrameType | None) -> None:
    _write(dump() + "\n")
    taken = _taken.get(signal.Signals(number))
    if taken is not None and callable(taken.earlier):
        taken.earlier(number, frame)


def _write(text: str) -> None:
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or no file behind it
        if sys.stderr is not None:
            sys.stderr.write(text)
        return
    left = text.encode(errors="backslashreplace")
    try:
        while left:
            _, ready, _ = select([], [descriptor], [], PATIENCE)
            if not ready:
                return  # nobody reads it, and the program is to go on
            left = left[os.write(descriptor, left[:_AT_ONCE]) :]
    except (OSError, ValueError):
        return


_AT_ONCE: Final = 512
"""So many bytes a pipe takes without waiting, if it takes any."""


def _forget_in_child() -> None:
    for number, taken in _taken.items():
        if signal.getsignal(number) is _handle:
            signal.signal(number, taken.earlier)
    _taken.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
