"""trio in virtual time, with its tasks in an order drawn from a seed.

The clock is one of trio's public kind. trio asks it how long to wait only when nothing can run, and that is the idle
moment; an instrument counts the other turns of the loop. The order of tasks has no public hook: trio shuffles each
batch with a random generator of its own, which is seeded here for the time of a run, as trio's own pytest plugin does.
"""

import math
from threading import active_count
from typing import Any

import trio
import trio._core._run as scheduler
import trio.testing
from trio.lowlevel import Task

from workerbus.testing._errors import StuckError
from workerbus.testing.clock._virtual import VirtualTime
from workerbus.testing.diagnosis._frames import threads_of
from workerbus.testing.diagnosis._waiting import Waiter, describe

THREAD_POLL = 0.05
"""Real seconds after which the loop looks again while a thread is at work."""


def _tasks() -> list[Task]:
    root = trio.lowlevel.current_root_task()
    tasks: list[Task] = []
    nurseries = [] if root is None else list(root.child_nurseries)
    while nurseries:
        children = [task for nursery in nurseries for task in nursery.child_tasks]
        tasks += children
        nurseries = [nursery for task in children for nursery in task.child_nurseries]
    return sorted(tasks, key=lambda task: task._counter)


class _Clock(trio.abc.Clock, trio.abc.Instrument):
    """A clock that jumps, and that notices when it is not asked."""

    def __init__(self, seed: int | None, limit: float, patience: float) -> None:
        self.virtual = VirtualTime(limit, self._waiting, self._push)
        self._seed = seed
        self._patience = patience
        self._before: tuple[Any, bool] | None = None
        self._asked = False
        self._looked = False
        self._polled = False
        self._error: StuckError | None = None
        self.main: Task | None = None

    def start_clock(self) -> None:
        """Time begins at 0."""

    def before_run(self) -> None:
        """Let trio draw its schedule from the seed."""
        if self._seed is not None:
            self._before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
            scheduler._r.seed(self._seed)
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # final only for type checkers

    def after_run(self) -> None:
        """Put trio's scheduler back."""
        if self._before is not None:
            state, allowed = self._before
            scheduler._r.setstate(state)
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]  # put back

    def current_time(self) -> float:
        """Seconds of virtual time; the loop asks in each turn."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self.virtual.look()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Nothing can run until a deadline: look whether something comes in from outside, then be there."""
        self._asked = True
        if scheduler.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return math.inf  # trio wakes those first, when it has waited as long as they ask for
        if not self._looked:
            self._looked = True
            return self._patience
        if active_count() > 1:
            used, waiting = threads_of(task.coro for task in _tasks())
            if used and (used > waiting or deadline == math.inf or not self._polled):
                self._polled = True  # one that waits for the loop may have been answered just now
                self.virtual.thread_at_work()
                return THREAD_POLL
        self._looked = False
        self.virtual.idle(deadline)
        return 0.0

    def before_io_wait(self, timeout: float) -> None:
        """The loop turns."""
        if not self._asked:
            try:
                self.virtual.turn()
            except StuckError as exc:
                self._error = exc  # trio would only log it here
        self._asked = False

    def before_task_step(self, task: Task) -> None:
        """Something runs."""
        self._looked = self._polled = False

    def _waiting(self) -> tuple[str, ...]:
        own = "<"  # trio's own tasks are named like that
        tasks = [task for task in _tasks() if not task.name.startswith(own)]
        return describe([Waiter(task.name, task.coro, main=task is self.main, id=id(task)) for task in tasks])

    def _push(self) -> None:
        for task in _tasks():
            status: Any = task._cancel_status
            while status is not None:
                status._scope.shield = False
                status = status._parent


def options(seed: int | None, limit: float, patience: float) -> dict[str, Any]:
    """What `anyio.run` needs to run a program in virtual time."""
    clock = _Clock(seed, limit, patience)
    return {"clock": clock, "instruments": [clock]}


def enter() -> VirtualTime:
    """Return the clock of this run, whose main task is this one."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, _Clock)
    clock.main = trio.lowlevel.current_task()
    return clock.virtual


async def settle() -> None:
    """Wait until nothing can happen without time passing."""
    await trio.testing.wait_all_tasks_blocked()
