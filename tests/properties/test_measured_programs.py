"""B9, O1, O2, O3, O7, O9: whatever a program does, all who record, trace, measure and look at it say what it did.

There are two of everything: runners on one bus, recordings, instrumentations, those who look; and over a network, two
processes. Nobody disturbs another, and all numbers are those of the program's own ledger.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from anyio import current_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties import measured_oracle as oracle
from properties.measured_world import World
from support.prometheus import of, parsed
from workerbus import JobStatus
from workerbus.otel import Names
from workerbus.otel._prometheus import prometheus_text
from workerbus.testing import run
from workerbus.view._metrics import as_text

CLOCKS = (
    "otel._spans.perf_counter",
    "runner._notes.monotonic",
    "runner._rows.monotonic",
    "runner._reporter.monotonic",
    "runner._observers.monotonic",
    "observing._overview.monotonic",
    "observing._cluster.monotonic",
    "view._scenes.monotonic",
)
"""What of the library looks at a real clock, and is given the virtual one, so that all durations are known."""


@contextmanager
def one_clock() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in CLOCKS:
            patch.setattr(f"workerbus.{name}", current_time)
        # A runner tells those who look the more rarely the more processor time that takes; a garbage collection counts.
        patch.setattr("workerbus.runner._observers.thread_time", lambda: 0.0)
        yield


def check_recordings(world: World) -> None:
    """O1: both say the same; each job is as the ledger has it; payloads are there where they were asked for."""
    for place, (plain, full) in world.recordings.items():
        jobs = oracle.jobs_at(world.ledger, place)
        assert len(plain.jobs) == len(jobs)
        for told in plain.jobs:
            expected = dict(jobs[told.job_id, told.worker])
            error = expected.pop("error")
            assert told.reason == error or told.cancelled is not None or told.status is JobStatus.CANCELLED
            assert {name: getattr(told, name) for name in expected} == expected, told
        assert [_without_payload(each) for each in full.records] == [_without_payload(each) for each in plain.records]
        assert all(each.payload is None for each in plain.records)
        passed: list[Any] = [each.message for each in world.ledger.passed[place]]
        kept = [each for each in full.records if not each.kind.startswith("handler")]
        assert [each.kind for each in kept] == [type(each).__name__ for each in passed]
        for record, message in zip(kept, passed, strict=True):
            if record.kind == "BusJobRequestMessage":
                assert record.payload is message.payload


def _without_payload(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in record.__match_args__ if name != "payload")


def check_statistics(world: World) -> None:
    """O2: of each worker and each runner."""
    ledger = world.ledger
    answered, requested = oracle.answered_by(ledger), oracle.requested_by(ledger)
    for name, runner in world.runners.items():
        seen = runner.statistics()
        mine = {worker for worker in (*answered, *requested) if world.home_of(worker) == name}
        total = sum((answered.get(each, Counter()) for each in mine), Counter[JobStatus]())
        assert seen.jobs_answered == {status: total[status] for status in JobStatus}
        assert seen.jobs_requested == sum(requested[each] for each in mine)
        assert seen.hooks_failed == sum(ledger.hooks_failed.get(each, 0) for each in mine)
        for worker in seen.workers.values():
            if worker.name == "fragile":
                continue
            its = answered.get(worker.name, Counter())
            assert worker.jobs_answered == {status: its[status] for status in JobStatus}, worker.name
            assert worker.jobs_requested == requested[worker.name]
            assert worker.hooks_failed == ledger.hooks_failed.get(worker.name, 0)
            if "pool" not in worker.name:
                assert {each.job_id for each in worker.jobs} == oracle.open_at(ledger, worker.name)


def check_delivered(world: World) -> None:
    """B9: of each runner, and of those who look from elsewhere."""
    for name, runner in world.runners.items():
        seen, before = runner.bus.statistics().subscribers[name], world.delivered_before[name]
        expected = oracle.delivered_to(world.ledger, name, world.place(name), told_of_others=world.network)
        assert seen.delivered + seen.depth - before == expected
    for name, bus in world.looked_from.items():
        ((observer, seen),) = bus.statistics().subscribers.items()
        assert seen.delivered == sum(each.target in (None, observer) for each in world.heard[name])


def check_spans(world: World) -> None:
    """O1, X8: one for each group, request and run, in one tree over all processes; none is left over."""
    ledger = world.ledger
    asked, sent = oracle.asked_by_id(ledger), oracle.requests(ledger)
    spans = {place: telemetry.exporter.get_finished_spans() for place, telemetry in world.telemetry.items()}
    by_id = {span.context.span_id: span for each in spans.values() for span in each}
    told: dict[tuple[str, str, str | None], Any] = {}
    for place, of_place in spans.items():
        for span in of_place:
            attributes = dict(span.attributes or {})
            what = str(attributes.get(Names.OPERATION, "group" if Names.BATCH in attributes else "job"))
            worker = str(attributes[Names.DESTINATION]) if what in ("send", "process") else None
            key = (what, str(attributes[Names.CONVERSATION]), worker)
            assert key not in told, span.name
            assert place == world.place(str(attributes[Names.CLIENT]))
            told[key] = span

    def parent_of(span: Any) -> Any:
        return None if span.parent is None else by_id.get(span.parent.span_id, "open")

    ended = {
        (kind, each.job_id, None): each for each in ledger.asked for kind in (each.kind,) if each.ended is not None
    }
    assert {key for key in told if key[0] in ("job", "group")} >= ended.keys()
    for key, each in ended.items():
        span, attributes = told[key], dict(told[key].attributes or {})
        assert span.name == f"{each.kind} {oracle.name_of(ledger, each.job_id)}"
        over = oracle.over_of(ledger, each)
        if over is not None:
            assert attributes[Names.STATUS] == over[0], each
            assert (Names.ERROR in attributes) == (over[0] in ("failed", "timed_out"))
        assert attributes.get(Names.BATCH, attributes.get(Names.DESTINATION)) == (
            each.workers[0] if each.single else len(each.workers)
        )
        if not each.within:
            assert span.parent is None
        else:
            job_id, _, asked_of = each.within.rpartition("@")
            assert parent_of(span) in ("open", told.get(("process", job_id, asked_of)))
            assert parent_of(span) is not None
    runs = {("process", each.job_id, each.asked): each for each in ledger.runs if each.ended is not None}
    assert {key for key in told if key[0] == "process"} == runs.keys()
    for key, run_ in runs.items():
        span, attributes = told[key], dict(told[key].attributes or {})
        sender = parent_of(span)
        assert sender == "open" or sender is told["send", key[1], key[2]]
        assert span.context.trace_id == told["send", key[1], key[2]].context.trace_id
        assert (attributes[Names.CLIENT], attributes[Names.JOB]) == (run_.worker, run_.name)
    assert {key[1:] for key in told if key[0] == "send"} == set(sent)
    for (job_id, worker), (_, message) in sent.items():
        span, attributes = told["send", job_id, worker], dict(told["send", job_id, worker].attributes or {})
        assert parent_of(span) in ("open", told.get((asked[job_id].kind, job_id, None)) if job_id in asked else None)
        assert (attributes[Names.CLIENT], attributes[Names.JOB]) == (message.source, message.job_name)


def check_metrics(world: World) -> None:
    """O2: the durations are those of the ledger, to the end."""
    for place, telemetry in world.telemetry.items():
        expected = oracle.durations(world.ledger, place)
        for name, durations in expected.items():
            if name == Names.JOB_DURATION and not oracle.all_known(world.ledger):
                continue
            points: dict[tuple[Any, ...], list[Any]] = {}
            for point in telemetry.points(name):
                key = tuple((point.attributes or {}).get(each) for each in oracle.BY[name])
                points.setdefault(key, []).append(point)
            assert points.keys() == durations.keys(), name
            for key, values in durations.items():
                of_key = points[key]
                assert sum(each.count for each in of_key) == len(values), (name, key)
                assert sum(each.sum for each in of_key) == pytest.approx(sum(values)), (name, key)
                assert min(each.min for each in of_key) == pytest.approx(min(values)), (name, key)
                assert max(each.max for each in of_key) == pytest.approx(max(values)), (name, key)


def check_active(world: World) -> None:
    """O2: of how many handlers it is told that they run."""
    for place, telemetry in world.telemetry.items():
        runs = (each for each in world.ledger.runs if each.ended is None and world.place(each.worker) == place)
        active = telemetry.values(Names.ACTIVE, Names.DESTINATION)
        assert {name: number for name, number in active.items() if number} == Counter(each.asked for each in runs)


def check_text(world: World) -> None:
    """O9: what a reader has collected, as Prometheus reads it: each bucket, sum and count."""
    for place, telemetry in world.telemetry.items():
        metrics = parsed(prometheus_text(telemetry.reader))
        for name, told in oracle.durations(world.ledger, place).items():
            if name == Names.JOB_DURATION and not oracle.all_known(world.ledger):
                continue
            shown = f"{name.replace('.', '_')}_seconds"
            labels_of = [(label, label.replace(".", "_")) for label in oracle.BY[name]]
            seen: Counter[str] = Counter()
            for (sample, pairs), value in metrics.items():
                labels = dict(pairs)
                if sample.rpartition("_")[0] != shown:
                    continue
                values = told[tuple(labels.get(label) for _, label in labels_of)]
                part = sample.rpartition("_")[2]
                seen[part] += 1
                if part == "bucket":
                    assert value == sum(each <= float(labels["le"]) + 1e-9 for each in values), (sample, labels)
                else:
                    assert value == pytest.approx(sum(values) if part == "sum" else len(values)), (sample, labels)
            assert seen["sum"] == seen["count"] == len(told)
        for name in (each for each in world.runners if world.place_of[each] == place and world.is_open):
            answered = world.runners[name].statistics().jobs_answered
            its = {"messaging_system": "workerbus", "workerbus_runner_name": name}
            for status, number in answered.items():
                assert of(metrics, "workerbus_job_answered_total", **its, workerbus_job_status=status) == number


def check_scene(world: World, scene: Any) -> None:
    """O2, O7, O9: runners, workers, jobs, their sums, what is drawn, and all of it as text."""
    ledger, state = world.ledger, scene.state()
    metrics = parsed(as_text(state))
    shown = set(world.runners) if world.network else {scene.name}
    assert set(state["runners"]) == shown
    sums: Counter[str] = Counter()
    for name in shown:
        row, seen = state["runners"][name], world.runners[name].statistics()
        numbers = {
            "workers": len(seen.workers),
            "requested": seen.jobs_requested,
            "hooks_failed": seen.hooks_failed,
            "restarts": seen.restarts,
            "jobs": sum(len(each.jobs) for each in seen.workers.values()),
            **{f"answered_{status}": number for status, number in seen.jobs_answered.items()},
        }
        assert {each: row[each] for each in numbers} == numbers
        sums.update(numbers)
        assert of(metrics, "workerbus_job_requested_total", runner=name) == numbers["requested"]
        assert of(metrics, "workerbus_worker_restarts_total", runner=name) == numbers["restarts"]
        assert of(metrics, "workerbus_runner_workers", runner=name) == numbers["workers"]
        for status, number in seen.jobs_answered.items():
            assert of(metrics, "workerbus_job_answered_total", runner=name, status=status) == number
        for worker in seen.workers.values():
            it, its = state["workers"][worker.name], {"runner": name, "worker": worker.name}
            assert (it["runner"], it["parent"], it["jobs"]) == (name, worker.parent, len(worker.jobs))
            counts = oracle.answered_by_member(ledger, worker.name) if worker.parent == "pool" else worker.jobs_answered
            for status in JobStatus:
                if worker.parent == "pool" and status is JobStatus.CANCELLED:
                    assert it[status.value] >= counts[status]  # some have waited for the member's turn
                    continue
                assert it[status.value] == counts[status], (worker.name, status)
                assert of(metrics, "workerbus_worker_job_answered_total", **its, status=status) == counts[status]
            assert it["requested"] == worker.jobs_requested
            assert of(metrics, "workerbus_worker_job_requested_total", **its) == worker.jobs_requested
            assert of(metrics, "workerbus_worker_job_in_flight", **its) == len(worker.jobs)
            assert it["restarts"] == (seen.restarts if worker.name == "fragile" else 0)
    assert {each: state["about"][each] for each in sums} == dict(sums)
    assert (state["about"]["runners"], state["about"]["left_out"]) == (len(shown), 0)
    for key, row in state["jobs"].items():
        job_id, _, worker = key.rpartition("@")
        assert (row["id"], row["worker"], row["runner"]) == (job_id, worker, world.home_of(worker))
        asked_at, request = oracle.requests(ledger)[job_id, worker] if "/" not in worker else (None, None)
        if request is not None:
            assert (row["name"], row["requester"]) == (request.job_name, request.source)
            assert row["begun"] == pytest.approx(asked_at, abs=1e-3)
            assert row["updates"] == oracle.updates_of(ledger, job_id, worker)
    check_stories(world, scene, state)


def check_stories(world: World, scene: Any, state: Any) -> None:
    """O7: each step of each job that is remembered, and how long it took with each worker."""
    ledger = world.ledger
    drawn = state["spans"]
    finished = 0
    for job_id in {job_id for job_id, _ in oracle.requests(ledger)}:
        told = scene.story(job_id)
        assert told is not None
        family = oracle.family(ledger, job_id)
        assert {told["id"], *(each["id"] for each in told["nested"])} == family
        expected = oracle.steps_of(ledger, family)
        steps = [(at, kind, source, target, text, of_job) for at, kind, source, target, text, of_job in told["steps"]]
        assert Counter(each[1:] for each in steps) == Counter(each[1:] for each in expected)
        if not world.network:
            assert [each[0] for each in steps] == pytest.approx([each[0] for each in expected], abs=1e-3)
            assert [each[1:] for each in steps] == [each[1:] for each in expected]
        legs = oracle.legs_of(ledger, job_id)
        assert told["legs"].keys() == legs.keys()
        for worker, (begun, ended, status, updates) in legs.items():
            leg = told["legs"][worker]
            assert leg[2:] == [status, updates]
            assert leg[:2] == pytest.approx([begun, ended], abs=0.25 if world.network else 1e-3)
            if ended is not None:
                finished += 1
                key = f"{job_id}@{worker}"
                assert key not in drawn or drawn[key] == [worker, *leg[:3], job_id, told["name"]]
        assert told["open"] == any(leg[1] is None for each in family for leg in oracle.legs_of(ledger, each).values())
    assert len(drawn) <= finished
    assert len(drawn) >= min(finished, 12)


def check_passing(world: World) -> None:
    """O7: each message once, wherever it has passed, to both who look, to each as much as it wants."""
    for number, (scene, passing) in enumerate(zip(world.scenes, world.passing, strict=True)):
        taken = passing.take()
        assert scene.missed == 0
        for place in world.places:
            mine = [each for each in taken if world.place_of[each.runner] == place]
            found = [(each.kind, each.source, each.target, each.text, each.job_id) for each in mine if each.job_id]
            sent = [(each, m) for each, m in oracle.of_jobs(world.ledger.passed[place]) if not each.foreign]
            jobs = {m.job_id for _, m in sent}
            expected = [each[1:] for each in oracle.steps_of(world.ledger, jobs, place)]
            known = [each for each in found if each[0] in oracle.KINDS]
            assert known == expected
        others = {each.kind for each in taken} - oracle.KINDS - {"restart"}
        assert number == 0 or not others


def check(world: World, when: str) -> None:
    world.ledger.worked_out.clear()
    for each in (check_recordings, check_statistics, check_spans, check_active):
        each(world)
    if when != "over":
        check_delivered(world)
    if when == "quiet":
        for each in (check_metrics, check_text, check_passing):
            each(world)
    if when == "quiet" or (when == "moving" and not world.network):  # who is far away is told a second later
        for scene in world.scenes:
            check_scene(world, scene)


def look(seed: int, backend: str, *, network: bool) -> None:
    world = World(seed, network=network)
    with one_clock():
        run(world.run, check, backend=backend, seed=seed)


KINDS = pytest.mark.parametrize("network", [False, True], ids=["one bus", "a network"])
FEW = settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KINDS
@FEW
@given(seed=st.integers(0, 2**32))
def test_all_who_look_at_a_program_say_what_it_did(backend: str, network: bool, seed: int) -> None:
    """B9, O1, O2, O3, O7, O9"""
    look(seed, backend, network=network)


@pytest.mark.slow
@KINDS
@MANY
@given(seed=st.integers(0, 2**32))
def test_all_who_look_at_a_program_say_what_it_did_in_many_programs(backend: str, network: bool, seed: int) -> None:
    """B9, O1, O2, O3, O7, O9"""
    look(seed, backend, network=network)
