"""Signals, for as long as runners listen to them (L1, R5).

The first one is reported to every runner that listens to it, and from then on the handlers that were there before are
back: the next SIGINT is the program's own. Where signals cannot be had, off the main thread for instance, there is a
warning and no failure.

A process has one handler per signal, and may have several runners, which come and go in any order. They stand in line:

1. The first in line has the receiver open, for the signals of all.
2. Whenever the line or what it wants changes, the first closes the receiver, and whoever is first then opens it anew.
3. A signal takes all who listen to it out of the line, and is reported to each.
4. The earlier handlers are remembered once, before the first receiver is opened, and put back when the line is empty.
"""

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from anyio import TASK_STATUS_IGNORED, CancelScope, Event, open_signal_receiver
from anyio.abc import TaskStatus

logger = logging.getLogger("workerbus")


class _Listener:
    """A runner that listens.

    Attributes:
        signals: The signals that it listens to.
        report: Called with the first one that comes.
        news: Set when the line has changed.
        receiving: The scope in which it has the receiver open for all, while it has.
    """

    def __init__(self, signals: tuple[signal.Signals, ...], report: Callable[[signal.Signals], None]) -> None:
        self.signals = signals
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


async def report_first_signal(
    signals: tuple[signal.Signals, ...],
    report: Callable[[signal.Signals], None],
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Wait for one of the signals, and report it when the earlier handlers are back in place.

    Args:
        signals: The signals to listen to.
        report: Called with the first one that comes.
        task_status: Told when the signals are being received, or cannot be.
    """
    if threading.current_thread() is not threading.main_thread():
        logger.warning("signals are not handled: this is not the main thread")
        task_status.started()
        return
    listener = _Listener(signals, report)
    _line.append(listener)
    if _line[0] is not listener:
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
        logger.warning("signals are not handled: %s", exc)
        if not started:
            task_status.started()
    finally:
        if listener in _line:
            _line.remove(listener)
        if _line:
            _line[0].nudge()
        else:
            _restore()


async def _receive(listener: _Listener, task_status: TaskStatus[None] | None) -> None:
    """Wait for a signal on behalf of the whole line, until one comes or the line changes."""
    wanted = {number for each in _line for number in each.signals}
    # Only what is not remembered yet: between two receivers, asyncio has Python's default handler in place.
    for number in wanted:
        _earlier.setdefault(number, signal.getsignal(number))
    received: signal.Signals | None = None
    with CancelScope() as listener.receiving, open_signal_receiver(*wanted) as numbers:
        if task_status is not None:
            task_status.started()
        received = await anext(aiter(numbers))
    listener.receiving = None
    if received is None:
        return  # the line has changed
    hearing = [each for each in _line if received in each.signals]
    # The handlers are back before anybody hears of the signal: a second one is the program's own, however soon it is.
    for each in hearing:
        _line.remove(each)
    if not _line:
        _restore()
    for each in hearing:
        each.nudge()
        each.report(received)


def _restore() -> None:
    # When its receiver is closed, asyncio puts Python's default handler in place, whatever was there before.
    for number, handler in _earlier.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    _earlier.clear()
