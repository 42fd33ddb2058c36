"""Time that passes only when nothing else can happen, for both backends.

A backend tells when its loop has turned (`VirtualTime.turn`) and when nothing is left to run until some moment
(`VirtualTime.idle`); the clock then stands at that moment. Where there is no such moment, the program is stuck: its
main scope is cancelled, so that it can wind down, and `run` raises the error that was made when it got stuck.

A program can be stuck without being idle: it turns on and on, or looks at the clock until some time has passed. So
turns and looks take a little virtual time when there are many of them, and after very many the program is given up.

It knows neither backend.
"""

import math
from collections.abc import Callable
from time import monotonic, thread_time
from typing import Any, Final, Protocol

from anyio import CancelScope

from workerbus.testing._errors import DeadlockError, InvariantError, SpinError, StuckError, TimeLimitError

FREE_TURNS: Final = 1_000
"""How many turns of the loop take no time, from one idle moment to the next."""
SECONDS_PER_TURN: Final = 0.001
"""What each further turn takes, so that a program which spins until a deadline gets there."""
FREE_LOOKS: Final = 10_000
"""How many looks at the clock take no time, within one turn of the loop."""
SECONDS_PER_LOOK: Final = 0.001
"""What each further look takes, so that code which looks until some time has passed gets there."""
MOST_TURNS: Final = 200_000
"""How many turns there may be from one idle moment to the next."""
MOST_SECONDS: Final = 20.0
"""How many seconds of processor time there may be from one idle moment to the next, whatever the turns do.

Not of real time, which also passes on a busy machine, and at a breakpoint.
"""
MOST_JUMPS: Final = 1_000_000
"""How many times the clock may jump, so that a program which only sends heartbeats is not run for a whole week."""
MOST_THREAD_SECONDS: Final = 60.0
"""How many seconds of real time a thread may be at work while all else waits for it."""
WIND_DOWN: Final = 3_600.0
"""Seconds that a program has for its wind-down when its time is over."""
PATIENT_TIMES: Final = 5
"""How often a program that is stuck again, in its wind-down, is pushed before it is given up."""


class Watcher(Protocol):
    """Looks at a program between the steps of its tasks.

    What it returns, if it is an error, ends the program; it is asked no more then.
    """

    def ends(self, title: str, coroutine: Any) -> InvariantError | None:
        """Look at the program after a step of a task."""
        ...

    def passes(self, until: float) -> InvariantError | None:
        """Look at the program before time jumps.

        Args:
            until: To which moment; `math.inf` if nothing is due any more.
        """
        ...

    def is_over(self) -> InvariantError | None:
        """Look at the program when its main function has returned."""
        ...


class Recorder(Protocol):
    """Sees each step of each task, and changes nothing."""

    def begins(self, task: Any) -> None:
        """Note that a task is about to run a step."""
        ...

    def ends(self) -> None:
        """Note that the step is over."""
        ...


