"""Signals, for as long as runners listen to them (L1, L7, R5).

The first one is reported to every runner that listens to it, and from then on the handlers that were there before are
back: the next SIGINT is the program's own. Where signals cannot be had, off the main thread for instance, there is a
warning and no failure. A signal that the program itself handles is taken from it only where that was asked for: what
Python and event loops do with SIGINT by default is nobody's choice, and counts as no handler.

A process has one handler per signal, and may have several runners, which come and go in any order. They stand in line:

1. A runner joins the line before it opens anything, and leaves it when all is closed. Meanwhile there is one handler of
   our own, for all of them: trio's would raise `KeyboardInterrupt` in whatever line of ours happens to run.
2. Our handler takes all who listen to the signal out of the line, puts the earlier handlers back, and has the event
   loop of each report it. So a second signal is the program's own, however soon it comes.
3. The earlier handlers are remembered once, when the first runner joins, and put back when nobody listens any more. One
   that somebody has set meanwhile stays, and those in line do not listen to that signal any more.
4. A signal that comes while handlers are exchanged is heard as soon as that is done.
5. Whoever takes a signal for a while has found a handler of ours, and may put it back when no runner listens any more:
   servers do, and raise the signal again. Then it gives its place up to the default handler, which gets the signal.
6. A forked child has the default handlers, and an empty line. What wakes the parent's event loop when a signal comes is
   a socket that they share; so the child lets go of that first.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from anyio import Event

from workerbus._concurrency.backend import caller_from_outside
from workerbus._log import about
from workerbus.runner._wakeup import WakeUp

logger = logging.getLogger("workerbus.runner")

_DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)
_LOOPS_OWN: Final = ("asyncio.runners", "trio._core._ki")
_LOOPS: Final = ("asyncio", "trio", "uvloop")


class Listener:
    """A runner that listens.

    Attributes:
        wanted: The signals that it listens to.
    """

    def __init__(self, wanted: set[signal.Signals], report: Callable[[signal.Signals], None]) -> None:
        self.wanted = wanted
        self._report = report
        self._heard: signal.Signals | None = None
        self._told = Event()
        self._call_soon = caller_from_outside()

    def hear(self, number: signal.Signals) -> None:
        """Have the signal reported in the runner's event loop. A signal handler may call this, whatever runs."""
        self._heard = number
        with suppress(RuntimeError):  # the runner was abandoned, and its loop is closed
            self._call_soon(self._told.set)

    async def listen(self) -> None:
        """Wait for one of the signals, and report it."""
        await self._told.wait()
        self._tell()

    def leave(self) -> None:
        """Stop listening; reports a signal that has come and was not reported yet."""
        _line.leave(self)
        self._tell()

    def _tell(self) -> None:
        number, self._heard = self._heard, None
        if number is not None:
            self._report(number)


