"""Jobs: the two tables, the side that asks, the side that answers, and what users see of both."""

from workerbus.jobs._contexts import JobContext, JobGroupContext, JobStreamContext
from workerbus.jobs._events import (
    JobAnswer,
    JobEvent,
    JobGroupEvent,
    JobGroupResponse,
    JobGroupSnapshot,
    JobProgress,
    JobSnapshot,
)
from workerbus.jobs._group import JobGroup
from workerbus.jobs._handlers import every, job, worker_ready
from workerbus.jobs._limiter import Rate
from workerbus.jobs._params import JobGroupParams, JobParams
from workerbus.jobs._state import GROUP_TABLE, JOB_TABLE
from workerbus.jobs._typing import current_job

__all__ = [
    "GROUP_TABLE",
    "JOB_TABLE",
    "JobAnswer",
    "JobContext",
    "JobEvent",
    "JobGroup",
    "JobGroupContext",
    "JobGroupEvent",
    "JobGroupParams",
    "JobGroupResponse",
    "JobGroupSnapshot",
    "JobParams",
    "JobProgress",
    "JobSnapshot",
    "JobStreamContext",
    "Rate",
    "current_job",
    "every",
    "job",
    "worker_ready",
]
