"""Signals, for as long as a runner listens to them (R5).

The first one is reported, and from then on the handlers that were there before are back: the next SIGINT is the
program's own. Where signals cannot be had, off the main thread for instance, there is a warning and no failure.
"""

import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

from anyio import TASK_STATUS_IGNORED, open_signal_receiver
from anyio.abc import TaskStatus

logger = logging.getLogger("workerbus")


async def report_first_signal(
    signals: tuple[signal.Signals, ...],
    report: Callable[[signal.Signals], None],
    *,
    task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
) -> None:
    """Wait for one of the signals, and report it with the earlier handlers back in place."""
    if threading.current_thread() is not threading.main_thread():
        logger.warning("signals are not handled: this is not the main thread")
        task_status.started()
        return
    earlier: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in signals}
    try:
        with open_signal_receiver(*signals) as received:
            task_status.started()
            number = await anext(aiter(received))
    except (NotImplementedError, RuntimeError, ValueError) as exc:
        logger.warning("signals are not handled: %s", exc)
        task_status.started()
        return
    finally:
        _restore(earlier)
    report(number)


def _restore(earlier: dict[signal.Signals, Any]) -> None:
    # asyncio leaves Python's default handler behind, where it should be the one that was there before.
    for number, handler in earlier.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
