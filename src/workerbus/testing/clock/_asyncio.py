"""An asyncio loop in virtual time, whose tasks run in an order drawn from a seed.

Only public hooks of asyncio are used. The selector that a loop is given learns from `select` when the loop is idle, and
until when. `call_soon` is where a task's next step is queued: the step is put into a batch instead, and the loop gets a
call that takes any one step of the batch. A step that is queued meanwhile belongs to the next batch, so that a task
which lets others run does so, as always on asyncio. All other callbacks keep their order.
"""

import asyncio
import heapq
import itertools
import math
import selectors
import sys
from asyncio.futures import _set_result_unless_cancelled  # type: ignore[attr-defined]  # what `asyncio.sleep` calls
from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextvars import Context
from random import Random
from threading import active_count
from typing import Any, TypeVar, TypeVarTuple, cast
from weakref import WeakKeyDictionary

from anyio import wait_all_tasks_blocked
from anyio._backends._asyncio import _task_states

from workerbus._backoff import jitter, seed_jitter
from workerbus.diagnosis._frames import threads_of
from workerbus.diagnosis._waiting import Waiter, describe
from workerbus.testing.buses._story import stories
from workerbus.testing.clock._steering import Steering, Unordered
from workerbus.testing.clock._virtual import VirtualTime

T = TypeVar("T")
Args = TypeVarTuple("Args")

Step = tuple[int, int, Callable[..., Any], tuple[Any, ...], Context | None]
"""The number of the task, that of the step, and what `call_soon` was given."""

THREAD_POLL = 0.05
"""Real seconds after which the loop looks again while a thread is at work."""


