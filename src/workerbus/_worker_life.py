"""A worker's life: its one task, how it ends, and in which order (L4, R2, W2, W5-W7).

`WorkerLife.live` is what a runner runs for each worker. Around `run()` it holds the worker's task group, in which its
hooks and job handlers run, and whatever way `run()` comes to its end, the same wind-down follows, under one deadline:

1. the children are cancelled and waited for; the worker still takes messages meanwhile;
2. no new jobs; job handlers, hooks and the worker's own job groups are cancelled and waited for;
3. the jobs that are still open are answered, and the worker is unsubscribed and unregistered: its name is free.

The three ways to the end differ in what comes before that. An end drains the hooks that were queued before it, ends
the children, gives jobs their grace, and then lets `run()` return. A cancel cancels `run()`. `stop()` does so too,
unless `run()` itself has called it.
"""

import logging
from contextvars import ContextVar, copy_context
from typing import Any

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, get_current_task, move_on_after
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint

from workerbus._lifetime import Mark, TaskHost, cancelled_from_outside, without_cancellation
from workerbus._vocabulary import JobStatus
from workerbus._worker_protocols import Living
from workerbus._worker_tasks import WorkerTaskGroup
from workerbus._worker_types import Phase, WorkerParams
from workerbus.abc import HookCall
from workerbus.bus._lanes import Lane
from workerbus.errors import NotRunningError, WorkerBusError
from workerbus.jobs._server import error_payload
from workerbus.messages import BusCancelWorkerMessage, BusEndWorkerMessage

logger = logging.getLogger("workerbus")

_inside: "ContextVar[WorkerLife | None]" = ContextVar("workerbus_inside", default=None)


