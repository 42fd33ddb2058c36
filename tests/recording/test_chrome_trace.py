"""Recordings in Chrome's trace event format."""

import json
from collections import defaultdict
from typing import Any

from hypothesis import given, settings

from recording.test_pictures import many_records
from support.recorded import recorded
from workerbus.recording import Record, jobs_of
from workerbus.recording._chrome import chrome_trace

Event = dict[str, Any]
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
