"""A worker's life: its one task, and the three ways to its end (L1, L3, R2, W2, W5-W8).

`WorkerLifecycle.live` is what a runner runs for each worker. Around `run()` it holds the worker's task group, in which
its hooks and job handlers run. The three ways to the end:

* An **end** lets the hooks run that were queued before it, ends the children, gives jobs their grace, and then lets
  `run()` return. One that has never asked whether the worker is to end cannot know, and is cancelled then.
  `end_when_done` has it begin when the jobs of the worker are done.
* A **cancel** cancels `run()`.
* `stop()` cancels it too, unless `run()` itself has called `stop()`: then it is left to return.

Whichever way `run()` comes to its end, the same wind-down follows; see `_wind_down`.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Final

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, get_current_task, move_on_after
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import Kind, cancelled_from_outside, own_error, sort_failure, without
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.left_open import nothing_left_open
from workerbus._concurrency.lifetime import LazyEvent, TaskHost
from workerbus._concurrency.waiting import Role, Wait, serves, waits
from workerbus._methods import awaitable
from workerbus._values import JobStatus
from workerbus.abc import HookCall
from workerbus.errors import WorkerBusError
from workerbus.messages import BusCancelWorkerMessage, BusEndWorkerMessage
from workerbus.worker._end_of_run import EndOfRun
from workerbus.worker._state import WorkerState
from workerbus.worker._task_group import WorkerTaskGroup
from workerbus.worker._types import Phase, WindingDown, WorkerParams

logger = logging.getLogger("workerbus.worker")

_inside: "ContextVar[object]" = ContextVar("workerbus_inside", default=None)
"""Whose task this is: the mark of that worker, which keeps nothing of it.

