"""The table of a requester's job groups by job id, and what moves them (J1-J4, J6-J8, J11, J12, J16, J19-J21).

A group is in the table before its first request leaves, and out of it when everybody who was asked has answered or the
requester's context has been left. It is moved by answers, by time, and by its owner, and nothing here waits: the table
of states decides, then hooks are queued, scopes cancelled and messages posted. A timeout is seen by two clocks, of
which either may be a moment ahead: the outcome is the same (`_judge`). How a group is asked for is not known here.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from anyio import CancelScope, Event, current_effective_deadline, current_time, get_current_task, sleep

from workerbus._concurrency.backend import event_class, running_backend, scope_class, task_getter
from workerbus._concurrency.handling import current
from workerbus._log import about
from workerbus._order import id_source
from workerbus._values import JobStatus
from workerbus.abc import Barrier, HookCall, JobPeer, OpenAsks
from workerbus.errors import encodable
from workerbus.jobs._checks import Response, answered, repaired
from workerbus.jobs._events import JobGroupEvent, JobGroupResponse
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import TIMEOUT, GroupState, GroupTrigger, next_group
from workerbus.jobs._window import EventQueue
from workerbus.jobs._words import bad_answer
from workerbus.messages import (
    BusJobCancelMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    JobRequestOptions,
)

logger = logging.getLogger("workerbus.jobs")

CLOCK_SKEW: Final = 0.001
"""How many seconds a worker's clock may be ahead of the requester's, so that it sees the same deadline earlier."""

_new_id = id_source()


class GroupTable:
    """The jobs that a worker or a runner has asked for, and that are not forgotten.

    Args:
        owner: The worker or runner.

    Attributes:
        groups: Job id to the group.
        never_waits: Whether a request never waits to be sent; False until the first job, when the bus is known.
        new_scope: The running backend's class of cancel scopes, once there was a job.
        running_task: Returns the running task, quickly once there was a job.
        ignored: How many answers, updates and stream events came from workers from which none were due.
        taps: Who is told what becomes of jobs; empty until the first job, when the bus is known.
        closed: Whether the owner stops, and asks for nothing more.
        _all_groups: The open groups of this process, where lanes are bounded; else None.
        _no_groups: Set when no group is left; made by who waits for that.
    """

    __slots__ = (
        "_all_groups", "_asking", "_enclosing_deadline", "_name", "_new_event", "_no_groups", "_owner", "closed",
        "groups", "ignored", "never_waits", "new_scope", "running_task", "taps",
    )  # fmt: skip

    def __init__(self, owner: JobPeer) -> None:
        self._owner = owner
        self._name = owner.name
        self._new_event: type[Event] | None = None
        self.new_scope: type[CancelScope] = CancelScope
        self.running_task: Callable[[], Any] = get_current_task
        self.never_waits: bool = False
        self._enclosing_deadline: Callable[[], float] = current_effective_deadline
        self.groups: dict[str, JobGroup] = {}
        self._all_groups: dict[str, JobGroup] | None = None
        self._no_groups: Event | None = None
        self._asking: OpenAsks = {}
        self.taps: Sequence[Any] = ()
        self.ignored: int = 0
        self.closed: bool = False

    def new_group(
        self,
        worker_names: Sequence[str],
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        options: JobRequestOptions | None = None,
        single: bool = False,
        *,
        in_context: bool = False,
    ) -> JobGroup:
        """Put a new group into the table; its time starts now."""
        if self._new_event is None:
            self._new_event, self.new_scope, self.running_task = event_class(), scope_class(), task_getter()
            self._asking = self._owner.asking
            self._enclosing_deadline = running_backend().current_effective_deadline
            self.never_waits = self._owner.bus.accepts_at_once and self._owner.sends_by_bus
            self._all_groups = self._owner.bus.job_groups
            self.taps = self._owner.bus.job_taps
            self._owner.speak()
        # By position, as contexts are made: by keyword, a call of a class takes half a microsecond more.
        group = JobGroup(
            _new_id(),
            worker_names,
            cancel_on_error,
            label,
            cancellable,
            headers,
            single,
            in_context,
            options,
            self._new_event,
        )
        if timeout is not None:
            group.timeout = timeout
            group.deadline = current_time() + timeout
        self.groups[group.job_id] = group
        if self.taps:
            group.headers = self._owner.bus.headers_of_job("job_asked", self._name, headers, group)
        if self._all_groups is not None:
            self._all_groups[group.job_id] = group
            handling = current() if in_context else None
            group.awaited_by = [] if handling is None else [handling]
        return group

    @property
    def about(self) -> Mapping[str, str]:
        """The attributes of log records about who asks."""
        return self._owner.about

    # --- what moves a group

    def _settle(self, group: JobGroup, event: GroupTrigger, reason: str | None = None, more: str | None = None) -> bool:
        """Let the table decide, and act where the group's state changes; returns whether it did.

        Args:
            group: The group.
            event: What has happened to it.
            reason: Why, as those are told who were asked.
            more: Why, as the log says it; by default, the same.
        """
        state = next_group(group.state, event)
        if state is group.state:
            return False
        group.state = state
        group.reason = reason
        if self.taps:
            self._owner.bus.tell_of_job("job_over", self._name, group)
        if state is not GroupState.COMPLETED and logger.isEnabledFor(logging.DEBUG):  # that, the last answer has said
            text = "job %r (%s) is over for %r: %s%s"
            said = f", {more or reason}" if reason and reason != TIMEOUT else ""
            self._note(group, text, group.job_name, group.job_id, self._name, state.value, said)
        if state is GroupState.TIMED_OUT:
            group.note_absent(self._owner.registry, self._absent)
        if group.pending:  # else the last of them has answered
            self._tell(group.unanswered, group, reason)
        if state is not GroupState.COMPLETED:
            if group.scope is not None:
                group.scope.cancel()
        elif group.scope is not None and group.deadline != math.inf:
            group.scope.deadline = math.inf  # the deadline was the job's, and the body may take longer
        group.notify()
        return True

    def _note(self, group: JobGroup, text: str, *args: object) -> None:
        logger.debug(text, *args, extra=about(**self._owner.about, job=group.job_id))

    def _tell(self, workers: Sequence[str], group: JobGroup, reason: str | None) -> None:
        bus, source = self._owner.bus, self._name
        if reason is not None:
            reason = encodable(reason)  # it may be of a worker of this process, whose words need not travel
        for worker in workers:
            target = group.address(worker)
            bus.post(BusJobCancelMessage(group.job_id, reason, source=source, target=target, headers=group.headers))

    def _time_up(self, group: JobGroup, by: str | None = None) -> None:
        late = [by] if by else sorted(group.pending) or group.worker_names
        if self._settle(group, GroupTrigger.TIME_UP, TIMEOUT) and self._owner.hooks.wants("on_job_error") and late:
            response = {"error": TIMEOUT, "type": "TimeoutError"}
            message = group.answer(late[0], JobStatus.CANCELLED, response, to=self._name)
            self._queue_last(group, "on_job_error", message, message)
        self._forget_if_over(group)

    def _complete(
        self,
        group: JobGroup,
        cause: BusMessage | None,
        trigger: GroupTrigger = GroupTrigger.LAST_ANSWER,
        reason: str | None = None,
    ) -> None:
        if self._settle(group, trigger, reason) and self._owner.hooks.wants("on_job_completed"):
            result = JobGroupResponse(group.job_id, group.in_order(group.responses), group.in_order(group.statuses))
            self._queue_last(group, "on_job_completed", result, cause)

    def has_enough(self, group: JobGroup) -> None:
        """Complete a group before all have answered; the others are told to stop."""
        self._complete(group, None, GroupTrigger.ENOUGH, "the requester has enough answers")

    def _queue_last(self, group: JobGroup, hook: str, argument: object, cause: BusMessage | None) -> None:
        system = cause is not None and bool(cause.system)
        self._owner.hooks.add_last(HookCall(hook, (argument,), cause), group.barrier, system=system)

    def _absent(self, worker: str, how: str = " was not ready") -> str:
        which = ", which" if how.startswith(",") else ""
        if worker in self._owner.registry.restarting:
            return f"worker {worker!r}{which} is being restarted"
        if self._owner.bus.has_subscriber(worker):
            why = "is on the bus, but has not started: has a run() of its own called start()?"
            return f"worker {worker!r}{which} {why}"
        return f"worker {worker!r}{how}; {self._owner.registry.near(worker)}"

    def cancel(self, job_id: str, reason: str | None) -> bool:
        """Cancel a group by its id; returns whether there was one to cancel."""
        group = self.groups.get(job_id)
        if group is None:
            return False
        if group.state is GroupState.OPEN:
            group.heard_out = True  # before the workers are told: one may answer in this step
        cancelled = self._settle(group, GroupTrigger.CANCEL, reason or "cancelled by the requester")
        self._forget_if_over(group)
        return cancelled

    def close(self, reason: str) -> None:
        """Cancel every group, and ask for nothing more."""
        self.closed = True
        self.cancel_all(reason)

    def cancel_all(self, reason: str) -> None:
        """Cancel every group, because the owner stops."""
        for job_id in list(self.groups):
            self.cancel(job_id, reason)

    async def quiet(self) -> None:
        """Wait until all who were asked have answered."""
        for group in list(self.groups.values()):
            while group.waits:
                await group.change()

    async def all_forgotten(self) -> None:
        """Wait for a moment without any group: all are over, and their contexts have been left."""
        if self.groups:
            if self._no_groups is None:
                self._no_groups = Event()
            await self._no_groups.wait()

    def _forget_if_over(self, group: JobGroup) -> None:
        if not group.in_context and group.state is not GroupState.OPEN and not group.waits:
            self.forget(group)

    def forget(self, group: JobGroup) -> None:
        """Take a group out of the table."""
        self.groups.pop(group.job_id, None)
        if self._all_groups is not None:
            self._all_groups.pop(group.job_id, None)
        for worker in group.asked:
            group.leaves(worker, self._asking)
        if self._no_groups is not None and not self.groups:
            self._no_groups.set()
            self._no_groups = None

    # --- what comes back

    def handle(self, message: BusMessage) -> None:
        """Handle an answer, an update or a stream message."""
        self.HANDLERS[type(message)](self, message)

    def _group_of(self, message: Any) -> JobGroup | None:
        group = self.groups.get(message.job_id)
        if group is None or message.source not in group.asked or message.source not in group.pending:
            self.ignored += 1  # a worker that was not asked, or one that has answered already
            return None
        return group

    def _on_response(self, message: Response) -> None:
        group = self._group_of(message)
        if group is not None:
            self._answered(group, message, answered(message))

    def _on_stream_end(self, message: BusJobStreamEndMessage) -> None:
        group = self._group_of(message)
        if group is None:
            return
        if group.state is GroupState.OPEN:
            self._event(group, JobGroupEvent.STREAM_END, message, message.data)
        response = group.answer(message.source, JobStatus.COMPLETED, message.data, to=self._name)
        self._answered(group, response, answered(response), hook="on_job_stream_end", cause=message)

    def worker_departed(self, worker: str, group: JobGroup, error: str | None = None) -> None:
        """Answer a group in the place of a worker that has gone, unless its answer has come, and perhaps waits here.

        Args:
            worker: The worker's name.
            group: The group, which has asked it.
            error: Why it has gone, in words, where that is known.
        """
        if group.waits_for(worker):
            self._owner.call_behind(partial(self._answer_for, worker, group, error))

    def _answer_for(self, worker: str, group: JobGroup, error: str | None) -> None:
        if group.waits_for(worker) and self.groups.get(group.job_id) is group:
            text = f"worker {worker!r} left without an answer{'' if error is None else f': {error}'}"
            response = {"error": text, "type": "WorkerGone"}
            self._answered(group, group.answer(worker, JobStatus.ERROR, response, to=self._name), response)

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
            # This library makes no such answers: whatever it says, the requester gets an outcome.
            message = repaired(message)
            status, response = message.status, answered(message)
        group.pending.discard(worker)
        if group.queue is not None and group.queue.lost(worker):
            text = "%d chunks of the stream of job %s from worker %r were lost on their way"
            about_it = about(**self._owner.about, job=group.job_id)
            logger.warning(text, group.queue.lost(worker), group.job_id, worker, extra=about_it)
        group.statuses[worker] = status
        group.responses[worker] = response
        is_open = group.state is GroupState.OPEN
        if is_open and group.arrivals is not None:
            group.arrivals.append(worker)
        if is_open or group.heard_out:
            hooks = self._owner.hooks
            if hooks.wants(hook):
                if group.barrier is None:
                    group.barrier = Barrier()
                group.barrier.pending += 1
                told = cause or message
                hooks.add(HookCall(hook, (told,), told, barrier=group.barrier), system=bool(message.system))
        if is_open:
            self._judge(group, message, response)
        group.notify()
        if not group.in_context:
            self._forget_if_over(group)

    def _judge(self, group: JobGroup, message: Response, response: dict[str, Any]) -> None:
        if message.status is not JobStatus.COMPLETED:
            # A CANCELLED that says "timeout", or comes after the deadline, is a timeout that the worker has seen first.
            now = current_time()
            if message.status is JobStatus.CANCELLED and (
                response.get("error") == TIMEOUT or group.request_deadline <= now
            ):
                soon = now + CLOCK_SKEW
                if group.deadline <= soon:  # 1. the group's own: the outcome is that of a timeout seen here
                    self._time_up(group, message.source)
                    return
                if group.in_context and group.request_deadline <= soon:
                    # 2. An enclosing scope's: its cancellation must be about to come, and is to end the wait, not an
                    # error of the job's. 3. It does not come, since the scope has got more time: an answer like any.
                    group.suspect_timeout = message
                    self._owner.tasks.start(self._wait_for_it, group, name=f"{self._name} doubt")
                    return
            if group.cancel_on_error:
                self._settle(group, GroupTrigger.BAD_ANSWER, bad_answer(message.source, message.status, response))
                if self._owner.hooks.wants("on_job_error"):
                    self._queue_last(group, "on_job_error", message, message)
                return
        if group.pending or group.suspect_timeout is not None:
            return
        if group.scope is not None and group.scope.cancel_called:
            self._time_up(group)  # the last answer came after the deadline: the body is being cancelled already
        else:
            self._complete(group, message)

    async def _wait_for_it(self, group: JobGroup) -> None:
        await sleep(2 * CLOCK_SKEW)  # still open then, the scope was not cancelled, and the answer is judged after all
        message, group.suspect_timeout = group.suspect_timeout, None
        if message is not None and group.state is GroupState.OPEN:
            group.request_deadline = math.inf  # it holds no more: no further answer is suspect
            self._judge(group, message, answered(message))

    def _on_update(self, message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is GroupState.OPEN:
            self._event(group, JobGroupEvent.UPDATE, message, message.update)
            self._hook("on_job_update", message)

    def _on_stream_start(self, message: BusJobStreamStartMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is GroupState.OPEN:
            self._event(group, JobGroupEvent.STREAM_START, message, message.data)
            self._hook("on_job_stream_start", message)

    def _on_stream_data(self, message: BusJobStreamDataMessage) -> None:
        group = self._group_of(message)
        if group is not None and group.state is GroupState.OPEN:
            if group.collects:
                queue = group.queue
                if queue is None:
                    queue = self.queue_of(group)
                if not queue.add_chunk(message.source, message.data, message.number):
                    self.ignored += 1
                    return
                group.notify()
            if self._owner.hooks.wants("on_job_stream_data"):
                self._hook("on_job_stream_data", message)

    def _on_stream_waiting(self, message: BusJobStreamWaitingMessage) -> None:
        group = self.groups.get(message.job_id)
        if group is None:  # its requester has left, and what told the worker to stop was lost
            job_id, reason, headers = message.job_id, "the requester has left", message.headers
            cancel = BusJobCancelMessage(job_id, reason, source=self._name, target=message.source, headers=headers)
            self._owner.bus.post(cancel)
        elif not group.waits_for(message.source):
            self.ignored += 1
        elif group.state is not GroupState.OPEN:
            self._tell([message.source], group, group.reason)
        elif group.collects:
            self.queue_of(group).waits(message.source, message.sent)

    def _event(self, group: JobGroup, kind: str, message: BusMessage, data: dict[str, Any] | None) -> None:
        if group.collects:
            self.queue_of(group).add((kind, message.source, data))
            group.notify()

    def queue_of(self, group: JobGroup) -> EventQueue:
        """Return the events of a group that no loop has taken yet."""
        if group.queue is None:
            window = None if group.options is None else group.options.max_buffered_events
            group.queue = EventQueue(group.job_id, window, self._grant)
        return group.queue

    def _grant(self, job_id: str, worker: str, until: int) -> None:
        group = self.groups.get(job_id)
        if group is not None and group.state is GroupState.OPEN and group.waits_for(worker):
            target = group.address(worker)
            message = BusJobStreamWindowMessage(job_id, until, source=self._name, target=target, headers=group.headers)
            self._owner.bus.post(message)

    def _hook(self, name: str, message: BusMessage) -> None:
        if self._owner.hooks.wants(name):
            self._owner.hooks.add(HookCall(name, (message,), message), system=bool(message.system))

    HANDLERS: ClassVar[Mapping[type[BusMessage], Callable[["GroupTable", Any], None]]] = {
        BusJobResponseMessage: _on_response,
        BusJobResponseUrgentMessage: _on_response,
        BusJobUpdateMessage: _on_update,
        BusJobUpdateUrgentMessage: _on_update,
        BusJobStreamStartMessage: _on_stream_start,
        BusJobStreamDataMessage: _on_stream_data,
        BusJobStreamWaitingMessage: _on_stream_waiting,
        BusJobStreamEndMessage: _on_stream_end,
    }
