"""The life of a job, on both sides, as tables: state x event -> state (J1-J16).

Rule 1: what a job or a group may do next is decided here and nowhere else. There is no await in this file and no
message; whoever asks the table acts on the answer afterwards.

Rule 2: the two sides do not know each other. `Job` is what a worker was asked for, `Ask` what a requester has asked.

Rule 3: a pair that is not in a table cannot happen lawfully and is ignored: the state stays. This is how a second
answer, a late cancel or a duplicate changes nothing.

The diagrams in ``docs/architecture.md`` are drawn from these tables.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from workerbus._values import plain_members


class _Word(Enum):
    """What the tables are made of."""

    if not TYPE_CHECKING:
        # `Enum` hashes by name, in Python: a tenth of the time of a whole job, which looks eight of them up.
        __hash__ = object.__hash__


@plain_members
class Job(_Word):
    """Where a job is, at the worker that was asked."""

    QUEUED = "queued"
    """Accepted. Its handler has not begun; it may be waiting for its turn (J13)."""
    RUNNING = "running"
    """Its handler runs."""
    DEFERRED = "deferred"
    """Its handler has returned and left it open (J2)."""
    CANCELLING = "cancelling"
    """Cancelled; its handler is unwinding."""
    ANSWERED = "answered"
    """Answered while its handler still runs."""
    OVER = "over"
    """Answered, and no handler runs."""


@plain_members
class JobEvent(_Word):
    """What can happen to a job at the worker."""

    START = "start"
    """Its handler begins."""
    ANSWER = "answer"
    """The worker's own code answers."""
    LEAVE = "leave"
    """The handler returns and leaves the job open."""
    FINISH = "finish"
    """The handler ends with an outcome, or with an error."""
    CANCEL = "cancel"
    """The requester cancels, the deadline passes, or the worker stops."""


JOB_TABLE: Final[Mapping[Job, Mapping[JobEvent, Job]]] = {
    Job.QUEUED: {JobEvent.START: Job.RUNNING, JobEvent.ANSWER: Job.OVER, JobEvent.CANCEL: Job.OVER},
    Job.RUNNING: {
        JobEvent.ANSWER: Job.ANSWERED,
        JobEvent.LEAVE: Job.DEFERRED,
        JobEvent.FINISH: Job.OVER,
        JobEvent.CANCEL: Job.CANCELLING,
    },
    Job.DEFERRED: {JobEvent.ANSWER: Job.OVER, JobEvent.CANCEL: Job.OVER},
    Job.CANCELLING: {JobEvent.ANSWER: Job.ANSWERED, JobEvent.LEAVE: Job.OVER, JobEvent.FINISH: Job.OVER},
    Job.ANSWERED: {JobEvent.LEAVE: Job.OVER, JobEvent.FINISH: Job.OVER},
    Job.OVER: {},
}

OPEN_JOBS: Final = frozenset({Job.QUEUED, Job.RUNNING, Job.DEFERRED, Job.CANCELLING})
"""Jobs in these states are unanswered. Whatever leads out of them is the one answer (J1)."""


@plain_members
class Ask(_Word):
    """Where a job group is, at the requester. A single job is a group of one."""

    OPEN = "open"
    """Requests go out, answers come in."""
    FAILED = "failed"
    """A worker erred under ``cancel_on_error``; the others are told, their answers awaited."""
    TIMED_OUT = "timed out"
    """Time is up; the workers are told, their answers awaited."""
    CANCELLED = "cancelled"
    """The requester wants no more; the workers are told, their answers awaited."""
    COMPLETED = "completed"
    """All have answered."""


@plain_members
class AskEvent(_Word):
    """What can happen to a job group at the requester."""

    LAST_ANSWER = "last answer"
    """The last missing answer has come."""
    BAD_ANSWER = "bad answer"
    """An answer that is not COMPLETED has come, and ``cancel_on_error`` is set."""
    TIME_UP = "time up"
    """The group's own deadline has passed."""
    CANCEL = "cancel"
    """The requester cancels, or leaves its context."""


ASK_TABLE: Final[Mapping[Ask, Mapping[AskEvent, Ask]]] = {
    Ask.OPEN: {
        AskEvent.LAST_ANSWER: Ask.COMPLETED,
        AskEvent.BAD_ANSWER: Ask.FAILED,
        AskEvent.TIME_UP: Ask.TIMED_OUT,
        AskEvent.CANCEL: Ask.CANCELLED,
    },
    Ask.FAILED: {},
    Ask.TIMED_OUT: {},
    Ask.CANCELLED: {},
    Ask.COMPLETED: {},
}


def next_job(state: Job, event: JobEvent) -> Job:
    """Return the state of a job after an event."""
    return JOB_TABLE[state].get(event, state)


def next_ask(state: Ask, event: AskEvent) -> Ask:
    """Return the state of a job group after an event."""
    return ASK_TABLE[state].get(event, state)
