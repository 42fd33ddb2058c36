"""The side that answers: one table of open jobs by job id, and what moves them (J1-J6, J9, J10, J12-J14, W6).

A job is in the table from its request until its answer, and every way out of the table is an answer: there is one
method that sends it, `_answer`, and one place that turns a handler's end into one, `_end_of_handler`. Cancels and
deadlines only mark the job; the answer comes when its handler has unwound.

Only a handler has a task. A job that waits for its turn, or that its handler has left open, is an entry in the table
and nothing else. Three things move it: a message about it; whoever frees a place, who gives the next in line to the
pool; and `Deadlines`, when its time is up.

Three sides see that a job's time is up, in no certain order: `Deadlines`; the scope of its handler, which cancels that
by itself; and whoever looks at the job meanwhile, to cancel it or to send something for it. All of them call `_expire`,
and the table sees to it that only the first one changes anything: one verdict, one `on_job_cancelled`.

The server knows nothing of names and classes: it is given a `Route` for each job that says what to run.
"""

import logging
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from anyio import CancelScope, Event, current_time

from workerbus._concurrency.backend import running_backend
from workerbus._concurrency.failures import Failure, Kind, sort_failure
from workerbus._log import about
from workerbus._values import JobStatus
from workerbus.abc import HookCall, JobPeer, Sender
from workerbus.errors import JobFailure, UnknownJobError
from workerbus.jobs._checks import check_seconds_left
from workerbus.jobs._deadlines import Deadlines
from workerbus.jobs._events import JobSnapshot
from workerbus.jobs._group import JobGroup
from workerbus.jobs._job_handling import JobHandling
from workerbus.jobs._limiter import Limiter, PacedLimiter
from workerbus.jobs._open_job import Assignment, OpenJob, Refused, Route, those_in_line_first
from workerbus.jobs._outcomes import cancelled_payload, error_payload, outcome
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._state import OPEN_JOBS, TIMEOUT, TURN, JobState, JobTrigger, next_job
from workerbus.jobs._window import SenderWindow
from workerbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
)

logger = logging.getLogger("workerbus.jobs")

M = TypeVar("M", bound=BusMessage)

REMEMBERED: Final = 1024
"""How many ended jobs a worker remembers, to run no request twice."""


