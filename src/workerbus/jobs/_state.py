"""The life of a job, on both sides, as tables: state x event -> state (J1-J16).

Rule 1: what a job or a group may do next is decided here and nowhere else. There is no await in this file and no
message; whoever asks the table acts on the answer afterwards.

Rule 2: the two sides do not know each other. `JobState` is that of a job at the worker that was asked; `GroupState`, of
a job group at the requester.

Rule 3: a pair that is not in a table changes nothing: the state stays. This is how a second answer, a late cancel or a
duplicate is ignored.

The diagrams in ``docs/architecture.md`` are drawn from these tables.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from workerbus._values import plain_members

TIMEOUT: Final = "timeout"
"""The word for a deadline that has passed: the reason of a cancel, and the ``error`` of an answer."""
LEFT: Final = "context exited with error"
"""The reason of a cancel where the requester's block was left by an exception or a cancellation."""
TURN: Final = "its turn"
"""What the answer to a job says under ``waited_for`` that has not begun in its time, since others were before it."""


class _Word(Enum):
    """A state or a trigger: what the tables are made of."""

    if not TYPE_CHECKING:
        # `Enum` hashes by name, in Python: a tenth of the time of a whole job, which looks eight of them up.
        __hash__ = object.__hash__


@plain_members
class JobState(_Word):
    """Where a job is, at the worker that was asked."""

    QUEUED = "queued"
    """Accepted. Its handler has not begun; it may be waiting for its turn."""
    RUNNING = "running"
    """Its handler runs."""
    DEFERRED = "deferred"
    """Its handler has returned and left it open."""
    CANCELLING = "cancelling"
    """Cancelled; its handler is unwinding."""
    ANSWERED = "answered"
    """Answered while its handler still runs."""
    OVER = "over"
    """Answered, and no handler runs."""


@plain_members
class JobTrigger(_Word):
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


JOB_TABLE: Final[Mapping[JobState, Mapping[JobTrigger, JobState]]] = {
    JobState.QUEUED: {
        JobTrigger.START: JobState.RUNNING,
        JobTrigger.ANSWER: JobState.OVER,
        JobTrigger.CANCEL: JobState.OVER,
    },
    JobState.RUNNING: {
        JobTrigger.ANSWER: JobState.ANSWERED,
        JobTrigger.LEAVE: JobState.DEFERRED,
        JobTrigger.FINISH: JobState.OVER,
        JobTrigger.CANCEL: JobState.CANCELLING,
    },
    JobState.DEFERRED: {JobTrigger.ANSWER: JobState.OVER, JobTrigger.CANCEL: JobState.OVER},
    JobState.CANCELLING: {
        JobTrigger.ANSWER: JobState.ANSWERED,
        JobTrigger.LEAVE: JobState.OVER,
        JobTrigger.FINISH: JobState.OVER,
    },
    JobState.ANSWERED: {JobTrigger.LEAVE: JobState.OVER, JobTrigger.FINISH: JobState.OVER},
    JobState.OVER: {},
}

OPEN_JOBS: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.DEFERRED, JobState.CANCELLING})
"""Jobs in these states are unanswered. Whatever leads out of them is the one answer."""


@plain_members
class GroupState(_Word):
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
    """All have answered, or as many as were wanted."""


@plain_members
class GroupTrigger(_Word):
    """What can happen to a job group at the requester."""

    LAST_ANSWER = "last answer"
    """The last missing answer has come."""
    BAD_ANSWER = "bad answer"
    """An answer that is not COMPLETED has come, and ``cancel_on_error`` is set."""
    TIME_UP = "time up"
    """The group's own deadline has passed."""
    CANCEL = "cancel"
    """The requester cancels, or leaves its context."""
    ENOUGH = "enough"
    """As many have answered as the requester wanted; the others are told, their answers awaited."""


GROUP_TABLE: Final[Mapping[GroupState, Mapping[GroupTrigger, GroupState]]] = {
    GroupState.OPEN: {
        GroupTrigger.LAST_ANSWER: GroupState.COMPLETED,
        GroupTrigger.BAD_ANSWER: GroupState.FAILED,
        GroupTrigger.TIME_UP: GroupState.TIMED_OUT,
        GroupTrigger.CANCEL: GroupState.CANCELLED,
        GroupTrigger.ENOUGH: GroupState.COMPLETED,
    },
    GroupState.FAILED: {},
    GroupState.TIMED_OUT: {},
    GroupState.CANCELLED: {},
    GroupState.COMPLETED: {},
}


def next_job(state: JobState, event: JobTrigger) -> JobState:
    """Return the state of a job after an event."""
    return JOB_TABLE[state].get(event, state)


def next_group(state: GroupState, event: GroupTrigger) -> GroupState:
    """Return the state of a job group after an event."""
    return GROUP_TABLE[state].get(event, state)
