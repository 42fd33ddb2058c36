"""What handles a signal at some moment, to be put back later (R5).

Python has one handler for each signal. asyncio has the same one for all signals that its loop is asked for, and keeps
beside it what the loop then calls. Whoever asks the loop for the same signal, as anyio's receivers do, replaces that,
and nothing is left when the receiver is closed: the handler alone would swallow the signal.
"""

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from anyio.lowlevel import current_token

LOOPS = ("asyncio", "trio", "uvloop")


class FoundHandler:
    """What handles a signal now.

    Attributes:
        function: Python's handler for it; None if that was not set from Python.
    """

    __slots__ = ("_ask_loop", "_number", "function")

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self.function: Any = signal.getsignal(number)
        self._ask_loop = _asked_of_loop(number) if is_loops(self.function) else None

    def put_back(self) -> None:
        """Let it handle the signal again."""
        if self.function is not None and signal.getsignal(self._number) is not self.function:
            signal.signal(self._number, self.function)
        if self._ask_loop is not None:
            self._ask_loop()


def is_loops(function: Any) -> bool:
    """Whether a handler belongs to an event loop."""
    return module_of(function).partition(".")[0] in LOOPS


def module_of(function: Any) -> str:
    """Return the name of the module of a handler, or an empty string."""
    inner = function.func if isinstance(function, partial) else function  # partials do not nest
    return getattr(inner, "__module__", None) or ""


def _asked_of_loop(number: signal.Signals) -> Callable[[], object] | None:
    # asyncio does not say what it calls, so this looks; uvloop keeps it where nobody can.
    loop: Any = current_token().native_token
    handle = getattr(loop, "_signal_handlers", {}).get(number)
    if handle is None:
        return None
    again = partial(loop.add_signal_handler, number, handle._callback, *handle._args)  # noqa: SLF001 - no other way
    return partial(handle._context.run, again)  # noqa: SLF001 - the same
