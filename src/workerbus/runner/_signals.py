"""Signals, for as long as runners listen to them (L1, L7, R5).

The first one is reported to every runner that listens to it, and from then on the handlers that were there before are
back: the next SIGINT is the program's own. Where signals cannot be had, off the main thread for instance, there is a
warning and no failure. A signal that the program itself handles is taken from it only where that was asked for: what
Python and event loops do with SIGINT by default is nobody's choice, and counts as no handler.

A process has one handler per signal, and may have several runners, which come and go in any order. They stand in line:

1. A runner joins the line before it opens anything, and leaves it when all is closed. While no receiver is open, a
   handler of our own keeps what comes: trio would raise `KeyboardInterrupt` in whatever line of ours happens to run.
2. The first in line has the receiver open, for the signals of all.
3. Whenever the first or what the line wants changes, the first closes the receiver, and whoever is first then opens it
   anew. Not for less: a server may have asked the event loop for the signal meanwhile, and would lose it.
4. A signal takes all who listen to it out of the line, and is reported to each.
5. The earlier handlers are remembered once, when the first runner joins, and put back when nobody listens any more. One
   that somebody has set meanwhile stays.
6. What the program has asked its event loop for is handled by the loop again.
7. Whoever takes a signal for a while has found a handler of ours, and may put it back when no runner listens any more:
   servers do, and raise the signal again. Then it gives its place up to the default handler, which gets the signal.
8. A forked child has the default handlers, and an empty line. What wakes the parent's event loop when a signal comes is
   a socket that they share; so the child lets go of that first.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anyio import CancelScope, Event, open_signal_receiver

from workerbus._log import about
from workerbus.runner._found_handlers import FoundHandler, is_loops, module_of

logger = logging.getLogger("workerbus.runner")

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_LOOPS_OWN = ("asyncio.runners", "trio._core._ki")


class Listener:
    """A runner that listens.

    Attributes:
        wanted: The signals that it listens to, and whether also to those that the program handles.
        report: Called with the first one that comes.
        news: Set when the line has changed.
        receives: Whether it would open the receiver for all. When it does so no more, signals are kept until it leaves.
        receiving: The scope in which it has the receiver open for all, while it has.
    """

    def __init__(
        self, wanted: dict[signal.Signals, bool], report: Callable[[signal.Signals], None], runner: str
    ) -> None:
        self.wanted = wanted
        self.report = report
        self.news = Event()
        self.receives = True
        self.receiving: CancelScope | None = None
        self._runner = runner

    def nudge(self) -> None:
        """Let the runner look at the line again: it has changed."""
        self.news.set()
        if self.receiving is not None:
            self.receiving.cancel()

    async def listen(self) -> None:
        """Wait for one of the signals, and report it when the earlier handlers are back in place."""
        try:
            while self in _line:
                if _first() is self:
                    await _receive(self)
                if self in _line and _first() is not self:
                    await self.news.wait()
                self.news = Event()  # in the step of the look at the line that follows, so that no change is missed
        except (NotImplementedError, RuntimeError, ValueError) as exc:
            _cannot(exc, self._runner)
            self.leave()
        finally:
            self.receives = False
            _look_again()
            _raise_what_is_left()

    def leave(self) -> None:
        """Stop listening; reports a signal that was kept, and that nobody else listens to."""
        if self in _line:
            _line.remove(self)
            _look_again()
            left = [number for number in _kept if number not in _wanted()]
            if left:
                _kept.remove(left[0])
                self.report(left[0])
            _raise_what_is_left()


_line: list[Listener] = []
_earlier: dict[signal.Signals, FoundHandler] = {}
_ours: dict[signal.Signals, Any] = {}  # the handlers while a receiver is open, or while signals are kept for one
_kept: list[signal.Signals] = []


def join(
    wanted: Mapping[signal.Signals, bool], report: Callable[[signal.Signals], None], runner: str
) -> Listener | None:
    """Keep the signals that come from now on for a runner, which is to call `Listener.listen` or `Listener.leave`.

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
    free = {number: always for number, always in wanted.items() if always or _is_free(number)}
    if not free:
        names = ", ".join(number.name for number in wanted)
        logger.debug("the program handles %s itself", names, extra=about(runner=runner))
        return None
    listener = Listener(free, report, runner)
    try:
        _line.append(listener)
        _look_again()
    except BaseException as exc:
        if listener in _line:
            _line.remove(listener)
        if not isinstance(exc, ValueError):
            raise  # it was interrupted
        _cannot(exc, runner)  # in an interpreter of its own, for instance
        return None
    return listener


def _cannot(why: object, runner: str) -> None:
    logger.warning("signals are not handled: %s", why, extra=about(runner=runner))


