"""What a requester sees of jobs: events, and the collected answers (J7, J11, J16)."""

from typing import Any, ClassVar

from attrs import Factory

from workerbus._values import JobStatus, Value, value


@value
class JobEvent(Value):
    """Something that a worker sent while it worked on a job.

    Args:
        type: ``"update"``, ``"stream_start"``, ``"stream_data"`` or ``"stream_end"``: the constants of this class.
        data: The payload that the worker sent with it; None if there was none.
    """

    UPDATE: ClassVar[str] = "update"
    STREAM_START: ClassVar[str] = "stream_start"
    STREAM_DATA: ClassVar[str] = "stream_data"
    STREAM_END: ClassVar[str] = "stream_end"

    type: str
    data: dict[str, Any] | None = None


@value
class JobGroupEvent(Value):
    """Something that a worker of a group sent while it worked on the job.

    Args:
        type: ``"update"``, ``"stream_start"``, ``"stream_data"`` or ``"stream_end"``: the constants of this class.
        worker_name: The worker that sent it.
        data: The payload that the worker sent with it; None if there was none.
    """

    UPDATE: ClassVar[str] = "update"
    STREAM_START: ClassVar[str] = "stream_start"
    STREAM_DATA: ClassVar[str] = "stream_data"
    STREAM_END: ClassVar[str] = "stream_end"

    type: str
    worker_name: str
    data: dict[str, Any] | None = None


@value
class JobAnswer(Value):
    """What one worker of a group has answered.

    Args:
        worker_name: The worker.
        status: How the job ended there.
        response: Its answer: the payload, or the typed value if the job was asked for by its typed handler.
    """

    worker_name: str
    status: JobStatus
    response: Any


@value
class JobProgress(Value):
    """How far a job or a job group is.

    Args:
        label: Its title for people, or else the name of the handler; None if it has neither.
        total: How many workers were asked.
        answered: How many of them have answered.
        failed: How many of their answers are not COMPLETED.
        answers: The answers since the last report, in order, with their payloads as they came.
        event: The last update or chunk since the first report was asked for; None before that.
    """

    label: str | None
    total: int
    answered: int
    failed: int
    answers: tuple[JobAnswer, ...] = ()
    event: JobGroupEvent | None = None


@value
class JobSnapshot(Value):
    """A job that a worker was asked for and has not answered; nothing of its payload.

    Args:
        job_id: Its id.
        name: Which `@job` handler was meant.
        requester: Who asked.
        state: Where it is: ``"queued"``, ``"running"``, ``"deferred"`` or ``"cancelling"``.
        age: For how long it has been here, in seconds.
        seconds_left: How long its requester will wait from now on, in seconds; None for no limit.
    """

    job_id: str
    name: str | None
    requester: str
    state: str
    age: float
    seconds_left: float | None


@value
class JobGroupSnapshot(Value):
    """A job or a job group that was asked for and is not over, without payloads.

    Args:
        job_id: Its id.
        label: Its title for people.
        state: Where it is: ``"open"``, or ``"failed"``, ``"timed out"``, ``"cancelled"`` or ``"completed"`` while
            answers are still waited for, or its context has not been left.
        waits_for: The workers that have not answered, in the order of asking.
        seconds_left: How long it has left, in seconds; None for no limit.
    """

    job_id: str
    label: str | None
    state: str
    waits_for: tuple[str, ...]
    seconds_left: float | None


@value
class JobGroupResponse(Value):
    """All answers to a job group, given to ``on_job_completed``.

    Args:
        job_id: The id of the job, which all workers of the group share.
        responses: Worker name to the payload of its answer, in the order of asking.
        statuses: Worker name to how its job ended; with ``cancel_on_error=False`` not all need be COMPLETED.

    Guarantees: J11, J16.
    """

    job_id: str
    responses: dict[str, dict[str, Any]]
    statuses: dict[str, JobStatus] = Factory(dict)
