"""Pools: one name with several workers behind it."""

from workerbus.pool._map import PoolAnswer, PoolMap
from workerbus.pool._members import MemberStatistics
from workerbus.pool._pool import PoolStatistics, WorkerPool

__all__ = ["MemberStatistics", "PoolAnswer", "PoolMap", "PoolStatistics", "WorkerPool"]
