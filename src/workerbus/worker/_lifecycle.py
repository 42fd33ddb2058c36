"""A worker's life: its one task, the three ways to its end, and the start of its children (R2, W2, W5-W7).

`WorkerLifecycle.live` is what a runner runs for each worker. Around `run()` it holds the worker's task group, in which
its hooks and job handlers run. The three ways to the end:

* An **end** lets the hooks run that were queued before it, ends the children, gives jobs their grace, and then lets
  `run()` return.
* A **cancel** cancels `run()`.
* `stop()` does so too, unless `run()` itself has called it.

Whatever way `run()` comes to its end, the same wind-down follows; see `_wind_down`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, copy_context

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, get_current_task, move_on_after
from anyio.abc import TaskGroup

from workerbus._concurrency.failures import cancelled_from_outside, own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import LazyEvent, TaskHost
from workerbus._values import JobStatus
from workerbus.abc import HookCall
from workerbus.errors import WorkerBusError
from workerbus.messages import BusAddWorkerMessage, BusCancelWorkerMessage, BusEndWorkerMessage
from workerbus.worker._state import WorkerState
from workerbus.worker._task_group import WorkerTaskGroup
from workerbus.worker._types import Phase, WorkerParams

logger = logging.getLogger("workerbus")

_inside: "ContextVar[WorkerLifecycle | None]" = ContextVar("workerbus_inside", default=None)


class WorkerLifecycle:
    """The life of one worker.

    Args:
        state: The worker's.
        wind_down: Winds it down; gets the error that has ended it, if one has.
        leave: Lets it leave bus and registry.
        watch: Lets it hear when a worker of a name gets ready.
    """

    __slots__ = (
        "_awaited_end",
        "_errors",
        "_leave",
        "_lived",
        "_run_is_over",
        "_run_scope",
        "_run_task",
        "_shutdown",
        "_state",
        "_stop",
        "_watch",
        "_wind_down",
    )

    def __init__(
        self,
        state: WorkerState,
        *,
        wind_down: Callable[[Exception | None], Awaitable[None]],
        leave: Callable[[], Awaitable[None]],
        watch: Callable[[str], Awaitable[None]],
    ) -> None:
        self._state = state
        self._wind_down = wind_down
        self._leave = leave
        self._watch = watch
        state.child_left = self.finish_if_over
        self._run_scope: CancelScope | None = None
        self._run_task: int | None = None
        self._stop = LazyEvent()
        self._shutdown = False
        self._lived = False
        self._run_is_over = False
        self._awaited_end: BusEndWorkerMessage | None = None
        self._errors: list[Exception] = []

    # --- the one task

    async def live(self) -> Exception | None:
        """Run the worker to its end; returns the error that ended it, if one did."""
        _inside.set(self)
        state = self._state
        if state.phase is Phase.FINISHED:
            return None  # stopped before it could begin
        group = create_task_group()
        tasks = TaskHost(group, state.clean_up)
        try:
            async with group:
                state.tasks = tasks
                state.hooks.open(tasks)
                state.inbox.run_in(tasks)
                if state.runs_by_default:
                    # Nobody sees params.task_group then: one group less to open and close for each worker.
                    await self._run_in(group, tasks)
                else:
                    await self._run_in_its_own_group(tasks)
                if tasks.running:
                    group.cancel_scope.cancel()
        except get_cancelled_exc_class():
            # On asyncio a native cancellation, which was noted where it came up, keeps the group from catching its own.
            if cancelled_from_outside():
                raise
        finally:
            self._lived = True
            self.finish_if_over()
            tasks.raise_fatal()
        errors = list(dict.fromkeys(self._errors))
        if len(errors) > 1:
            return ExceptionGroup(f"several things failed in worker {state.name!r}", errors)
        return errors[0] if errors else None

    async def _run_in_its_own_group(self, tasks: TaskHost) -> None:
        try:
            async with create_task_group() as users:
                await self._run_in(users, tasks)
        except BaseExceptionGroup as several:
            # Each has been noted by _task_failed already, when it happened.
            if several.split(get_cancelled_exc_class())[0] is not None:
                raise

    async def _run_in(self, group: TaskGroup, tasks: TaskHost) -> None:
        try:
            await self._run(WorkerParams(WorkerTaskGroup(group, self._task_failed)))
        except (KeyboardInterrupt, SystemExit) as exc:
            tasks.end_with(exc)
        finally:
            if group is not tasks.group:
                group.cancel_scope.cancel()
            self._run_is_over = True
            try:
                await self._wind_down(self._errors[0] if self._errors else None)
            except (KeyboardInterrupt, SystemExit) as exc:
                tasks.end_with(exc)
            except Exception as exc:  # noqa: BLE001 - reported by the runner
                self._errors.append(exc)

    async def _run(self, params: WorkerParams) -> None:
        state = self._state
        if state.final_message is not None:
            return  # cancelled before it could begin
        state.phase = Phase.RUNNING
        self._run_task = get_current_task().id
        if self._awaited_end is not None:
            self.end_waits(self._awaited_end)
        try:
            if state.runs_by_default:
                # Here, and not in run(): while it waits, the worker has no scope and two coroutines less to keep.
                with CancelScope() as self._run_scope:
                    await state.worker.start()
                self._run_scope = None
                await self._stop.wait()
            else:
                with CancelScope() as self._run_scope:
                    await state.worker.run(params)
        except BaseException as exc:  # noqa: BLE001 - sorted there; reported by the runner
            self._errors.append(await own_error(exc))

    def _task_failed(self, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            self._state.tasks.end_with(exc)
        elif self._run_is_over and isinstance(exc, WorkerBusError):
            # Its jobs were cancelled because the worker ends: that is no failure.
            logger.error("a task of worker %r failed while it ended", self._state.name, exc_info=exc)
        else:
            self._errors.append(exc)

    def finish_if_over(self) -> None:
        """Note that the worker has finished, if it and its children have (W5)."""
        state = self._state
        if self._lived and state.phase is not Phase.FINISHED and not self._state.has_unfinished:
            state.phase = Phase.FINISHED
            state.ready.set()
            state.finished.set()
            state.leave_parent()

    # --- its start

    def adopt_context(self) -> None:
        """Let handlers start with the context variables of the task that starts the worker (W8)."""
        if _inside.get() is self:
            self._state.tasks.context = copy_context()

    async def until_stopped(self) -> None:
        """Wait until the worker is to stop; what the default `run` does."""
        await self._stop.wait()

    def could_not_be_added(self) -> None:
        """Be free again: attaching has failed."""
        self._state.admitted = False
        self._state.disown()

    async def start_children(self, children: Sequence[WorkerState]) -> None:
        """Have children started, one after the other; those that it does not get to are children no more."""
        try:
            for child in children:
                await self.start_child(child)
        except BaseException:
            for child in children:
                if not child.admitted:
                    child.disown()
            raise

    async def start_child(self, child: WorkerState) -> None:
        """Have a child started by the runner; returns when it is attached, and raises what went wrong."""
        state, runner = self._state, self._state.runner
        if child.admitted or runner is None:
            return
        runner.check_new(child.worker)
        if child.watched:
            await self._watch(child.name)
        child.attaching()
        await state.bus.send(BusAddWorkerMessage(child.worker, source=state.name, target=runner.name))
        await child.until_attached()

    # --- the ways to the end

    async def stop(self) -> None:
        """Stop; from outside, return when the worker has finished, from inside at once (W6)."""
        state = self._state
        if not state.has_begun:
            if state.phase is Phase.ATTACHED and not state.closing:
                state.closing = self._lived = True
                state.inbox.refuse_the_rest()
                await self._leave()
                self.finish_if_over()
            return
        self._let_go(cancel_run=get_current_task().id != self._run_task)
        if _inside.get() is not self:
            await state.finished.wait()

    def _let_go(self, *, cancel_run: bool) -> None:
        self._stop.set()
        self._state.closing = True
        if cancel_run and self._run_scope is not None:
            self._run_scope.cancel()

    def cancel(self, message: BusCancelWorkerMessage) -> None:
        """Cancel what the worker does, and let it finish (R2)."""
        state = self._state
        if state.final_message is not None or state.phase is Phase.FINISHED:
            return
        state.final_message = message
        state.reason = message.reason
        if state.has_begun:
            state.job_server.cancel_all(JobStatus.CANCELLED, state.stopped_payload())
            self._let_go(cancel_run=True)

    def end(self, message: BusEndWorkerMessage) -> None:
        """End gracefully (R2). Hooks that are queued now will run, what comes behind them will not."""
        state = self._state
        if self._shutdown or state.phase is not Phase.RUNNING:
            return
        self._shutdown = True
        state.reason = message.reason
        passed = state.hooks.mark(self._seal_lane)
        if not state.takes_jobs and state.runs_by_default and state.job_server.idle:
            self._stop.set()  # nothing to wait for, and no task needed for it
        else:
            state.tasks.start(self._end, message, passed, name=f"{state.name} end")

    def end_waits(self, message: BusEndWorkerMessage) -> None:
        """An end has come that waits for the start; its grace period begins now (R2)."""
        self._awaited_end = self._awaited_end or message
        if self._state.phase is Phase.RUNNING:
            self._state.tasks.start(self._cancel_if_late, name=f"{self._state.name} grace period")

    async def _cancel_if_late(self) -> None:
        with move_on_after(sum(self._state.graces)):
            await self._state.finished.wait()
        self._let_go(cancel_run=True)

    def _seal_lane(self, lane: Lane[HookCall]) -> None:
        # Called in the lane's own step, so that the hook behind the mark does not slip through.
        if not self._state.has_unfinished:
            lane.close()
            if lane is self._state.hooks.data:
                self._state.phase = Phase.STOPPING

    async def _end(self, message: BusEndWorkerMessage, passed: list[Event]) -> None:
        # In this order, all within the grace period: what was queued before; the children; the hooks that those have
        # caused; the jobs, which get their own grace within it. Then run() may return.
        state = self._state
        grace_period, job_grace = state.graces
        with move_on_after(grace_period + job_grace):
            for event in passed:
                await event.wait()
            await self._end_children(message.reason)
            self._seal_lane(state.hooks.system)
            self._seal_lane(state.hooks.data)
            await state.hooks.quiet()
            with move_on_after(job_grace):
                await state.job_server.quiet()
            self._stop.set()
            await state.finished.wait()  # this task ends with the worker
        logger.warning("worker %r has not ended in %g seconds and is cancelled", state.name, grace_period)
        self._let_go(cancel_run=True)

    async def _end_children(self, reason: str | None) -> None:
        state = self._state
        for child in state.unfinished():
            await child.until_attached()
            state.bus.post(BusEndWorkerMessage(reason, source=state.name, target=child.name))
        for child in state.unfinished():
            await child.finished.wait()
