"""The side that answers: one table of open jobs by job id, and what moves them (J1-J4, J6, J9, J12-J14).

A job is in the table from its request until its answer, and every way out of the table is an answer: there is one
method that sends it, `_answer`, and one place that turns a handler's end into one, `_end_of_handler`. Cancels and
deadlines only mark the job; the answer comes when its handler has unwound.

The server knows nothing of names and classes: it is given a `Route` for each job that says what to run.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from anyio import CancelScope, Event, current_time, get_cancelled_exc_class, sleep_until

from workerbus._lifetime import cancelled_from_outside, running_backend, without_cancellation
from workerbus._vocabulary import JobStatus, Value, value
from workerbus.abc import HookCall, JobPeer, Sender
from workerbus.errors import JobFailure, UnknownJobError, text_of
from workerbus.jobs._checks import check_seconds_left
from workerbus.jobs._client import TIMEOUT
from workerbus.jobs._limiter import Limiter, Turn
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._state import OPEN_JOBS, Job, JobEvent, next_job
from workerbus.jobs._types import JobSnapshot
from workerbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
)

logger = logging.getLogger("workerbus")

REMEMBERED: Final = 1024
"""How many ended jobs a worker remembers, to run no request twice (J12)."""


@value
class Route(Value):
    """What to run for a job.

    Args:
        run: The handler, bound.
        deferred: Whether it may return and leave the job open (J2).
        limiter: Whose turn to wait for (J13).
    """

    run: Callable[[BusJobRequestMessage], Awaitable[Any]]
    deferred: bool = False
    limiter: Limiter | None = None


class OpenJob:
    """A job that this worker was asked for."""

    __slots__ = ("deadline", "over", "request", "route", "scope", "since", "state", "turn", "verdict", "watch")

    def __init__(self, request: BusJobRequestMessage, route: Route, now: float) -> None:
        self.request: BusJobRequestMessage = request
        self.route: Route = route
        self.state: Job = Job.QUEUED
        left = request.seconds_left
        self.since: float = now
        self.deadline: float = math.inf if left is None else now + left
        self.turn: Turn | None = None if route.limiter is None else route.limiter.stand()
        self.scope: CancelScope | None = None
        self.watch: CancelScope | None = None
        self.over: Event | None = None
        self.verdict: tuple[JobStatus, dict[str, Any]] | None = None

    @property
    def deferred(self) -> bool:
        """Whether its handler has returned and left it open."""
        return self.state is Job.DEFERRED


def error_payload(exc: BaseException) -> dict[str, Any]:
    """Return what a requester is told of an exception (J2)."""
    return {"error": text_of(exc), "type": type(exc).__name__}


def cancelled_payload(reason: str | None) -> dict[str, Any]:
    """Return what a requester is told of a cancellation."""
    return {"error": reason or "cancelled", "type": "TimeoutError" if reason == TIMEOUT else "Cancelled"}


class JobServer:
    """The jobs that a worker was asked for.

    Args:
        owner: The worker.
        find: Returns what to run for a request; raises `LookupError` where there is nothing (J3).
        refusal: Returns status and payload where the worker takes no new jobs (W4, W6), else None.

    Attributes:
        answered: How many requests were answered, by status (O2).
    """

    __slots__ = (
        "_bus",
        "_ended",
        "_find",
        "_name",
        "_now",
        "_owner",
        "_refusal",
        "answered",
        "early",
        "ignored",
        "jobs",
        "pool",
    )

    def __init__(
        self,
        owner: JobPeer,
        find: Callable[[BusJobRequestMessage], Route],
        refusal: Callable[[], tuple[JobStatus, dict[str, Any]] | None],
    ) -> None:
        self._owner = owner
        self._bus: Sender | None = None
        self._name = owner.name
        self._now: Callable[[], float] | None = None
        self._find = find
        self._refusal = refusal
        self.jobs: dict[str, OpenJob] = {}
        self._ended: dict[str, None] = {}
        self.early: dict[str, tuple[str | None, int]] = {}
        self.pool: TaskPool[OpenJob] = TaskPool(owner.name, self._perform, lambda: owner.tasks)
        self.ignored: int = 0
        self.answered: dict[JobStatus, int] = {}

    # --- requests and cancels

    def request(self, message: BusJobRequestMessage) -> None:
        """Start a job, or say at once why not."""
        job_id = message.job_id
        if job_id in self.jobs or job_id in self._ended:
            self.ignored += 1  # the same request again (J12)
            return
        refusal = self._refusal()
        if job_id in self.early:
            refusal = JobStatus.CANCELLED, cancelled_payload(self.early.pop(job_id)[0])
        route = None
        if refusal is None:
            try:
                if message.seconds_left is not None:
                    check_seconds_left(message.seconds_left)
                route = self._find(message)
            except (LookupError, TypeError, ValueError) as exc:
                refusal = JobStatus.ERROR, error_payload(exc)
        if route is None:
            assert refusal is not None
            self._send(message, *refusal)
            self._remember(job_id)
            return
        if self._now is None:
            self._now = running_backend().current_time
        job = self.jobs[job_id] = OpenJob(message, route, self._now())
        self.pool.submit(job)

    def refuse(self, message: BusJobRequestMessage) -> None:
        """Answer a request that ``accepts_bus_message`` has refused (J1, N4)."""
        if message.job_id not in self.jobs and message.job_id not in self._ended:
            text = f"worker {self._name!r} does not accept this request"
            self._send(message, JobStatus.FAILED, {"error": text, "type": "Refused"})
            self._remember(message.job_id)

    def cancel(self, message: BusJobCancelMessage, last_waiting: int | None) -> None:
        """Cancel a job; if its request may still be waiting in the data lane, remember that (J9).

        Args:
            message: The cancel.
            last_waiting: The number of the last data message that waits; None if none does.
        """
        job = self.jobs.get(message.job_id)
        if job is not None:
            self._expire(job)
            if self._cancel(job, JobStatus.CANCELLED, cancelled_payload(message.reason)):
                self._hook("on_job_cancelled", message)
        elif last_waiting is not None and message.job_id not in self._ended:
            self.early[message.job_id] = message.reason, last_waiting

    def update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Pass on that the requester wants to know how a job is getting on."""
        if message.job_id in self.jobs:
            self._hook("on_job_update_requested", message)

    def cancel_all(self, status: JobStatus, payload: dict[str, Any]) -> None:
        """Cancel every job; each is answered with the given status when its handler has unwound (W6)."""
        for job in list(self.jobs.values()):
            self._expire(job)  # time that was up before stays the reason (J6)
            self._cancel(job, status, payload)

    def answer_all(self, status: JobStatus, payload: dict[str, Any]) -> list[str]:
        """Answer what is still open, unwound or not: time is up (L4). Returns what handlers still run."""
        self.cancel_all(status, payload)
        for job in list(self.jobs.values()):
            job.state = next_job(job.state, JobEvent.ANSWER)
            # Without a verdict it was over already, and an exception that ends programs came before its answer.
            self._answer(job, *(job.verdict or (status, payload)))
        return [f"job {job.request.job_name!r} ({job.request.job_id})" for job in self.pool.busy.values()]

    def snapshots(self) -> tuple[JobSnapshot, ...]:
        """Return what there is to say of the open jobs now (O2)."""
        if not self.jobs:
            return ()
        now = current_time()
        return tuple(
            JobSnapshot(
                job_id=job_id,
                name=job.request.job_name,
                requester=job.request.source,
                state=job.state.value,
                age=now - job.since,
                seconds_left=None if job.deadline == math.inf else max(0.0, job.deadline - now),
            )
            for job_id, job in self.jobs.items()
        )

    # --- what the worker's own code sends

    def open_job(self, job_id: str) -> OpenJob:
        """Return an open job.

        Raises:
            UnknownJobError: There is none of that id; a `RuntimeError` (J14).
        """
        job = self.jobs.get(job_id)
        if job is not None and job.deadline != math.inf and job.deadline <= current_time():
            self._expire(job)  # its handler is unwinding, or has not noticed yet
            job = self.jobs.get(job_id)
        if job is None:
            raise UnknownJobError(job_id, self._name)
        return job

    def respond(self, job_id: str, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool) -> None:
        """Answer a job from the worker's own code. After a cancel the outcome is CANCELLED all the same (J2)."""
        job = self.open_job(job_id)
        if job.verdict is not None:
            status = job.verdict[0]
        self._move_to_answered(job)
        self._answer(job, status, response, urgent=urgent)

    def end_stream(self, job_id: str, data: dict[str, Any] | None) -> None:
        """End a job by the end of its stream (J14)."""
        job = self.open_job(job_id)
        if job.verdict is not None:
            self.respond(job_id, job.verdict[0], data, urgent=False)
            return
        self._move_to_answered(job)
        request = job.request
        self._forget(job)
        self._send(request, JobStatus.COMPLETED, data, stream_end=True)

    def _move_to_answered(self, job: OpenJob) -> None:
        before, job.state = job.state, next_job(job.state, JobEvent.ANSWER)
        if job.scope is not None and job.deadline != math.inf:
            job.scope.deadline = math.inf  # it was the job's, and the job is over
        if job.turn is not None or job.over is not None:
            self._leave_line(job, before)

    # --- the moves

    def _cancel(self, job: OpenJob, status: JobStatus, payload: dict[str, Any]) -> bool:
        before, job.state = job.state, next_job(job.state, JobEvent.CANCEL)
        if job.state is before:
            return False
        job.verdict = status, payload
        if job.state is Job.OVER:
            self._leave_line(job, before)
            self._answer(job, status, payload)
        elif job.scope is not None:  # None where an exception that ends programs is on its way out of the handler
            job.scope.cancel()
        return True

    def _leave_line(self, job: OpenJob, before: Job) -> None:
        # Of a job whose task runs, the task frees the place when the handler is over too (J13).
        if before is Job.QUEUED and job.turn is not None:
            job.turn.leave()
        if job.over is not None:
            job.over.set()

    def _answer(
        self, job: OpenJob, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool = False
    ) -> None:
        self._forget(job)
        self._send(job.request, status, response, urgent=urgent)

    def _forget(self, job: OpenJob) -> None:
        job_id = job.request.job_id
        del self.jobs[job_id]
        self._remember(job_id)

    def _remember(self, job_id: str) -> None:
        ended = self._ended
        ended[job_id] = None
        if len(ended) > REMEMBERED:
            del ended[next(iter(ended))]

    def _send(
        self,
        request: BusJobRequestMessage,
        status: JobStatus,
        response: dict[str, Any] | None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
    ) -> None:
        """Send an answer: the one place that all of them pass, and are counted in (O2)."""
        try:
            self.answered[status] += 1
        except KeyError:
            self.answered[status] = 1
        job_id, name, to, headers = request.job_id, self._name, request.source, request.headers
        message: BusMessage
        if stream_end:
            message = BusJobStreamEndMessage(job_id, response, source=name, target=to, headers=headers)
        else:
            kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
            message = kind(job_id, status, response, source=name, target=to, headers=headers)
        bus = self._bus
        if bus is None:
            bus = self._bus = self._owner.bus
        bus.post(message)

    def _hook(self, name: str, message: BusMessage) -> None:
        if name in self._owner.hooks.wanted:
            self._owner.hooks.add(HookCall(name, (message,), message), system=bool(message.system))

    # --- the task of a job

    async def _perform(self, job: OpenJob, scope: CancelScope) -> bool:
        """Run a job in a pooled task; returns whether the task may be used again."""
        if job.state is not Job.QUEUED:
            return True  # cancelled before it began
        timed = job.deadline != math.inf
        if timed:
            scope.deadline = job.deadline
            if "on_job_cancelled" in self._owner.hooks.wanted:
                job.watch = CancelScope()
                self._owner.tasks.start(self._tell_in_time, job, name=f"{self._name} deadline")
        try:
            if job.turn is not None:
                await job.turn.come()
            if job.state is Job.QUEUED and not (timed and job.deadline <= current_time()):
                await self._handle(job, scope)
            if job.deferred:
                job.over = Event()
                await job.over.wait()
        except get_cancelled_exc_class() as exc:
            self._expire(job)
            if not scope.cancel_called and not cancelled_from_outside():
                # Natively, this very task: that concerns the job alone.
                self._cancel(job, JobStatus.ERROR, error_payload(exc))
            raise
        finally:
            if timed:
                scope.deadline = math.inf
                self._expire(job)
                if job.watch is not None:
                    job.watch.cancel()
            if job.turn is not None:
                job.turn.leave()
        return not scope.cancel_called

    async def _tell_in_time(self, job: OpenJob) -> None:
        # The scope cancels the handler by itself, but tells nobody, and the handler may take long to unwind (J6).
        assert job.watch is not None
        with job.watch:
            await sleep_until(job.deadline)
            self._expire(job)

    def _expire(self, job: OpenJob) -> None:
        if job.deadline != math.inf and job.state in OPEN_JOBS and job.deadline <= current_time():
            request = job.request
            message = BusJobCancelMessage(
                request.job_id, TIMEOUT, source=request.source, target=self._name, headers=request.headers
            )
            if self._cancel(job, JobStatus.CANCELLED, cancelled_payload(TIMEOUT)):
                self._hook("on_job_cancelled", message)

    async def _handle(self, job: OpenJob, scope: CancelScope) -> None:
        job.state = next_job(job.state, JobEvent.START)
        job.scope = scope
        try:
            result = await job.route.run(job.request)
        except get_cancelled_exc_class() as exc:
            self._expire(job)
            if job.verdict is not None or job.state is Job.ANSWERED:
                self._end_of_handler(job, None, None)
            elif cancelled_from_outside():
                job.state = next_job(job.state, JobEvent.LEAVE)  # the worker ends, and answers in its own way
            else:
                self._end_of_handler(job, None, exc)
            raise
        except (KeyboardInterrupt, SystemExit) as exc:
            self._end_of_handler(job, None, exc)
            raise
        except BaseExceptionGroup as several:
            self._expire(job)
            self._handler_failed_in_groups(job, several)
        except Exception as exc:
            self._expire(job)
            if job.state is Job.ANSWERED:
                logger.exception("the handler of %s failed after its answer", self._title(job))
            elif not isinstance(exc, JobFailure):
                logger.error("the handler of %s failed", self._title(job), exc_info=exc)
            self._end_of_handler(job, None, exc)
        else:
            if job.deadline != math.inf:
                self._expire(job)
            self._end_of_handler(job, result, None)
        finally:
            job.scope = None

    def _handler_failed_in_groups(self, job: OpenJob, several: BaseExceptionGroup[BaseException]) -> None:
        error = without_cancellation(several)
        if error is not None:
            logger.error("the handler of %s failed", self._title(job), exc_info=error)
        elif not cancelled_from_outside():
            error = RuntimeError("the handler let a cancellation of something else through")
        elif job.verdict is None and job.state is not Job.ANSWERED:
            job.state = next_job(job.state, JobEvent.LEAVE)  # the worker ends, and answers in its own way
            return
        self._end_of_handler(job, None, error)

    def _title(self, job: OpenJob) -> str:
        return f"job {job.request.job_name!r} ({job.request.job_id}) at worker {self._name!r}"

    def _end_of_handler(self, job: OpenJob, result: object, error: BaseException | None) -> None:
        leaves = error is None and result is None and job.route.deferred
        before, job.state = job.state, next_job(job.state, JobEvent.LEAVE if leaves else JobEvent.FINISH)
        if before is Job.CANCELLING:
            assert job.verdict is not None
            self._answer(job, *job.verdict)
        elif before is Job.RUNNING and job.state is Job.OVER:
            self._answer(job, *outcome(result, error, job.request.job_name))


def outcome(result: object, error: BaseException | None, job_name: str | None) -> tuple[JobStatus, dict[str, Any]]:
    """Turn a handler's end into an answer (J2)."""
    if isinstance(error, JobFailure):
        return JobStatus.FAILED, {**error.data, "error": error.reason, "type": "JobFailure"}
    if error is not None:
        return JobStatus.ERROR, error_payload(error)
    if result is None:
        return JobStatus.COMPLETED, {}
    if isinstance(result, dict):
        return JobStatus.COMPLETED, result
    return JobStatus.ERROR, error_payload(
        TypeError(f"the handler of job {job_name!r} returned {type(result).__name__}; return a dict, or nothing")
    )