asyncio keeps the context of a deadline until it would have passed, though the scope was left long before.
"""

_UNHEEDING: Final = (
    "worker %r is to end and its run() is cancelled: to be let return, it has to await super().run(params) or "
    "params.wait_for_end(), or to look at params.ending"
)
_PASSES: Final = 10


class WorkerLifecycle:
    """The life of one worker.

    Args:
        state: The worker's state.
        wind_down: Winds the worker down.
        announce: Says that the worker is ready, unless that was said.

    Attributes:
        jobs_first: Whether the worker's children end after its jobs are done, since they do them.
        when_started: Called when its start is over, and it has been announced; None for most.
    """

    __slots__ = (
        "_announce",
        "_awaited_end",
        "_awaits_children",
        "_end_task",
        "_end_when_done",
        "_errors",
        "_heeds_end",
        "_lived",
        "_mark",
        "_origins",
        "_run_is_over",
        "_run_scope",
        "_run_task",
        "_shutdown",
        "_state",
        "_stop",
        "_wind_down",
        "jobs_first",
        "when_started",
    )

    def __init__(
        self,
        state: WorkerState,
        *,
        wind_down: WindingDown,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._state = state
        self._wind_down = wind_down
        self._announce = announce
        state.child_left = self.finish_if_over
        state.fail = self.fail
        self._run_scope: CancelScope | None = None
        self._run_task: int | None = None
        self._end_task: int | None = None
        self._mark = object()
        self._stop = LazyEvent()
        self._shutdown = False
        self._lived = False
        self._run_is_over = False
        self._heeds_end = False
        self._awaits_children = False
        self._end_when_done = False
        self._awaited_end: BusEndWorkerMessage | None = None
        self.jobs_first: bool = False
        self.when_started: Callable[[], None] | None = None
        self._errors: list[BaseException] = []
        self._origins: tuple[tuple[BaseException, str], ...] = ()

    # --- the one task

    async def live(self) -> BaseException | None:
        """Run the worker to its end.

        Returns:
            The error that ended it, if one did; an exception group of several.
        """
        _inside.set(self._mark)
        state = self._state
        if self._lived:  # stopped before it could begin, and perhaps still cleaning up
            await state.finished.wait()
            return None
        group = create_task_group()
        tasks = TaskHost(group, state.clean_up)
        try:
            async with group:
                state.tasks = tasks
                state.hooks.open(tasks)
                state.inbox.run_in(tasks)
                if state.runs_by_default:
                    # Nobody sees params.task_group then: a group less, and 1,000 start and stop 1.12 times as fast.
                    await self._run_in(group, tasks)
                else:
                    await self._run_in_its_own_group(tasks)
                tasks.ends = True
                if tasks.running:  # what still runs, tasks that are idle or late, ends with the worker
                    group.cancel_scope.cancel()
        except get_cancelled_exc_class():
            # On asyncio a native cancellation, which was noted where it came up, keeps the group from catching its own.
            if cancelled_from_outside():
                raise
        finally:
            self._lived = True
            state.started.set()
            self.finish_if_over()
            tasks.raise_fatal()
        errors = list(dict.fromkeys(self._errors))
        if len(errors) > 1:
            return BaseExceptionGroup(f"several things failed in worker {state.name!r}", errors)
        return errors[0] if errors else None

    serves(live, lambda its: its["state"].role())

    async def _run_in_its_own_group(self, tasks: TaskHost) -> None:
        try:
            async with create_task_group() as users:
                await self._run_in(users, tasks)
        except BaseExceptionGroup as several:
            # The errors in it were noted by _task_failed when they happened; only a cancellation goes on from here.
            if without(several, get_cancelled_exc_class()) is not several:
                raise

    async def _run_in(self, group: TaskGroup, tasks: TaskHost) -> None:
        # Whatever ends run(), four things follow, and none is left out because of another:
        # 1. An exit is kept for the owner of the tasks: out of an asyncio task it would end the loop itself.
        # 2. Tasks that the user has started in a group of their own are cancelled, and unwind during the wind-down.
        # 3. The wind-down runs, and requesters whose jobs are open are told of the first error.
        # 4. What fails in the wind-down itself is one more error of the worker, or an exit.
        try:
            await self._run(WorkerParams(WorkerTaskGroup(group, self._task_failed), EndOfRun(self)))
        except (KeyboardInterrupt, SystemExit) as exc:
            tasks.end_with(exc)
        finally:
            if group is not tasks.group:
                group.cancel_scope.cancel()
            self._run_is_over = True
            try:
                await self._wind_down.run()
            except BaseException as exc:
                failure = sort_failure(exc)
                if failure.kind is Kind.EXIT:
                    tasks.end_with(failure.cause)
                elif failure.kind in (Kind.ERROR, Kind.PANIC):
                    self._note(failure.cause)  # reported by the runner
                else:
                    raise

    async def _run(self, params: WorkerParams) -> None:
        state = self._state
        if state.final_message is not None or state.closing:
            return  # cancelled or stopped before it could begin; the wind-down still takes place
        state.phase = Phase.RUNNING
        self._run_task = get_current_task().id
        if self._awaited_end is not None:
            self.end_waits(self._awaited_end)
        try:
            if state.runs_by_default:
                # Here, and not in run(): while it waits, the worker has no scope and two coroutines less to keep, which
                # is 1.1 of some 14 KB.
                with CancelScope() as self._run_scope:
                    await nothing_left_open(awaitable(state.worker.start(), state.worker, "start"))
                    if not state.started.is_set():  # else start() is the library's own, and has seen to it
                        await self.has_started()
                self._run_scope = None
                await self._stop.wait()
            else:
                with CancelScope() as self._run_scope:
                    await nothing_left_open(awaitable(state.worker.run(params), state.worker, "run"))
                    if not state.has_started and not state.closing:
                        logger.warning(
                            "run() of worker %r has returned without calling start()", state.name, extra=state.about
                        )
        except BaseException as exc:  # noqa: BLE001 - sorted there; reported by the runner
            self._note(await own_error(exc))

    tells(_run, lambda its: _run_doing(its["state"]))
    serves(_run, lambda its: Role(f"worker {its['state'].name!r}, its run()"))

    def fail(self, error: BaseException, origin: str) -> None:
        """Finish the worker as if `run` had raised: some of its code has raised what is no `Exception`.

        Args:
            error: What it has raised.
            origin: The name of the hook or handler.
        """
        self.blame(error, origin)
        self._note(error)
        self._let_go(cancel_run=True)

    def blame(self, error: BaseException, origin: str) -> None:
        """Remember what has raised an error, where that is not `run` itself."""
        self._origins += ((error, origin),)

    def origin_of(self, error: BaseException) -> str:
        """Return the name of what has raised an error of which the worker has ended."""
        if isinstance(error, BaseExceptionGroup) and error not in self._errors:
            error = error.exceptions[0]
        return next((origin for known, origin in self._origins if known is error), "run")

    def _note(self, error: BaseException) -> None:
        self._errors.append(error)
        self._state.crash = self._state.crash or error
        self._state.begins_to_go()

    def _task_failed(self, exc: BaseException) -> None:
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            self._state.tasks.end_with(exc)
        elif self._run_is_over and isinstance(exc, WorkerBusError):
            # A job that the task asked for was cancelled because the worker ends: that is no failure of the worker.
            logger.error(
                "a task of worker %r failed while it ended", self._state.name, exc_info=exc, extra=self._state.about
            )
        else:
            self._note(exc)

    def finish_if_over(self) -> None:
        """Note that the worker has finished, if its own task and all its children have."""
        state = self._state
        if self._lived and state.phase is not Phase.FINISHED and not self._state.has_unfinished:
            state.phase = Phase.FINISHED
            if logger.isEnabledFor(logging.INFO):
                why = f": {state.reason}" if state.reason else ""
                logger.info("worker %r has ended%s", state.name, why, extra=state.about)
            state.ready.set()
            state.started.set()
            state.finished.set()
            state.leave_parent()

    # --- its start

    @property
    def start_is_overridden(self) -> bool:
        """Whether the class overrides `start`, and the library calls it: then it knows when that has returned."""
        return self._state.runs_by_default and not self._state.starts_by_default

    async def has_started(self) -> None:
        """Announce the worker, whose start is over, unless it has passed by the library's own `start`."""
        if self._state.has_started:
            await self._announce()
        self._state.started.set()
        if self.when_started is not None:
            self.when_started()
        if self._end_when_done:
            self._begin_last_jobs()

    def adopt_context(self) -> None:
        """Let handlers start with the context variables of the task that starts the worker, if it is the worker's."""
        if _inside.get() is self._mark:
            self._state.tasks.context = copy_context()

    def heed_end(self) -> None:
        """Note that `run` will return when the worker is to stop."""
        self._heeds_end = True

    def means_to_return(self) -> None:
        """Note that `run` returns now, and that nothing is amiss if the worker has not started."""
        self._state.closing = True

    @property
    def is_to_stop(self) -> bool:
        """Whether `run` is to return."""
        return self._stop.is_set()

    async def until_stopped(self) -> None:
        """Wait until the worker is to stop; what the default `run` does."""
        await self._stop.wait()

    def could_not_be_added(self) -> None:
        """Free the worker for another parent: it could not be attached."""
        self._state.admitted = False
        self._state.disown()

    # --- the ways to the end

    async def stop(self) -> None:
        """Stop. Called from outside, it returns when the worker has finished; from inside, at once."""
        state = self._state
        state.stop_called = True
        if state.is_on_its_way:
            state.closing = True  # its task, which begins when it is on the bus, finds this
            if get_current_task().id == state.attaching_in:
                return
            await state.attached.wait()
        if not state.has_begun:
            if state.phase is Phase.ATTACHED and not self._lived:
                state.closing = self._lived = True
                self._end_task = get_current_task().id
                state.inbox.refuse_the_rest()
                try:
                    await self._wind_down.of_unstarted()
                finally:
                    self.finish_if_over()
            elif self._lived and get_current_task().id != self._end_task:
                await state.finished.wait()
            return
        self._let_go(cancel_run=get_current_task().id not in (self._run_task, self._end_task))
        if _inside.get() is not self._mark:
            await state.finished.wait()

    waits(stop, lambda its: Wait(2, f"for worker {its['state'].name!r} to finish"))

    async def stop_unstarted(self) -> None:
        """Stop a worker whose task has not begun, by its `stop()` where that is overridden."""
        await self._wind_down.call_stop()
        await self.stop()

    async def bring_down(self, message: BusCancelWorkerMessage | None) -> bool:
        """Cancel the worker, wherever it is in its life, or let it go, if there is no message.

        Returns:
            Whether to wait for its end: it is there, and this is not its own code.
        """
        state = self._state
        if message is not None:
            if state.phase is Phase.ATTACHED and not state.has_begun:
                await self.stop_unstarted()
            else:
                self.cancel(message)
        if state.phase is Phase.NEW:  # it finds the message when its task begins
            await state.attached.wait()
        return state.attach_error is None and _inside.get() is not self._mark

    def _let_go(self, *, cancel_run: bool) -> None:
        self._stop.set()
        self._state.closing = True
        self._state.begins_to_go()
        if cancel_run and self._run_scope is not None:
            self._run_scope.cancel()

    def cancel(self, message: BusCancelWorkerMessage) -> None:
        """Cancel what the worker does, and let it finish."""
        state = self._state
        if state.final_message is not None or state.phase is Phase.FINISHED:
            return
        state.final_message, state.reason = message, message.reason
        if state.has_begun:
            state.closing = True
            # First of all the jobs: whatever run() raises while it is cancelled, they are answered CANCELLED.
            state.job_server.cancel_all(JobStatus.CANCELLED, state.stopped_payload())
            self._let_go(cancel_run=True)

    def end(self, message: BusEndWorkerMessage) -> None:
        """End gracefully. Hooks that are queued now will run, those that come behind them will not."""
        state = self._state
        if self._shutdown or state.phase is not Phase.RUNNING:
            return
        self._shutdown = True
        state.reason = message.reason
        state.end_restarts()
        self._awaits_children = state.has_unfinished
        passed = state.hooks.mark(self._seal_lane)
        idle = state.job_server.idle and not state.job_client.groups
        has_to_wait = passed or state.takes_jobs or self._end_when_done
        if not has_to_wait and state.runs_by_default and idle and not state.stop_is_due:
            self._stop.set()  # there is nothing to wait for: without a task, 1,000 start and stop 1.3 times as fast
        else:
            state.tasks.start(self._end, message, passed, name=f"{state.name} end")

    def end_when_done(self) -> None:
        """Take no more jobs, and end when those that the worker has are done, however long they take."""
        self._end_when_done = True
        if self._state.phase is Phase.RUNNING and self._state.started.is_set():  # else when its start is over
            self._begin_last_jobs()

    def _begin_last_jobs(self) -> None:
        if not (self._state.closing or self._shutdown):  # else it ends already
            self._wind_down.end_after_jobs()

    def end_waits(self, message: BusEndWorkerMessage) -> None:
        """Begin the grace period of an end that has come before the start, and waits for it."""
        self._awaited_end = self._awaited_end or message
        if self._state.phase is Phase.RUNNING:
            self._state.tasks.start(self._cancel_if_late, name=f"{self._state.name} grace period")

    async def _cancel_if_late(self) -> None:
        state = self._state
        unheeding = not await self._run_may_heed()
        if unheeding and not state.has_started and not state.inbox.holds_work():
            logger.warning(
                "worker %r is to end and is cancelled: its run() has not called start()", state.name, extra=state.about
            )
            self._let_go(cancel_run=True)
            return
        with move_on_after(sum(state.graces)):
            await state.finished.wait()
        self._let_go(cancel_run=True)

    async def _run_may_heed(self) -> bool:
        # Whether run() knows that it is to return. Some passes of the loop, since it may have only now begun, or come
        # out of start() or of a job whose end this worker has waited for, perhaps by way of a task group of its own.
        if not self._state.runs_by_default:
            for _ in range(_PASSES):
                if self._heeds_end or self._run_is_over:
                    break
                await checkpoint()
        return self._heeds_end or self._run_is_over or self._state.runs_by_default

    def _seal_lane(self, lane: Lane[HookCall]) -> None:
        # Called in the lane's own step, so that the hook behind the mark does not slip through. With children, the
        # lanes stay open for what those still cause; then `_end` closes them.
        state = self._state
        if not (self._awaits_children or state.has_unfinished):
            state.hooks.seal(lane, grace=state.graces[1] > 0)
            if lane is state.hooks.data:
                state.phase = Phase.STOPPING
                state.begins_to_go()

    async def _end(self, message: BusEndWorkerMessage, passed: list[Event]) -> None:
        # All of it within the grace period and the job grace together, in this order:
        # 1. The hooks that were queued before the end. They may still ask for jobs, also of children.
        # 2. The children, so that none outlives its parent; they may still report to this worker. Before those of a
        #    pool, its jobs, which they do.
        # 3. The hooks that the children have caused. From here on none is queued any more.
        # 4. The jobs, those that this worker does and those that it has asked for, with the hooks of their answers:
        #    they get their own grace, and are then left to the wind-down.
        # 5. stop() is called, where it is overridden. Then run() may return, and the wind-down follows it. Whoever does
        #    not get there in time is cancelled, and a run() that cannot know that it is to return, at once.
        state = self._state
        grace_period, job_grace = state.graces
        with move_on_after(grace_period + job_grace):
            for event in passed:
                await event.wait()
            if self.jobs_first:
                state.closing = True
                if state.going is not None:
                    state.going()
                with move_on_after(job_grace):
                    await self._wind_down.jobs_done()
            await self._wind_down.end_children(message.reason)
            self._awaits_children = False
            state.inbox.catch_up()
            for event in state.hooks.mark(self._seal_lane):
                await event.wait()
            with move_on_after(job_grace):
                await self._wind_down.jobs_done()
            state.hooks.close(cancel=False)
            self._end_task = get_current_task().id  # in which stop() does not cancel run(), but lets it return
            await self._wind_down.call_stop()
            self._stop.set()
            if not await self._run_may_heed():
                logger.warning(_UNHEEDING, state.name, extra=state.about)
                self._let_go(cancel_run=True)
            await state.finished.wait()  # this task ends with the worker
        logger.warning(
            "worker %r has not ended in %g seconds and is cancelled", state.name, grace_period, extra=state.about
        )
        self._let_go(cancel_run=True)


def _run_doing(state: WorkerState) -> Doing:
    return Doing(f"{'start' if state.runs_by_default else 'run'}() of worker {state.name!r}", state.name)
