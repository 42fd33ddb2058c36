"""Notices when the event loop stands still, and says what holds it up (L1, L8, R8, O2).

A task of the run notes when it is to be woken next: the beat. A thread looks whether the beat is overdue. Where it is,
the thread looks at what the loop's thread is doing, since nobody else can; how long it has lasted the beat knows, when
it comes.

1. A beat that is late by more than the limit is a stall, and counts, whatever the thread has seen.
2. The thread looks twice, at half the limit and at the limit. Where both looks find the same task, that one holds the
   loop up; where not, the loop has too much to do, and what is shown is one of many.
3. Where it finds nothing, no code of the program runs: the process gets no time of the processor, or code in C holds
   the interpreter. That is told when it is over.
4. On a clock that runs ahead of the real one, as that of `workerbus.testing` does, nothing is watched.

Time is `time.monotonic`, since the loop's clock may be read in the loop alone.
"""

import logging
import math
import threading
from collections import deque
from time import monotonic
from typing import Final

from anyio import Event, sleep

from workerbus._concurrency.doing import Doing, doing_of
from workerbus._concurrency.lifetime import CLEANUP_SECONDS, TaskHost
from workerbus._log import about
from workerbus._values import Value, check_number, value

logger = logging.getLogger("workerbus.runner")

LEAST_STALL: Final = 0.01
"""The shortest time, in seconds, that a loop may be asked not to stand still for."""

_BEATS: Final = 4
"""How many beats there are in the time that counts as a stall."""


@value
class LoopStatistics(Value):
    """How well an event loop has kept up.

    Args:
        stalls: How many times it stood still for longer than the limit.
        lag: How many seconds it was late at the last check; 0.0 while it waits for something to do.
        longest_lag: The longest delay, in seconds.

    Guarantees: O2.
    """

    stalls: int
    lag: float
    longest_lag: float


class StallWatch:
    """Watches the event loop of one run.

    Args:
        runner: The runner's name.
        limit: For how many seconds the loop may stand still.

    Attributes:
        stalls: How many times it has stood still for longer.
        lag: By how many seconds the last beat was late.
        longest_lag: The most of that so far.

    Raises:
        ValueError: The limit is not a number of 0.01 or more.
    """

    def __init__(self, runner: str, limit: float) -> None:
        check_number("stall_seconds", limit)
        if not LEAST_STALL <= limit < math.inf:
            raise ValueError(f"stall_seconds is a number of seconds, {LEAST_STALL} or more, not {limit!r}")
        self._runner = runner
        self._limit = limit
        self._beat = limit / _BEATS
        self._due = math.inf  # written by the loop, read by the thread
        self._over: deque[tuple[float, float]] = deque()  # the beats that were a stall: when due, and how late
        self._closed = threading.Event()
        self.stalls: int = 0
        self.lag: float = 0.0
        self.longest_lag: float = 0.0

    def statistics(self) -> LoopStatistics:
        """Return what was counted."""
        return LoopStatistics(self.stalls, self.lag, self.longest_lag)

    @property
    def stands_still(self) -> float:
        """For how many seconds the loop has stood still by now, if longer than it may; else 0.0."""
        late = monotonic() - self._due
        return late if late > self._limit else 0.0

    # --- in the event loop

    async def open(self, tasks: TaskHost) -> None:
        """Watch the loop in which this is called, as long as the tasks run; returns when it is watched."""
        watched = Event()
        tasks.start(self._watch, watched, name=f"{self._runner} stall watch")
        await watched.wait()

    async def _watch(self, watched: Event) -> None:
        name = f"workerbus {self._runner} stall watch"
        thread = threading.Thread(target=self._look, args=(threading.get_ident(),), name=name, daemon=True)
        thread.start()
        watched.set()
        try:
            while await self._beats_in_real_time():
                pass
        finally:
            # The thread waits for nothing else, so it is over at once, unless a log handler takes its time.
            self._note(monotonic())
            self._closed.set()
            thread.join(CLEANUP_SECONDS)

    async def _beats_in_real_time(self) -> bool:
        began = monotonic()
        self._due = began + self._beat
        await sleep(self._beat)
        now = monotonic()
        self._note(now)
        return now - began > self._beat / 2

    def _note(self, now: float) -> None:
        self.lag = max(0.0, now - self._due)
        self.longest_lag = max(self.longest_lag, self.lag)
        if self.lag > self._limit:
            self.stalls += 1
            self._over.append((self._due, self.lag))
        self._due = math.inf  # last: then the thread looks at the others

    # --- in the thread

    def _look(self, thread: int) -> None:
        seen: Doing | None = None
        verdict = ""
        due = math.inf
        half = self._limit / 2
        while True:
            now = monotonic()
            if self._due != due:  # the beat has come
                self._tell_of_those_over(due, seen, verdict)
                seen, verdict, due = None, "", self._due
            elif seen is None and now > due + half:
                seen = doing_of(thread)
            elif seen is not None and not verdict and now > due + self._limit:
                verdict = self._tell(seen, doing_of(thread))
            until = due + (half if seen is None else self._limit)
            if self._closed.wait(half if due == math.inf else max(until - now, self._beat)):
                break
        self._tell_of_those_over(due, seen, verdict)

    def _tell(self, before: Doing, doing: Doing | None) -> str:
        if doing is None:
            return ""  # the loop waits, so the beat is about to come
        verdict = "held up by" if before.step == doing.step else "too much to do, such as"
        logger.warning(
            "the event loop of runner %r stands still for more than %g s: %s %s\n%s",
            self._runner,
            self._limit,
            verdict,
            doing.what,
            doing.stack.rstrip(),
            extra=self._about(doing),
        )
        return verdict

    def _tell_of_those_over(self, looked_at: float, seen: Doing | None, verdict: str) -> None:
        while self._over:
            due, lag = self._over.popleft()
            doing = seen if due == looked_at else None
            if doing is None:
                what = "nobody has seen what held it up"
            elif verdict:
                what = f"{verdict} {doing.what}"
            else:
                what = f"what was seen is {doing.what}\n{doing.stack.rstrip()}"
            logger.warning(
                "the event loop of runner %r goes on, after %.3g s: %s",
                self._runner,
                lag,
                what,
                extra=self._about(doing),
            )

    def _about(self, doing: Doing | None) -> dict[str, str]:
        return about(runner=self._runner, worker=doing and doing.worker, job=doing and doing.job)