class _Selector(selectors.DefaultSelector):
    """A selector that lets time pass instead of waiting."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # A timeout of 0 says that something can run. Otherwise the loop is idle, and this is tried in turn:
        #
        # 1. Wait in real time for what comes from outside, as long as the user has asked for: not at all by default.
        # 2. If a thread is at work, wait for it in real time; it takes no virtual time. The loop asks again soon.
        # 3. Wake those who wait for the program to settle: that has to be before time passes.
        # 4. Let time jump to the next timer, without waiting. The loop looks at the clock next, and finds it due.
        loop = self.loop
        assert loop is not None
        if timeout is not None and timeout <= 0:
            loop.turn()
            return super().select(0)
        ready = super().select(self._patience)
        if not ready and loop.thread_is_at_work(timer=timeout is not None):
            loop.virtual.thread_at_work()
            ready = super().select(THREAD_POLL)
        elif not ready and not loop.settle():
            loop.virtual.idle(math.inf if timeout is None else loop.virtual.now + timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time.

    Args:
        seed: What the order of the tasks is drawn from; None for asyncio's own, first in, first out.
        limit: Seconds of virtual time that the program may take.
        patience: Real seconds without anything happening before the clock jumps.

    Attributes:
        virtual: The clock.
        main: The program's main task.
    """

    def __init__(self, seed: int | None, limit: float, patience: float) -> None:
        self.virtual = VirtualTime(limit, self._waiting, self._push)
        self._random = None if seed is None else Random(seed)  # noqa: S311 - a schedule, not a secret
        if seed is not None:
            seed_jitter(seed)
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._batch: list[Step] = []
        self._next_batch: list[Step] = []
        self._queued = 0
        self._executing = 0
        self._polled = False
        self._settling: list[asyncio.Future[None]] = []
        self._no_context = Context()
        self.main: asyncio.Task[Any] | None = None
        selector = _Selector(patience)
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the seconds of virtual time that have passed."""
        return self.virtual.look()

    # --- the order of tasks

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Queue a callback; if it is a step of a task, any step of its batch may be next."""
        # A batch is sorted by tasks, and not by when they became ready: that can depend on the order of objects in a
        # set, hence on their addresses, and the same draw would then give another schedule in another process.
        task = getattr(callback, "__self__", None)
        if not isinstance(task, asyncio.Task):
            return super().call_soon(callback, *args, context=context)
        if self._random is None:
            return super().call_soon(self._run_step, callback, args, context, context=self._no_context)
        self._queued += 1
        number = self._numbers.setdefault(task, self._queued)  # tasks are numbered in the order of their first steps
        insort(self._next_batch, (number, self._queued, callback, args, context), key=lambda step: step[:2])
        return super().call_soon(self._next_step, context=self._no_context)

    def _next_step(self) -> None:
        assert self._random is not None
        if not self._batch:
            self._batch, self._next_batch = self._next_batch, self._batch
        _, _, callback, args, context = self._batch.pop(self._random.randrange(len(self._batch)))
        self._run_step(callback, args, context)

    def _run_step(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        virtual, task = self.virtual, cast("asyncio.Task[Any]", getattr(callback, "__self__", None))
        if virtual.recorder is not None:
            virtual.begins(task)
        if context is None:
            callback(*args)
        else:
            context.run(callback, *args)
        if virtual.watchers or virtual.recorder is not None:  # also those that have come in this step
            virtual.ends(*_about(task))

    # --- idle moments

    def turn(self) -> None:
        """Note that the loop turns, and has something to run."""
        self._polled = False
        self.virtual.turn()

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Queue a callback for a moment."""
        if when == math.inf:  # it never comes: in the loop's queue it would look like a timer that runs
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Args], T], *args: *Args
    ) -> "asyncio.Future[T]":
        """Run a function in a thread, whose end the clock waits for in real time."""
        future = super().run_in_executor(executor, func, *args)
        self._executing += 1
        future.add_done_callback(self._executed)
        return future

    def _executed(self, _: object) -> None:
        self._executing -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait until the threads have ended; asyncio does that in yet another thread."""
        self._executing += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._executing -= 1

    def thread_is_at_work(self, *, timer: bool) -> bool:
        """Whether something waits for a thread, and that does not itself wait for time to pass.

        Args:
            timer: Whether a timer runs, so that time can pass.
        """
        # Of the threads that tasks wait for, some may wait for the loop themselves (`anyio.from_thread`):
        #
        # 1. One of them does not: it is at work.
        # 2. All of them do, and no timer runs: only they can bring the program on, so they are given real time.
        # 3. All of them do, and a timer runs: time may pass, but not at the first look. A thread that the loop has just
        #    answered still seems to wait for it until it is scheduled.
        if self._executing:
            return True
        if active_count() == 1:
            return False
        used, waiting = threads_of(task.get_coro() for task in asyncio.all_tasks(self))
        polled, self._polled = self._polled, True
        return bool(used) and (used > waiting or not timer or not polled)

    async def until_settled(self) -> None:
        """Wait until nothing can happen without time passing."""
        future = self.create_future()
        self._settling.append(future)
        try:
            await future
        finally:
            if future in self._settling:
                self._settling.remove(future)

    def settle(self) -> bool:
        """Wake those who wait in `until_settled`; returns whether there were any."""
        settling, self._settling = self._settling, []
        for future in settling:
            if not future.done():
                future.set_result(None)
        return bool(settling)

    def _waiting(self) -> tuple[str, ...]:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: (self._numbers.get(task, 0), task.get_name()))
        main = self.main
        return (
            *describe([Waiter(task.get_name(), task.get_coro(), main=task is main, id=id(task)) for task in tasks]),
            *stories(),
        )

    def _push(self) -> None:
        # Natively, since no shield keeps that off.
        for task in asyncio.all_tasks(self):
            task.cancel("workerbus.testing: the program is stuck in its wind-down")


