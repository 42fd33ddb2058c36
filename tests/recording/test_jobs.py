"""What became of each job: as its requester has seen it, whatever the workers and the requester do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbus import JobStatus, MemoryBus
from workerbus.recording import Record, RecordedJob, Recording, jobs_of
from workerbus.testing import GroupOutcome, GroupPlan, run, run_group_plan
from workerbus.testing.strategies import group_plans, seeds


@pytest.mark.slow
@given(group_plans(), seeds(), st.sampled_from(["asyncio", "trio"]))
@settings(max_examples=60)
def test_the_jobs_of_a_recording_are_those_of_the_group(plan: GroupPlan, seed: int, backend: str) -> None:
    """J1, J5, O1: who was asked, whose handler began, how each ended, and how many chunks there were."""
    recording = Recording()

    async def main() -> GroupOutcome:
        bus = MemoryBus()
        bus.add_tap(recording)
        return await run_group_plan(plan, bus)

    outcome = run(main, backend=backend, seed=seed)
    jobs = {job.worker: job for job in recording.jobs}
    assert len(jobs) == len(recording.jobs)
    assert set(jobs) <= set(plan.workers)
    assert {name for name, job in jobs.items() if job.begun is not None} == set(outcome.asked)
    if outcome.ended != "raised" and outcome.ended != "cancelled":
        assert {name: job.status for name, job in jobs.items() if job.status is not None} == outcome.statuses
    else:  # a requester that was cut short is not told of all the answers
        assert outcome.statuses.items() <= {name: job.status for name, job in jobs.items()}.items()
    for job in jobs.values():
        times = [job.asked, job.begun, *job.updates, job.answered]
        known = [time for time in times if time is not None]
        assert known == sorted(known)
        assert job.ended is None or job.begun is not None
        if job.status is JobStatus.CANCELLED and job.worker in outcome.cancelled:
            assert job.cancelled is not None or job.reason is not None
    seen = [event.worker_name for event in outcome.events if event.type == "stream_data"]
    for name in set(seen):
        assert len(jobs[name].chunks) >= seen.count(name)


def of(kind: str, time: float, source: str, target: str, **fields: object) -> Record:
    return Record(time, kind, source, target, job_id="j", **fields)  # type: ignore[arg-type]  # fields by name


def test_a_job_without_an_answer_is_open() -> None:
    (job,) = jobs_of([of("BusJobRequestMessage", 1.0, "a", "b", name="n")])
    assert job == RecordedJob("j", "b", "n", "a", 1.0)
    assert job.outcome == "open"


def test_the_first_answer_counts_and_what_comes_behind_it_does_not() -> None:
    """J1, J7, J12: a request that passes again is the same job."""
    (job,) = jobs_of(
        [
            of("BusJobRequestMessage", 1.0, "a", "b", name="n"),
            of("BusJobRequestMessage", 1.5, "a", "b", name="n"),
            of("handler begins", 2.0, "b", "b"),
            of("handler begins", 2.5, "c", "b"),
            of("BusJobUpdateMessage", 3.0, "b", "a"),
            of("BusJobResponseMessage", 4.0, "b", "a", status=JobStatus.FAILED, reason="JobFailure"),
            of("BusJobStreamEndMessage", 5.0, "b", "a", status=JobStatus.COMPLETED),
            of("BusJobUpdateMessage", 5.0, "b", "a"),
            of("BusJobCancelMessage", 5.0, "a", "b"),
            of("handler ends", 6.0, "b", "b"),
            of("handler ends", 7.0, "c", "b"),
        ]
    )
    assert (job.asked, job.handler, job.begun, job.answered, job.ended) == (1.0, "b", 2.0, 4.0, 6.0)
    assert (job.status, job.reason, job.updates, job.cancelled) == ("failed", "JobFailure", (3.0,), None)


def test_the_first_cancel_counts() -> None:
    """J5"""
    (job,) = jobs_of(
        [
            of("BusJobRequestMessage", 1.0, "a", "b", name="n"),
            of("BusJobCancelMessage", 2.0, "a", "b", reason="timeout"),
            of("BusJobCancelMessage", 3.0, "a", "b", reason="left"),
            of("BusJobResponseMessage", 4.0, "b", "a", status=JobStatus.CANCELLED, reason="JobCancelled"),
        ]
    )
    assert (job.cancelled, job.reason, job.status) == (2.0, "timeout", "cancelled")


def test_what_is_about_a_job_whose_request_was_not_recorded_is_left_out() -> None:
    assert jobs_of([of("BusJobResponseMessage", 4.0, "b", "a", status=JobStatus.COMPLETED)]) == []


def test_a_pool_that_others_share_its_name_with_is_asked_by_its_own_name_and_answers_in_the_shared_one() -> None:
    """S2"""
    (job,) = jobs_of(
        [
            of("BusJobRequestMessage", 1.0, "a", "pool@1", asked_as="pool"),
            of("handler begins", 2.0, "pool@1/1", "pool"),
            of("BusJobCancelMessage", 3.0, "a", "pool@1", reason="timeout"),
            of("BusJobResponseMessage", 4.0, "pool", "a", status=JobStatus.CANCELLED, reason="TimeoutError"),
        ]
    )
    assert (job.worker, job.handler, job.status) == ("pool", "pool@1/1", "cancelled")
    assert (job.cancelled, job.reason) == (3.0, "timeout")


def test_of_two_shared_pools_in_one_group_each_has_what_was_said_to_its_own_part() -> None:
    """S2"""
    first, second = jobs_of(
        [
            of("BusJobRequestMessage", 1.0, "a", "pool@1", asked_as="pool"),
            of("BusJobRequestMessage", 1.0, "a", "other@2", asked_as="other"),
            of("handler begins", 2.0, "pool@1/1", "pool"),
            of("handler begins", 2.5, "other@2/1", "other"),
            of("BusJobCancelMessage", 3.0, "a", "pool@1", reason="timeout"),
            of("BusJobCancelMessage", 4.0, "a", "other@2", reason="timeout"),
        ]
    )
    assert (first.worker, first.handler, first.cancelled) == ("pool", "pool@1/1", 3.0)
    assert (second.worker, second.handler, second.cancelled) == ("other", "other@2/1", 4.0)
