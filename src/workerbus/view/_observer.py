"""Looks at a runner for as long as somebody looks at the page, and lets those know when there is something new (O4).

While nobody does, there is no tap, no timer and no snapshot; the errors that are logged are kept, which costs only
where there are any. A look is one synchronous step. The next one is at least a quarter of a second later, and so much
later that looking takes a hundredth of the processor's time, however large the program is.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic, thread_time
from typing import Any, Final

from anyio import Event, move_on_after, sleep

from workerbus.runner._runner import WorkerRunner
from workerbus.runner._statistics import RunnerStatistics
from workerbus.view._failures import LoggedErrors
from workerbus.view._notes import Notes
from workerbus.view._state import Section, State, build, difference, encode, story
from workerbus.view._stories import Stories

SHORTEST: Final = 0.25
"""Seconds between two looks, at least."""
SHARE: Final = 100
"""A look may take one such part of the time until the next one."""
POINTS: Final = 120
"""How many points a curve has: one for each second."""
HEARTBEAT: Final = 15.0
"""Seconds after which a viewer is told that nothing has changed."""


class Observer:
    """What is seen of a runner.

    Args:
        runner: The runner.

    Attributes:
        errors: The errors that are logged.
        viewers: How many look.
    """

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner
        self.errors: LoggedErrors = LoggedErrors(runner.name)
        self.viewers: int = 0
        self._notes = Notes(lambda notes: runner.bus.remove_tap(notes.tap))
        self._stories = Stories()
        self._curves: Section = {}
        self._seconds = 0
        self._earlier: tuple[float, int, int] | None = None
        self._state: State | None = None
        self._changed = Event()
        self._wanted = Event()
        self._encoded: tuple[State, State, bytes] | None = None
        self._full = 0
        self._sampled = False
        self._cost = 0.0
        self._cost_of_telling = 0.0

    # --- what is asked for

    def state(self) -> State:
        """Return what there is to see now."""
        self._learn(monotonic())
        return self._build(self._runner.statistics())

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered."""
        self._learn(monotonic())
        return story(self._stories, job_id)

    async def tell(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send the state, and then what changes of it, as server-sent events, until it is cancelled or sending fails.

        A viewer that is slow misses states, and not changes: it gets the difference from what it has.
        """
        with self._looking():
            shown: State | None = None
            while True:
                state, changed = self._state, self._changed
                if state is not None and state is not shown:
                    await send(self._event(shown, state))
                    shown = state
                    continue
                with move_on_after(HEARTBEAT) as waiting:
                    await changed.wait()
                if waiting.cancelled_caught:
                    await send(b": nothing new\n\n")

    # --- looking

    async def look(self) -> None:
        """Look whenever somebody wants to see something, until it is cancelled."""
        while True:
            await self._wanted.wait()
            self._earlier = None
            try:
                while self.viewers:
                    self._look_once()
                    await sleep(max(SHORTEST, self._cost * SHARE))
            finally:
                self._runner.bus.remove_tap(self._notes.tap)
                self._notes.take()
            self._wanted, self._state = Event(), None

    @contextmanager
    def _looking(self) -> Iterator[None]:
        self.viewers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.viewers -= 1

    def _look_once(self) -> None:
        # What it has cost to tell of the last one counts, too.
        begun = thread_time() - self._cost_of_telling
        now, seen = monotonic(), self._runner.statistics()
        self._learn(now)
        self._runner.bus.add_tap(self._notes.tap)
        self._measure(now, seen)
        self._state = self._build(seen)
        changed, self._changed = self._changed, Event()
        changed.set()
        self._cost, self._cost_of_telling = thread_time() - begun, 0.0

    def _learn(self, now: float) -> None:
        self._stories.add(self._notes.take())
        self._stories.forget_before(now)

    def _build(self, seen: RunnerStatistics) -> State:
        return build(
            self._runner, seen, self._stories, self.errors.kept, self._curves, self._state, sampled=self._sampled
        )

    def _measure(self, now: float, seen: RunnerStatistics) -> None:
        answered = sum(seen.jobs_answered.values())
        if self._earlier is None:
            self._earlier = (now, seen.bus.sent, answered)
            self._stories.latencies.clear()
            return
        since, passed, before = self._earlier
        if (span := now - since) < 1.0:
            return
        self._sampled, self._full = self._notes.full > self._full, self._notes.full
        times, self._stories.latencies = sorted(self._stories.latencies), []
        open_jobs = sum(len(worker.jobs) for worker in seen.workers.values())
        self._seconds += 1
        self._curves[str(self._seconds)] = [
            round(now, 2),
            round((seen.bus.sent - passed) / span, 1),
            round((answered - before) / span, 1),
            _quantile(times, 0.5),
            _quantile(times, 0.99),
            open_jobs,
        ]
        self._curves.pop(str(self._seconds - POINTS), None)
        self._earlier = (now, seen.bus.sent, answered)

    # --- telling

    def _event(self, shown: State | None, state: State) -> bytes:
        begun = thread_time()
        if shown is None:
            event = _event("state", {"now": round(monotonic(), 3), "state": state})
        elif self._encoded is not None and self._encoded[0] is shown and self._encoded[1] is state:
            event = self._encoded[2]
        else:
            event = _event("changes", {"now": round(monotonic(), 3), "changes": difference(shown, state)})
            self._encoded = (shown, state, event)
        self._cost_of_telling += thread_time() - begun
        return event


def _quantile(times: list[float], part: float) -> float | None:
    """Return a quantile of sorted times, in milliseconds; None where there are none."""
    return round(1000 * times[min(len(times) - 1, int(part * len(times)))], 3) if times else None


def _event(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), encode(data))
