"""What a runner tells of itself to those who look, as sections of rows, and what of them has changed (O2, O3, O4, O7).

All is made of what `runner.statistics()` says and of the errors that were logged; no payload is in it. A row is a flat
list or dict that JSON has a form for, and is never changed: where it is equal to the one before, it is not told again.
So nothing in a row changes by itself: times are moments on the process's monotonic clock, and not ages.
"""

import os
import socket
from collections.abc import Iterable
from functools import cache
from time import monotonic
from typing import Any, Final, Protocol

from workerbus.runner._health import RunnerHealth
from workerbus.runner._logged import LoggedError
from workerbus.runner._statistics import RunnerStatistics
from workerbus.worker._pooled import PoolCounts, pool_counts

JOBS: Final = 500
"""How many jobs in flight are told of: the oldest."""
WAITS_FOR: Final = 20
"""How many of those that a group waits for are named."""
OF_BUS: Final = ("peers", "unsent", "lag", "gaps", "connections_lost", "lives", "retries")
"""What a bus counts, where it does."""

Row = Any
Section = dict[str, Row]
Sections = dict[str, Section]
Changes = dict[str, dict[str, Any]]


class Observed(Protocol):
    """A runner, as those who look at it see it."""

    @property
    def name(self) -> str:
        """Its name."""

    def get_worker(self, name: str) -> object:
        """Return one of its workers."""

    def health(self) -> RunnerHealth:
        """Return how it is."""


@cache
def process_of(pid: int) -> tuple[str, int]:
    """Return where this process is: its host, and its id there."""
    return socket.gethostname(), pid


def rows(runner: Observed, seen: RunnerStatistics, errors: Iterable[LoggedError], before: Sections | None) -> Sections:
    """Return what there is to tell.

    Args:
        runner: The runner.
        seen: Its statistics.
        errors: The errors that were logged.
        before: What was told last, whose moments are kept: ages are read anew each time, and never quite agree.
    """
    jobs = _jobs(seen, {} if before is None else before["jobs"])
    return {
        "runner": {seen.name: _runner(runner, seen, len(jobs))},
        "workers": _workers(runner, seen),
        "jobs": jobs,
        "groups": {
            group.job_id: [group.label, group.state, list(group.waits_for[:WAITS_FOR]), len(group.waits_for)]
            for group in seen.job_groups[:JOBS]
        },
        "errors": {str(each.number): list(each[1:]) for each in errors},
    }


def difference(old: Sections, new: Sections) -> Changes:
    """Return what has to be changed in one state so that it becomes the other: section to rows set and rows gone."""
    changes: Changes = {}
    for name, section in new.items():
        earlier = old.get(name, {})
        changed = {key: row for key, row in section.items() if key not in earlier or _differs(earlier[key], row)}
        gone = [key for key in earlier if key not in section]
        if changed or gone:
            changes[name] = {"set": changed, "gone": gone}
    return changes


def _differs(old: Row, new: Row) -> bool:
    return bool(old is not new and old != new)


def _runner(runner: Observed, seen: RunnerStatistics, told: int) -> dict[str, Any]:
    host, pid = process_of(os.getpid())
    health = runner.health()
    open_jobs = sum(len(worker.jobs) for worker in seen.workers.values())
    return {
        "name": seen.name,
        "process": f"{host}:{pid}",
        "host": host,
        "pid": pid,
        "workers": len(seen.workers),
        "jobs": open_jobs,
        "left_out": open_jobs - told,
        "requested": seen.jobs_requested,
        "hooks_failed": seen.hooks_failed,
        "restarts": seen.restarts,
        **{f"answered_{status.value}": number for status, number in seen.jobs_answered.items()},
        "sent": seen.bus.sent,
        "undelivered": seen.bus.undelivered,
        "bus": health.bus,
        **{name: getattr(seen.bus, name) for name in OF_BUS if hasattr(seen.bus, name)},
        "loop_lag": None if seen.loop is None else round(seen.loop.lag, 4),
        "loop_stalls": None if seen.loop is None else seen.loop.stalls,
        "slow_handlers": seen.slow_handlers,
        "jobs_waited_longer": seen.jobs_waited_longer,
        "live": health.live,
        "not_ready": list(health.reasons),
    }


def _workers(runner: Observed, seen: RunnerStatistics) -> Section:
    rows: Section = {}
    pools: list[tuple[str, PoolCounts]] = []
    for worker in seen.workers.values():
        it = runner.get_worker(worker.name)
        rows[worker.name] = {
            "name": worker.name,
            "kind": type(it).__name__,
            "parent": worker.parent,
            "phase": worker.phase,
            "active": worker.active,
            "jobs": len(worker.jobs),
            "system": worker.lanes["system"],
            "data": worker.lanes["data"],
            "requested": worker.jobs_requested,
            "hooks_failed": worker.hooks_failed,
            "restarts": 0,
            **{status.value: number for status, number in worker.jobs_answered.items()},
        }
        counts = pool_counts(it)
        if counts is not None:
            pools.append((worker.name, counts))
    for pool, counts in pools:
        rows[pool]["pool"] = [counts.size, counts.waiting]
        for name, member in counts.members.items():
            if name in rows:  # it answers in the pool's name, so the pool has counted it
                rows[name].update({status.value: number for status, number in member.answered.items()})
                rows[name]["restarts"] = member.restarts
    return rows


def _jobs(seen: RunnerStatistics, before: Section) -> Section:
    now = monotonic()
    there = ((worker.name, job) for worker in seen.workers.values() for job in worker.jobs)
    oldest = sorted(there, key=_age, reverse=True)[:JOBS]
    rows: Section = {}
    for name, job in oldest:
        key = f"{job.job_id}@{name}"
        known = before.get(key)
        begun = known["begun"] if known is not None else moment(now - job.age)
        until = None if job.seconds_left is None else moment(now + job.seconds_left)
        if known is not None and known["until"] is not None and until is not None:
            until = known["until"]
        rows[key] = {
            "id": job.job_id,
            "worker": name,
            "name": job.name,
            "requester": job.requester,
            "state": job.state,
            "begun": begun,
            "until": until,
        }
    return rows


def _age(entry: tuple[str, Any]) -> float:
    age: float = entry[1].age
    return age


def moment(seconds: float) -> float:
    """Return a moment as it is told: to a tenth of a millisecond."""
    return round(seconds, 4)