class SteeredLoop(VirtualLoop):
    """A loop in virtual time, whose tasks run in an order that somebody decides.

    Args:
        steering: Decides.
        limit: Seconds of virtual time that the program may take.
        patience: Real seconds without anything happening before the clock jumps.
    """

    def __init__(self, steering: Steering, limit: float, patience: float) -> None:
        self._steering = steering
        self._timers = 0
        super().__init__(0, limit, patience)

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Queue a callback; the first step of a task is queued by the task that has started it."""
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task):
            self._steering.started(task, asyncio.current_task(self))
        return super().call_soon(callback, *args, context=context)

    def _next_step(self) -> None:
        if not self._batch:
            steps = {getattr(step[2], "__self__", None): step for step in self._next_batch}
            order = self._steering.order(list(steps), _about, lambda: self._state(steps))
            self._batch = [steps[task] for task in reversed(order)]
            self._next_batch = []
        _, _, callback, args, context = self._batch.pop()
        self._run_step(callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Queue a callback for a moment; of those for the same moment, the first one comes first."""
        if when == math.inf:
            return super().call_at(when, callback, *args, context=context)
        loop: Any = self
        loop._check_closed()
        timer: Any = _Timer(when, callback, args, self, context)
        self._timers += 1
        timer.number = self._timers
        heapq.heappush(loop._scheduled, timer)
        timer._scheduled = True
        return cast("asyncio.TimerHandle", timer)

    def _state(self, steps: Mapping[Any, Step]) -> Iterable[object]:
        # Besides tasks: what the steps are called with, what else is to be called in this turn of the loop and in the
        # next one, and timers. Of those for the same moment, sleeps say nothing by their order.
        loop: Any = self
        turn = sys._getframe()
        while turn.f_code.co_name != "_run_once" and turn.f_back is not None:
            turn = turn.f_back
        left = turn.f_locals.get("ntodo", 0) - turn.f_locals.get("i", 0)
        for task in self._steering.in_order(asyncio.all_tasks(self)):
            yield task
            yield _task_states.get(task)
        for task in self._steering.in_order(steps):
            yield task
            yield steps[task][3]
        yield self.virtual.now, left, self._settling, self.virtual.watchers, jitter()
        yield [None if _is_step(handle) else handle for handle in loop._ready]
        timers = sorted(timer for timer in loop._scheduled if not timer.cancelled())
        for (when, sleeps), group in itertools.groupby(timers, lambda timer: (timer.when(), _is_sleep(timer))):
            due = list(group)
            yield when, Unordered(timer._args[0] for timer in due) if sleeps else due


class _Timer(asyncio.TimerHandle):
    """A timer that comes behind those for the same moment which were there before it."""

    __slots__ = ("number",)
    number: int

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, _Timer)
        return (self.when(), self.number) < (other.when(), other.number)


def _is_step(handle: asyncio.Handle) -> bool:
    return getattr(getattr(handle, "_callback", None), "__func__", None) is SteeredLoop._next_step


def _is_sleep(timer: asyncio.TimerHandle) -> bool:
    return getattr(timer, "_callback", None) is _set_result_unless_cancelled


def _about(task: asyncio.Task[Any]) -> tuple[str, Any]:
    # asyncio's own names are counted over the whole process.
    name, coroutine = task.get_name(), task.get_coro()
    return getattr(coroutine, "__qualname__", "task") if name.startswith("Task-") else name, coroutine


def options(seed: int | None, limit: float, patience: float, steering: Steering | None = None) -> dict[str, Any]:
    """Return the backend options with which `anyio.run` runs a program in virtual time."""
    if steering is not None:
        return {"loop_factory": lambda: SteeredLoop(steering, limit, patience)}
    return {"loop_factory": lambda: VirtualLoop(seed, limit, patience)}


def enter() -> VirtualTime:
    """Return the clock of the running loop, whose main task is this one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.main = asyncio.current_task()
    return loop.virtual


def current() -> VirtualTime | None:
    """Return the clock of the running loop; None if that runs in real time."""
    loop = asyncio.get_running_loop()
    return loop.virtual if isinstance(loop, VirtualLoop) else None


async def settle() -> None:
    """Wait until nothing can happen without time passing."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        await loop.until_settled()
    else:
        await wait_all_tasks_blocked()
