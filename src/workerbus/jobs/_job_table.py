"""The table of the jobs that a worker was asked for, by job id, and what moves them (J1-J4, J6, J12-J14, W6).

A job is in the table from its request until its answer, and every way out of the table is an answer: there is one
method that sends it, `_answer`. Cancels and deadlines only mark a job that its handler is at; the answer comes when
that has unwound.

A job that waits for its turn, or that its handler has left open, is an entry in the table and nothing else: it has no
task. Three things move it: a message about it; whoever frees a place, who has the next in line begin; and `Deadlines`,
when its time is up.

Three sides see that a job's time is up, in no certain order: `Deadlines`; the scope of its handler, which cancels that
by itself; and whoever looks at the job meanwhile, to cancel it or to send something for it. All of them call `_expire`,
and the table of states sees to it that only the first one changes anything: one verdict, one `on_job_cancelled`.

Nothing here waits, and how a handler is found and run is not known.
"""

import logging
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from anyio import Event, current_time

from workerbus._concurrency.waiting import Held
from workerbus._log import about
from workerbus._values import JobStatus
from workerbus.abc import HookCall, JobPeer, Sender
from workerbus.errors import UnknownJobError, WireError
from workerbus.jobs._deadlines import Deadlines
from workerbus.jobs._events import JobSnapshot
from workerbus.jobs._group import JobGroup
from workerbus.jobs._limiter import Limiter, PacedLimiter
from workerbus.jobs._open_job import OpenJob, those_in_line_first
from workerbus.jobs._outcomes import cancel_of, cancelled_payload
from workerbus.jobs._state import OPEN_JOBS, TIMEOUT, TURN, JobState, JobTrigger, next_job
from workerbus.messages import (
    Answer,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusMessage,
    error_instead_of,
)

logger = logging.getLogger("workerbus.jobs")

REMEMBERED: Final = 1024
"""How many ended jobs a worker remembers, to run no request twice."""


