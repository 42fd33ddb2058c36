"""Signals at every so many calls of a short run: ``python signal_moments.py BACKEND FORM STEP``.

Says for each moment how the program ended, until a run was over before the moment came. The signal is a SIGINT; a
program of the form ``handles`` gets two SIGINTs and two SIGTERMs.
"""

import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from types import FrameType
from typing import Any

import anyio

from workerbus import WorkerRunner


class Moment:
    """A profiler that interrupts the program at its n-th call or return since `begin`.

    Attributes:
        sent: The signals with which it does.
        each: Whether Python gets each of these, and none of them stands for several of its kind.
    """

    def __init__(self, n: int, *sent: signal.Signals) -> None:
        self.left = n
        self.sent = sent
        self.each = True

    def begin(self) -> None:
        sys.setprofile(self)

    def end(self) -> None:
        sys.setprofile(None)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        self.left -= 1
        if not self.left:
            self.end()
            self.each = not signal.pthread_sigmask(signal.SIG_BLOCK, ()) and not _is_of_trio(signal.SIGINT)
            for number in self.sent:
                signal.raise_signal(number)


def _is_of_trio(number: signal.Signals) -> bool:
    return (getattr(signal.getsignal(number), "__module__", None) or "").startswith("trio")


async def block(moment: Moment) -> str:
    runner = WorkerRunner()
    moment.begin()
    try:
        async with runner:
            await anyio.lowlevel.checkpoint()
    finally:
        moment.end()
    return "finished"


async def main(moment: Moment) -> str:
    runner = WorkerRunner()
    moment.begin()
    try:
        await runner.run()
    finally:
        moment.end()
    return "finished" if runner.signal is None else runner.signal.name


async def handles(moment: Moment) -> str:
    """Say whether each signal was heard, by the program's own handler or, once, by the runner."""
    heard: list[int] = []
    for number in set(moment.sent):
        signal.signal(number, lambda number, _: heard.append(number))
    runner = WorkerRunner(handle_sigint="always", handle_sigterm=True)
    moment.begin()
    try:
        await runner.run()
    finally:
        moment.end()
    if runner.signal is not None:
        heard.append(runner.signal)
    if moment.left > 0 or Counter(heard) == Counter(moment.sent):
        return "all"
    return "each kind" if set(heard) == set(moment.sent) and not moment.each else f"only {heard}"


FORMS: dict[str, tuple[Callable[[Moment], Awaitable[str]], tuple[signal.Signals, ...]]] = {
    "block": (block, (signal.SIGINT,)),
    "main": (main, (signal.SIGINT,)),
    "handles": (handles, (signal.SIGINT, signal.SIGTERM) * 2),
}


def at(n: int, backend: str, form: str) -> tuple[bool, str]:
    """Interrupt a program at a moment; returns whether the moment came, and how the program ended."""
    program, sent = FORMS[form]
    moment = Moment(n, *sent)
    try:
        how = anyio.run(program, moment, backend=backend)
    except BaseException as exc:  # the type is what is asked about
        how = type(exc).__name__
    return moment.left <= 0, how


backend, form, step = sys.argv[1:]
for n in count(1, int(step)):
    came, how = at(n, backend, form)
    if not came:
        break
    sys.stdout.write(f"{how}\n")
