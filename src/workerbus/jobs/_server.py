"""The side that answers: what is asked of a worker, and the tasks of its handlers (J1, J2, J5, J9, J10, J12, J14, W6).

What moves a job is in `_job_table`. Here is what comes from outside: requests and what concerns them, what the worker's
own code sends, and the ends of its handlers, which one place turns into answers, `_end_of_handler`. Only a handler has
a task.

The server knows nothing of names and classes: it is given a `Route` for each job that says what to run.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from anyio import CancelScope, Event

from workerbus._concurrency.backend import running_backend
from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import Failure, Kind, sort_failure
from workerbus._concurrency.waiting import serves
from workerbus._log import about
from workerbus._message_base import peer_of
from workerbus._values import JobStatus, Peer
from workerbus.abc import JobPeer, Sender
from workerbus.errors import JobFailure
from workerbus.jobs._checks import check_seconds_left
from workerbus.jobs._job_handling import JobHandling
from workerbus.jobs._job_table import JobTable
from workerbus.jobs._open_job import Assignment, OpenJob, Refused, Route, those_in_line_first
from workerbus.jobs._outcomes import REQUESTER_GONE, cancel_of, cancelled_payload, error_payload, outcome
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._state import JobState, JobTrigger, next_job
from workerbus.jobs._window import SenderWindow
from workerbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
)

logger = logging.getLogger("workerbus.jobs")

M = TypeVar("M", bound=BusMessage)


class JobServer(JobTable):
    """The jobs that a worker was asked for.

    Args:
        owner: The worker.
        find: Returns what to run for a request; raises `LookupError` where there is nothing, and `Refused` where there
            is no room for it.
        refusal: Returns the status and payload to answer with where the worker takes no new jobs, else None.
        panicked: Called with an exception that is no `Exception`, and with the name of the handler that has raised it.

    Attributes:
        early: Job id to the reason of a cancel that came before its request, and the number of the last data message
            that waited then: when that has been handled, no request can come, and the entry goes.
        owner: The worker.
        pool: The tasks that handlers run in.
        ignored: How many requests came a second time.
    """

    __slots__ = ("_find", "_network", "_now", "_panicked", "_refusal", "early", "ignored", "owner", "pool")

    def __init__(
        self,
        owner: JobPeer,
        find: Callable[[BusJobRequestMessage], Route],
        refusal: Callable[[], tuple[JobStatus, dict[str, Any]] | None],
        panicked: Callable[[BaseException, str], None],
    ) -> None:
        self.pool: TaskPool[OpenJob] = TaskPool(owner.name, self._perform, lambda: owner.tasks)
        super().__init__(owner, self.pool.submit)
        self.owner: JobPeer = owner
        self._find = find
        self._refusal = refusal
        self._panicked = panicked
        self.early: OrderedDict[str, tuple[str | None, int]] = OrderedDict()
        self.ignored: int = 0
        self._now: Callable[[], float] | None = None
        self._network: Sender | None = None

    # --- requests and cancels

    def request(self, message: BusJobRequestMessage) -> None:
        """Start a job, or say at once why not."""
        job_id = message.job_id
        if job_id in self.jobs or job_id in self._ended:
            self.ignored += 1  # the same request again
            return
        now = self._now or self._look_around()
        refusal = self._refusal()
        if job_id in self.early:
            refusal = JobStatus.CANCELLED, cancelled_payload(self.early.pop(job_id)[0])
        elif self._network is not None and self._network.is_late(message):  # it has waited here meanwhile
            refusal = JobStatus.CANCELLED, cancelled_payload(REQUESTER_GONE)
        route = None
        if refusal is None:
            try:
                if message.seconds_left is not None:
                    check_seconds_left(message.seconds_left)
                route = self._find(message)
            except Refused as exc:
                refusal = exc.status, exc.payload
            except Exception as exc:  # noqa: BLE001 - whatever a class raises that is asked for its handler
                refusal = JobStatus.ERROR, error_payload(exc)
        if route is None:
            assert refusal is not None
            self._send(message, *refusal)
            self._remember(job_id)
            return
        job = self.jobs[job_id] = OpenJob(message, route, now())
        options = message.options
        if options is not None and options.delay:
            self._watch(job)
            job.timer = self._call_at(job.since + options.delay, partial(self._stand, job))
        elif route.limiter is None:
            self._begin(job)
        else:
            self._stand(job)

    def _look_around(self) -> Callable[[], float]:
        bus = self._owner.bus
        self._now = running_backend().current_time
        self._all_groups = bus.job_groups
        self._network = None if bus.in_process else bus
        self._taps = bus.job_taps
        return self._now

    def take(self, assigned: OpenJob, assignment: Assignment) -> None:
        """Do a job that a pool was asked for; the pool is told of the answer, and sends it.

        Args:
            assigned: The job, as the pool has it. It is given in the step in which this worker was found to take jobs.
            assignment: Told of how it goes.
        """
        request = assigned.request
        try:
            route = self._find(request)
        except Exception as exc:  # noqa: BLE001 - whatever a class raises that is asked for its handler
            assignment.over()
            if isinstance(exc, Refused):  # by a pool that is a member of another one
                assignment.answered(exc.status, exc.payload)
            else:
                assignment.answered(JobStatus.ERROR, error_payload(exc))
            return
        if self._now is None:
            self._look_around()
        job = self.jobs[request.job_id] = OpenJob(request, route, assigned.since)  # some of its time has gone by
        job.assignment = assignment
        self._stand(job)

    def refuse(self, message: BusJobRequestMessage) -> None:
        """Answer a request that ``accepts_bus_message`` has refused."""
        if message.job_id not in self.jobs and message.job_id not in self._ended:
            text = f"worker {self._name!r} does not accept this request"
            self._send(message, JobStatus.FAILED, {"error": text, "type": "Refused"})
            self._remember(message.job_id)

    def cancel(self, message: BusJobCancelMessage, last_waiting: int | None) -> None:
        """Cancel a job; if its request may still be waiting in the data lane, remember that.

        Args:
            message: The cancel.
            last_waiting: The number of the last data message that waits; None if none does.
        """
        job = self.jobs.get(message.job_id)
        if job is not None:
            self._expire(job)
            self._cancel_by(message, job)
        elif last_waiting is not None and message.job_id not in self._ended:
            self.early[message.job_id] = message.reason, last_waiting

    def requester_lost(self, peer: Peer, reason: str) -> None:
        """Cancel the jobs that a peer has asked for which is gone.

        Args:
            peer: The peer.
            reason: Why it is gone, in words.
        """
        text = f"{REQUESTER_GONE}: {reason}"
        lost = [job for job in self.jobs.values() if peer_of(job.request) == peer]
        for job in those_in_line_first(lost):
            self._expire(job)
            self._cancel_by(cancel_of(job.request, text), job)

    def window_moved(self, message: BusJobStreamWindowMessage) -> None:
        """Let more of a job's stream be sent."""
        job = self.jobs.get(message.job_id)
        if job is not None:
            self.window_of(job).move(message.until)

    def update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Pass on that the requester wants to know how a job is getting on."""
        if message.job_id in self.jobs:
            self._hook("on_job_update_requested", message)

    def answer_all(self, status: JobStatus, payload: dict[str, Any]) -> list[str]:
        """Answer what is still open, since the wind-down takes no longer; returns which handlers still run."""
        self.cancel_all(status, payload)
        for job in list(self.jobs.values()):
            self._move(job, JobTrigger.ANSWER)
            # Without a verdict it was over already, and an exception that ends programs came before its answer.
            self._answer(job, *(job.verdict or (status, payload)))
        return [f"job {job.request.job_name!r} ({job.request.job_id})" for job in self.pool.busy.values()]

    @property
    def idle(self) -> bool:
        """Whether no job is open, and no handler runs."""
        return not self.jobs and self.pool.idle

    async def all_answered(self) -> None:
        """Wait for a moment in which no job is open."""
        if self.jobs:
            if self._no_jobs is None:
                self._no_jobs = Event()
            await self._no_jobs.wait()

    # --- what the worker's own code sends

    def message(self, kind: Callable[..., M], job_id: str, data: dict[str, Any] | None) -> M:
        """Make a message of a class about an open job, to whoever asked for the job."""
        return self.message_of(kind, self.open_job(job_id), data)

    def message_of(self, kind: Callable[..., M], job: OpenJob, data: dict[str, Any] | None) -> M:
        """Make a message of a class about a job that is open, to whoever asked for it."""
        request = job.request
        name = request.target or self._name  # that of the pool, where a member of one does the job
        return kind(request.job_id, data, source=name, target=request.source, headers=request.headers)

    def window_of(self, job: OpenJob) -> SenderWindow:
        """Return how much of a job's stream may be sent."""
        if job.window is None:
            options = job.request.options
            size = None if options is None else options.max_buffered_events
            remind = None if size is None or self._owner.bus.in_process else partial(self._remind, job)
            job.window = SenderWindow(size, remind)
            if job.verdict is not None:  # cancelled before its first chunk
                job.window.close()
        return job.window

    def _remind(self, job: OpenJob, sent: int) -> None:
        request = job.request
        name = request.target or self._name
        message = BusJobStreamWaitingMessage(
            request.job_id, sent, source=name, target=request.source, headers=request.headers
        )
        self._owner.bus.post(message)

    def chunk(self, job: OpenJob, data: dict[str, Any] | None, number: int) -> BusJobStreamDataMessage:
        """Make the message of a chunk that carries its number."""
        request = job.request
        name = request.target or self._name
        return BusJobStreamDataMessage(
            request.job_id, data, number=number, source=name, target=request.source, headers=request.headers
        )

    def respond(self, job_id: str, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool) -> None:
        """Answer a job from the worker's own code. After a cancel the status is that of its verdict all the same."""
        job = self.open_job(job_id)
        if job.verdict is not None:
            status = job.verdict[0]
        self._move_to_answered(job)
        self._answer(job, status, response, urgent=urgent)

    def end_stream(self, job_id: str, data: dict[str, Any] | None) -> None:
        """End a job by the end of its stream."""
        job = self.open_job(job_id)
        if job.verdict is not None:
            self.respond(job_id, job.verdict[0], data, urgent=False)
            return
        self._move_to_answered(job)
        self._answer(job, JobStatus.COMPLETED, data, stream_end=True)

    def _move_to_answered(self, job: OpenJob) -> None:
        self._move(job, JobTrigger.ANSWER)
        if job.scope is not None and job.deadline != math.inf:
            job.scope.deadline = math.inf  # it was the job's; the handler may go on

    # --- the task of a handler

    async def _perform(self, job: OpenJob, scope: CancelScope) -> bool:
        """Run a job's handler in a pooled task; returns whether the task may be used again."""
        if job.state is not JobState.QUEUED:
            return True  # cancelled before it began
        if job.deadline == math.inf:
            await self._handle(job, scope)
            return not scope.cancel_called
        scope.deadline = job.deadline
        if self._owner.hooks.wants("on_job_cancelled"):
            # The scope cancels the handler by itself, but tells nobody, and the handler may take long to unwind.
            self._watch(job)
        if not job.late:
            await self._handle(job, scope)  # what it raises ends the task, and it has seen to the job then
        scope.deadline = math.inf
        self._expire(job)  # one that was late has not begun, and gets its answer here
        return not scope.cancel_called

    serves(_perform, lambda its: its["job"].role())

    async def _handle(self, job: OpenJob, scope: CancelScope) -> None:
        job.state = next_job(job.state, JobTrigger.START)
        job.scope = scope
        told = bool(self._taps)
        handling = None
        if self._all_groups is not None:
            handling = JobHandling(job, job.request.target or self._name, self._all_groups)
        try:
            if told:
                self._owner.bus.tell_of_job("job_begins", self._name, job.request)
            result = await job.route.run(job.request)
        except BaseException as exc:
            failure = sort_failure(exc)
            if failure.kind is Kind.PANIC:
                self._panicked(failure.cause, job.route.name)  # first, so that a pool gives the place to nobody else
            self._handler_failed(job, failure)
            if failure.kind not in (Kind.PANIC, Kind.ERROR):
                await failure.pass_on()
                raise
        else:
            if job.deadline != math.inf:
                self._expire(job)  # the time may be up, and the loop not have come to cancel the scope
            self._end_of_handler(job, result, None)
        finally:
            job.scope = None
            if told:
                self._owner.bus.tell_of_job("job_ends", self._name, job.request)
            if handling is not None:
                handling.leave()

    tells(_handle, lambda its: its["self"].handles(its["job"]))

    def _handler_failed(self, job: OpenJob, failure: Failure) -> None:
        kind = failure.kind
        if kind is not Kind.EXIT:
            self._expire(job)  # where the scope's deadline has cancelled the handler, nobody has said so yet
        if kind in (Kind.ERROR, Kind.PANIC) and not isinstance(failure.cause, JobFailure):
            when = " after its answer" if job.state is JobState.ANSWERED else ""
            logger.error(
                "the handler of %s failed%s",
                self._title(job),
                when,
                exc_info=failure.cause,
                extra=about(**self._owner.about, job=job.request.job_id),
            )
        if kind is not Kind.CANCELLED:
            self._end_of_handler(job, None, failure.cause)
        elif job.verdict is not None or job.state is JobState.ANSWERED:
            self._end_of_handler(job, None, None)
        else:
            self._move(job, JobTrigger.LEAVE)  # the worker ends, and answers in its own way

    def handles(self, job: OpenJob) -> Doing:
        """Return what the handler of a job is doing, for who looks at its frames."""
        return Doing(f"the handler of {self._title(job)}", self._name, job.request.job_id)

    def _title(self, job: OpenJob) -> str:
        return f"job {job.request.job_name!r} ({job.request.job_id}) at worker {self._name!r}"

    def _end_of_handler(self, job: OpenJob, result: object, error: BaseException | None) -> None:
        # What the end of a handler means for its job depends on where the job was:
        #
        # 1. Running, and the handler leaves it open: it goes on without a task and without a scope.
        # 2. Cancelling: the verdict is the answer, whatever the handler has returned or raised.
        # 3. Running, and this is the end: what the handler has returned or raised is the answer.
        # 4. Answered: nothing is left to say. The move has freed its place.
        leaves = error is None and result is None and job.route.deferred
        before = self._move(job, JobTrigger.LEAVE if leaves else JobTrigger.FINISH)
        if job.state is JobState.DEFERRED:
            self._watch(job)
        elif before is JobState.CANCELLING:
            assert job.verdict is not None
            self._answer(job, *job.verdict)
        elif before is JobState.RUNNING and job.state is JobState.OVER:
            self._answer(job, *outcome(result, error, job.request.job_name))
