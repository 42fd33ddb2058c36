"""trio in virtual time, with its tasks in an order drawn from a seed.

The clock is one of trio's public kind. trio asks it how long to wait only when nothing can run: that is the idle
moment. An instrument counts the other turns of the loop. The order of tasks has no public hook: trio shuffles each
batch with a random generator of its own, which is seeded here for the time of a run, as trio's own pytest plugin does.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from queue import Queue
from threading import active_count
from typing import Any, NoReturn

import trio
import trio._core._run as scheduler
import trio.testing
from trio.lowlevel import Task

from workerbus._backoff import jitter, seed_jitter
from workerbus.diagnosis._frames import threads_of
from workerbus.diagnosis._waiting import Waiter, describe
from workerbus.testing._errors import InvariantError, StuckError
from workerbus.testing.buses._story import stories
from workerbus.testing.clock._steering import Steering
from workerbus.testing.clock._virtual import VirtualTime

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


def _program() -> Any:
    """Return what the main task awaits: under anyio's pytest plugin, whose main task runs several, that is the test."""
    task = scheduler.GLOBAL_RUN_CONTEXT.runner.main_task
    return None if task is None else getattr(task.coro, "cr_await", None)


def _tell_plugin(error: BaseException) -> None:
    # When the loop ends in an error, anyio's pytest plugin does not look at that, and waits for ever for its test: for
    # what comes in its queue of calls. So that has to raise it.
    frame = getattr(getattr(scheduler.GLOBAL_RUN_CONTEXT.runner.main_task, "coro", None), "cr_frame", None)
    calls = None if frame is None else getattr(frame.f_locals.get("self"), "_call_queue", None)
    if isinstance(calls, Queue):
        calls.put(partial(_throw, error))


def _throw(error: BaseException) -> NoReturn:
    raise error


