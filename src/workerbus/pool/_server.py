"""The jobs that a pool was asked for, and who of its members does them (S2, J1-J6).

A pool's jobs are kept as those of any worker: in one table, from the request to the answer. What differs is what
happens when a job's turn has come: a member does it. The member gets the request itself, in the same step, and says
when its handler has ended, and with what answer; the pool's table then decides, and the pool sends it. So a job of a
pool takes no message and no task more than a job of a worker.

| what comes | who has the job | what is done |
|---|---|---|
| a cancel, or its time is up | nobody yet | answered |
| a cancel, or the pool stops | a member | the member is told; answered when its handler has unwound |
| its time is up | a member | the member's own scope ends it |
| the member fails or stops | that member | the member answers it, as it does every open job |
| room in its stream's window, a wish for an update | a member | passed on |

Updates and chunks go from the member straight to the requester, in the pool's name.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
from anyio import current_time

from workerbus._message_base import peer_of, set_peer
from workerbus._values import JobStatus
from workerbus.abc import JobPeer
from workerbus.jobs._events import JobSnapshot
from workerbus.jobs._open_job import OpenJob, Refused, Route
from workerbus.jobs._outcomes import cancel_of
from workerbus.jobs._server import JobServer
from workerbus.jobs._state import OPEN_JOBS, JobState, JobTrigger, next_job
from workerbus.messages import (
    BusJobRequestMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateRequestMessage,
)
from workerbus.pool._least_loaded import LeastLoaded
from workerbus.worker._state import WorkerState

LOAD_SECONDS: Final = 0.1
"""A pool that shares its name tells how busy it is at most this often, in seconds."""


class Member:
    """One life of a member of a pool.

    Attributes:
        name: Its name.
        state: Where it is in its life.
        server: Its jobs.
        is_open: Whether it takes jobs now.
        answered: Status to how many jobs of the pool all lives of this name have answered so.
        let_go: Called when it has no more jobs, once it is to have no others; None as long as it is to have some.
    """

    __slots__ = ("answered", "is_open", "let_go", "name", "server", "state")

    def __init__(
        self, state: WorkerState, server: JobServer, is_open: Callable[[], bool], answered: dict[JobStatus, int]
    ) -> None:
        self.name: str = state.name
        self.state: WorkerState = state
        self.server: JobServer = server
        self.is_open: Callable[[], bool] = is_open
        self.answered: dict[JobStatus, int] = answered
        self.let_go: Callable[[], None] | None = None


class PoolJobs(JobServer):
    """The jobs that a pool was asked for.

    Args:
        owner: The pool.
        find: Returns what the pool itself has to run for a request; raises `LookupError` where there is nothing.
        refusal: Returns the status and payload to answer with where the pool takes no new jobs, else None.
        panicked: Called with an exception that is no `Exception`, and with the name of the handler that has raised it.
        concurrency: How many jobs each member may have at once.
        max_waiting: How many jobs may wait for a member.

    Attributes:
        balancer: Which member has which job, and who waits.
        shared_name: The name that the pool shares with others; None where it shares none.
        tell_load: Called with how many jobs there are, some time after that has changed.
        own_jobs: The names of the jobs that the pool does itself.
        max_waiting: As given.
        given_up: What those are told who ask while no member will take a job any more; None while one may.
    """

    __slots__ = (
        "_due", "_find_own", "_giving", "_route", "_telling", "balancer", "given_up", "max_waiting", "own_jobs",
        "shared_name", "tell_load",
    )  # fmt: skip

    def __init__(
        self,
        owner: JobPeer,
        find: Callable[[BusJobRequestMessage], Route],
        refusal: Callable[[], tuple[JobStatus, dict[str, Any]] | None],
        panicked: Callable[[BaseException, str], None],
        *,
        concurrency: int,
        max_waiting: float,
    ) -> None:
        super().__init__(owner, self._find_member, refusal, panicked)
        self._find_own = find
        self._begin = self._give
        self._due: deque[OpenJob] = deque()
        self._giving = False
        self.balancer: LeastLoaded[OpenJob, Member] = LeastLoaded(concurrency, _is_open, _priority)
        self._route = Route(_runs_elsewhere, "a member", limiter=self.balancer)
        self.own_jobs: frozenset[str] = frozenset()
        self.max_waiting: float = max_waiting
        self.given_up: tuple[JobStatus, dict[str, Any]] | None = None
        self.shared_name: str | None = None
        self.tell_load: Callable[[int], None] | None = None
        self._telling = False

    def share(self, name: str, tell_load: Callable[[int], None]) -> None:
        """Answer in a name that others share, and tell how busy the pool is.

        Args:
            name: The name.
            tell_load: Called with how many jobs there are, at most every `LOAD_SECONDS`.
        """
        self.shared_name = name
        self.tell_load = tell_load

    def request(self, message: BusJobRequestMessage) -> None:
        """Start a job, or say at once why not."""
        options = message.options
        if options is not None and options.asked_as is not None:
            message = _asked_as(options.asked_as, message)
        super().request(message)
        if self.tell_load is not None:
            self._load_changed()

    def _forget(self, job: OpenJob) -> None:
        super()._forget(job)
        if self.tell_load is not None:
            self._load_changed()

    def _load_changed(self) -> None:
        if not self._telling:
            self._telling = True
            self._call_at(current_time() + LOAD_SECONDS, self._tell_load)

    def _tell_load(self) -> None:
        self._telling = False
        assert self.tell_load is not None
        self.tell_load(len(self.jobs))

    # --- members

    def join(self, member: Member) -> None:
        """Let a member have jobs, and give it the first in line."""
        self.balancer.join(member)
        following = self.balancer.following()
        while following is not None:
            self._give(following)
            following = self.balancer.following()

    def leave_out(self, member: Member) -> None:
        """Give a member no more jobs."""
        self.balancer.leave_out(member)

    def retire(self, member: Member, let_go: Callable[[], None]) -> None:
        """Give a member no more jobs, and call a function when those are over that it has."""
        member.let_go = let_go
        self.balancer.leave_out(member)
        if not self.balancer.load_of(member):
            let_go()

    def give_up(self, status: JobStatus, payload: dict[str, Any]) -> None:
        """Answer all that waits, be it for its delay to pass: no member will take a job any more."""
        self.given_up = status, payload
        waiting = [job for job in self.jobs.values() if job.route is self._route and job.state is JobState.QUEUED]
        for job in waiting:
            self._move(job, JobTrigger.CANCEL)
            self._answer(job, status, payload)

    # --- jobs

    def _find_member(self, message: BusJobRequestMessage) -> Route:
        if message.job_name in self.own_jobs:
            return self._find_own(message)
        if self.given_up is not None:
            raise Refused(*self.given_up)
        if self.balancer.waiting >= self.max_waiting and not self.balancer.has_room():
            waiting = f"{self.balancer.waiting} jobs wait for a member already"
            text = f"pool {self._name!r} is full: {waiting} (max_waiting)"
            raise Refused(JobStatus.FAILED, {"error": text, "type": "PoolFull"})
        return self._route

    def _give(self, job: OpenJob) -> None:
        # A member may refuse a job in the step in which it gets it, and its place goes to the next one: in a loop, and
        # not one call within the other, as any number may stand in line.
        if self._giving:
            self._due.append(job)
            return
        self._giving = True
        try:
            self._give_now(job)
            while self._due:
                self._give_now(self._due.popleft())
        finally:
            self._giving = False

    def _give_now(self, job: OpenJob) -> None:
        if job.route is not self._route:
            self.pool.submit(job)
        elif job.state is JobState.QUEUED:
            job.state = next_job(job.state, JobTrigger.START)
            member = self.balancer.member_of(job)
            assignment = job.scope = _Assignment(self, job, member)
            member.server.take(job, assignment)

    def window_moved(self, message: BusJobStreamWindowMessage) -> None:
        """Let more of a job's stream be sent."""
        member = self._member_with(message.job_id)
        if member is None:
            super().window_moved(message)
        else:
            member.server.window_moved(message)

    def update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Pass on that the requester wants to know how a job is getting on."""
        super().update_requested(message)
        member = self._member_with(message.job_id)
        if member is not None:
            member.server.update_requested(message)

    def snapshots(self) -> tuple[JobSnapshot, ...]:
        """Return a snapshot of each open job that no member has; a member has it among its own."""
        return tuple(each for each in super().snapshots() if self._member_with(each.job_id) is None)

    def _member_with(self, job_id: str) -> Member | None:
        job = self.jobs.get(job_id)
        return job.scope.member if job is not None and isinstance(job.scope, _Assignment) else None

    # --- what members say

    def member_is_through(self, job: OpenJob, member: Member) -> None:
        """Note that no handler runs for a job any more; its place is free."""
        job.scope = None
        self._move(job, JobTrigger.FINISH)
        if member.let_go is not None and not self.balancer.load_of(member):
            member.let_go()

    def member_answered(
        self, job: OpenJob, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool, stream_end: bool
    ) -> None:
        """Answer a job as its member does; after a cancel, as that says."""
        if job.request.job_id not in self.jobs:
            return  # the pool had to answer without its member
        if job.state in OPEN_JOBS:
            self._move(job, JobTrigger.ANSWER)  # and its handler goes on
        if job.verdict is not None:
            status, stream_end = job.verdict[0], False
        self._answer(job, status, response, urgent=urgent, stream_end=stream_end)


class _Assignment:
    """A job that a member has: what the pool cancels it by, and what the member answers to.

    Attributes:
        member: The member.
        deadline: For whoever sets one; the member looks after the job's time.
    """

    __slots__ = ("_job", "_pool", "deadline", "member")

    def __init__(self, pool: PoolJobs, job: OpenJob, member: Member) -> None:
        self._pool = pool
        self._job = job
        self.member = member
        self.deadline: float = math.inf

    @property
    def line(self) -> list[OpenJob]:
        return self._pool.balancer.line

    def cancel(self) -> None:
        request, verdict = self._job.request, self._job.verdict
        reason = None if verdict is None else str(verdict[1].get("error"))
        self.member.server.cancel(cancel_of(request, reason), None)

    def over(self) -> None:
        self._pool.member_is_through(self._job, self.member)

    def answered(
        self, status: JobStatus, response: dict[str, Any] | None, *, urgent: bool = False, stream_end: bool = False
    ) -> None:
        counts = self.member.answered
        counts[status] = counts.get(status, 0) + 1
        self._pool.member_answered(self._job, status, response, urgent=urgent, stream_end=stream_end)


def _is_open(member: Member) -> bool:
    return member.is_open()


def _priority(job: OpenJob) -> int:
    options = job.request.options
    return 0 if options is None else options.priority


async def _runs_elsewhere(_message: BusJobRequestMessage) -> None:
    raise NotImplementedError("a member runs it")


def _asked_as(name: str, message: BusJobRequestMessage) -> BusJobRequestMessage:
    """Return a request as one that was sent to another name: that in which it is answered."""
    peer = peer_of(message)
    message = attrs.evolve(message, target=name)  # type: ignore[misc]  # a decorated base class
    if peer is not None:
        set_peer(message, peer)
    return message