class JobServer:
    """The jobs that a worker was asked for.

    Args:
        owner: The worker.
        find: Returns what to run for a request; raises `LookupError` where there is nothing, and `Refused` where there
            is no room for it.
        refusal: Returns the status and payload to answer with where the worker takes no new jobs, else None.
        panicked: Called with an exception that is no `Exception`, and with the name of the handler that has raised it.

    Attributes:
        jobs: Job id to job, of those that are not answered.
        early: Job id to the reason of a cancel that came before its request, and the number of the last data message
            that waited then: when that has been handled, no request can come, and the entry goes.
        pool: The tasks that handlers run in.
        answered: Status to how many requests were answered so; one that did not occur is missing.
        ignored: How many requests came a second time.
        _begin: Called with a job whose turn has come; has its handler run.
        _ended: The ids of the last jobs that were answered, the oldest first.
        _deadlines: Looks after the time of jobs without a task.
        _later: Lets delayed jobs begin, and those of handlers with a rate; None until one has to wait for its time.
        _bus: Where answers go; None before the first, as a worker gets its bus late.
        _all_groups: The open job groups of this process, where lanes are bounded; else None.
        _held: Where answers are put instead, for a worker that sends them itself.
        _no_jobs: Set when no job is open; made by who waits for that.
    """

    __slots__ = (
        "_all_groups",
        "_begin",
        "_bus",
        "_deadlines",
        "_ended",
        "_find",
        "_held",
        "_later",
        "_name",
        "_no_jobs",
        "_now",
        "_owner",
        "_panicked",
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
        panicked: Callable[[BaseException, str], None],
    ) -> None:
        self._owner = owner
        self._bus: Sender | None = None
        self._held: list[BusMessage] | None = None
        self._name = owner.name
        self._find = find
        self._refusal = refusal
        self._panicked = panicked
        self.jobs: dict[str, OpenJob] = {}
        # Not dicts: they would look at all that were forgotten for which is the first now, half a microsecond each job.
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.early: OrderedDict[str, tuple[str | None, int]] = OrderedDict()
        self.pool: TaskPool[OpenJob] = TaskPool(owner.name, self._perform, lambda: owner.tasks)
        self._begin: Callable[[OpenJob], None] = self.pool.submit
        self._deadlines: Deadlines[OpenJob] = Deadlines(owner.name, lambda: owner.tasks, self._expire_all)
        self._later: Deadlines[Callable[[], None]] | None = None
        self._no_jobs: Event | None = None
        self.ignored: int = 0
        self.answered: defaultdict[JobStatus, int] = defaultdict(int)
        self._now: Callable[[], float] | None = None
        self._all_groups: Mapping[str, JobGroup] | None = None

    # --- requests and cancels

    def request(self, message: BusJobRequestMessage) -> None:
        """Start a job, or say at once why not."""
        job_id = message.job_id
        if job_id in self.jobs or job_id in self._ended:
            self.ignored += 1  # the same request again
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
            except Refused as exc:
                refusal = JobStatus.FAILED, exc.payload
            except (LookupError, TypeError, ValueError) as exc:
                refusal = JobStatus.ERROR, error_payload(exc)
        if route is None:
            assert refusal is not None
            self._send(message, *refusal)
            self._remember(job_id)
            return
        job = self.jobs[job_id] = OpenJob(message, route, self._clock())
        options = message.options
        if options is not None and options.delay:
            self._watch(job)
            job.timer = self._call_at(job.since + options.delay, partial(self._stand, job))
        elif route.limiter is None:
            self._begin(job)
        else:
            self._stand(job)

    def _stand(self, job: OpenJob) -> None:
        """Let a job begin, or stand in line."""
        job.timer = None
        limiter = job.route.limiter
        if limiter is None or limiter.stand(job):
            self._begin(job)
        else:
            self._watch(job)
            if limiter.paced:
                self._pace(limiter)
            group = None if self._all_groups is None else self._all_groups.get(job.request.job_id)
            if group is not None:
                group.admit_what_it_waits_for()

    def _clock(self) -> float:
        if self._now is None:
            self._now = running_backend().current_time
            self._all_groups = self._owner.bus.job_groups
        return self._now()

    def take(self, assigned: OpenJob, assignment: Assignment) -> None:
        """Do a job that a pool was asked for; the pool is told of the answer, and sends it.

        Args:
            assigned: The job, as the pool has it.
            assignment: Told of how it goes.
        """
        request = assigned.request
        refusal = self._refusal()
        route = None
        if refusal is None:
            try:
                route = self._find(request)
            except LookupError as exc:
                refusal = JobStatus.ERROR, error_payload(exc)
        if route is None:
            assert refusal is not None
            self.answered[refusal[0]] += 1
            assignment.over()
            assignment.answered(*refusal)
            return
        job = self.jobs[request.job_id] = OpenJob(request, route, self._clock())
        job.deadline = assigned.deadline  # some of its time has gone by
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
            if self._cancel(job, JobStatus.CANCELLED, cancelled_payload(message.reason)):
                self._hook("on_job_cancelled", message)
        elif last_waiting is not None and message.job_id not in self._ended:
            self.early[message.job_id] = message.reason, last_waiting

    def window_moved(self, message: BusJobStreamWindowMessage) -> None:
        """Let more of a job's stream be sent."""
        job = self.jobs.get(message.job_id)
        if job is not None:
            self.window_of(job).move(message.until)

    def update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Pass on that the requester wants to know how a job is getting on."""
        if message.job_id in self.jobs:
            self._hook("on_job_update_requested", message)

    def cancel_all(self, status: JobStatus, payload: dict[str, Any]) -> None:
        """Cancel every job; each is answered with the given status when its handler has unwound."""
        for job in those_in_line_first(self.jobs.values()):
            self._expire(job)  # a job whose time was up before is answered with a timeout
            self._cancel(job, status, payload)

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

    async def quiet(self) -> None:
        """Wait until no job is open, and no handler runs."""
        while not self.idle:
            if self.jobs:
                if self._no_jobs is None:
                    self._no_jobs = Event()
                await self._no_jobs.wait()
            else:
                await self.pool.quiet()

    def snapshots(self) -> tuple[JobSnapshot, ...]:
        """Return a snapshot of each open job; there is nothing of its payload in it."""
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
            UnknownJobError: There is no open job of that id; a `RuntimeError`.
        """
        job = self.jobs.get(job_id)
        if job is not None and job.late:
            self._expire(job)  # its handler is unwinding, or has not noticed yet
            job = self.jobs.get(job_id)
        if job is None:
            raise UnknownJobError(job_id, self._name)
        return job

    @property
    def owner(self) -> JobPeer:
        """The worker."""
        return self._owner

    def held_back(self, answer: Callable[[], None]) -> list[BusMessage]:
        """Answer a job, and return the messages instead of sending them."""
        held = self._held = []
        try:
            answer()
        finally:
            self._held = None
        return held

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

    # --- the moves

    def _move(self, job: OpenJob, event: JobTrigger) -> JobState:
        """Let the table decide, and free the place of a job that is over; returns where it was before."""
        before, job.state = job.state, next_job(job.state, event)
        limiter = job.route.limiter
        if (limiter is not None or job.assignment is not None) and job.state is JobState.OVER:
            if limiter is not None:
                following = limiter.leave(job)
                if following is not None:
                    self._begin(following)
                if limiter.paced:
                    self._pace(limiter)
            if job.assignment is not None:
                job.assignment.over()
        return before

    def _pace(self, limiter: Limiter[OpenJob]) -> None:
        """Have the first in line begin when it is time for it."""
        assert isinstance(limiter, PacedLimiter)
        due = limiter.due_at
        if due is None or limiter.watched:
            return
        limiter.watched = True
        self._call_at(due, partial(self._turn_has_come, limiter))

    def _turn_has_come(self, limiter: PacedLimiter[OpenJob]) -> None:
        limiter.watched = False
        following = limiter.following()
        while following is not None:
            self._begin(following)
            following = limiter.following()
        self._pace(limiter)

    def _call_at(self, at: float, function: Callable[[], None]) -> int:
        if self._later is None:
            self._later = Deadlines(f"{self._name} timers", lambda: self._owner.tasks, _call_all)
        return self._later.add(at, function)

    def _cancel(self, job: OpenJob, status: JobStatus, payload: dict[str, Any]) -> bool:
        in_line = job.waits or job.timer is not None
        before = self._move(job, JobTrigger.CANCEL)
        if job.state is before:
            return False
        if in_line and payload["error"] == TIMEOUT:
            payload = {**payload, "waited_for": TURN}
        job.verdict = status, payload
        if job.window is not None:
            job.window.close()
        if job.state is JobState.OVER:
            self._answer(job, status, payload)
        elif job.scope is not None:  # None where an exception that ends programs is on its way out of the handler
            job.scope.cancel()
        return True

    def _answer(
        self,
        job: OpenJob,
        status: JobStatus,
        response: dict[str, Any] | None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
    ) -> None:
        self._forget(job)
        if job.assignment is None:
            self._send(job.request, status, response, urgent=urgent, stream_end=stream_end)
        else:
            self.answered[status] += 1
            job.assignment.answered(status, response, urgent=urgent, stream_end=stream_end)

    def _forget(self, job: OpenJob) -> None:
        job_id = job.request.job_id
        del self.jobs[job_id]
        if job.window is not None:
            job.window.close()
        self._remember(job_id)
        if job.watch is not None:
            self._deadlines.drop(job.watch)
        if job.timer is not None and self._later is not None:
            self._later.drop(job.timer)
        if self._no_jobs is not None and not self.jobs:
            self._no_jobs.set()
            self._no_jobs = None

    def _remember(self, job_id: str) -> None:
        ended = self._ended
        ended[job_id] = None
        if len(ended) > REMEMBERED:
            ended.popitem(last=False)

    def _send(
        self,
        request: BusJobRequestMessage,
        status: JobStatus,
        response: dict[str, Any] | None,
        *,
        urgent: bool = False,
        stream_end: bool = False,
    ) -> None:
        self.answered[status] += 1
        job_id, name, to, headers = request.job_id, self._name, request.source, request.headers
        if logger.isEnabledFor(logging.DEBUG):
            text = "worker %r answers job %r (%s): %s"
            about_it = about(**self._owner.about, job=job_id)
            logger.debug(text, name, request.job_name, job_id, status, extra=about_it)
        message: BusMessage
        if stream_end:
            message = BusJobStreamEndMessage(job_id, response, source=name, target=to, headers=headers)
        else:
            kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
            message = kind(job_id, status, response, source=name, target=to, headers=headers)
        bus = self._bus
        if bus is None:
            bus = self._bus = self._owner.bus
        if self._held is None:
            bus.post(message)
        else:
            self._held.append(message)

    def _hook(self, name: str, message: BusMessage) -> None:
        if self._owner.hooks.wants(name):
            self._owner.hooks.add(HookCall(name, (message,), message), system=bool(message.system))

    # --- deadlines

    def _watch(self, job: OpenJob) -> None:
        """Look after the time of a job that has no task, or whose worker overrides ``on_job_cancelled``."""
        if job.deadline != math.inf and job.watch is None:
            job.watch = self._deadlines.add(job.deadline, job)

    def _expire(self, job: OpenJob) -> None:
        if job.state in OPEN_JOBS and job.late:
            request = job.request
            message = BusJobCancelMessage(
                request.job_id, TIMEOUT, source=request.source, target=request.target, headers=request.headers
            )
            if self._cancel(job, JobStatus.CANCELLED, cancelled_payload(TIMEOUT)):
                self._hook("on_job_cancelled", message)

    def _expire_all(self, jobs: list[OpenJob]) -> None:
        for job in those_in_line_first(jobs):
            self._expire(job)

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
        try:
            if not job.late:
                await self._handle(job, scope)
        finally:
            scope.deadline = math.inf
            self._expire(job)  # one that was late has not begun, and gets its answer here
        return not scope.cancel_called

    async def _handle(self, job: OpenJob, scope: CancelScope) -> None:
        job.state = next_job(job.state, JobTrigger.START)
        job.scope = scope
        handling = None
        if self._all_groups is not None:
            handling = JobHandling(job, job.request.target or self._name, self._all_groups)
        try:
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
            if handling is not None:
                handling.leave()

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


def _call_all(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()
