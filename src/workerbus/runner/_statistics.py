"""What a runner tells of itself at one moment: frozen snapshots of what runs, and counts that only go up (O2, O3).

Nothing is collected for it. What runs is read where it is kept, when somebody asks; the few counts that are kept all
the time are kept by those who do what is counted. Payloads are not in it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from workerbus._values import JobStatus, Value, value
from workerbus.bus._inbox import BusStatistics
from workerbus.jobs._events import JobGroupSnapshot, JobSnapshot
from workerbus.runner._stalls import LoopStatistics
from workerbus.worker._state import WorkerState
from workerbus.worker._types import Phase

NOTHING_WAITS: Final = {"system": 0, "data": 0}


@value
class WorkerSnapshot(Value):
    """A worker at one moment.

    Args:
        name: The worker's name.
        phase: Where it is in its life: ``"new"``, ``"attached"``, ``"running"``, ``"stopping"`` or ``"finished"``.
        parent: Its parent's name; None for a root worker.
        active: Whether it is active.
        jobs: The jobs that it was asked for and has not answered, the oldest first.
        lanes: ``"system"`` and ``"data"`` to how many messages and hooks wait there.
        jobs_answered: Status to how many requests it has answered so; all four are there.
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

    The three counts are of the whole run: those of workers that have gone are in them, and they only go up.

    Args:
        name: The runner's name.
        workers: Name to what there is to say of that worker, of those that it hosts now, children included.
        bus: What its bus has seen.
        job_groups: The jobs and job groups that it has asked for itself and that are not over.
        jobs_answered: Status to how many requests were answered so; all four are there.
        jobs_requested: How many requests its workers and itself have sent.
        hooks_failed: How many times a hook raised.
        restarts: How many times its supervised workers were restarted, children included.
        loop: How its event loop has kept up; None where nothing watches it (``stall_seconds``).
        slow_handlers: How many handlers of jobs have taken longer than ``slow_seconds``; None where nobody looks.
        jobs_waited_longer: How many jobs have waited for their handler for longer than it has run; the same.
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


class Totals:
    """The counts of several workers, added up."""

    def __init__(self) -> None:
        self.answered: dict[JobStatus, int] = dict.fromkeys(JobStatus, 0)
        self.requested: int = 0
        self.failed: int = 0

    def add(self, answered: Mapping[JobStatus, int], requested: int, failed: int) -> None:
        """Add the counts of one more."""
        for status, number in answered.items():
            self.answered[status] += number
        self.requested += requested
        self.failed += failed

    def add_worker(self, state: WorkerState) -> None:
        """Add those of a worker."""
        self.add(state.job_server.answered, state.job_client.requested, state.hooks.failed)

    def with_workers(self, workers: Iterable[WorkerState], requested: int) -> "Totals":
        """Return these and those of some workers, and further requests."""
        everything = Totals()
        everything.add(self.answered, self.requested + requested, self.failed)
        for worker in workers:
            everything.add_worker(worker)
        return everything


def snapshot(state: WorkerState, *, jobs: bool = True) -> WorkerSnapshot:
    """Return a snapshot of a worker, with its jobs in flight or without."""
    counts = Totals()
    counts.add_worker(state)
    return WorkerSnapshot(
        name=state.name,
        phase=state.phase.name.lower(),
        parent=state.parent_name,
        active=state.active,
        jobs=state.job_server.snapshots() if jobs else (),
        lanes=dict(NOTHING_WAITS) if state.phase is Phase.NEW else state.inbox.depths,
        jobs_answered=counts.answered,
        jobs_requested=counts.requested,
        hooks_failed=counts.failed,
    )
