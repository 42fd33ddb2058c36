"""What `run_group_plan` plays is what the plan says, and what it returns is what happened."""

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given, settings

from support.documents import examples, names_for_examples
from workerbus import CLEANUP_SECONDS, BusJobRequestMessage, JobFailure, JobGroupEvent, JobStatus, MemoryBus
from workerbus.testing import (
    Behaviour,
    Faults,
    FaultyBus,
    GroupOutcome,
    GroupPlan,
    RecordingBus,
    RequesterError,
    run,
    run_group_plan,
)
from workerbus.testing.strategies import behaviours, fault_plans, group_plans, seeds


@pytest.fixture(autouse=True, scope="module")
def no_logs() -> Iterator[None]:
    """Workers that crash by the dozen fill the log, and writing tracebacks takes longer than the plans."""
    logger = logging.getLogger("workerbus")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.parametrize("example", examples(GroupPlan, run_group_plan))
def test_the_examples_in_the_docstrings_run(example: Any, backend: str) -> None:
    run(example, backend=backend)


@pytest.mark.parametrize("law", examples(run_group_plan, sync=True))
def test_the_laws_in_the_docstrings_hold(law: Any) -> None:
    settings(max_examples=10)(law)()


# --- single plans


def play(plan: GroupPlan, backend: str = "asyncio", seed: int = 0) -> GroupOutcome:
    return run(run_group_plan, plan, backend=backend, seed=seed)


def test_a_group_that_completes_has_all_answers_at_the_time_of_the_last(backend: str) -> None:
    plan = GroupPlan({"a": Behaviour(after=2.0, response={"n": 1}), "b": Behaviour(after=1.0)})
    assert play(plan, backend) == GroupOutcome(
        "completed",
        statuses={"a": JobStatus.COMPLETED, "b": JobStatus.COMPLETED},
        responses={"a": {"n": 1}, "b": {}},
        seconds=2.0,
        asked=("a", "b"),
    )


HANGS = Behaviour("hang")


def test_a_group_fails_with_the_first_bad_answer(backend: str) -> None:
    outcome = play(GroupPlan({"a": HANGS, "b": Behaviour("raise", after=1.0)}), backend)
    assert outcome.ended == "failed"
    assert outcome.reason == "worker 'b' raised ScriptedError: scripted to raise"
    assert outcome.statuses == {"a": JobStatus.CANCELLED, "b": JobStatus.ERROR}
    assert outcome.cancelled == ("a",)
    assert outcome.seconds == pytest.approx(1.0)


def test_a_group_times_out(backend: str) -> None:
    outcome = play(GroupPlan({"a": HANGS}, timeout=3.0), backend)
    assert (outcome.ended, outcome.reason, outcome.cancelled) == ("timeout", "timeout", ("a",))
    assert isinstance(outcome.error, TimeoutError)
    assert outcome.seconds == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("requester", "ended"), [("cancelled", "cancelled"), ("deadline", "cancelled"), ("raise", "raised")]
)
def test_a_requester_leaves_before_the_answer(backend: str, requester: Any, ended: str) -> None:
    outcome = play(GroupPlan({"a": HANGS}, requester=requester, at=1.5), backend)
    assert (outcome.ended, outcome.cancelled, outcome.busy) == (ended, ("a",), ())
    assert outcome.statuses == {"a": JobStatus.CANCELLED}
    assert outcome.seconds == pytest.approx(1.5)
    assert isinstance(outcome.error, RequesterError) is (requester == "raise")


def test_a_requester_that_iterates_sees_the_events(backend: str) -> None:
    plan = GroupPlan({"a": Behaviour(updates=[{"n": 1}], chunks=[])}, requester="iterate")
    assert play(plan, backend).events == (
        JobGroupEvent("update", "a", {"n": 1}),
        JobGroupEvent("stream_start", "a"),
        JobGroupEvent("stream_end", "a", {}),
    )


