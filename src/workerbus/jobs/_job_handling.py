"""Who waits while a job's handler runs, where lanes are bounded (B9).

A handler may wait for room in a lane. Nobody may wait for itself: so it is noted for each run of a handler which hooks
and handlers cannot end before it does. They are those that await its job, or one that stands in line behind it.
"""

from collections.abc import Mapping

from workerbus._concurrency.handling import Handling
from workerbus.jobs._group import JobGroup
from workerbus.jobs._open_job import OpenJob


class JobHandling(Handling):
    """One run of a job's handler: what its requester holds up is held up until the handler has answered.

    Args:
        job: The job.
        worker: The name of the worker whose handler it is.
        groups: The open job groups of this process, by job id.
    """

    __slots__ = ("_groups", "_job", "_worker")

    def __init__(self, job: OpenJob, worker: str, groups: Mapping[str, JobGroup]) -> None:
        super().__init__(None)
        self._job = job
        self._worker = worker
        self._groups = groups

    @property
    def waiters(self) -> list[Handling]:
        """Who waits for the job, or for one that stands in line behind it."""
        limiter, assignment = self._job.route.limiter, self._job.assignment
        behind = () if limiter is None else limiter.line
        found: list[Handling] = []
        for job in [self._job, *behind, *(() if assignment is None else assignment.line)]:
            group = self._groups.get(job.request.job_id)
            if group is not None and self._worker in group.pending:
                found += group.awaited_by or ()
        return found
