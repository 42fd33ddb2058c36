"""What a runner tells of itself at one moment: frozen snapshots of what runs, and counts that only go up (O2, O3).

How they are made is the subject of `_totals`. Payloads are not in them.
"""

from workerbus._values import JobStatus, Value, value
from workerbus.bus._inbox import BusStatistics
from workerbus.jobs._events import JobGroupSnapshot, JobSnapshot
from workerbus.runner._stalls import LoopStatistics


@value
class WorkerSnapshot(Value):
    """A worker at one moment.

    Args:
        name: The worker's name.
        phase: Its state: ``"new"``, ``"attached"``, ``"running"``, ``"stopping"`` or ``"finished"``.
        parent: Its parent's name; None for a root worker.
        active: Whether it is active.
        jobs: The jobs that it was asked for and has not answered, the oldest first.
        lanes: ``"system"`` and ``"data"`` to how many messages and hooks wait there.
        jobs_answered: Status to how many requests it has answered with it; all four statuses are there.
        jobs_requested: How many requests it has sent; a job group counts once for each worker.
        hooks_failed: How many times one of its hooks raised.
    """

    name: str
    phase: str
    parent: str | None
    active: bool
    jobs: tuple[JobSnapshot, ...]
    lanes: dict[str, int]
    jobs_answered: dict[JobStatus, int]
    jobs_requested: int
    hooks_failed: int


@value
class RunnerStatistics(Value):
    """A runner at one moment.

    The counts cover the whole run, including workers that have gone, and only go up.

    Args:
        name: The runner's name.
        workers: Name to snapshot, for each worker that it hosts now, children included.
        bus: The statistics of its bus.
        job_groups: The jobs and job groups that it has asked for itself and that are not over.
        jobs_answered: Status to how many requests were answered with it; all four statuses are there.
        jobs_requested: How many requests it and its workers have sent.
        hooks_failed: How many times a hook raised.
        restarts: How many times its supervised workers were restarted, children included.
        loop: How its event loop has kept up; None if nothing watches it (see ``stall_seconds``).
        slow_handlers: How many handlers of jobs have taken longer than ``slow_seconds``; None if this is not measured.
        jobs_waited_longer: How many jobs have waited for their handler for longer than it has run; None if this is not
            measured.
    """

    name: str
    workers: dict[str, WorkerSnapshot]
    bus: BusStatistics
    job_groups: tuple[JobGroupSnapshot, ...]
    jobs_answered: dict[JobStatus, int]
    jobs_requested: int
    hooks_failed: int
    restarts: int = 0
    loop: LoopStatistics | None = None
    slow_handlers: int | None = None
    jobs_waited_longer: int | None = None
