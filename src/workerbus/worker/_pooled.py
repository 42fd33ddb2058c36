"""What a worker that stands for several others tells of these: a pool, which this package does not know (O2, S2)."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Protocol

from workerbus._values import JobStatus


class MemberCounts(Protocol):
    """What there is to tell of a member."""

    @property
    def answered(self) -> Mapping[JobStatus, int]:
        """How many jobs it has answered, by status."""

    @property
    def restarts(self) -> int:
        """How many times it was restarted."""


class PoolCounts(Protocol):
    """What there is to tell of a pool."""

    @property
    def size(self) -> int:
        """How many members it is to have."""

    @property
    def waiting(self) -> int:
        """How many jobs wait for one."""

    @property
    def members(self) -> Mapping[str, MemberCounts]:
        """Each member's name to its counts."""


@singledispatch
def pool_counts(_worker: object) -> PoolCounts | None:
    """Return what a pool tells of itself; None for any other worker."""
    return None
