"""How the statistics of a runner are made (O2, O3).

Nothing is collected for them. What runs is read where it is kept, when somebody asks; the few counts that are kept all
the time are kept by those who do what is counted.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from workerbus._values import JobStatus
from workerbus.runner._statistics import WorkerSnapshot
from workerbus.worker._state import WorkerState
from workerbus.worker._types import Phase

NOTHING_WAITS: Final = {"system": 0, "data": 0}


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
    phase = Phase.STOPPING if state.closing and state.phase is Phase.RUNNING else state.phase
    return WorkerSnapshot(
        name=state.name,
        phase=phase.name.lower(),
        parent=state.parent_name,
        active=state.active,
        jobs=state.job_server.snapshots() if jobs else (),
        lanes=dict(NOTHING_WAITS) if state.phase is Phase.NEW else state.inbox.depths,
        jobs_answered=counts.answered,
        jobs_requested=counts.requested,
        hooks_failed=counts.failed,
    )
