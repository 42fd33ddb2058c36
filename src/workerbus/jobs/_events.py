"""What a requester sees of jobs: events, and the collected answers."""

from typing import Any, ClassVar

from attrs import Factory

from workerbus._values import JobStatus, Value, value


@value
class JobEvent(Value):
    """Something that a worker sent while it worked on a job.

    Args:
        type: One of the constants of this class.
        data: What it sent.
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
        type: One of the constants of this class.
        worker_name: The worker.
        data: What it sent.
    """

    UPDATE: ClassVar[str] = "update"
    STREAM_START: ClassVar[str] = "stream_start"
    STREAM_DATA: ClassVar[str] = "stream_data"
    STREAM_END: ClassVar[str] = "stream_end"

    type: str
    worker_name: str
    data: dict[str, Any] | None = None


@value
class JobGroupResponse(Value):
    """All answers to a job group, given to ``on_job_completed``.

    Args:
        job_id: The job.
        responses: Worker name to the answer's payload.
        statuses: Worker name to how it ended; with ``cancel_on_error=False`` not all need be COMPLETED (J11).
    """

    job_id: str
    responses: dict[str, dict[str, Any]]
    statuses: dict[str, JobStatus] = Factory(dict)