async def test_events_before_a_failure_are_in_the_outcome() -> None:
    plan = GroupPlan(
        {"talks": Behaviour("hang", updates=({"n": 1}, {"n": 2}), every=1.0), "fails": Behaviour("raise", after=5.0)},
        requester="iterate",
    )
    outcome = await run_group_plan(plan)
    assert outcome.ended == "failed"
    assert [event.data for event in outcome.events if event.worker_name == "talks"][:2] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("requester", ["deadline", "cancelled"])
async def test_a_planned_deadline_travels_with_the_request_and_a_cancellation_does_not(requester: Any) -> None:
    """J6"""
    bus = RecordingBus()
    await run_group_plan(GroupPlan({"a": Behaviour("hang")}, requester=requester, at=3.0), bus)
    [request] = bus.messages(BusJobRequestMessage)
    assert (request.seconds_left == 3.0) is (requester == "deadline")  # else it is that of the test


def test_whoever_cleans_up_beyond_the_bound_is_still_busy(backend: str) -> None:
    """J5: the context is left when the bound of L4 is over."""
    outcome = play(GroupPlan({"a": Behaviour("hang", clean_up=60.0)}, timeout=1.0), backend)
    assert outcome.busy == ("a",)
    assert outcome.seconds == pytest.approx(1.0 + CLEANUP_SECONDS)


def test_the_payload_and_the_bus_are_those_of_the_plan(backend: str) -> None:
    bus = RecordingBus()
    plan = GroupPlan({"a": Behaviour()}, payload={"n": 1})
    assert run(run_group_plan, plan, bus, backend=backend).ended == "completed"
    assert [message.payload for message in bus.messages(BusJobRequestMessage)] == [{"n": 1}]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"requester": "sleeps"}, "a requester is one of"),
        ({"at": -1}, "at is a number"),
        ({"timeout": -1}, "timeout is"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        GroupPlan({}, **wrong)


@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        (GroupPlan({"a": HANGS}), False),
        (GroupPlan({"a": HANGS}, requester="iterate"), False),
        (GroupPlan({"a": HANGS}, requester="raise"), True),
        (GroupPlan({"a": HANGS}, timeout=0.0), True),
        (GroupPlan({"a": Behaviour()}), True),
    ],
    ids=repr,
)
def test_a_plan_knows_whether_it_ends(plan: GroupPlan, ends: bool) -> None:
    assert plan.ends is ends
    assert eval(repr(plan), names_for_examples()) == plan


async def test_a_group_of_nobody_completes_at_once_even_without_time() -> None:
    """J12: its timeout of 0 seconds is over at once, and so is the group."""
    outcome = await run_group_plan(GroupPlan({}, timeout=0.0, requester="raise"))
    assert outcome.ended == "raised"
    assert (await run_group_plan(GroupPlan({}, timeout=0.0))).ended == "completed"


# --- laws


both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
"""For laws, whose examples share one backend."""


def predicted(behaviour: Behaviour) -> JobStatus:
    """How a job ends that nobody cancels."""
    if behaviour.end == "answer":
        return behaviour.status
    if behaviour.end == "stop":
        return JobStatus.CANCELLED
    return JobStatus.FAILED if isinstance(behaviour.error, JobFailure) else JobStatus.ERROR


@pytest.mark.slow
@both
@settings(max_examples=60, deadline=None)
@given(group_plans(4), seeds())
def test_whatever_the_plan_the_outcome_adds_up(backend: str, plan: GroupPlan, seed: int) -> None:
    """J5, J8, J11."""
    outcome = play(plan, backend, seed)
    assert outcome.busy == ()
    assert outcome.statuses.keys() == outcome.responses.keys() <= plan.workers.keys()
    if outcome.ended == "completed":
        assert outcome.statuses.keys() == plan.workers.keys()
        if plan.cancel_on_error:
            assert set(outcome.statuses.values()) <= {JobStatus.COMPLETED}
    if outcome.ended == "failed":
        assert plan.cancel_on_error
        assert set(outcome.statuses.values()) - {JobStatus.COMPLETED}
    if outcome.ended == "timeout":
        assert plan.timeout is not None
        assert plan.timeout - 0.01 <= outcome.seconds
    if plan.timeout is not None and plan.requester != "raise":
        assert outcome.seconds <= plan.timeout + CLEANUP_SECONDS + 0.1
    for name, status in outcome.statuses.items():
        if status not in (predicted(plan.workers[name]), JobStatus.CANCELLED):
            raise AssertionError(f"{name}: {status}")


