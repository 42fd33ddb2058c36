"""Recordings in Chrome's trace event format."""

import json
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.test_pictures import many_records
from support.recorded import recorded
from workerbus import JobStatus
from workerbus.recording import Record, jobs_of
from workerbus.recording._chrome import chrome_trace

Event = dict[str, Any]
_MIDDLE = ("BusJobUpdateMessage", "BusJobStreamDataMessage", "BusJobStreamDataMessage", "BusJobCancelMessage")
WORST = ("open", "error", "failed", "cancelled", "completed")
COLOURS = {"completed": "good", "failed": "bad", "error": "terrible", "cancelled": "grey", "open": "generic_work"}
REQUIRED = {
    "M": {"pid", "tid", "name", "args"},
    "X": {"pid", "tid", "name", "ts", "dur", "cat"},
    "i": {"pid", "tid", "name", "ts", "s"},
    "s": {"pid", "tid", "name", "ts", "cat", "id"},
    "t": {"pid", "tid", "name", "ts", "cat", "id"},
    "f": {"pid", "tid", "name", "ts", "cat", "id", "bp"},
    "C": {"pid", "name", "ts", "args"},
}


def events_of(trace: str) -> list[Event]:
    held = json.loads(trace)
    assert held["displayTimeUnit"] == "ms"
    events: list[Event] = held["traceEvents"]
    return events


def slices_around(events: list[Event], flow: Event) -> list[Event]:
    return [
        each
        for each in events
        if each["ph"] == "X" and each["tid"] == flow["tid"] and each["ts"] <= flow["ts"] < each["ts"] + each["dur"]
    ]


def test_an_arrow_leads_from_the_request_to_the_handler_and_on_to_the_answer(backend: str) -> None:
    recording = recorded(backend)
    events = events_of(recording.chrome_trace())
    threads = {each["tid"]: each["args"]["name"] for each in events if each["name"] == "thread_name"}
    arrows: dict[int, list[str]] = defaultdict(list)
    for flow in (each for each in events if each["ph"] in "stf"):
        around = slices_around(events, flow)
        assert around
        arrows[flow["id"]].append(f"{flow['ph']} {threads[flow['tid']].split(' (')[0]}")
    assert arrows[1] == ["s runner-1 waits", "t desk", "f runner-1 waits"]
    assert arrows[2] == ["s desk waits", "t ann", "f desk waits"]
    assert len(arrows) == len(recording.jobs)


def test_a_slice_says_what_became_of_its_job() -> None:
    events = events_of(recorded().chrome_trace())
    cancelled = next(each for each in events if each["ph"] == "X" and each["args"].get("status") == "cancelled")
    assert cancelled["name"] == "file"
    assert cancelled["cname"] == "grey"
    assert cancelled["args"]["job_id"] == "desk-1"
    assert cancelled["args"]["reason"] == "worker 'bob' raised ValueError"
    assert cancelled["dur"] == 2_000_000
    assert [each["name"] for each in events if each["ph"] == "i"].count("chunk") == 24


def test_only_a_job_that_has_waited_for_its_turn_has_a_slice_of_waiting_in_it() -> None:
    slices = [each for each in events_of(recorded().chrome_trace()) if each["ph"] == "X"]
    assert [each for each in slices if each["name"] == "queued"] == []
    assert len([each for each in slices if each["name"] == "runs"]) == len(recorded().jobs)


def test_the_jobs_in_flight_are_counted() -> None:
    counts = [each["args"]["open"] for each in events_of(recorded().chrome_trace()) if each["ph"] == "C"]
    assert max(counts) == 3
    assert counts[-1] == 0


