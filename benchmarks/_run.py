"""One measurement, from inside: the clock, what is to be done how often, and what came of it."""

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio


class Run:
    """What a contender gets to do, and where it leaves what it found.

    Args:
        size: How many subscribers, workers or messages there are to be; what it means is in the subject's description.
        count: How often to do it.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count
        self.values: dict[str, float] = {}
        self._began = self._spent = 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """How often it is done to warm up, and then; the clock goes by what was done last."""
        return max(1, self.count // 10), self.count

    @property
    def sizes(self) -> tuple[int, int]:
        """How many there are to warm up, and then, where many are measured at once."""
        return max(2, self.size // 8), self.size

    def start(self) -> None:
        """Start the clock, on a heap without garbage."""
        gc.collect()
        self._began, self._spent = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop the clock: `count` of them are over; what was measured before is forgotten."""
        now, spent = time.perf_counter(), time.process_time()
        self.values |= {"seconds": (now - self._began) / self.count, "cpu": (spent - self._spent) / self.count}

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Let the clock run in a ``with`` block."""
        self.start()
        yield
        self.stop()


class Countdown:
    """Counts down to zero; then ``done`` is set. The one tool for waiting of all that run on an event loop."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = anyio.Event()

    def tick(self) -> None:
        """Count one."""
        self.left -= 1
        if self.left == 0:
            self.done.set()


def resident() -> int:
    """Return how many bytes of this process are in memory."""
    if not sys.platform.startswith("linux"):
        raise NotImplementedError("resident memory is read from /proc, on Linux")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