class VirtualTime:
    """The clock of one program.

    Args:
        limit: Seconds that the program may take.
        waiting: Describes the tasks that wait.
        push: Breaks what keeps a program from winding down, shields included.
        interrupt: Raises an error in the program's main task, and returns whether it could; for a program without a
            scope around it, as a test of anyio's pytest plugin is.

    Attributes:
        now: Seconds since the beginning; reading it takes no time, unlike `look`.
        scope: The scope around the program, to be cancelled when it is stuck; without one, the error is raised in its
            main task, or comes out of the loop itself.
        error: Why the program does not come to its end; None if it does.
        watchers: Who looks at the program between steps.
        recorder: Who sees each step, until something is wrong; None if nobody does.
    """

    def __init__(
        self,
        limit: float,
        waiting: Callable[[], tuple[str, ...]],
        push: Callable[[], None],
        interrupt: Callable[[BaseException], bool] = lambda _: False,
    ) -> None:
        self._limit = limit
        self._waiting = waiting
        self._push = push
        self._interrupt = interrupt
        self._turns = 0
        self._pushed = 0
        self._looks = 0
        self._jumps = 0
        self._thread_since: float | None = None
        self._busy_since = 0.0
        self.now: float = 0.0
        self.scope: CancelScope | None = None
        self.error: StuckError | InvariantError | None = None
        self.watchers: list[Watcher] = []
        self.recorder: Recorder | None = None
        self._recording = False
        self._broken = False

    # --- between steps

    def begins(self, task: Any) -> None:
        """Tell the recorder that a task is about to run a step."""
        if self.recorder is not None and self.error is None:
            self._recording = True
            self.recorder.begins(task)

    def ends(self, title: str, coroutine: Any) -> None:
        """Have the watchers look at the program after a step of a task."""
        if self._recording and self.recorder is not None:
            self._recording = False
            self.recorder.ends()
        for each in tuple(self.watchers):  # which one leaves that has come true
            self._break(each.ends(title, coroutine))

    def is_over(self) -> None:
        """Have the watchers look at the program when its main function has returned."""
        for each in self.watchers:
            self._break(each.is_over())

    def _break(self, error: InvariantError | None) -> None:
        # The first error counts. The program is cancelled, so that it winds down; without a scope around it, the error
        # is raised in its main task. If that cannot be, it comes out of the loop, when that turns next.
        if error is None or self.error is not None:
            return
        self.error = error
        self._broken = not self._ended_by(error)

    def _ended_by(self, error: StuckError | InvariantError) -> bool:
        if self.scope is None:
            return self._interrupt(error)
        self.scope.cancel()
        return True

    def _raise(self) -> None:
        if self._broken and self.error is not None:
            self._broken = False
            raise self.error

    def another_begins(self) -> None:
        """Forget what was wrong, and who looks, as another program begins in the same loop."""
        self.error, self._pushed = None, 0
        self.watchers.clear()

    # --- idle moments

    def look(self) -> float:
        """Return the seconds since the beginning to the program, which may be looking in a loop."""
        self._looks += 1
        if self._looks > FREE_LOOKS:
            self.now += SECONDS_PER_LOOK
        return self.now

    def turn(self) -> None:
        """Note that the loop turns, and has something to run.

        Raises:
            StuckError: The program did not wind down either.
            InvariantError: A watcher has found something wrong, and there is no scope around the program.
        """
        self._raise()
        self._looks = 0
        self._turns += 1
        if self._turns > FREE_TURNS:
            self.now += SECONDS_PER_TURN
        if self._turns == 1:
            self._busy_since = thread_time()
        elif self._turns > MOST_TURNS or (not self._turns % 100 and thread_time() - self._busy_since > MOST_SECONDS):
            turns, self._turns = self._turns, 0
            self._stuck(
                SpinError,
                f"the program spins: its tasks have run {turns:,} times on end, and not once did all of them wait",
            )

    def idle(self, until: float) -> None:
        """Jump to the next moment at which something is due, as nothing can run before.

        Args:
            until: That moment, in seconds since the beginning; `math.inf` if there is none.

        Raises:
            StuckError: The program did not wind down either.
            InvariantError: A watcher has found something wrong, and there is no scope around the program.
        """
        self._turns = self._looks = 0
        self._thread_since = None
        self._jumps += 1
        for each in self.watchers:
            self._break(each.passes(until))
        self._raise()
        if until == math.inf:
            self._stuck(DeadlockError, "nothing can happen any more: every task waits, and no timer runs")
        elif until > self._limit:
            headline = f"the program has not ended in {self._limit:,g} seconds of virtual time"
            self._limit = until + WIND_DOWN
            self._stuck(TimeLimitError, headline)
        elif self._jumps > MOST_JUMPS:
            self._jumps = 0
            self._stuck(TimeLimitError, f"the program has let time pass {MOST_JUMPS:,} times, and has not ended")
        else:
            self.now = max(self.now, until)

    def thread_at_work(self) -> None:
        """Note that everything waits for a thread, which is at work.

        Raises:
            StuckError: The program did not wind down either.
        """
        self._turns = self._looks = 0
        self._thread_since = self._thread_since or monotonic()
        if monotonic() - self._thread_since > MOST_THREAD_SECONDS:
            self._thread_since = None
            self._stuck(TimeLimitError, f"a thread has been at work for {MOST_THREAD_SECONDS:g} seconds of real time")

    def _stuck(self, kind: type[StuckError], headline: str) -> None:
        # 1. The first time, the error is made here, while all tasks still stand where they wait. Then the program is
        #    cancelled, so that it winds down; the error is raised when it has. Without a scope, it is raised at once:
        #    in the main task, if that can be.
        # 2. Stuck again, in the wind-down: the error notes where. Then whatever keeps the cancellation off is broken,
        #    a few times, since clean-up may wait again and again.
        # 3. Too often: the error comes out of the loop, and leaves the tasks where they are.
        if self.error is None:
            self.error = kind(f"{headline} (at {self.now:g} s)", self._waiting(), self.now)
            if not self._ended_by(self.error):
                raise self.error
            return
        self._pushed += 1
        if self._pushed > PATIENT_TIMES:
            raise self.error
        if self._pushed == 1:
            waiting = self._waiting()
            where = (
                ": the same tasks, where they were"
                if waiting == getattr(self.error, "waiting", None)
                else ":\n\n" + "\n\n".join(waiting)
            )
            self.error.add_note(f"It was cancelled then, and got stuck again at {self.now:g} s{where}")
        self._push()
