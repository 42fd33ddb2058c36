"""A recording in Chrome's trace event format, which Perfetto and ``chrome://tracing`` open.

A thread stands for a line of a worker's row, since the slices of one thread must not overlap. Arrows, the flow events,
lead from the request to the handler's begin and on to the answer.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from workerbus.recording._jobs import RecordedJob
from workerbus.recording._records import Record
from workerbus.recording._timeline import Bar, Lane, Wait, timeline_of

_PID: Final = 1
_SHORTEST: Final = 1e-6
"""Seconds that a slice takes at least, so that arrows have something to begin and end at."""
_COLOURS: Final = {
    "completed": "good",
    "failed": "bad",
    "error": "terrible",
    "cancelled": "grey",
    "open": "generic_work",
}

Event = dict[str, Any]


def chrome_trace(records: Sequence[Record], *, dropped: int) -> str:
    """Return the events of some records, as a JSON object."""
    told = timeline_of(records, None, _SHORTEST)
    events: list[Event] = [_named("process_name", "workerbus")]
    thread = 0
    places: dict[tuple[str, str], tuple[int, Wait]] = {}
    bars: list[tuple[int, Bar]] = []
    for lane in told.lanes:
        for place in range(lane.wait_places):
            thread += 1
            events += _thread(thread, f"{lane.name} waits", place)
            for wait in lane.waits:
                if wait.place == place:
                    places[lane.name, wait.jobs[0].job_id] = thread, wait
                    events.append(_waits(thread, wait))
        for place in range(lane.bar_places):
            thread += 1
            events += _thread(thread, lane.name, place)
            bars += [(thread, bar) for bar in lane.bars if bar.place == place]
    for thread_of_bar, bar in bars:
        waits = places[bar.job.requester, bar.job.job_id]
        events += [*_work(thread_of_bar, bar), *_marks(thread_of_bar, bar.job), *_flow(thread_of_bar, bar, waits)]
    events += _in_flight(told.lanes)
    told_of = {"source": "workerbus.recording", "records": len(records), "dropped": dropped}
    return json.dumps({"displayTimeUnit": "ms", "otherData": told_of, "traceEvents": events})


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _named(what: str, name: str, thread: int = 0) -> Event:
    return {"ph": "M", "pid": _PID, "tid": thread, "name": what, "args": {"name": name}}


def _thread(thread: int, name: str, place: int) -> list[Event]:
    shown = f"{name} ({place + 1})" if place else name
    order = {"ph": "M", "pid": _PID, "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}}
    return [_named("thread_name", shown, thread), order]


def _slice(thread: int, name: str, kind: str, begin: float, end: float, colour: str, args: dict[str, Any]) -> Event:
    return {
        "ph": "X",
        "pid": _PID,
        "tid": thread,
        "name": name,
        "cat": kind,
        "ts": _micro(begin),
        "dur": _micro(max(end - begin, _SHORTEST)),
        "cname": colour,
        "args": args,
    }


def _waits(thread: int, wait: Wait) -> Event:
    args = {"job_id": wait.jobs[0].job_id, "statuses": {job.worker: job.outcome for job in wait.jobs}}
    return _slice(thread, f"waits for {wait.label}", "wait", wait.begin, wait.end, _COLOURS[wait.outcome], args)


def _work(thread: int, bar: Bar) -> Iterator[Event]:
    job = bar.job
    name, colour = job.name or "a job", _COLOURS[job.outcome]
    args = {
        "job_id": job.job_id,
        "requester": job.requester,
        "asked of": job.worker,
        "status": job.outcome,
        "attempt": job.attempt,
        "payload bytes": job.size,
        "answer bytes": job.answer_size,
    }
    if job.reason is not None:
        args["reason"] = job.reason
    if job.parent is not None:
        args["parent"] = list(job.parent)
    yield _slice(thread, name, "job", job.asked, bar.end, colour, args)
    if job.begun is None:
        return
    end = bar.end if job.ended is None else job.ended
    for what, begin, until in (("queued", job.asked, job.begun), ("runs", job.begun, end)):
        if until - begin >= _SHORTEST:
            yield _slice(thread, what, what, begin, until, "grey" if what == "queued" else colour, {})


def _marks(thread: int, job: RecordedJob) -> Iterator[Event]:
    cancelled = () if job.cancelled is None else (job.cancelled,)
    for name, times in (("update", job.updates), ("chunk", job.chunks), ("cancel", cancelled)):
        for time in times:
            args = {"job_id": job.job_id}
            yield {"ph": "i", "s": "t", "pid": _PID, "tid": thread, "name": name, "ts": _micro(time), "args": args}


def _flow(thread: int, bar: Bar, waits: tuple[int, Wait]) -> Iterator[Event]:
    job, (asking, wait) = bar.job, waits
    common = {"pid": _PID, "cat": "job", "name": "asks", "id": bar.number}
    yield {**common, "ph": "s", "tid": asking, "ts": _micro(job.asked)}
    answered = job.answered
    yield {**common, "ph": "t" if answered is not None else "f", "bp": "e", "tid": thread, "ts": _arrives(job)}
    if answered is not None:
        # A slice does not contain its own end.
        last = max(wait.end, wait.begin + _SHORTEST)
        at = min(_micro(answered), _micro(last) - 0.001)
        yield {**common, "ph": "f", "bp": "e", "tid": asking, "ts": round(max(at, _micro(job.asked)), 3)}


def _arrives(job: RecordedJob) -> float:
    return _micro(job.asked if job.begun is None else job.begun)


def _in_flight(lanes: Sequence[Lane]) -> Iterator[Event]:
    """Count the jobs that are open, over time."""
    changes = sorted(change for lane in lanes for bar in lane.bars for change in ((bar.job.asked, 1), (bar.end, -1)))
    open_jobs = 0
    for place, (time, change) in enumerate(changes):
        open_jobs += change
        if place + 1 == len(changes) or changes[place + 1][0] > time:
            args = {"open": open_jobs}
            yield {"ph": "C", "pid": _PID, "name": "jobs in flight", "ts": _micro(time), "args": args}