class JobTable:
    """The jobs that a worker was asked for, and that are not answered.

    Args:
        owner: The worker.

    Attributes:
        jobs: Job id to job.
        answered: Status to how many requests were answered so; one that did not occur is missing.
        _begin: Called with a job whose turn has come; has its handler run.
        _ended: The ids of the last jobs that were answered, the oldest first.
        _deadlines: Looks after the time of jobs without a task.
        _later: Lets delayed jobs begin, and those of handlers with a rate; None until one has to wait for its time.
        _bus: Where answers go; None before the first, as a worker gets its bus late.
        _all_groups: The open job groups of this process, where lanes are bounded; else None.
        _held: Where answers are put instead, for a worker that sends them itself.
        _no_jobs: Set when no job is open; made by who waits for that.
        _taps: Who is told what becomes of jobs; empty before the first.
    """

    __slots__ = (
        "_all_groups", "_begin", "_bus", "_deadlines", "_ended", "_held", "_later", "_name", "_no_jobs", "_owner",
        "_taps", "answered", "jobs",
    )  # fmt: skip

    def __init__(self, owner: JobPeer, begin: Callable[[OpenJob], None]) -> None:
        self._owner = owner
        self._name = owner.name
        self._begin: Callable[[OpenJob], None] = begin
        self._bus: Sender | None = None
        self._held: list[Answer] | None = None
        self._taps: Sequence[Any] = ()
        self.jobs: dict[str, OpenJob] = {}
        # No dict: it would look at all that were forgotten for which is the first now, half a microsecond each job.
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._deadlines: Deadlines[OpenJob] = Deadlines(owner.name, lambda: owner.tasks, self._expire_all)
        self._later: Deadlines[Callable[[], None]] | None = None
        self._no_jobs: Event | None = None
        self.answered: defaultdict[JobStatus, int] = defaultdict(int)
        self._all_groups: Mapping[str, JobGroup] | None = None

    def open_job(self, job_id: str) -> OpenJob:
        """Return an open job.

        Raises:
            UnknownJobError: There is no open job of that id; a `RuntimeError`.
        """
        job = self.jobs.get(job_id)
        if job is not None and job.deadline != math.inf:
            self._expire(job)  # its handler is unwinding, or has not noticed yet
            job = self.jobs.get(job_id)
        if job is None:
            raise UnknownJobError(job_id, self._name)
        return job

    def cancel_all(self, status: JobStatus, payload: dict[str, Any]) -> None:
        """Cancel every job; each is answered with the given status when its handler has unwound."""
        for job in those_in_line_first(self.jobs.values()):
            self._expire(job)  # a job whose time was up before is answered with a timeout
            self._cancel(job, status, payload)

    def held_back(self, answer: Callable[[], None]) -> list[Answer]:
        """Answer a job, and return the messages instead of sending them."""
        held = self._held = []
        try:
            answer()
        finally:
            self._held = None
        return held

    def held(self) -> list[Held]:
        """Return the jobs that wait without a task: for their turn, for a time, or for an answer."""
        return [held for job in list(self.jobs.values()) if (held := job.held()) is not None]

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

    # --- the moves

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

    def _move(self, job: OpenJob, event: JobTrigger) -> JobState:
        """Let the table decide, and free the place of a job that is over; returns where it was before."""
        before, job.state = job.state, next_job(job.state, event)
        limiter = job.route.limiter
        has_place = limiter is not None or job.assignment is not None
        if has_place and job.state is JobState.OVER and before is not JobState.OVER:
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
        # Those in line whose time is up at once are told alike: one may have been given its turn by the one before it.
        waited = job.timer is not None or (job.state is JobState.QUEUED and job.route.limiter is not None)
        before = self._move(job, JobTrigger.CANCEL)
        if job.state is before:
            return False
        if waited and payload["error"] == TIMEOUT:
            payload = {**payload, "waited_for": TURN}
        job.verdict = status, payload
        if job.window is not None:
            job.window.close()
        if job.state is JobState.OVER:
            self._answer(job, status, payload)
        elif job.scope is not None:  # None where an exception that ends programs is on its way out of the handler
            job.scope.cancel()
        return True

    def _cancel_by(self, message: BusJobCancelMessage, job: OpenJob) -> None:
        if self._cancel(job, JobStatus.CANCELLED, cancelled_payload(message.reason)):
            self._hook("on_job_cancelled", message)

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
        if self._taps:
            self._owner.bus.tell_of_job("job_answered", self._name, job.request, status, response)
        if job.assignment is None:
            self._send(job.request, status, response, urgent=urgent, stream_end=stream_end)
        else:
            job.assignment.answered(status, response, urgent=urgent, stream_end=stream_end)

    def _forget(self, job: OpenJob) -> None:
        job_id = job.request.job_id
        del self.jobs[job_id]
        if job.window is not None:
            job.window.close()
        if job.assignment is None:  # else the pool remembers it
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
        name = request.target or self._name  # one that it shares, where that was asked
        job_id, to, headers = request.job_id, request.source, request.headers
        if logger.isEnabledFor(logging.DEBUG):
            text = "worker %r answers job %r (%s): %s"
            about_it = about(**self._owner.about, job=job_id)
            logger.debug(text, name, request.job_name, job_id, status, extra=about_it)
        message: Answer
        if stream_end:
            message = BusJobStreamEndMessage(job_id, response, source=name, target=to, headers=headers)
        else:
            kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
            message = kind(job_id, status, response, source=name, target=to, headers=headers)
        if self._held is None:
            bus = self._bus
            if bus is None:
                bus = self._bus = self._owner.bus
            try:
                bus.post(message)
            except WireError as exc:
                self._tell_instead(message, exc)
        else:
            self._held.append(message)

    def post_answer(self, message: Answer) -> None:
        """Send an answer that was held back; one that cannot travel becomes an ERROR that says so."""
        try:
            self._owner.bus.post(message)
        except WireError as exc:
            self._tell_instead(message, exc)

    def _tell_instead(self, message: Answer, error: WireError) -> None:
        status = JobStatus.COMPLETED if isinstance(message, BusJobStreamEndMessage) else message.status
        self.answered[status] -= 1
        self.answered[JobStatus.ERROR] += 1
        about_it = about(**self._owner.about, job=message.job_id)
        logger.error(
            "worker %r cannot send its answer to job %s: %s", self._name, message.job_id, error, extra=about_it
        )
        self._owner.bus.post(error_instead_of(message, error))

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
            self._cancel_by(cancel_of(job.request, TIMEOUT), job)

    def _expire_all(self, jobs: list[OpenJob]) -> None:
        for job in those_in_line_first(jobs):
            self._expire(job)


def _call_all(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()