class _Line:
    """The runners that listen, and the handler that they share."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._handler = self._hear  # one object, to be recognized
        # By the signals whose handler is ours: what has handled them before; None if it was not set from Python.
        self._earlier: dict[signal.Signals, Any] = {}
        self._wakeup: WakeUp | None = None
        self._exchanging = False
        self._kept: list[signal.Signals] = []

    def join(self, listener: Listener) -> None:
        with self._exchange():
            if self._wakeup is None or not self._wakeup.is_running():
                self._close_wakeup()
                self._wakeup = WakeUp.open()
            self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        with self._exchange():
            if listener in self._listeners:
                self._listeners.remove(listener)
        if not self._listeners:
            self._close_wakeup()

    def is_free(self, number: signal.Signals) -> bool:
        """Whether nobody has chosen a handler, apart from runners."""
        handler = self._found(number)
        return handler in _DEFAULTS or _module_of(handler) in _LOOPS_OWN

    def forget_in_child(self) -> None:
        """Let a forked child have the handlers that it would have without runners, and an empty line."""
        if self._wakeup is not None:
            self._wakeup.forget()
            self._wakeup = None
        if self._earlier:
            signal.set_wakeup_fd(-1)
        for number, handler in self._earlier.items():
            if handler is not None and self._is_ours(number):
                is_loops = _module_of(handler).partition(".")[0] in _LOOPS  # of one that does not run here
                signal.signal(number, _default(number) if is_loops else handler)
        self._earlier.clear()
        self._listeners.clear()
        self._kept.clear()

    # --- a signal has come

    def _hear(self, number: int, _frame: object) -> None:
        if self._wakeup is not None:
            self._wakeup.keep(number)
        self._kept.append(signal.Signals(number))
        if not self._exchanging:
            self._hand_on()

    def _hand_on(self) -> None:
        """Hand on the signals that have come: to those who listen, or else to whatever handles them by now."""
        if not self._kept:
            return
        number = self._kept.pop(0)
        try:
            hearing = [each for each in self._listeners if number in each.wanted]
            if hearing:
                with self._exchange():
                    for each in hearing:
                        self._listeners.remove(each)
                        each.hear(number)
            else:
                if self._is_ours(number):  # rule 5
                    signal.signal(number, _default(number))
                signal.raise_signal(number)
        finally:
            self._hand_on()

    # --- who handles what

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Let the handlers follow a change of the line. What comes meanwhile is heard afterwards."""
        try:
            with _held_back():
                self._exchanging = True
                yield
                self._settle()
        finally:
            self._exchanging = False
            self._hand_on()

    def _settle(self) -> None:
        for number in [each for each in self._earlier if not self._is_ours(each)]:
            del self._earlier[number]  # rule 3
            for each in self._listeners:
                each.wanted.discard(number)
        self._listeners = [each for each in self._listeners if each.wanted]
        wanted = {number for each in self._listeners for number in each.wanted}
        for number in wanted - self._earlier.keys():
            found = self._found(number)
            signal.signal(number, self._handler)
            self._earlier[number] = found
        for number in self._earlier.keys() - wanted:
            earlier = self._earlier.pop(number)
            if earlier is not None:
                signal.signal(number, earlier)
        if self._wakeup is not None:
            self._wakeup.take()

    def _is_ours(self, number: signal.Signals) -> bool:
        return signal.getsignal(number) is self._handler

    def _found(self, number: signal.Signals) -> Any:
        # What handles it apart from us. Ours may be left, or put back, where nobody listens: then that is no handler.
        return self._earlier.get(number, _default(number)) if self._is_ours(number) else signal.getsignal(number)

    def _close_wakeup(self) -> None:
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None


_line: Final = _Line()


def join(
    wanted: Mapping[signal.Signals, bool], report: Callable[[signal.Signals], None], runner: str
) -> Listener | None:
    """Hear the signals that come from now on, for a runner that is to call `Listener.listen` and `Listener.leave`.

    Args:
        wanted: The signals to listen to, and whether also to those that the program handles.
        report: Called with the first one that comes.
        runner: The name of the runner that listens, for the log.

    Returns:
        What is to listen, or None where there is nothing that it could listen to.
    """
    if threading.current_thread() is not threading.main_thread():
        _cannot("this is not the main thread", runner)
        return None
    free = {number for number, always in wanted.items() if always or _line.is_free(number)}
    if not free:
        names = ", ".join(number.name for number in wanted)
        logger.debug("the program handles %s itself", names, extra=about(runner=runner))
        return None
    listener = Listener(free, report)
    try:
        _line.join(listener)
    except BaseException as exc:
        _line.leave(listener)
        if not isinstance(exc, (OSError, ValueError)):
            raise  # it was interrupted
        _cannot(exc, runner)  # no more files may be open, or this is an interpreter of its own
        return None
    return listener


def _cannot(why: object, runner: str) -> None:
    logger.warning("signals are not handled: %s", why, extra=about(runner=runner))


def _default(number: signal.Signals) -> Any:
    return signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL


def _module_of(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function  # partials do not nest
    return getattr(inner, "__module__", None) or ""


@contextmanager
def _held_back() -> Iterator[None]:
    # So that no earlier handler raises KeyboardInterrupt when some are exchanged, and some are not. Signals may come
    # all the same, by way of other threads.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_line.forget_in_child)
