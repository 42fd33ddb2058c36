"""A job group as its requester keeps it: who was asked, who has answered what, and who waits for that.

State only. What it may become is decided by `_state`; messages and cancel scopes are the business of `_client`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from anyio import CancelScope, Event, current_time

from workerbus._vocabulary import JobStatus
from workerbus.abc import Fence
from workerbus.errors import (
    JobError,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
)
from workerbus.jobs._state import Ask
from workerbus.jobs._types import JobGroupSnapshot
from workerbus.messages import BusJobResponseMessage, BusJobResponseUrgentMessage

T = TypeVar("T")


class JobGroup:
    """A job that one or several workers were asked for.

    Attributes:
        job_id: Its id, which all its messages carry.
        worker_names: The workers, in the order of asking.
        responses: Worker name to the payload of its answer, as they come in.
        statuses: Worker name to how it ended (J11).
        cancel_on_error: Whether the first bad answer cancels the others.
        label: A title for people, if it was given one (N4).
        cancellable: Whether `request_cancel_job_group` may cancel it (N4).
        headers: What travels with its messages (X8).
        state: Where it is; see `workerbus.jobs.Ask`.
        reason: Why it did not complete, in words.
        detail: Of a timeout, for whom it waited.
    """

    __slots__ = (
        "_changed",
        "_new_event",
        "asked",
        "cancel_on_error",
        "cancellable",
        "collects",
        "deadline",
        "detail",
        "doubtful",
        "events",
        "fence",
        "headers",
        "in_context",
        "job_id",
        "label",
        "missing",
        "reason",
        "responses",
        "scope",
        "single",
        "state",
        "statuses",
        "travels",
        "worker_names",
    )

    def __init__(
        self,
        job_id: str,
        worker_names: Iterable[str],
        *,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        single: bool = False,
        in_context: bool = False,
        new_event: Callable[[], Event] = Event,
    ) -> None:
        self.job_id: str = job_id
        self.worker_names: list[str] = list(worker_names)
        self.cancel_on_error: bool = cancel_on_error
        self.label: str | None = label
        self.cancellable: bool = cancellable
        self.headers: Mapping[str, str] | None = headers
        self.single: bool = single
        self.in_context: bool = in_context
        self.state: Ask = Ask.OPEN
        self.reason: str | None = None
        self.detail: str | None = None
        self.responses: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, JobStatus] = {}
        self.missing: set[str] = set(self.worker_names)
        self.asked: set[str] = set()
        self.deadline: float = math.inf
        self.travels: float = math.inf
        self.scope: CancelScope | None = None
        self.collects: bool = False
        self.events: deque[tuple[str, str, dict[str, Any] | None]] | None = None
        self.fence: Fence | None = None
        self.doubtful: BusJobResponseMessage | BusJobResponseUrgentMessage | None = None
        self._new_event = new_event
        self._changed: Event | None = None

    @property
    def is_done(self) -> bool:
        """Whether the outcome stands. Workers that were told to stop may still be unwinding."""
        return self.state is not Ask.OPEN

    @property
    def unanswered(self) -> set[str]:
        """The workers that were asked and have not answered."""
        return self.asked & self.missing

    @property
    def waits(self) -> bool:
        """Whether some that were asked have not answered."""
        return not self.missing.isdisjoint(self.asked)

    async def wait(self) -> None:
        """Wait for the outcome.

        Raises:
            JobGroupError: It did not complete; `JobError` for a job of one worker (J8).
        """
        while self.state is Ask.OPEN:
            await self.change()
        error = self.error()
        if error is not None:
            raise error

    def snapshot(self) -> JobGroupSnapshot:
        """Return what there is to say of it now (O2)."""
        return JobGroupSnapshot(
            job_id=self.job_id,
            label=self.label,
            state=self.state.value,
            waits_for=tuple(name for name in self.worker_names if name in self.missing),
            seconds_left=None if self.deadline == math.inf else max(0.0, self.deadline - current_time()),
        )

    def in_order(self, table: Mapping[str, T]) -> dict[str, T]:
        """Return a table by worker name in the order of asking, whatever the order of the answers."""
        return {name: table[name] for name in self.worker_names if name in table}

    def error(self) -> JobError | JobGroupError | None:
        """Return why the group did not complete, as the exception that says so; None while it may and when it did."""
        if self.state in (Ask.OPEN, Ask.COMPLETED):
            return None
        timed_out = self.state is Ask.TIMED_OUT
        kind: type[JobError | JobGroupError]
        if self.single:
            kind = JobTimeoutError if timed_out else JobError
        else:
            kind = JobGroupTimeoutError if timed_out else JobGroupError
        reason = self.reason or self.state.value
        return kind(
            reason,
            job_id=self.job_id,
            statuses=self.in_order(self.statuses),
            responses=self.in_order(self.responses),
            detail=self.detail or "",
        )

    def answer(
        self, worker: str, status: JobStatus, response: dict[str, Any] | None, *, to: str
    ) -> BusJobResponseMessage:
        """Return an answer that no worker has sent: the library gives it in the worker's place."""
        return BusJobResponseMessage(self.job_id, status, response, source=worker, target=to, headers=self.headers)

    def changed(self) -> Event:
        """Return what is set as soon as something happens to the group."""
        if self._changed is None:
            self._changed = self._new_event()
        return self._changed

    async def change(self) -> None:
        """Wait until something has happened to the group."""
        await self.changed().wait()

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None
