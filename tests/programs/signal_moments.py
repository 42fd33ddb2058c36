"""SIGINT at every so many calls of a short run: ``python signal_moments.py BACKEND FORM STEP``.

Says for each moment how the program ended, until a run was over before the moment came.
"""

import signal
import sys
from itertools import count
from types import FrameType
from typing import Any

import anyio

from workerbus import WorkerRunner


class Moment:
    """A profiler that interrupts the program at its n-th call or return since `begin`."""

    def __init__(self, n: int) -> None:
        self.left = n

    def begin(self) -> None:
        sys.setprofile(self)

    def end(self) -> None:
        sys.setprofile(None)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        self.left -= 1
        if not self.left:
            self.end()
            signal.raise_signal(signal.SIGINT)


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


def at(n: int, backend: str, form: str) -> tuple[bool, str]:
    """Interrupt a program at a moment; returns whether the moment came, and how the program ended."""
    moment = Moment(n)
    try:
        how = anyio.run({"block": block, "main": main}[form], moment, backend=backend)
    except BaseException as exc:  # the type is what is asked about
        how = type(exc).__name__
    return moment.left <= 0, how


backend, form, step = sys.argv[1:]
for n in count(1, int(step)):
    came, how = at(n, backend, form)
    if not came:
        break
    sys.stdout.write(f"{how}\n")
