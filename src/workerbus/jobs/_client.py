"""The side that asks, and waits until it may leave (J1, J4-J6, J8, J14).

All that waits is here, and runs in the task of who asks. What moves a group meanwhile is in `_group_table`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
from anyio import CancelScope, current_time, get_cancelled_exc_class, move_on_after, move_on_at

from workerbus._concurrency.failures import is_being_cancelled
from workerbus._concurrency.waiting import enumerated, waits
from workerbus._log import about
from workerbus._values import JobStatus, WorkerGoneData, WorkerReadyData
from workerbus.abc import JobPeer
from workerbus.errors import NotRunningError
from workerbus.jobs._group import JobGroup
from workerbus.jobs._group_table import CLOCK_SKEW, GroupTable
from workerbus.jobs._state import LEFT, TIMEOUT, GroupState, GroupTrigger
from workerbus.messages import BusJobRequestMessage, BusJobUpdateRequestMessage, JobRequestOptions

logger = logging.getLogger("workerbus.jobs")

WARN_AFTER: Final = 5.0
"""After this many seconds a requester says in the log for whom it waits."""


class JobClient(GroupTable):
    """The jobs that a worker or a runner has asked for.

    Attributes:
        requested: How many requests were sent.
    """

    __slots__ = ("requested",)

    def __init__(self, owner: JobPeer) -> None:
        super().__init__(owner)
        self.requested: int = 0

    def check_running(self) -> None:
        """Raise `NotRunningError` unless the owner is running, and `WrongLoopError` where it is not."""
        self._owner.check_running()
        self._owner.bus.check_loop(f"requester {self._name!r}")
        if self.closed:
            raise NotRunningError(f"{self._name!r} is not running any more: it asks for no more jobs")

    def leaves_it_to_the_context(self) -> bool:
        """Whether a job that cannot be asked for is refused by its context, and not where that is made.

        A task that is being cancelled may not have heard of it yet, since it was shielded or waited for a thread. It
        hears of it from the context, before that it cannot ask any more.
        """
        return self.closed and is_being_cancelled()

    def check_loop(self, job_id: str) -> None:
        """Raise `WrongLoopError` if there is such a group, and this is another thread or event loop than its own."""
        if job_id in self.groups:
            self._owner.bus.check_loop(f"requester {self._name!r}")

    async def ask(
        self,
        group: JobGroup,
        job_name: str | None,
        payload: Mapping[str, Any] | None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Wait for the workers and send them their requests, those that are in ``payloads`` with their own."""
        known, source = self._owner.registry.get, self._name
        send = partial(self._send_traced, group) if self.taps else self._owner.send
        job_id, headers, options, left = group.job_id, group.headers, group.options, None
        group.job_name = job_name
        payload = {} if payload is None else payload  # not by its truth, which may be of its own
        names: Sequence[str] = group.worker_names
        for worker in names:
            if known(worker) is None:
                await self._wait_for(worker, group)
        if group.responses:
            names = [worker for worker in names if worker in group.pending]  # the others have failed
        group.request_deadline = deadline = min(group.deadline, self._enclosing_deadline())
        noted = logger.isEnabledFor(logging.DEBUG)
        parts: dict[str, str] = {}  # of shared pools: as what each is asked, since two requests of one id are one job
        for worker in names:
            there = self._there(worker) or await self._wait_for(worker, group)  # it left while others were asked
            if group.state is not GroupState.OPEN:
                return
            if there is None or (there.pool is not None and self._is_asked_already(worker, there, group, parts)):
                continue
            if deadline != math.inf:
                left = max(0.0, deadline - current_time())
            own = payload if payloads is None else payloads.get(worker, payload)
            own = {} if own is None else own
            request = BusJobRequestMessage(
                job_id,
                job_name,
                own,
                left,
                source=source,
                target=there.worker_name,
                headers=headers,
                options=options if there.pool != worker else as_shared(options, worker),
            )
            group.asks(worker, there, self._asking, self)
            self.requested += 1
            if noted:
                self._note(group, "%r asks worker %r for job %r (%s)", self._name, worker, job_name, job_id)
            try:
                await send(request)
            except BaseException:
                # The request is withdrawn; whether the worker has it, nobody here knows. 1. It has not: it will never
                # answer, so nobody may wait for that, and the cancel changes nothing. 2. It has, or a network brings it
                # yet: the cancel ends the job, and the answer is ignored.
                if worker in group.pending:  # 3. else it has answered, while `send` was still waiting for others
                    group.takes_back(worker, self._asking)
                    self._tell([there.worker_name], group, "the request was withdrawn")
                raise
        if not group.worker_names:
            self._complete(group, None)

    async def _send_traced(self, group: JobGroup, request: BusJobRequestMessage) -> None:
        bus, error = self._owner.bus, None
        headers = bus.headers_of_job("job_sends", self._name, request.headers, group, request)
        if headers is not request.headers:
            request = attrs.evolve(request, headers=headers)  # type: ignore[misc]  # a decorated base class
        try:
            await self._owner.send(request)
        except BaseException as exc:
            error = exc
            raise
        finally:
            bus.tell_of_job("job_sent", self._name, request, error)

    async def _wait_for(self, worker: str, group: JobGroup) -> WorkerReadyData | None:
        """Wait until a worker is there, or the group wants nothing more of it; returns None if it has failed."""
        registry, outer, patience = self._owner.registry, group.scope, WARN_AFTER
        news: WorkerGoneData | None = None
        while group.state is GroupState.OPEN and registry.get(worker) is None:
            failure = news or registry.failure_of(worker)
            if failure is not None:
                response = {"error": f"worker {worker!r} has failed: {failure.error}", "type": "WorkerFailed"}
                self._answered(group, group.answer(worker, JobStatus.ERROR, response, to=self._name), response)
                return None
            with move_on_after(patience) as scope:
                group.scope = scope if outer is None else outer
                try:
                    news = await registry.wait_for_news(worker)
                finally:
                    group.scope = outer
            if scope.cancelled_caught and group.state is GroupState.OPEN and registry.get(worker) is None:
                logger.warning(
                    "%r still waits for %s",
                    self._name,
                    self._absent(worker, ", which is not there"),
                    extra=self._owner.about,
                )
                patience = math.inf
        return self._there(worker)

    def _there(self, worker: str) -> WorkerReadyData | None:
        """Return who is to be asked by a name; of several that share it, the least busy."""
        registry = self._owner.registry
        data = registry.get(worker)
        return data if data is None or data.pool != worker else registry.choose(worker)

    def _is_asked_already(self, worker: str, there: WorkerReadyData, group: JobGroup, parts: dict[str, str]) -> bool:
        """Whether a group has asked a part of a shared pool by its other name; answers in its place where it has."""
        other = parts.setdefault(there.worker_name, worker)
        if other == worker:
            return False
        text = f"{worker!r} is worker {there.worker_name!r}, which was asked for this job already, as {other!r}"
        response = {"error": text, "type": "Refused"}
        self._answered(group, group.answer(worker, JobStatus.FAILED, response, to=self._name), response)
        return True

    async def ask_without_context(
        self,
        group: JobGroup,
        job_name: str | None,
        payload: Mapping[str, Any] | None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> JobGroup:
        """Ask, and enforce the group's deadline, for code that does not wait for the answers."""
        scope = group.scope = CancelScope(deadline=group.deadline)
        try:
            with scope:
                await self.ask(group, job_name, payload, payloads)
                if group.request_deadline != math.inf and group.state is GroupState.OPEN:
                    self._owner.tasks.start(self._watch_deadline, group, name=f"{self._name} job timeout")
                return group
            self._settle(group, GroupTrigger.TIME_UP, TIMEOUT)
            error = group.error()
            if error is not None and group.state is not GroupState.FAILED:  # a failure is told by the hooks
                raise error
            return group
        except BaseException as exc:
            self._settle(group, GroupTrigger.CANCEL, f"{type(exc).__name__} while asking")
            raise
        finally:
            group.scope = None
            self._forget_if_over(group)

    async def _watch_deadline(self, group: JobGroup) -> None:
        if await self._over_by(group.request_deadline, group):
            return
        if group.request_deadline < group.deadline:
            self._tell(group.unanswered, group, TIMEOUT)  # an enclosing scope's deadline is no timeout of the job's
            if await self._over_by(group.deadline, group):
                return
        self._time_up(group)

    async def _over_by(self, deadline: float, group: JobGroup) -> bool:
        with move_on_at(deadline):
            while group.state is GroupState.OPEN:
                await group.change()
            return True
        return False

    async def leave(self, group: JobGroup, exc: BaseException | None) -> None:
        """Leave a context: tell the workers that have not answered, wait for them, and forget the group."""
        try:
            if group.state is GroupState.OPEN:
                if group.scope is not None and group.scope.cancel_called:
                    self._time_up(group)  # 1. by its deadline: whatever else cancels the scope settles the group first
                else:  # 2. the body has raised, or was cancelled from outside
                    self._settle(group, GroupTrigger.CANCEL, *_why(exc, group))
            if group.waits:  # 3. told now or before, they may be using what the requester closes next
                await self._wait_for_answers(group, exc)
        finally:
            self.forget(group)

    async def _wait_for_answers(self, group: JobGroup, exc: BaseException | None) -> None:
        deadline = self._owner.clean_up.deadline(exc)
        cancelled: BaseException | None = None
        while group.waits:
            try:
                with self._owner.clean_up.shield(deadline) as shield:
                    await group.change()
            except get_cancelled_exc_class() as native:
                cancelled = native  # a Task.cancel() goes through a shield: it is raised when the wait is over
            else:
                if shield.cancelled_caught:
                    logger.warning(
                        "%r leaves job %s without an answer from %s, still busy after its cancellation",
                        self._name, group.job_id, enumerated(sorted(group.unanswered)),
                        extra=about(**self._owner.about, job=group.job_id),
                    )  # fmt: skip
                    break
        if cancelled is not None:
            raise cancelled

    waits(_wait_for_answers, lambda its: its["group"].in_words())

    async def request_update(self, job_id: str, worker_name: str) -> None:
        """Ask a worker of a group how its job is getting on."""
        group = self.groups.get(job_id)
        if group is None:
            return
        if worker_name not in group.worker_names:
            known = enumerated([*map(repr, group.worker_names)])
            raise ValueError(f"worker {worker_name!r} was not asked for job {job_id}; asked were {known}")
        if group.waits_for(worker_name):
            target = group.address(worker_name)
            message = BusJobUpdateRequestMessage(job_id, source=self._name, target=target, headers=group.headers)
            await self._owner.send(message)


def _why(exc: BaseException | None, group: JobGroup) -> tuple[str, str]:
    """Return the reason for which a context was left, and what the log says of it."""
    if not isinstance(exc, get_cancelled_exc_class()):
        return LEFT, f"the requester failed: {type(exc).__name__}"
    reason = TIMEOUT if group.request_deadline <= current_time() + CLOCK_SKEW else LEFT
    return reason, "the requester was cancelled"


def as_shared(options: JobRequestOptions | None, name: str) -> JobRequestOptions:
    """Return the options of a request that goes to one of several pools which share a name."""
    return attrs.evolve(options or JobRequestOptions(), asked_as=name)  # type: ignore[misc]  # a decorated base class
