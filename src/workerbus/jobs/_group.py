"""A job group as its requester keeps it: who was asked, who has answered what, and who waits for that (J8, J11).

State only. What it may become is decided by `_state`; messages and cancel scopes are the business of `_client`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from anyio import CancelScope, Event, current_time
from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.handling import Handling, current, held_up_by
from workerbus._concurrency.room import Room
from workerbus._concurrency.waiting import Wait, job_title, names_of, waits
from workerbus._values import JobStatus, WorkerReadyData
from workerbus.abc import Barrier, Directory, OpenAsks
from workerbus.errors import (
    JobError,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
    shown,
)
from workerbus.jobs._events import JobAnswer, JobGroupSnapshot
from workerbus.jobs._state import TIMEOUT, TURN, GroupState
from workerbus.jobs._window import EventQueue
from workerbus.jobs._words import bad_answer
from workerbus.messages import BusJobResponseMessage, BusJobResponseUrgentMessage, JobRequestOptions

T = TypeVar("T")


class JobGroup:
    """A job that one or several workers were asked for.

    Attributes:
        job_id: The id that all messages of the job carry.
        worker_names: The names of the workers, in the order of asking.
        responses: Worker name to the payload of its answer, in the order in which the answers came.
        statuses: Worker name to how its job ended.
        cancel_on_error: Whether the first answer that is not COMPLETED cancels the others.
        label: A title for people, if it was given one.
        cancellable: Whether `request_cancel_job_group` may cancel it.
        headers: The headers of its messages: a dict of str to str.
        state: How far it is; the members of `GroupState` say what each state means.
        reason: Why it did not complete, in words; ``"timeout"`` if time ran out.
        absent: After a timeout, the first worker that had not come, in words; None if all had.
        job_name: Which handler of the workers is to do it; None for the one of all jobs without a name.
        timeout: Seconds for everything; None for no limit.
        options: What travels with its requests, of what only some have; None for nothing of it.
        single: Whether it was asked for as a job of one worker, whose errors are `JobError`, not `JobGroupError`.
        in_context: Whether a context holds it, which forgets it when it is left.
        heard_out: Whether answers that come after its end are told to the hooks, too.
        pending: The workers that have not answered, asked or not.
        asked: The workers whose request has been sent, or is being sent, each as the registry knew it then: another
            one of its name was not asked.
        deadline: When its own ``timeout`` is over, on the event loop's clock; infinite without one.
        request_deadline: The deadline that travels in its requests: its own, or an enclosing scope's earlier one.
        scope: What is cancelled when it ends early: its context's scope, or that of the wait for its workers.
        collects: Whether its events are kept for a loop over the context.
        queue: Its events that no loop has taken yet; None until there was one, or a loop.
        arrivals: The workers that have answered and that no loop over the answers has taken yet, in the order of their
            answers; None without such a loop.
        barrier: The hooks of its answers that have not run; its last hook comes after them. None before the first.
        suspect_timeout: An answer that looks like the timeout of an enclosing scope, not judged yet.
        awaited_by: The calls of subscribers' own code that wait for it, where lanes are bounded; else None.
        _new_event: Makes an event of the running backend.
        _changed: What those wait for who want to know of the next change; None where nobody does.

    Guarantees: J8, J11, N4, X8.
    """

    __slots__ = (
        "_changed",
        "_new_event",
        "absent",
        "arrivals",
        "asked",
        "awaited_by",
        "barrier",
        "cancel_on_error",
        "cancellable",
        "collects",
        "deadline",
        "headers",
        "heard_out",
        "in_context",
        "job_id",
        "job_name",
        "label",
        "options",
        "pending",
        "queue",
        "reason",
        "request_deadline",
        "responses",
        "scope",
        "single",
        "state",
        "statuses",
        "suspect_timeout",
        "timeout",
        "worker_names",
    )

    def __init__(
        self,
        job_id: str,
        worker_names: Iterable[str],
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        single: bool = False,
        in_context: bool = False,
        options: JobRequestOptions | None = None,
        new_event: Callable[[], Event] = Event,
    ) -> None:
        self.job_id: str = job_id
        self.job_name: str | None = None
        self.timeout: float | None = None
        self.worker_names: list[str] = list(worker_names)
        self.cancel_on_error: bool = cancel_on_error
        self.label: str | None = label
        self.cancellable: bool = cancellable
        self.headers: Mapping[str, str] | None = headers
        self.single: bool = single
        self.in_context: bool = in_context
        self.options: JobRequestOptions | None = options
        self.heard_out: bool = False
        self.state: GroupState = GroupState.OPEN
        self.reason: str | None = None
        self.absent: str | None = None
        self.responses: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, JobStatus] = {}
        self.pending: set[str] = set(self.worker_names)
        self.asked: dict[str, WorkerReadyData] = {}
        self.deadline: float = math.inf
        self.request_deadline: float = math.inf
        self.scope: CancelScope | None = None
        self.collects: bool = False
        self.queue: EventQueue | None = None
        self.arrivals: deque[str] | None = None
        self.barrier: Barrier | None = None
        self.suspect_timeout: BusJobResponseMessage | BusJobResponseUrgentMessage | None = None
        self.awaited_by: list[Handling] | None = None
        self._new_event = new_event
        self._changed: Event | None = None

    @property
    def is_done(self) -> bool:
        """Whether the outcome is settled. Workers that were told to stop may still be unwinding."""
        return self.state is not GroupState.OPEN

    @property
    def unanswered(self) -> list[str]:
        """The workers that were asked and have not answered, in the order of asking, which no process changes."""
        return [name for name in self.asked if name in self.pending]

    @property
    def waits(self) -> bool:
        """Whether `unanswered` has a worker in it; asked often, and so without making the list.

        Those that have not answered are looked at, not those that were asked: mostly the first of them will do.
        """
        asked = self.asked
        for name in self.pending:  # noqa: SIM110 - `any` takes three times as long for one
            if name in asked:
                return True
        return False

    def waits_for(self, worker: str) -> bool:
        """Return whether a worker is in `unanswered`: what happens to one of many costs no look at the others."""
        return worker in self.pending and worker in self.asked

    def asks(self, worker: str, there: WorkerReadyData, asking: OpenAsks, client: object) -> None:
        """Enter a worker that is about to be sent the group's request, in `asked` and in the runner's table.

        Args:
            worker: The worker's name, as the group has it.
            there: The worker's entry in the registry.
            asking: The runner's table: for each worker, the open groups that have asked it.
            client: The client that the group belongs to. It is told when the worker leaves.
        """
        self.asked[worker] = there
        groups = asking.get(worker)
        if groups is None:
            asking[worker] = {self: client}
        else:
            groups[self] = client

    def address(self, worker: str) -> str:
        """Return the name under which a worker of the group was asked: of several that share a name, its own."""
        there = self.asked.get(worker)
        return worker if there is None else there.worker_name

    def takes_back(self, worker: str, asking: OpenAsks) -> None:
        """Undo `asks`: the worker's request was withdrawn."""
        self.asked.pop(worker, None)
        self.leaves(worker, asking)

    def leaves(self, worker: str, asking: OpenAsks) -> None:
        """Take the group out of the table of who has asked a worker; nothing happens where it is not in it."""
        groups = asking.get(worker)
        if groups is not None and groups.pop(self, None) is not None and not groups:
            del asking[worker]

    async def wait(self) -> None:
        """Wait for the outcome.

        Raises:
            JobGroupError: It did not complete; `JobError` for a job of one worker.

        Guarantees: J8.
        """
        handling = None if self.awaited_by is None else current()
        if handling is not None and self.awaited_by is not None:
            self.awaited_by.append(handling)
            self.admit_what_it_waits_for()
        try:
            while self.state is GroupState.OPEN:
                await self.change()
        finally:
            if handling is not None and self.awaited_by is not None:
                self.awaited_by.remove(handling)
        error = self.error()
        if error is not None:
            raise error

    def in_words(self) -> Wait:
        """Say what a task waits for that waits for the group, for `workerbus.dump` and the errors of hangs."""
        title, whom = job_title(self.job_id, self.job_name), names_of(self.pending)
        if not self.pending:
            return Wait(1, f"to go on: {title} is over")
        on = tuple(("job", self.job_id, name) for name in sorted(self.pending))
        if self.is_done:
            return Wait(2, f"until {whom} have stopped working on {title}, which is over: {self.reason}", on)
        return Wait(1, f"for the answer of {whom} to {title}", on)

    def admit_what_it_waits_for(self) -> None:
        """Let handlers go on that wait for room which is held up until the group has its answers."""
        rooms = {room for handling in self.awaited_by or () for room in held_up_by(handling)}
        for room in rooms:
            if isinstance(room, Room):
                room.admit_its_own()

    def answer_of(self, worker: str) -> JobAnswer:
        """Return what a worker has answered."""
        return JobAnswer(worker, self.statuses[worker], self.responses[worker])

    @property
    def completed(self) -> list[str]:
        """The workers that have answered COMPLETED, in the order of their answers."""
        return [worker for worker, status in self.statuses.items() if status is JobStatus.COMPLETED]

    def snapshot(self) -> JobGroupSnapshot:
        """Return a snapshot of the group; there is nothing of its payload in it."""
        return JobGroupSnapshot(
            job_id=self.job_id,
            label=self.label,
            state=self.state.value,
            waits_for=tuple(name for name in self.worker_names if name in self.pending),
            seconds_left=None if self.deadline == math.inf else max(0.0, self.deadline - current_time()),
        )

    def note_absent(self, registry: Directory, describe: Callable[[str], str]) -> None:
        """Remember which worker has not come in time; ``describe`` says it in words."""
        names = (name for name in self.worker_names if name in self.pending and registry.get(name) is None)
        absent = next(names, None)
        self.absent = None if absent is None else describe(absent)

    @property
    def detail(self) -> str | None:
        """What the time of a timeout went by with, in words; None where time was not up."""
        if self.state is not GroupState.TIMED_OUT:
            return None
        answered = self.in_order(self.responses)
        in_line = [name for name, answer in answered.items() if answer.get("waited_for") == TURN]
        at_work = [name for name, answer in answered.items() if answer.get("error") == TIMEOUT and name not in in_line]
        texts = [] if self.absent is None else [self.absent]
        for text, names in (
            ("still at work:", at_work),
            (f"waiting for {TURN}:", in_line),
            ("no answer from", [name for name in self.worker_names if self.waits_for(name)]),
        ):
            if names:
                texts.append(f"{text} {shown(names)}")
        return "; ".join(texts)

    def in_order(self, table: Mapping[str, T]) -> dict[str, T]:
        """Return a table by worker name, sorted by the order in which the workers were asked."""
        return {name: table[name] for name in self.worker_names if name in table}

    def error(self) -> JobError | JobGroupError | None:
        """Return the exception that says why the group did not complete; None while it is open and when it did."""
        if self.state in (GroupState.OPEN, GroupState.COMPLETED):
            return None
        timed_out = self.state is GroupState.TIMED_OUT
        kind: type[JobError | JobGroupError]
        if self.single:
            kind = JobTimeoutError if timed_out else JobError
        else:
            kind = JobGroupTimeoutError if timed_out else JobGroupError
        reason = self.reason or self.state.value
        return kind(
            reason,
            job_id=self.job_id,
            job_name=self.job_name,
            worker_names=self.worker_names,
            statuses=self.in_order(self.statuses),
            responses=self.in_order(self.responses),
            seconds=self.timeout if timed_out else None,
            detail=self.detail or "",
        )

    def too_few(self, wanted: int) -> JobGroupError:
        """Return the exception that says why not as many as wanted have completed their job."""
        bad = next((worker for worker, status in self.statuses.items() if status is not JobStatus.COMPLETED), None)
        why = "" if bad is None else f": {bad_answer(bad, self.statuses[bad], self.responses[bad])}"
        return JobGroupError(
            f"only {len(self.completed)} of {wanted} wanted answers can come{why}",
            job_id=self.job_id,
            job_name=self.job_name,
            worker_names=self.worker_names,
            statuses=self.in_order(self.statuses),
            responses=self.in_order(self.responses),
        )

    def answer(
        self, worker: str, status: JobStatus, response: dict[str, Any] | None, *, to: str
    ) -> BusJobResponseMessage:
        """Return an answer that no worker has sent: the library gives it in the worker's place."""
        return BusJobResponseMessage(self.job_id, status, response, source=worker, target=to, headers=self.headers)

    def changed(self) -> Event:
        """Return the event that is set as soon as something happens to the group."""
        if self._changed is None:
            self._changed = self._new_event()
        return self._changed

    async def change(self) -> None:
        """Wait until something has happened to the group.

        For loops that go on waiting: asyncio cancels no task that is woken in each pass, so it is looked for here.
        """
        await checkpoint_if_cancelled()
        await self.changed().wait()

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None


waits(JobGroup.wait, lambda its: its["self"].in_words())
