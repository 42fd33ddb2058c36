"""Lets an event loop that waits notice a signal, and keeps from it what was not meant for it (R5).

Python calls a handler when it next runs code of the main thread. A loop that is just about to wait does not do that
until something else wakes it, unless the signal's number arrives at a socket that it reads, its wake-up file
descriptor. trio always has one. asyncio has one while the program has asked it for signals, and then calls what was
asked for as soon as the number arrives, whatever Python's handler for it is by then.

So for as long as runners listen on asyncio, the numbers arrive here. Those that runners have heard end here, and the
others go on to where they would have gone.
"""

import os
import signal
import socket
from collections import Counter
from contextlib import suppress
from typing import Any, Self

from anyio.lowlevel import current_token


class WakeUp:
    """Receives the number of each signal for an event loop, from `take` to `close`. For the main thread only."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._heard: Counter[int] = Counter()
        self._before = -1
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    @classmethod
    def open(cls) -> Self | None:
        """Return one for the running event loop, or None if that needs none."""
        loop = current_token().native_token
        if not hasattr(loop, "add_reader"):
            return None  # trio's
        wakeup = cls(loop)
        try:
            loop.add_reader(wakeup._reader, wakeup._read)
        except NotImplementedError:  # on Windows, where asyncio has a wake-up file descriptor in any case
            wakeup.forget()
            return None
        return wakeup

    def is_running(self) -> bool:
        """Whether the running event loop reads it."""
        return current_token().native_token is self._loop

    def take(self) -> None:
        """Receive the numbers, also if they have begun to go somewhere else meanwhile."""
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if before != self._writer.fileno():
            self._before = before

    def keep(self, number: int) -> None:
        """Let one signal of those that have come go no further."""
        self._heard[number] += 1

    def close(self) -> None:
        """Let the numbers arrive where they did before."""
        self.take()
        signal.set_wakeup_fd(self._before)
        self._read()
        self._loop.remove_reader(self._reader)
        self.forget()

    def forget(self) -> None:
        """Close the sockets, and nothing else: in a forked child, the rest is its parent's."""
        self._reader.close()
        self._writer.close()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._pass_on(self._reader.recv(4096))

    def _pass_on(self, numbers: bytes) -> None:
        others = bytearray()
        for number in numbers:
            if self._heard[number]:
                self._heard[number] -= 1
            else:
                others.append(number)
        if others and self._before != -1:
            with suppress(OSError):  # it is full, or its loop is closed
                os.write(self._before, others)
