"""Counts the handlers that take long, and the jobs that wait for longer than they are worked at (R8, O2).

A tap of the bus while the runner runs, and only where somebody has asked for it: it looks at the clock twice for each
job. What it knows of a job is what it is told, and since when the worker has had it.
"""

import logging
from collections.abc import Mapping

from anyio import current_time

from workerbus._log import about
from workerbus._values import check_seconds
from workerbus.messages import BusJobRequestMessage, BusMessage
from workerbus.worker._core import WorkerCore

logger = logging.getLogger("workerbus.runner")


class SlowJobs:
    """What takes long at the workers of one runner.

    Args:
        runner: The runner's name.
        limit: After how many seconds a handler is slow.
        workers: The runner's workers, by name; others on its bus are none of its business.

    Attributes:
        slow: How many handlers have taken longer than the limit.
        waited: How many jobs have waited for their handler for longer than it has run.

    Raises:
        ValueError: The limit is less than 0 or not a number.
    """

    def __init__(self, runner: str, limit: float, workers: Mapping[str, WorkerCore]) -> None:
        check_seconds("slow_seconds", limit)
        self._runner = runner
        self._limit = limit
        self._workers = workers
        self._running: dict[tuple[str, str], tuple[float, float]] = {}
        self.slow: int = 0
        self.waited: int = 0

    def __call__(self, message: BusMessage) -> None:
        """Do nothing: what messages say is not enough."""

    def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
        """Note that a handler begins."""
        core = self._workers.get(worker)
        job = None if core is None else core.job_server.jobs.get(request.job_id)
        if job is not None:
            self._running[request.job_id, worker] = job.since, current_time()

    def job_ends(self, worker: str, request: BusJobRequestMessage) -> None:
        """Judge how long a handler has taken."""
        came_and_began = self._running.pop((request.job_id, worker), None)
        if came_and_began is None:
            return
        came, began = came_and_began
        ran = current_time() - began
        if began - came > ran:
            self.waited += 1
        if ran > self._limit:
            self.slow += 1
            logger.warning(
                "the handler of job %r (%s) at worker %r has taken %.3g s",
                request.job_name,
                request.job_id,
                worker,
                ran,
                extra=about(runner=self._runner, worker=worker, job=request.job_id),
            )
