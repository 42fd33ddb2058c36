"""Which jobs a worker that has gone can answer no more (J4).

1. A worker of another runner has gone when its announcement arrives, which comes behind its answers.
2. A worker of this runner leaves the registry at once, while its answers may still be on their way over a bus whose
   publishing takes time. So its announcement is waited for until it comes back, and the answers before it count.
3. An announcement that is lost counts as come when the bound of a wind-down, `CLEANUP_SECONDS`, has passed.
4. An answer that has come may still wait, where whoever asked overrides ``accepts_bus_message``. So the departure goes
   through the inbox of each client, behind what waits there.
5. A name may be known elsewhere, or again, before its last bearer has gone. So it counts who was asked, and that is the
   worker as the registry knew it then: a departure concerns those who have asked that one.
"""

from collections import deque

from anyio import Event, move_on_after

from workerbus._concurrency.lifetime import CLEANUP_SECONDS, TaskHost
from workerbus._values import WorkerReadyData
from workerbus.abc import OpenAsks
from workerbus.jobs._client import JobClient
from workerbus.jobs._group import JobGroup


class _Departure:
    """A worker that has left, and the groups that had asked it.

    Attributes:
        worker: The worker's name.
        groups: The groups that had asked it when it left, each with its client, and by which name; those that ask later
            ask a new worker.
        error: Why it has left, in words; None where that is not known.
        announced: Set when its announcement has come back.
        over: Set when the groups have been answered.
    """

    __slots__ = ("announced", "error", "groups", "over", "worker")

    def __init__(self, worker: str, groups: list[tuple[JobClient, JobGroup, str]], error: str | None) -> None:
        self.worker = worker
        self.groups = groups
        self.error = error
        self.announced = Event()
        self.over = Event()


class OrphanedJobs:
    """The departures that concern the requesters of one runner.

    Args:
        name: The runner's name.
        asking: Which groups of the runner's workers, and of its own, have asked which worker.
    """

    def __init__(self, name: str, asking: OpenAsks) -> None:
        self._name = name
        self._asking = asking
        self._waiting: dict[str, deque[_Departure]] = {}

    def left(self, data: WorkerReadyData, error: str | None = None, *, announcement_in: TaskHost | None = None) -> None:
        """Note that a worker has left.

        Args:
            data: The worker, as the registry has known it.
            error: Why, in words; None where that is not known.
            announcement_in: The tasks in which to wait for its announcement; None if that has come.
        """
        groups = [
            (client, group, name)
            for name in (
                data.worker_name,
                data.pool,
            )  # it may have been asked by its own name, or by one that it shares
            if name is not None and name in self._asking
            for group, client in self._asking[name].items()
            if group.asked.get(name) is data
        ]
        if not groups:
            return
        worker = data.worker_name
        departure = _Departure(worker, groups, error)
        if announcement_in is None:
            self._conclude(departure)
        else:
            self._waiting.setdefault(worker, deque()).append(departure)
            announcement_in.start(self._wait, departure, name=f"{self._name} departure of {worker}")

    def announced(self, worker: str) -> None:
        """Note that the announcement of a worker of this runner has come back over the bus."""
        for departure in self._waiting.get(worker, ()):  # one name may have left several times; they come back in order
            if not departure.announced.is_set():
                departure.announced.set()
                return

    async def quiet(self) -> None:
        """Wait until no announcement is waited for, those that leave meanwhile included."""
        while self._waiting:
            await next(iter(self._waiting.values()))[0].over.wait()

    async def _wait(self, departure: _Departure) -> None:
        try:
            with move_on_after(CLEANUP_SECONDS):
                await departure.announced.wait()
        finally:
            line = self._waiting[departure.worker]
            line.remove(departure)
            if not line:
                del self._waiting[departure.worker]
            self._conclude(departure)
            departure.over.set()

    def _conclude(self, departure: _Departure) -> None:
        for client, group, name in departure.groups:
            client.worker_departed(name, group, departure.error)
