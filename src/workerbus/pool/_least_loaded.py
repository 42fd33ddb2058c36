"""Which member of a pool does which job, and which jobs wait (S2).

A job goes to the member with the fewest jobs; among equals, to the one that was the last to have one, since its task
and its memory are still at hand. Where all members have as many as they may, jobs stand in line: the highest priority
first, and in the order of arrival among equals. Choosing costs the same for any number of members. All here is
synchronous, and nothing here knows what jobs and members are.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from workerbus.jobs._limiter import Limiter

T = TypeVar("T")
M = TypeVar("M")


class LeastLoaded(Limiter[T], Generic[T, M]):
    """The places that the members of a pool have, and the line of those that wait for one.

    Args:
        concurrency: How many jobs a member may have at once.
        takes: Whether a member takes jobs now; one that does not is left out until it joins again.
        priority: The priority of a job.

    Attributes:
        concurrency: As given.
        members: The members that take jobs.
        waiting: How many jobs stand in line.
    """

    __slots__ = (
        "_by_load", "_lines", "_loads", "_lowest", "_priorities", "_priority", "_takes", "concurrency", "members",
        "waiting",
    )  # fmt: skip

    place: ClassVar[str] = "a member of the pool"

    def __init__(self, concurrency: int, takes: Callable[[M], bool], priority: Callable[[T], int]) -> None:
        super().__init__(0)
        self.concurrency: int = concurrency
        self.members: dict[M, None] = {}
        self._takes = takes
        self._priority = priority
        self._loads: dict[M, int] = {}  # of those without a job, only members are in it
        # Members with a free place, by load; in no bucket are those without one.
        self._by_load: list[OrderedDict[M, None]] = [OrderedDict() for _ in range(concurrency)]
        self._lowest = concurrency  # no bucket below this one has a member in it
        self._lines: dict[int, OrderedDict[T, None]] = {}
        self._priorities: list[int] = []  # of those in line, negated: the highest priority first
        self.waiting: int = 0

    # --- members

    def load_of(self, member: M) -> int:
        """Return how many jobs a member has."""
        return self._loads.get(member, 0)

    def join(self, member: M) -> None:
        """Let a member have jobs. `following` says which of those in line it has then."""
        if member not in self.members:
            self.members[member] = None
            self._put(member, self._loads.setdefault(member, 0))

    def leave_out(self, member: M) -> None:
        """Give a member no more jobs; it keeps those that it has."""
        if member in self.members:
            load = self._loads[member]
            if load < self.concurrency:
                del self._by_load[load][member]
            self._forget(member)

    def _forget(self, member: M) -> None:
        del self.members[member]
        if not self._loads[member]:
            del self._loads[member]

    def _put(self, member: M, load: int) -> None:
        if load < self.concurrency:
            self._by_load[load][member] = None
            if load < self._lowest:
                self._lowest = load

    def has_room(self) -> bool:
        """Whether there is a free place."""
        while self._lowest < self.concurrency:
            bucket = self._by_load[self._lowest]
            while bucket:
                member = next(reversed(bucket))
                if self._takes(member):
                    return True
                del bucket[member]
                self._forget(member)
            self._lowest += 1
        return False

    def _choose(self) -> M | None:
        """Take a place of the member that has the fewest jobs; None if there is no free one."""
        if not self.has_room():
            return None
        member, _ = self._by_load[self._lowest].popitem()
        load = self._loads[member] = self._lowest + 1
        if load < self.concurrency:
            self._by_load[load][member] = None
        return member

    # --- jobs

    @property
    def line(self) -> list[T]:
        """The jobs that wait for a place, in order."""
        return [job for negative in self._priorities for job in self._lines[-negative]]

    def waits(self, job: T) -> bool:
        """Whether a job stands in line."""
        line = self._lines.get(self._priority(job)) if self.waiting else None
        return line is not None and job in line

    @property
    def why(self) -> str | None:
        """What those in line wait for, in words, where that is not what others have."""
        text = "for a member of the pool: none has started, or all are inactive or have gone"
        return None if self.members else text

    def member_of(self, job: T) -> M:
        """Return the member that has a job."""
        member: M = self.holders[job]
        return member

    def stand(self, job: T) -> bool:
        """Give a job to a member, or let it stand in line; returns whether a member has it."""
        member = None if self.waiting else self._choose()
        if member is not None:
            self.holders[job] = member
            return True
        priority = self._priority(job)
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = OrderedDict()
            insort(self._priorities, -priority)
        line[job] = None
        self.waiting += 1
        return False

    def leave(self, job: T) -> T | None:
        """Free a job's place, or take the job out of the line; returns the one that a member has now, if one has."""
        if job not in self.holders:
            self._take_out(job)
            return None
        member: M = self.holders.pop(job)
        load = self._loads[member]
        self._loads[member] = load - 1
        if member in self.members:
            if load < self.concurrency:
                del self._by_load[load][member]
            self._put(member, load - 1)
        elif load == 1:
            del self._loads[member]
        return self.following()

    def following(self) -> T | None:
        """Give the first in line to a member, if one has a place; returns that job."""
        if not self.waiting:
            return None
        member = self._choose()
        if member is None:
            return None
        job = next(iter(self._lines[-self._priorities[0]]))
        self._take_out(job)
        self.holders[job] = member
        return job

    def _take_out(self, job: T) -> None:
        priority = self._priority(job)
        line = self._lines.get(priority)
        if line is None or job not in line:
            return
        del line[job]
        self.waiting -= 1
        if not line:
            del self._lines[priority]
            self._priorities.remove(-priority)