def _look_again() -> None:
    """Do what a change of the line calls for."""
    first = _first()
    if first is None or first.receiving is None:
        _give_up(_taken())
        _keep()
    if first is not None and (first.receiving is None or _wanted() != set(_ours)):
        first.nudge()  # it opens the receiver, or opens it anew for other signals


def _first() -> Listener | None:
    return next((each for each in _line if each.receives), None)


def _wanted() -> set[signal.Signals]:
    return {number for each in _line for number in each.wanted}


def _keep() -> None:
    """Keep what comes until a receiver is open, and put back the handlers of what nobody listens to any more."""
    wanted = _wanted()
    for number in wanted:
        # Only what is not remembered yet: between two receivers, asyncio has Python's default handler in place.
        if number not in _earlier:
            _earlier[number] = FoundHandler(number)
        signal.signal(number, _keep_one)
        _ours[number] = _keep_one
    for number in _earlier.keys() - wanted:
        _ours.pop(number, None)
        _earlier[number].put_back()
        del _earlier[number]  # only now: till then, what comes is kept


def _raise_what_is_left() -> None:
    """Raise again what was kept, and nobody listens to any more."""
    while _kept and _kept[0] not in _wanted():
        signal.raise_signal(_kept.pop(0))


def _keep_one(number: int, _frame: object) -> None:
    which = signal.Signals(number)
    if which in _earlier or which in _wanted():
        _kept.append(which)
    else:  # rule 7
        signal.signal(which, signal.default_int_handler if which is signal.SIGINT else signal.SIG_DFL)
        signal.raise_signal(which)


async def _receive(listener: Listener) -> None:
    """Wait for a signal on behalf of the whole line, until one comes or the line changes."""
    received: signal.Signals | None = None
    _look_again()
    if listener not in _line:
        return
    wanted, taken, is_open = _wanted(), {}, False
    receiver = open_signal_receiver(*wanted)
    try:
        with CancelScope() as listener.receiving:
            with _held_back(wanted):
                numbers = receiver.__enter__()
                is_open = True
                if module_of(signal.getsignal(min(wanted))).partition(".")[0] != "trio":
                    # A receiver of trio's raises again what it has not handed on when it is closed, others forget it.
                    for number in wanted:
                        signal.signal(number, _keep_one)
                _ours.update((number, signal.getsignal(number)) for number in wanted)
            try:
                received = _kept[0] if _kept else await anext(aiter(numbers))
            finally:
                taken = _taken()
    finally:
        listener.receiving = None
        with _held_back(wanted):
            if is_open:
                receiver.__exit__(None, None, None)
                _ours.clear()  # it has put something else in place
            _give_up(taken)
            hearing = [each for each in _line if received in each.wanted]
            for each in hearing:
                _line.remove(each)
            # The handlers are back before anybody hears of the signal: a second one is the program's own, however soon.
            _look_again()
    if received is None:
        return  # the line has changed
    if received in _kept:
        _kept.remove(received)
    for each in hearing:
        each.nudge()
        each.report(received)


@contextmanager
def _held_back(numbers: set[signal.Signals]) -> Iterator[None]:
    # While handlers change: asyncio puts Python's own in place for a moment, which raises KeyboardInterrupt anywhere.
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _taken() -> dict[signal.Signals, FoundHandler]:
    # What somebody else has set meanwhile.
    return {number: FoundHandler(number) for number in _ours if not _is_ours(number)}


def _is_ours(number: signal.Signals) -> bool:
    return number in _ours and signal.getsignal(number) is _ours[number]


def _give_up(taken: dict[signal.Signals, FoundHandler]) -> None:
    for number, handler in taken.items():
        _earlier[number] = handler
        handler.put_back()
    for each in list(_line):
        each.wanted = {number: always for number, always in each.wanted.items() if always or number not in taken}
        if not each.wanted:
            _line.remove(each)
            each.nudge()


def _is_free(number: signal.Signals) -> bool:
    # Whether nobody has chosen a handler, apart from runners.
    handler = _earlier[number].function if _is_ours(number) else signal.getsignal(number)
    return handler in _DEFAULTS or module_of(handler) in _LOOPS_OWN


def _forget_in_child() -> None:
    if _ours:
        signal.set_wakeup_fd(-1)
        for number in filter(_is_ours, _ours):
            handler = _earlier[number].function
            if handler is not None:
                signal.signal(number, _in_child(number, handler))
    _ours.clear()
    _earlier.clear()
    _kept.clear()
    _line.clear()


def _in_child(number: signal.Signals, handler: Any) -> Any:
    if not is_loops(handler):
        return handler
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL  # that loop does not run here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