class _Clock(trio.abc.Clock, trio.abc.Instrument):
    """A clock that jumps when nothing can run, and an instrument that sees the other turns of the loop."""

    def __init__(self, seed: int | None, limit: float, patience: float) -> None:
        self.virtual = VirtualTime(limit, self._waiting, self._push, self._interrupt)
        self._interrupted: Any = None
        self._seed = seed
        self._patience = patience
        self._before: tuple[Any, bool] | None = None
        self._asked = False
        self._looked = False
        self._polled = False
        self._error: StuckError | InvariantError | None = None
        self.main: Task | None = None

    def start_clock(self) -> None:
        """Do nothing: time begins at 0."""

    def before_run(self) -> None:
        """Let trio draw its schedule from the seed."""
        if self._seed is not None:
            self._before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
            scheduler._r.seed(self._seed)
            seed_jitter(self._seed)
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # final only for type checkers

    def after_run(self) -> None:
        """Put trio's scheduler back as it was."""
        if self._before is not None:
            state, allowed = self._before
            scheduler._r.setstate(state)
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]  # put back

    def current_time(self) -> float:
        """Return the seconds of virtual time that have passed; trio asks in each turn of the loop."""
        # Out of here an error ends the run. What an instrument raises, trio only logs: see `before_io_wait`.
        if self._error is not None:
            error, self._error = self._error, None
            _tell_plugin(error)
            raise error
        return self.virtual.look()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long to wait when nothing can run until a deadline: not at all, once the clock has jumped there.

        Args:
            deadline: When the next timer is due, in seconds of virtual time; `math.inf` if none runs.
        """
        # trio asks anew after each wait in which nothing has happened, and gets these answers in turn:
        #
        # 1. Somebody is in `wait_all_tasks_blocked`: as long as that asks for. It has to end before time passes.
        # 2. Once since something last ran: as long as the user has asked for, for what comes from outside.
        # 3. A thread is at work: a moment of real time. Threads that all wait for the loop themselves count only where
        #    no timer runs, or at the first look: one that was answered just now still seems to wait.
        # 4. Not at all: the clock stands at the deadline now, and trio finds it due.
        self._asked = True
        if scheduler.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return math.inf
        if not self._looked:
            self._looked = True
            return self._patience
        if active_count() > 1:
            used, waiting = threads_of(task.coro for task in _tasks())
            if used and (used > waiting or deadline == math.inf or not self._polled):
                self._polled = True
                self.virtual.thread_at_work()
                return THREAD_POLL
        self._looked = False
        try:
            self.virtual.idle(deadline)
        except (StuckError, InvariantError) as exc:
            _tell_plugin(exc)
            raise
        return 0.0

    def before_io_wait(self, timeout: float) -> None:
        """Note that the loop turns; if it has not asked how long to wait, it has something to run."""
        if not self._asked:
            try:
                self.virtual.turn()
            except (StuckError, InvariantError) as exc:
                self._error = exc  # `current_time` raises it
        self._asked = False

    def before_task_step(self, task: Task) -> None:
        """Note that something runs: at the next idle moment all questions are asked anew."""
        self._looked = self._polled = False
        self.virtual.begins(task)

    def after_task_step(self, task: Task) -> None:
        """Have the watchers look at the program."""
        self.virtual.ends(task.name, task.coro)
        if self._interrupted is not None and _program() is not self._interrupted:
            self._interrupted = None
            self.virtual.another_begins()

    def _waiting(self) -> tuple[str, ...]:
        own = "<"  # trio's own tasks are named like that
        tasks = [task for task in _tasks() if not task.name.startswith(own)]
        return (
            *describe([Waiter(task.name, task.coro, main=task is self.main, id=id(task)) for task in tasks]),
            *stories(),
        )

    def _interrupt(self, error: BaseException) -> bool:
        # As trio has it with a KeyboardInterrupt: the main task is woken by the error where it waits, or gets it where
        # it goes on next. It winds down then, with its task groups.
        task = scheduler.GLOBAL_RUN_CONTEXT.runner.main_task
        if task is None or _program() is None:
            return False
        if task._abort_func is not None:
            task._attempt_abort(partial(_throw, error))
        elif task._next_send_fn is not None:
            task._next_send_fn, task._next_send = task.coro.throw, error
        else:
            return False
        self._interrupted = _program()
        return True

    def _push(self) -> None:
        if self._interrupted is not None and self.virtual.error is not None:
            self._interrupt(self.virtual.error)
            return
        # The scopes are cancelled already; what keeps the cancellation from a task is a shield.
        for task in _tasks():
            status: Any = task._cancel_status
            while status is not None:
                status._scope.shield = False
                status = status._parent


class _SteeredClock(_Clock):
    """A clock that also takes the place of the generator with which trio shuffles each batch."""

    def __init__(self, steering: Steering, limit: float, patience: float) -> None:
        super().__init__(0, limit, patience)
        self._steering = steering
        self._generator = scheduler._r

    def before_run(self) -> None:
        """Let trio ask for each order of tasks."""
        super().before_run()
        self._generator = scheduler._r
        scheduler._r = self  # type: ignore[assignment]  # of a generator trio uses no more than `shuffle` here

    def after_run(self) -> None:
        """Put trio's scheduler back as it was."""
        scheduler._r = self._generator
        super().after_run()

    def task_spawned(self, task: Task) -> None:
        """Note who has started a task."""
        by = getattr(scheduler.GLOBAL_RUN_CONTEXT, "task", None)
        self._steering.started(task, by)

    def shuffle(self, batch: list[Task]) -> None:
        """Put the tasks of a batch, which come sorted, into the order in which they are to run, the first one last."""
        batch[:] = reversed(
            self._steering.order(batch, lambda task: (task.name, task.coro), lambda: self._state(batch))
        )

    def _state(self, batch: Sequence[Task]) -> Iterable[object]:
        runner = scheduler.GLOBAL_RUN_CONTEXT.runner
        tasks = self._steering.in_order(task for task in runner.tasks if not task.name.startswith("<TrioToken"))
        return [self.virtual.now, self.virtual.watchers, jitter(), *tasks, *self._steering.in_order(batch)]


def options(seed: int | None, limit: float, patience: float, steering: Steering | None = None) -> dict[str, Any]:
    """Return the backend options with which `anyio.run` runs a program in virtual time."""
    clock = _Clock(seed, limit, patience) if steering is None else _SteeredClock(steering, limit, patience)
    return {"clock": clock, "instruments": [clock]}


def enter() -> VirtualTime:
    """Return the clock of this run, whose main task is this one."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, _Clock)
    clock.main = trio.lowlevel.current_task()
    return clock.virtual


def current() -> VirtualTime | None:
    """Return the clock of this run; None if it is in real time."""
    clock = trio.lowlevel.current_clock()
    return clock.virtual if isinstance(clock, _Clock) else None


async def settle() -> None:
    """Wait until nothing can happen without time passing."""
    await trio.testing.wait_all_tasks_blocked()
