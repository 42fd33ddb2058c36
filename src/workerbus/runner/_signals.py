"""Signals, for as long as runners listen to them (L1, L7, R5).

The first one is reported to every runner that listens to it, and from then on the handlers that were there before are
back: the next SIGINT is the program's own. Where signals cannot be had, off the main thread for instance, there is a
warning and no failure. A signal that the program itself handles is taken from it only where that was asked for: what
Python and event loops do with SIGINT by default is nobody's choice, and counts as no handler.

A process has one handler per signal, and may have several runners, which come and go in any order. They stand in line:

1. The first in line has the receiver open, for the signals of all.
2. Whenever the first or what the line wants changes, the first closes the receiver, and whoever is first then opens it
   anew. Not for less: a server may have asked the event loop for the signal meanwhile, and would lose it.
3. A signal takes all who listen to it out of the line, and is reported to each.
4. The earlier handlers are remembered once, before the first receiver is opened, and put back when the line is empty.
   One that somebody has set meanwhile stays.
5. A forked child has the default handlers, and an empty line. What wakes the parent's event loop when a signal comes is
   a socket that they share; so the child lets go of that first.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from anyio import TASK_STATUS_IGNORED, CancelScope, Event, open_signal_receiver
from anyio.abc import TaskStatus

from workerbus._log import about

logger = logging.getLogger("workerbus.runner")

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_LOOPS = ("asyncio", "trio", "uvloop")
_LOOPS_OWN = ("asyncio.runners", "trio._core._ki")


class _Listener:
    """A runner that listens.

    Attributes:
        wanted: The signals that it listens to, and whether also to those that the program handles.
        report: Called with the first one that comes.
        news: Set when the line has changed.
        receiving: The scope in which it has the receiver open for all, while it has.
    """

    def __init__(self, wanted: dict[signal.Signals, bool], report: Callable[[signal.Signals], None]) -> None:
        self.wanted = wanted
        self.report = report
        self.news = Event()
        self.receiving: CancelScope | None = None

    def nudge(self) -> None:
        """Let the runner look at the line again: it has changed."""
        self.news.set()
        if self.receiving is not None:
            self.receiving.cancel()


_line: list[_Listener] = []
_earlier: dict[signal.Signals, Any] = {}
_ours: dict[signal.Signals, Any] = {}  # the handlers while a receiver is open


async def report_first_signal(
    wanted: Mapping[signal.Signals, bool],
    report: Callable[[signal.Signals], None],
    runner: str,
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Wait for one of the signals, and report it when the earlier handlers are back in place.

    Args:
        wanted: The signals to listen to, and whether also to those that the program handles.
        report: Called with the first one that comes.
        runner: The name of the runner that listens, for the log.
        task_status: Told when the signals are being received, or cannot be.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.warning("signals are not handled: this is not the main thread", extra=about(runner=runner))
        task_status.started()
        return
    free = {number: always for number, always in wanted.items() if always or _is_free(number)}
    if not free:
        names = ", ".join(number.name for number in wanted)
        logger.debug("the program handles %s itself", names, extra=about(runner=runner))
        task_status.started()
        return
    await _listen(_Listener(free, report), runner, task_status)


async def _listen(listener: _Listener, runner: str, task_status: TaskStatus[None]) -> None:
    _line.append(listener)
    if _line[0] is not listener and _wanted() != set(_ours):
        _line[0].nudge()  # it opens the receiver anew, for these signals too
    started = False
    try:
        while listener in _line:
            if _line[0] is listener:
                await _receive(listener, None if started else task_status)
            elif not started:
                task_status.started()
            started = True
            if listener in _line and _line[0] is not listener:
                await listener.news.wait()
            listener.news = Event()  # in the step of the look at the line that follows, so that no change is missed
    except (NotImplementedError, RuntimeError, ValueError) as exc:
        logger.warning("signals are not handled: %s", exc, extra=about(runner=runner))
        if not started:
            task_status.started()
    finally:
        if listener in _line:
            _line.remove(listener)
        if not _line:
            _restore()
        elif _wanted() != set(_ours):
            _line[0].nudge()


def _wanted() -> set[signal.Signals]:
    return {number for each in _line for number in each.wanted}


async def _receive(listener: _Listener, task_status: TaskStatus[None] | None) -> None:
    """Wait for a signal on behalf of the whole line, until one comes or the line changes."""
    wanted = _wanted()
    # Only what is not remembered yet: between two receivers, asyncio has Python's default handler in place.
    for number in wanted:
        _earlier.setdefault(number, signal.getsignal(number))
    received: signal.Signals | None = None
    taken: dict[signal.Signals, Any] = {}
    try:
        with CancelScope() as listener.receiving, open_signal_receiver(*wanted) as numbers:
            _ours.update((number, signal.getsignal(number)) for number in wanted)
            try:
                if task_status is not None:
                    task_status.started()
                received = await anext(aiter(numbers))
            finally:
                taken = _taken()
                _ours.clear()
    finally:
        listener.receiving = None
        _give_up(taken)
    if received is None:
        return  # the line has changed
    hearing = [each for each in _line if received in each.wanted]
    # The handlers are back before anybody hears of the signal: a second one is the program's own, however soon it is.
    for each in hearing:
        _line.remove(each)
    if not _line:
        _restore()
    for each in hearing:
        each.nudge()
        each.report(received)


def _taken() -> dict[signal.Signals, Any]:
    # What somebody else has set meanwhile.
    now = {number: signal.getsignal(number) for number in _ours}
    return {number: handler for number, handler in now.items() if handler is not _ours[number]}


def _give_up(taken: dict[signal.Signals, Any]) -> None:
    # The receiver has put something else in place when it was closed.
    for number, handler in taken.items():
        _earlier[number] = handler
        signal.signal(number, handler)
    for each in list(_line):
        each.wanted = {number: always for number, always in each.wanted.items() if always or number not in taken}
        if not each.wanted:
            _line.remove(each)
            each.nudge()


def _is_free(number: signal.Signals) -> bool:
    # Whether nobody has chosen a handler, apart from runners.
    handler = signal.getsignal(number)
    if number in _ours and handler is _ours[number]:
        handler = _earlier[number]
    return handler in _DEFAULTS or _module_of(handler) in _LOOPS_OWN


def _module_of(handler: Any) -> str:
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__module__", None) or ""


def _restore() -> None:
    # When its receiver is closed, asyncio puts Python's default handler in place, whatever was there before.
    for number, handler in _earlier.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    _earlier.clear()


def _forget_in_child() -> None:
    if _ours:
        signal.set_wakeup_fd(-1)
        for number in _ours.keys() - _taken().keys():
            handler = _earlier[number]
            if handler is not None:
                signal.signal(number, _in_child(number, handler))
    _ours.clear()
    _earlier.clear()
    _line.clear()


def _in_child(number: signal.Signals, handler: Any) -> Any:
    if _module_of(handler).partition(".")[0] not in _LOOPS:
        return handler
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL  # that loop does not run here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
