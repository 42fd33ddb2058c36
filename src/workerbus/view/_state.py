"""What the page shows, as sections of rows, and what of it has changed (O2, O3, O4).

A state is made of what `runner.statistics()` says and of what was noted; no payload is in either. A row is a flat list
or dict that JSON has a form for, and is never changed: where it is equal to the one before, it is not sent again. So
nothing in a row changes by itself: times are moments on one clock, which the page has, too, and not ages.
"""

import json
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

from workerbus.pool import WorkerPool
from workerbus.runner._runner import WorkerRunner
from workerbus.runner._statistics import RunnerStatistics
from workerbus.view._failures import LoggedError
from workerbus.view._notes import Note
from workerbus.view._stories import Stories, Story

JOBS: Final = 500
"""How many jobs in flight are shown: the oldest."""

TOLD: Final = 300
"""How many steps of a story are told."""

Row = Any
Section = dict[str, Row]
State = dict[str, Section]


def build(
    runner: WorkerRunner,
    seen: RunnerStatistics,
    stories: Stories,
    errors: Iterable[LoggedError],
    curves: Section,
    before: State | None,
    *,
    sampled: bool,
) -> State:
    """Return what there is to show.

    Args:
        runner: The runner.
        seen: Its statistics.
        stories: What was noted of jobs.
        errors: The errors that were logged.
        curves: The points of the curves.
        before: The last state, whose moments are kept: ages are read anew each time, and never come out quite equal.
        sampled: Whether more messages pass than are noted.
    """
    jobs = _jobs(seen, stories, {} if before is None else before["jobs"])
    open_jobs = sum(len(worker.jobs) for worker in seen.workers.values())
    return {
        "about": {
            "runner": seen.name,
            "workers": len(seen.workers),
            "jobs": open_jobs,
            "sampled": sampled,
            "not_ready": list(runner.health().reasons),
            "left_out": open_jobs - len(jobs),
            "requested": seen.jobs_requested,
            "hooks_failed": seen.hooks_failed,
            "restarts": seen.restarts,
            "sent": seen.bus.sent,
            "undelivered": seen.bus.undelivered,
            **{f"answered_{status.value}": number for status, number in seen.jobs_answered.items()},
        },
        "workers": _workers(runner, seen, stories),
        "others": {name: _whose(runner, name) for name in runner.registry.remote_workers},
        "jobs": jobs,
        "groups": {
            group.job_id: [group.label, group.state, list(group.waits_for[:20]), len(group.waits_for)]
            for group in seen.job_groups[:JOBS]
        },
        "curves": dict(curves),
        "errors": {str(each.number): list(each[1:]) for each in errors},
        "spans": {
            f"{story.job_id}@{leg.worker}": [
                leg.worker,
                _moment(leg.begun),
                None if leg.ended is None else _moment(leg.ended),
                leg.status,
                story.job_id,
                story.name,
            ]
            for story, leg in stories.drawn()
        },
    }


def story(stories: Stories, job_id: str) -> dict[str, Any] | None:
    """Return the story of a job, with that of the jobs which were asked for in it; None where it is not remembered."""
    told = stories.get(job_id)
    if told is None:
        return None
    family = stories.family(told)
    steps = sorted((note for each in family for note in (*each.steps, *each.last)), key=_when)
    return {
        **_head(told),
        "parent": told.parent,
        "open": any(each.open for each in family),
        "steps": [_step(each) for each in steps[:TOLD]],
        "left_out": sum(each.left_out for each in family) + len(steps[TOLD:]),
        "nested": [_head(each) for each in family[1:]],
        "legs": {
            leg.worker: [_moment(leg.begun), None if leg.ended is None else _moment(leg.ended), leg.status, leg.updates]
            for leg in told.legs.values()
        },
    }


def encode(value: object) -> bytes:
    """Return something as JSON, in one line."""
    return json.dumps(value, separators=(",", ":")).encode()


def difference(old: State, new: State) -> dict[str, dict[str, Any]]:
    """Return what has to be changed in one state so that it becomes the other: section to rows set and rows gone."""
    changes: dict[str, dict[str, Any]] = {}
    for name, rows in new.items():
        earlier = old[name]
        changed = {key: row for key, row in rows.items() if key not in earlier or earlier[key] != row}
        gone = [key for key in earlier if key not in rows]
        if changed or gone:
            changes[name] = {"set": changed, "gone": gone}
    return changes


def _workers(runner: WorkerRunner, seen: RunnerStatistics, stories: Stories) -> Section:
    rows: Section = {}
    pools: list[WorkerPool] = []
    for worker in seen.workers.values():
        it = runner.get_worker(worker.name)
        rows[worker.name] = {
            "kind": type(it).__name__,
            "parent": worker.parent,
            "phase": worker.phase,
            "active": worker.active,
            "jobs": len(worker.jobs),
            "system": worker.lanes["system"],
            "data": worker.lanes["data"],
            "requested": worker.jobs_requested,
            "hooks_failed": worker.hooks_failed,
            "restarts": stories.restarts.get(worker.name, 0),
            **{status.value: number for status, number in worker.jobs_answered.items()},
        }
        if isinstance(it, WorkerPool):
            pools.append(it)
    for pool in pools:
        counts = pool.statistics()
        rows[pool.name]["pool"] = [counts.size, counts.waiting]
        for name, member in counts.members.items():
            if name in rows:  # it answers in the pool's name, so the pool has counted it
                rows[name].update({status.value: number for status, number in member.answered.items()})
                rows[name]["restarts"] = member.restarts
    return rows


def _whose(runner: WorkerRunner, name: str) -> str:
    data = runner.registry.get(name)
    return "" if data is None else data.runner


def _jobs(seen: RunnerStatistics, stories: Stories, before: Section) -> Section:
    now = monotonic()
    there = ((worker.name, job) for worker in seen.workers.values() for job in worker.jobs)
    oldest = sorted(there, key=_age, reverse=True)[:JOBS]
    rows: Section = {}
    for name, job in oldest:
        key = f"{job.job_id}@{name}"
        known = before.get(key)
        begun = known["begun"] if known is not None else _moment(now - job.age)
        until = None if job.seconds_left is None else _moment(now + job.seconds_left)
        if known is not None and known["until"] is not None and until is not None:
            until = known["until"]
        told = stories.get(job.job_id)
        leg = None if told is None else told.legs.get(name)
        rows[key] = {
            "id": job.job_id,
            "worker": name,
            "name": job.name,
            "requester": job.requester,
            "state": job.state,
            "begun": begun,
            "until": until,
            "updates": 0 if leg is None else leg.updates,
            "answered": _answered(told),
        }
    return rows


def _age(entry: tuple[str, Any]) -> float:
    age: float = entry[1].age
    return age


def _answered(told: Story | None) -> list[int] | None:
    """How many of those that were asked for a job have answered; None where that is one."""
    if told is None or len(told.legs) < 2:
        return None
    return [sum(leg.ended is not None for leg in told.legs.values()), len(told.legs)]


def _head(told: Story) -> dict[str, Any]:
    return {"id": told.job_id, "name": told.name, "requester": told.requester, "workers": list(told.legs)}


def _step(note: Note) -> list[Any]:
    return [_moment(note.at), note.kind, note.source, note.target, note.text, note.job_id]


def _when(note: Note) -> float:
    return note.at


def _moment(seconds: float) -> float:
    return round(seconds, 4)