class WorkerLife:
    """The life of one worker.

    Args:
        worker: Whose it is.
    """

    __slots__ = (
        "_attach_error",
        "_attached",
        "_awaited_end",
        "_closing",
        "_deadline",
        "_ending",
        "_errors",
        "_final_message",
        "_lived",
        "_reason",
        "_run_is_over",
        "_run_scope",
        "_run_task",
        "_started",
        "_stop",
        "_tasks",
        "_worker",
        "admitted",
        "finished",
        "phase",
    )

    def __init__(self, worker: Living) -> None:
        self._worker = worker
        self.phase: Phase = Phase.NEW
        self._tasks: TaskHost | None = None
        self._run_scope: CancelScope | None = None
        self._run_task: int | None = None
        self._final_message: BusCancelWorkerMessage | None = None
        self._reason: str | None = None
        self._ending = False
        self._stop = Mark()
        self._attached = Mark()
        self._started = Mark()
        self._attach_error: Exception | None = None
        self.admitted: bool = False
        self._closing = False
        self._lived = False
        self._run_is_over = False
        self._awaited_end: BusEndWorkerMessage | None = None
        self._errors: list[Exception] = []
        self._deadline = 0.0
        self.finished: Mark = Mark()

    @property
    def tasks(self) -> TaskHost:
        """Where the worker's tasks run.

        Raises:
            NotRunningError: The worker is not running yet, or no more; a `RuntimeError` (J14).
        """
        if self._tasks is None or self.phase is Phase.FINISHED:
            raise NotRunningError(f"worker {self._worker.name!r} is {self.phase.value}")
        return self._tasks

    @property
    def reason(self) -> str | None:
        """Why it ends, in words, if somebody has said so (R2)."""
        return self._reason

    @property
    def takes_children(self) -> bool:
        """Whether children could still finish before this worker does (W5)."""
        return not self._closing and self.phase not in (Phase.STOPPING, Phase.FINISHED)

    @property
    def takes_jobs(self) -> bool:
        """Whether new jobs are accepted (W6)."""
        return not self._closing and self.phase in (Phase.RUNNING, Phase.ATTACHED)

    # --- the one task

    async def live(self) -> Exception | None:
        """Run the worker to its end; returns the error that ended it, if one did."""
        _inside.set(self)
        if self.phase is Phase.FINISHED:
            return None  # stopped before it could begin
        group = create_task_group()
        tasks = TaskHost(group, self._worker.clean_up)
        try:
            async with group:
                self._tasks = tasks
                self._worker.hooks.open(tasks)
                self._worker.inbox.run_in(tasks)
                if self._worker.runs_by_default:
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
            return ExceptionGroup(f"several things failed in worker {self._worker.name!r}", errors)
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
        if self._final_message is not None:
            return  # cancelled before it could begin
        self.phase = Phase.RUNNING
        self._run_task = get_current_task().id
        if self._awaited_end is not None:
            self.end_waits(self._awaited_end)
        try:
            if self._worker.runs_by_default:
                # Here, and not in run(): while it waits, the worker has no scope and two coroutines less to keep.
                with CancelScope() as self._run_scope:
                    await self._worker.start()
                self._run_scope = None
                await self._stop.wait()
            else:
                with CancelScope() as self._run_scope:
                    await self._worker.run(params)
        except get_cancelled_exc_class():
            if cancelled_from_outside():
                raise
            self._errors.append(RuntimeError("run() let a native cancellation of its own task through"))
        except BaseExceptionGroup as several:
            error = without_cancellation(several)
            if error is not None:
                self._errors.append(error)
        except Exception as exc:  # noqa: BLE001 - reported by the runner
            self._errors.append(exc)

    def _task_failed(self, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            self.tasks.end_with(exc)
        elif self._run_is_over and isinstance(exc, WorkerBusError):
            # Its jobs were cancelled because the worker ends: that is no failure.
            logger.error("a task of worker %r failed while it ended", self._worker.name, exc_info=exc)
        else:
            self._errors.append(exc)

    def finish_if_over(self) -> None:
        """Note that the worker has finished, if it and its children have (W5)."""
        if self._lived and self.phase is not Phase.FINISHED and not self._worker.family.unfinished():
            self.phase = Phase.FINISHED
            self._started.set()
            self.finished.set()
            self._worker.finished()

    def adopt_context(self) -> None:
        """Let handlers start with the context variables of the task that starts the worker (W8)."""
        if _inside.get() is self:
            self.tasks.context = copy_context()

    def attaching(self) -> None:
        """Note that the worker is being added, perhaps not for the first time."""
        if self._attached.is_set():
            self._attached, self._attach_error = Mark(), None

    def attached(self, error: Exception | None = None) -> None:
        """Note that the worker has been attached, or could not be."""
        self._attach_error = error
        self._attached.set()

    async def until_attached(self) -> None:
        """Wait until the runner has attached the worker; raise what went wrong."""
        await self._attached.wait()
        if self._attach_error is not None:
            raise self._attach_error

    def started(self) -> None:
        """Note that the worker is ready."""
        self._started.set()

    async def until_started(self) -> None:
        """Wait until the worker is ready, or has finished without that."""
        await self._started.wait()

    async def until_stopped(self) -> None:
        """Wait until the worker is to stop; what the default `run` does."""
        await self._stop.wait()

    # --- the ways to the end

    async def stop(self) -> None:
        """Stop; from outside, return when the worker has finished, from inside at once (W6)."""
        if self._tasks is None:
            if self.phase is Phase.ATTACHED and not self._closing:
                self._closing = self._lived = True
                self._worker.inbox.refuse_the_rest()
                await self._worker.depart()
                self.finish_if_over()
            return
        self._let_go(cancel_run=get_current_task().id != self._run_task)
        if _inside.get() is not self:
            await self.finished.wait()

    def _let_go(self, *, cancel_run: bool) -> None:
        self._stop.set()
        self._closing = True
        if cancel_run and self._run_scope is not None:
            self._run_scope.cancel()

    def cancel(self, message: BusCancelWorkerMessage) -> None:
        """Cancel what the worker does, and let it finish (R2)."""
        if self._final_message is not None or self.phase is Phase.FINISHED:
            return
        self._final_message = message
        self._reason = message.reason
        if self._tasks is not None:
            self._worker.job_server.cancel_all(JobStatus.CANCELLED, self._stopped_payload())
            self._let_go(cancel_run=True)

    def end(self, message: BusEndWorkerMessage) -> None:
        """End gracefully (R2). Hooks that are queued now will run, what comes behind them will not."""
        if self._ending or self.phase is not Phase.RUNNING:
            return
        self._ending = True
        self._reason = message.reason
        worker = self._worker
        passed = worker.hooks.mark(self._seal_lane)
        if not self.takes_jobs and worker.runs_by_default and worker.job_server.pool.idle:
            self._stop.set()  # nothing to wait for, and no task needed for it
        else:
            self.tasks.start(self._end, message, passed, name=f"{worker.name} end")

    def end_waits(self, message: BusEndWorkerMessage) -> None:
        """An end has come that waits for the start; its grace period begins now (R2)."""
        self._awaited_end = self._awaited_end or message
        if self.phase is Phase.RUNNING:
            self.tasks.start(self._cancel_if_late, name=f"{self._worker.name} grace period")

    async def _cancel_if_late(self) -> None:
        with move_on_after(sum(self._worker.graces)):
            await self.finished.wait()
        self._let_go(cancel_run=True)

    def _seal_lane(self, lane: Lane[HookCall]) -> None:
        # Called in the lane's own step, so that the hook behind the mark does not slip through.
        if not self._worker.family.unfinished():
            lane.close()
            if lane is self._worker.hooks.data:
                self.phase = Phase.STOPPING

    def _seal(self) -> None:
        self._seal_lane(self._worker.hooks.system)
        self._seal_lane(self._worker.hooks.data)

    async def _end(self, message: BusEndWorkerMessage, passed: list[Event]) -> None:
        worker = self._worker
        grace_period, job_grace = worker.graces
        with move_on_after(grace_period + job_grace):
            for event in passed:
                await event.wait()
            for child in worker.family.unfinished():
                await child.life.until_attached()
                worker.bus.post(BusEndWorkerMessage(message.reason, source=worker.name, target=child.name))
            for child in worker.family.unfinished():
                await child.life.finished.wait()
            self._seal()
            await worker.hooks.quiet()
            with move_on_after(job_grace):
                await worker.job_server.pool.quiet()
            self._stop.set()
            await self.finished.wait()  # this task ends with the worker
        logger.warning("worker %r has not ended in %g seconds and is cancelled", worker.name, grace_period)
        self._let_go(cancel_run=True)

    # --- the wind-down

    async def _wind_down(self, crash: Exception | None) -> None:
        worker, in_time = self._worker, False
        try:
            self._deadline = worker.clean_up.begin()
            if not self._nothing_runs():
                with worker.clean_up.shield(self._deadline) as shield:
                    await self._cancel_children(crash)
                    self.phase = Phase.STOPPING
                    self._cancel_work(crash)
                    in_time = True
                    await worker.job_server.pool.quiet()
                    await worker.hooks.quiet()
                    await worker.job_client.quiet()
                    if self._final_message is not None and worker.hooks.wants("on_bus_message"):
                        await worker.hooks.run(HookCall("on_bus_message", (self._final_message,), self._final_message))
                if shield.cancelled_caught:
                    logger.warning("worker %r is late: not all that it does has ended in time", worker.name)
        finally:
            late = self._refuse_the_rest(crash)
            if late and not in_time:
                for _ in range(2):  # they were cancelled in this very step: see whether they go
                    await cancel_shielded_checkpoint()
                late = worker.job_server.answer_all(*self._verdict(crash))
            if late:
                handlers = ", ".join(late)
                logger.warning("worker %r waits for handlers that refuse cancellation: %s", worker.name, handlers)
            await self._clean_up()

    def _nothing_runs(self) -> bool:
        worker = self._worker
        hooks = worker.hooks
        idle = not worker.job_server.jobs and worker.job_server.pool.idle and not worker.job_client.groups
        last = self._final_message is not None and hooks.wants("on_bus_message")
        return idle and hooks.idle and not last and not worker.family.unfinished()

    def _refuse_the_rest(self, crash: Exception | None) -> list[str]:
        worker = self._worker
        self.phase = Phase.STOPPING
        self._cancel_work(crash)
        worker.job_client.close(self._reason or f"worker {worker.name!r} stopped")
        worker.inbox.refuse_the_rest()
        return worker.job_server.answer_all(*self._verdict(crash))

    async def _clean_up(self) -> None:
        worker = self._worker
        if worker.cleans_up_by_default and not worker.registry.watches_departure(worker.name):
            await worker.depart()  # which waits for nobody
            return
        if worker.cleans_up_by_default:
            with worker.clean_up.shield(self._deadline):
                await worker.depart()
            return
        try:
            # Past the deadline, too: what cleanup() does before it first waits is still done.
            with worker.clean_up.shield(self._deadline) as shield:
                await worker.cleanup()
            if shield.cancelled_caught:
                logger.warning("worker %r is late: its cleanup() has not ended in time", worker.name)
        except get_cancelled_exc_class():
            if cancelled_from_outside():
                raise
            logger.exception("cleanup() of worker %r was cancelled", worker.name)
        except Exception:
            logger.exception("cleanup() of worker %r failed", worker.name)
        finally:
            with worker.clean_up.shield(self._deadline):
                await worker.depart()

    async def _cancel_children(self, crash: Exception | None) -> None:
        worker = self._worker
        children = worker.family.unfinished()
        reason = self._reason or (f"its parent failed: {crash}" if crash else "its parent stopped")
        for child in children:
            message = BusCancelWorkerMessage(reason, source=worker.name, target=child.name)
            if child.life.phase is Phase.NEW:
                child.life.cancel(message)  # on its way to the bus, and not there yet
            else:
                worker.bus.on_message_received(message)  # here alone: it overtakes all, and no network can lose it
        for child in children:
            await child.life.finished.wait()

    def _cancel_work(self, crash: Exception | None) -> None:
        worker = self._worker
        worker.job_client.cancel_all(self._reason or f"worker {worker.name!r} stopped")  # before its own answers (W6)
        worker.job_server.cancel_all(*self._verdict(crash))
        worker.job_server.pool.cancel()
        worker.hooks.close(cancel=True)

    def _stopped_payload(self) -> dict[str, Any]:
        return {"error": self._reason or f"worker {self._worker.name!r} stopped", "type": "Cancelled"}

    def _verdict(self, crash: Exception | None) -> tuple[JobStatus, dict[str, Any]]:
        if crash is not None:
            return JobStatus.ERROR, error_payload(crash)
        return JobStatus.CANCELLED, self._stopped_payload()