@given(many_records())
@settings(max_examples=60)
def test_slices_of_one_thread_are_nested_and_arrows_begin_and_end_at_one(records: list[Record]) -> None:
    events = events_of(chrome_trace(records, dropped=0))
    by_thread: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        assert REQUIRED[event["ph"]] <= set(event), event
        assert event.get("ts", 0) >= 0
        if event["ph"] == "X":
            by_thread[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for slices in by_thread.values():
        slices.sort(key=lambda each: (each[0], -each[1]))
        open_until: list[float] = []
        for begin, end in slices:
            while open_until and open_until[-1] <= begin + 0.01:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + 0.01
            open_until.append(end)
    flows = [event for event in events if event["ph"] in "stf"]
    assert len({flow["id"] for flow in flows}) == len(jobs_of(records))
    for flow in flows:
        assert slices_around(events, flow), flow


@st.composite
def jobs_that_overlap(draw: st.DrawFn) -> list[Record]:
    """Records of jobs and groups, each told of as far as a recording may have it: begun or not, answered or not."""
    records: list[Record] = []
    pause = st.sampled_from([0.0, 0.25, 1.0])
    for job_id in draw(st.permutations(["1", "2", "3"])):
        time, requester = 100.0 + draw(pause), draw(st.sampled_from(["a", "b"]))
        for worker in draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True)):
            at = time
            for kind in ("BusJobRequestMessage", "handler begins", *_MIDDLE, "BusJobResponseMessage", "handler ends"):
                if kind != "BusJobRequestMessage" and not draw(st.sampled_from([True, True, False])):
                    continue
                to_worker = kind in ("BusJobRequestMessage", "BusJobCancelMessage")
                source, target = (requester, worker) if to_worker else (worker, requester)
                target = worker if kind.startswith("handler") else target
                status = draw(st.sampled_from(JobStatus)) if kind == "BusJobResponseMessage" else None
                records.append(Record(at, kind, source, target, job_id=job_id, name="n", status=status))
                at += draw(pause)
    return sorted(records, key=lambda each: each.time)


@given(jobs_that_overlap())
@settings(max_examples=40)
def test_a_trace_has_what_became_of_each_job_and_of_nothing_else(records: list[Record]) -> None:
    """O1: arrows, slices, marks and the count over time, each at its moment; whatever overlaps."""
    events = events_of(chrome_trace(records, dropped=0))
    jobs, last = jobs_of(records), records[-1].time if records else 0.0

    def at(time: float | None) -> Any:
        return pytest.approx((last if time is None else time) * 1e6 - (records[0].time * 1e6), abs=1.5)

    flows: dict[int, dict[str, Event]] = defaultdict(dict)
    for each in events:
        if each["ph"] in "stf":
            flows[each["id"]][each["ph"]] = each
    slices = [each for each in events if each["ph"] == "X"]
    assert len(flows) == len(jobs) == sum(each["cat"] == "job" for each in slices)
    expected: Counter[str] = Counter()
    for number, job in enumerate(jobs, 1):
        flow, answered = flows[number], job.answered is not None
        arrives = flow["t" if answered else "f"]
        assert flow["s"]["ts"] == at(job.asked)
        assert arrives["ts"] == at(job.asked if job.begun is None else job.begun)
        assert not answered or flow["f"]["ts"] == at(job.answered)
        begins = [each for each in slices_around(events, flow["s"]) if each["cat"] == "wait"]
        assert [each["args"]["job_id"] for each in begins] == [job.job_id]
        assert not answered or slices_around(events, flow["f"]) == begins
        mine = [each for each in slices_around(events, arrives) if each["cat"] == "job"]
        (own,) = mine
        assert (own["ts"], own["args"]["status"]) == (at(job.asked), job.outcome)
        end = max(job.answered, job.ended or job.answered) if job.answered is not None else None
        assert own["ts"] + own["dur"] == at(end)
        expected.update({"update": len(job.updates), "chunk": len(job.chunks), "cancel": job.cancelled is not None})
        if job.begun is not None:
            runs = [each for each in slices if each["cat"] == "runs" and each["tid"] == own["tid"]]
            until = end if job.ended is None else job.ended
            long = (last if until is None else until) - job.begun >= 1e-5
            mine = [each for each in runs if each["ts"] == at(job.begun) and each["ts"] + each["dur"] == at(until)]
            assert mine or not long
    assert Counter(each["name"] for each in events if each["ph"] == "i") == +expected
    counts = [each for each in events if each["ph"] == "C"]
    assert len({each["ts"] for each in counts}) == len(counts)
    waits = [each for each in slices if each["cat"] == "wait"]
    groups = {(job.requester, job.job_id) for job in jobs}
    assert len(waits) == len(groups)
    for requester, job_id in groups:
        group = [job for job in jobs if (job.requester, job.job_id) == (requester, job_id)]
        ended = max(last if job.answered is None else job.answered for job in group)
        worst = next(each for each in WORST if any(job.outcome == each for job in group))
        assert any(
            (each["ts"], each["ts"] + each["dur"], each["cname"]) == (at(group[0].asked), at(ended), COLOURS[worst])
            for each in waits
        )
