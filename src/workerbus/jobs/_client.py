"""The side that asks: one table of job groups by job id, and the messages that move them (J1-J8, J12, J16).

A group is in the table before its first request leaves, and out of it when everybody who was asked has answered or the
requester's context has been left. Handling a message is synchronous: the table decides, then hooks are queued, scopes
cancelled and messages posted. Only `ask` and `leave` wait, and they belong to the requester.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from anyio import (
    CancelScope,
    Event,
    current_effective_deadline,
    current_time,
    get_cancelled_exc_class,
    move_on_after,
    move_on_at,
    sleep,
)

from workerbus._lifetime import event_class, running_backend, scope_class
from workerbus._vocabulary import JobStatus, id_source
from workerbus.abc import Fence, HookCall, JobPeer
from workerbus.bus._core import never_waits
from workerbus.errors import NotRunningError
from workerbus.jobs._checks import Response, repaired
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import Ask, AskEvent, next_ask
from workerbus.jobs._types import JobGroupEvent, JobGroupResponse
from workerbus.messages import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
)

logger = logging.getLogger("workerbus")

TIMEOUT: Final = "timeout"
PATIENCE: Final = 5.0
"""After this many seconds a requester says in the log for whom it waits (J1)."""
SAME_TIME: Final = 0.001

_new_id = id_source()


class JobClient:
    """The jobs that a worker or a runner has asked for.

    Args:
        owner: Whose jobs they are.

    Attributes:
        requested: How many requests were sent (O2).
        never_waits: Whether a request never waits to be sent, as far as that is known: from the first job on.
    """

    __slots__ = (
        "_enclosing_deadline",
        "_name",
        "_new_event",
        "_owner",
        "closed",
        "groups",
        "ignored",
        "never_waits",
        "new_scope",
        "requested",
    )

    def __init__(self, owner: JobPeer) -> None:
        self._owner = owner
        self._name = owner.name
        self._new_event: type[Event] | None = None
        self._enclosing_deadline: Callable[[], float] = current_effective_deadline
        self.new_scope: type[CancelScope] = CancelScope
        self.never_waits: bool = False
        self.groups: dict[str, JobGroup] = {}
        self.ignored: int = 0
        self.requested: int = 0
        self.closed: bool = False

    # --- asking

    def check_running(self) -> None:
        """Raise `NotRunningError` unless the owner is running (J14)."""
        self._owner.check_running()
        if self.closed:
            raise NotRunningError(f"{self._name!r} is not running any more: it asks for no more jobs")

    def new_group(
        self,
        worker_names: Sequence[str],
        *,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        single: bool = False,
        in_context: bool = False,
    ) -> JobGroup:
        """Put a new group into the table; its time starts now."""
        if self._new_event is None:
            self._new_event, self.new_scope = event_class(), scope_class()
            self._enclosing_deadline = running_backend().current_effective_deadline
            self.never_waits = never_waits(self._owner.bus)
        group = JobGroup(
            _new_id(),
            worker_names,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
            single=single,
            in_context=in_context,
            new_event=self._new_event,
        )
        if timeout is not None:
            group.deadline = current_time() + timeout
        if not self.groups:
            self._owner.asking(self, True)
        self.groups[group.job_id] = group
        return group

    async def ask(self, group: JobGroup, job_name: str | None, payload: dict[str, Any] | None) -> None:
        """Wait for the workers and send them their requests (J6)."""
        known, bus, source = self._owner.registry.get, self._owner.bus, self._name
        for worker in group.worker_names:
            if known(worker) is None:
                await self._wait_for(worker, group)
        group.travels = deadline = min(group.deadline, self._enclosing_deadline())
        for worker in group.worker_names:
            if known(worker) is None:
                await self._wait_for(worker, group)  # it left while others were being asked
            if group.state is not Ask.OPEN:
                return
            left = None if deadline == math.inf else max(0.0, deadline - current_time())
            request = BusJobRequestMessage(
                group.job_id, job_name, payload, left, source=source, target=worker, headers=group.headers
            )
            group.asked.add(worker)
            self.requested += 1
            try:
                await bus.send(request)
            except BaseException:
                if worker in group.missing:
                    # It may have got the request, or not: tell it, but do not wait for an answer.
                    group.asked.discard(worker)
                    self._tell([worker], group, "the request was withdrawn")
                raise
        if not group.worker_names:
            self._complete(group, None)

    async def _wait_for(self, worker: str, group: JobGroup) -> None:
        """Wait until a worker is there, or the group wants nothing more of it."""
        registry, outer, patience = self._owner.registry, group.scope, PATIENCE
        while group.state is Ask.OPEN and registry.get(worker) is None:
            with move_on_after(patience) as scope:
                group.scope = scope if outer is None else outer
                try:
                    await registry.wait_for(worker)
                finally:
                    group.scope = outer
            if scope.cancelled_caught and group.state is Ask.OPEN:
                near = registry.near(worker)
                logger.warning("%r still waits for worker %r, which is not there; %s", self._name, worker, near)
                patience = math.inf

    async def ask_without_context(
        self, group: JobGroup, job_name: str | None, payload: dict[str, Any] | None
    ) -> JobGroup:
        """Ask, and see to the group's deadline, for code that does not wait for the answers."""
        scope = group.scope = CancelScope(deadline=group.deadline)
        try:
            with scope:
                await self.ask(group, job_name, payload)
                if group.travels != math.inf and group.state is Ask.OPEN:
                    self._owner.tasks.start(self._watch_deadline, group, name=f"{self._name} job timeout")
                return group
            self._settle(group, AskEvent.TIME_UP, TIMEOUT)
            error = group.error()
            if error is not None and group.state is not Ask.FAILED:  # of that one, the hooks tell
                raise error
            return group
        except BaseException as exc:
            self._settle(group, AskEvent.CANCEL, f"{type(exc).__name__} while asking")
            raise
        finally:
            group.scope = None
            self._forget_if_over(group)

    async def _watch_deadline(self, group: JobGroup) -> None:
        if await self._over_by(group.travels, group):
            return
        if (
            group.travels < group.deadline
        ):  # an enclosing scope's: it ends the work, and is no timeout of the job's (J6)
            self._tell(group.unanswered, group, TIMEOUT)
            if await self._over_by(group.deadline, group):
                return
        self._time_up(group)

    async def _over_by(self, deadline: float, group: JobGroup) -> bool:
        with move_on_at(deadline):
            while group.state is Ask.OPEN:
                await group.change()
            return True
        return False

    async def leave(self, group: JobGroup, exc: BaseException | None) -> None:
        """Leave a context: tell who has not answered, wait for them, and forget the group (J5)."""
        try:
            if group.state is Ask.OPEN:
                if (
                    group.scope is not None and group.scope.cancel_called
                ):  # by its deadline: nothing else leaves it open
                    self._time_up(group)
                else:
                    self._settle(group, AskEvent.CANCEL, _why(exc, group))
            if group.waits:
                await self._wait_for_answers(group, exc)
        finally:
            self.forget(group)

    async def _wait_for_answers(self, group: JobGroup, exc: BaseException | None) -> None:
        deadline = self._owner.clean_up.deadline(exc)
        cancelled: BaseException | None = None
        while group.waits:
            try:
                with self._owner.clean_up.shield(deadline) as shield:
                    while group.waits:
                        await group.change()
            except get_cancelled_exc_class() as native:
                cancelled = native  # a Task.cancel() goes through a shield: it may, but only at the end (J5)
            else:
                if shield.cancelled_caught:
                    logger.warning(
                        "%r leaves job %s without an answer from %s, still busy after its cancellation",
                        self._name, group.job_id, ", ".join(sorted(group.unanswered)),
                    )  # fmt: skip
                    break
        if cancelled is not None:
            raise cancelled

    # --- what moves a group

    def _settle(self, group: JobGroup, event: AskEvent, reason: str | None = None) -> bool:
        """Let the table decide; if the group's state changes, act on it. Returns whether it did."""
        state = next_ask(group.state, event)
        if state is group.state:
            return False
        group.state = state
        group.reason = reason
        if state is Ask.TIMED_OUT:
            group.detail = self._late(group)
        if state is not Ask.COMPLETED:
            self._tell(group.unanswered, group, reason)
            if group.scope is not None:
                group.scope.cancel()
        elif group.scope is not None and group.deadline != math.inf:
            group.scope.deadline = math.inf  # the deadline was the job's; the body may go on
        group.notify()
        return True

    def _late(self, group: JobGroup) -> str:
        registry = self._owner.registry
        missing = [name for name in group.worker_names if name in group.missing and registry.get(name) is None]
        texts = [f"worker {name!r} was not there; {registry.near(name)}" for name in missing[:1]]
        # Those whose clock was a moment ahead have said so themselves: it is the same thing.
        late = group.unanswered.union(
            name for name, answer in group.responses.items() if answer.get("error") == TIMEOUT
        )
        if late:
            texts.append(f"no answer from {', '.join(map(repr, sorted(late)[:5]))}")
        return "; ".join(texts)

    def _tell(self, workers: Sequence[str] | set[str], group: JobGroup, reason: str | None) -> None:
        bus, source = self._owner.bus, self._name
        for worker in list(workers):
            bus.post(BusJobCancelMessage(group.job_id, reason, source=source, target=worker, headers=group.headers))

    def _time_up(self, group: JobGroup, by: str | None = None) -> None:
        late = [by] if by else sorted(group.missing) or group.worker_names
        if self._settle(group, AskEvent.TIME_UP, TIMEOUT) and "on_job_error" in self._owner.hooks.wanted and late:
            response = {"error": TIMEOUT, "type": "TimeoutError"}
            message = group.answer(late[0], JobStatus.CANCELLED, response, to=self._name)
            self._queue_last(group, "on_job_error", message, message)
        self._forget_if_over(group)

    def cancel(self, job_id: str, reason: str | None) -> bool:
        """Cancel a group by its id; returns whether there was one to cancel."""
        group = self.groups.get(job_id)
        if group is None:
            return False
        cancelled = self._settle(group, AskEvent.CANCEL, reason or "cancelled by the requester")
        self._forget_if_over(group)
        return cancelled

    def close(self, reason: str) -> None:
        """Cancel every group, and ask for nothing more."""
        self.closed = True
        self.cancel_all(reason)

    def cancel_all(self, reason: str) -> None:
        """Cancel every group: the owner stops (W6)."""
        for job_id in list(self.groups):
            self.cancel(job_id, reason)

    async def quiet(self) -> None:
        """Wait until all who were asked have answered."""
        for group in list(self.groups.values()):
            while group.waits:
                await group.change()

    def worker_departed(self, worker: str, group: JobGroup) -> None:
        """Answer in the place of a worker that has gone, if it has not done so itself (J4)."""
        if worker in group.unanswered and self.groups.get(group.job_id) is group:
            response = {"error": f"worker {worker!r} left without an answer", "type": "WorkerGone"}
            self._answered(group, group.answer(worker, JobStatus.ERROR, response, to=self._name), response)

    def _forget_if_over(self, group: JobGroup) -> None:
        if not group.in_context and group.state is not Ask.OPEN and not group.waits:
            self.forget(group)

    def forget(self, group: JobGroup) -> None:
        """Take a group out of the table."""
        if self.groups.pop(group.job_id, None) is not None and not self.groups:
            self._owner.asking(self, False)

    # --- messages

    def handle(self, message: BusMessage) -> None:
        """Handle an answer, an update or a stream message."""
        self.HANDLERS[type(message)](self, message)

    def _group_of(self, message: Any) -> JobGroup | None:
        group = self.groups.get(message.job_id)
        if group is None or message.source not in group.asked or message.source not in group.missing:
            self.ignored += 1  # a stranger, or after the one answer that counts (J7, J12)
            return None
        return group

    def _on_response(self, message: Response) -> None:
        group = self._group_of(message)
        if group is not None:
            self._answered(group, message, message.response or {})

    def _on_stream_end(self, message: BusJobStreamEndMessage) -> None:
        group = self._group_of(message)
        if group is None:
            return
        if group.state is Ask.OPEN:
            self._event(group, JobGroupEvent.STREAM_END, message, message.data)
        response = group.answer(message.source, JobStatus.COMPLETED, message.data, to=self._name)
        self._answered(group, response, message.data or {}, hook="on_job_stream_end", cause=message)

    def _answered(
        self,
        group: JobGroup,
        message: Response,
        response: dict[str, Any],
        hook: str = "on_job_response",
        cause: BusMessage | None = None,
    ) -> None:
        worker, status = message.source, message.status
        if type(status) is not JobStatus or not isinstance(response, dict):
            # Not of this library's making: whatever it says, the requester gets an outcome (J1).
            message = repaired(message)
            status, response = message.status, message.response or {}
        group.missing.discard(worker)
        group.statuses[worker] = status
        group.responses[worker] = response
        if group.state is Ask.OPEN:
            hooks = self._owner.hooks
            if hook in hooks.wanted:
                if group.fence is None:
                    group.fence = Fence()
                group.fence.pending += 1
                told = cause or message
                hooks.add(HookCall(hook, (told,), told, fence=group.fence), system=bool(message.system))
            self._judge(group, message, response)
        group.notify()
        if not group.in_context:
            self._forget_if_over(group)

    def _judge(self, group: JobGroup, message: Response, response: dict[str, Any]) -> None:
        if message.status is not JobStatus.COMPLETED:
            now = current_time()
            if message.status is JobStatus.CANCELLED and (response.get("error") == TIMEOUT or group.travels <= now):
                soon = now + SAME_TIME
                if group.deadline <= soon:
                    self._time_up(group, message.source)  # the worker's clock was a moment ahead of ours (J6)
                    return
                if group.in_context and group.travels <= soon:
                    group.doubtful = message  # an enclosing scope's deadline: its own cancellation should be on its way
                    self._owner.tasks.start(self._wait_for_it, group, name=f"{self._name} doubt")
                    return
            if group.cancel_on_error:
                text = response.get("error") or response.get("reason") or "no reason given"
                self._settle(group, AskEvent.BAD_ANSWER, f"worker {message.source!r} answered {message.status}: {text}")
                if "on_job_error" in self._owner.hooks.wanted:
                    self._queue_last(group, "on_job_error", message, message)
                return
        if group.missing or group.doubtful is not None:
            return
        if group.scope is not None and group.scope.cancel_called:
            self._time_up(group)  # its deadline has passed, and the body is being cancelled already
        else:
            self._complete(group, message)

    async def _wait_for_it(self, group: JobGroup) -> None:
        # A worker has timed out for a scope that has more time now, perhaps: then its answer counts as any other (J6).
        await sleep(2 * SAME_TIME)
        message, group.doubtful = group.doubtful, None
        if message is not None and group.state is Ask.OPEN:
            group.travels = math.inf
            self._judge(group, message, message.response or {})

    def _complete(self, group: JobGroup, cause: BusMessage | None) -> None:
        if self._settle(group, AskEvent.LAST_ANSWER) and "on_job_completed" in self._owner.hooks.wanted:
            result = JobGroupResponse(group.job_id, group.in_order(group.responses), group.in_order(group.statuses))
            self._queue_last(group, "on_job_completed", result, cause)

    def _queue_last(self, group: JobGroup, hook: str, argument: object, cause: BusMessage | None) -> None:
        system = cause is not None and bool(cause.system)
        self._owner.hooks.add_last(HookCall(hook, (argument,), cause), group.fence, system=system)

    def _event(self, group: JobGroup, kind: str, message: BusMessage, data: dict[str, Any] | None) -> None:
        if group.collects:
            if group.events is None:
                group.events = deque()
            group.events.append((kind, message.source, data))
            group.notify()

    def _on_update(self, message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is Ask.OPEN:
            self._event(group, JobGroupEvent.UPDATE, message, message.update)
            self._hook("on_job_update", message)

    def _on_stream_start(self, message: BusJobStreamStartMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is Ask.OPEN:
            self._event(group, JobGroupEvent.STREAM_START, message, message.data)
            self._hook("on_job_stream_start", message)

    def _on_stream_data(self, message: BusJobStreamDataMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is Ask.OPEN:
            if group.collects:
                self._event(group, JobGroupEvent.STREAM_DATA, message, message.data)
            if "on_job_stream_data" in self._owner.hooks.wanted:
                self._hook("on_job_stream_data", message)

    def _hook(self, name: str, message: BusMessage) -> None:
        if name in self._owner.hooks.wanted:
            self._owner.hooks.add(HookCall(name, (message,), message), system=bool(message.system))

    # --- requests about a job

    async def request_update(self, job_id: str, worker_name: str) -> None:
        """Ask a worker of a group how it is getting on."""
        group = self.groups.get(job_id)
        if group is None:
            return
        if worker_name not in group.worker_names:
            known = ", ".join(map(repr, group.worker_names))
            raise ValueError(f"worker {worker_name!r} was not asked for job {job_id}; asked were {known}")
        if worker_name in group.unanswered:
            message = BusJobUpdateRequestMessage(job_id, source=self._name, target=worker_name, headers=group.headers)
            await self._owner.bus.send(message)

    HANDLERS: ClassVar[Mapping[type[BusMessage], Callable[["JobClient", Any], None]]] = {
        BusJobResponseMessage: _on_response,
        BusJobResponseUrgentMessage: _on_response,
        BusJobUpdateMessage: _on_update,
        BusJobUpdateUrgentMessage: _on_update,
        BusJobStreamStartMessage: _on_stream_start,
        BusJobStreamDataMessage: _on_stream_data,
        BusJobStreamEndMessage: _on_stream_end,
    }


def _why(exc: BaseException | None, group: JobGroup) -> str:
    if isinstance(exc, get_cancelled_exc_class()):
        return TIMEOUT if group.travels <= current_time() + SAME_TIME else "the requester was cancelled"
    return f"the requester failed: {type(exc).__name__}"