FINITE = behaviours(ends=("answer", "raise", "stop", "crash"))


def seconds_of(behaviour: Behaviour) -> float:
    """How long it takes to the answer; a worker that stops cancels its job first."""
    return behaviour.seconds + (behaviour.clean_up if behaviour.end in ("stop", "crash") else 0.0)


@pytest.mark.slow
@both
@settings(max_examples=40, deadline=None)
@given(group_plans(4, behaviour=FINITE, requesters=("wait", "iterate")), seeds())
def test_a_group_that_only_waits_ends_with_its_slowest_worker(backend: str, plan: GroupPlan, seed: int) -> None:
    """J1, J2, J4, J7, J11."""
    waiting = GroupPlan(plan.workers, cancel_on_error=False, requester=plan.requester)
    outcome = play(waiting, backend, seed)
    assert outcome.ended == "completed"
    assert outcome.statuses == {name: predicted(behaviour) for name, behaviour in plan.workers.items()}
    assert outcome.seconds == pytest.approx(max(map(seconds_of, plan.workers.values()), default=0.0), abs=0.1)
    assert outcome.cancelled == tuple(name for name, each in plan.workers.items() if each.end in ("stop", "crash"))
    if plan.requester == "iterate":
        for name, behaviour in plan.workers.items():
            seen = [event.data for event in outcome.events if event.worker_name == name and event.type == "update"]
            assert seen == list(behaviour.updates)


@both
@settings(max_examples=25, deadline=None)
@given(
    group_plans(3, behaviour=behaviours(ends=("answer", "raise", "crash")), requesters=("wait", "iterate")),
    fault_plans(kinds=("delay", "duplicate")),
    seeds(),
)
def test_delays_and_doubled_messages_change_no_answer(backend: str, plan: GroupPlan, faults: Faults, seed: int) -> None:
    """J1, J12: a request that comes twice runs once, and an answer that comes twice counts once."""
    waiting = GroupPlan(plan.workers, cancel_on_error=False, requester=plan.requester)
    bus = FaultyBus(MemoryBus(), seed=seed, faults=faults)
    outcome = run(run_group_plan, waiting, bus, backend=backend, seed=seed)
    assert outcome.ended == "completed"
    assert outcome.statuses == {name: predicted(behaviour) for name, behaviour in plan.workers.items()}
    assert outcome.asked == tuple(plan.workers)


@both
@settings(max_examples=10, deadline=None)
@given(group_plans(3), seeds())
def test_the_same_plan_and_seed_have_the_same_outcome(backend: str, plan: GroupPlan, seed: int) -> None:
    assert play(plan, backend, seed) == play(plan, backend, seed)


@pytest.mark.parametrize("requester", ["raise", "cancelled", "deadline"])
def test_the_times_of_a_plan_count_from_when_it_is_carried_out(backend: str, requester: Any) -> None:
    async def main() -> float:
        await anyio.sleep(5)
        return (await run_group_plan(GroupPlan({"w1": Behaviour("hang")}, requester=requester, at=2.0))).seconds

    assert run(main, backend=backend) == 2.0


@pytest.mark.parametrize("at", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("requester", "ended"), [("raise", "raised"), ("cancelled", "cancelled"), ("deadline", "cancelled")]
)
async def test_a_requester_goes_at_its_time(requester: Any, ended: str, at: float) -> None:
    """J6: at once, too; and who has two workers leaves both."""
    plan = GroupPlan({"a": Behaviour("hang"), "b": Behaviour("hang")}, requester=requester, at=at)
    outcome = await run_group_plan(plan)
    assert (outcome.ended, outcome.seconds) == (ended, at)
    assert outcome.cancelled == outcome.asked
