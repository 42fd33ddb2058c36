"""L1, X2-X4: whatever becomes of processes and of their network, each session keeps what it promises."""

import logging
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties.peer_world import WITHIN, Asking, Movers, Said, Speakers, Step, Workers, fault_plans, steps
from workerbus import CLEANUP_SECONDS, JobError, JobGroupError, Peer
from workerbus.testing import PeerFaults, run

pytestmark = pytest.mark.slow

laws = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 10_000)


def talks(processes: int) -> st.SearchStrategy[list[Step]]:
    return steps(processes, ("say", "say", "say", "whisper", "whisper", "kill", "start", "fence", "split", "lose"), 30)


@settings(laws, max_examples=40)
@given(
    program=st.integers(2, 4).flatmap(lambda count: st.tuples(st.just(count), talks(count))),
    seed=seeds,
    faults=fault_plans,
)
def test_in_each_session_all_arrives_once_and_in_order(
    backend: str, program: tuple[int, list[Step]], seed: int, faults: PeerFaults
) -> None:
    """X2, X3, X4: between one life and another; broadcasts and what is for one subscriber together (X6).

    And when all faults are over, those who live know each other, and hear each other.
    """
    count, happens = program

    async def main() -> Speakers:
        world = Speakers(count, seed, faults)
        await world.play(happens, world.main, world.do)
        return world

    check_sessions(run(main, backend=backend, seed=seed, limit=300.0))


def check_sessions(world: Speakers) -> None:
    """See to it that each session has brought what was stored, once and in order, with no gap."""
    assert world.found == [], str(world.network)
    sessions: dict[tuple[int, str, Peer], list[Said]] = defaultdict(list)
    for heard in world.heard:
        sessions[heard.n, heard.life, heard.peer].append(heard.message)
    for (n, _, peer), arrived in sessions.items():
        sent = [each for each in world.said[peer.incarnation] if each.target in (None, f"ear {n}")]
        stored = [each for each in sent if each not in world.unsent]
        first, last = stored.index(arrived[0]), stored.index(arrived[-1])
        assert arrived == stored[first : last + 1], str(world.network)


# --- jobs


def asks(processes: int) -> st.SearchStrategy[list[Step]]:
    return steps(processes, ("ask", "ask", "ask", "ask", "ask", "kill", "start", "fence", "split", "kill", "lose"), 30)


@settings(laws, max_examples=35)
@given(
    program=st.integers(2, 4).flatmap(lambda count: st.tuples(st.just(count), asks(count))),
    seed=seeds,
    faults=fault_plans,
)
def test_every_job_is_answered_once_whatever_becomes_of_processes(
    backend: str, caplog: pytest.LogCaptureFixture, program: tuple[int, list[Step]], seed: int, faults: PeerFaults
) -> None:
    """L1, J1, J4, J5, X3, X4: within a lease and two beats; and no handler goes on for nobody."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")
    count, happens = program

    async def main() -> Workers:
        world = Workers(count, seed, faults)
        await world.play(happens, world.main, world.do)
        return world

    check_jobs(run(main, backend=backend, seed=seed, limit=300.0))


def check_jobs(world: Workers) -> None:
    """See to it that each job was answered once, in time, and that no handler has gone on for nobody."""
    story = str(world.network)
    assert world.found == [], story
    for asking in world.late:
        assert _may_wait(asking, world), (asking, story)
    by_id = {asking.job_id: asking for asking in world.asked if asking.job_id is not None}
    begun = [(handling.job_id, handling.host) for handling in world.handled]
    assert len(begun) == len(set(begun)), story
    for handling in world.handled:
        asked = by_id.get(handling.job_id)
        assert handling.ended is not None
        if asked is None:
            continue  # of a worker, which has asked another one
        killed = world.deaths.get(handling.life)
        if killed is not None and handling.ended >= killed and not asked.killed and asked.ended is not None:
            assert asked.ended <= killed + WITHIN, (asked, story)
        killed = world.deaths.get(asked.life)
        if killed is not None:
            assert handling.ended <= killed + WITHIN, (handling, story)
    calm = not {fault.kind for fault in world.network.records} & {"killed", "gap", "lease over"}
    for asking in world.asked:
        if asking.ended is not None and not asking.killed:
            _check_outcome(asking, world, calm=calm)


def moves(processes: int) -> st.SearchStrategy[list[Step]]:
    return steps(processes, ("host", "host", "host", "drop", "ask", "kill", "start", "fence", "split", "lose"), 30)


@settings(laws, max_examples=25)
@given(
    program=st.integers(2, 4).flatmap(lambda count: st.tuples(st.just(count), moves(count))),
    seed=seeds,
    faults=fault_plans,
)
def test_a_worker_name_is_one_processs_and_all_agree_whose(
    backend: str, caplog: pytest.LogCaptureFixture, program: tuple[int, list[Step]], seed: int, faults: PeerFaults
) -> None:
    """L1, X4, X5: wherever its workers come and go, and whoever is cut off meanwhile."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")
    count, happens = program

    async def main() -> Movers:
        world = Movers(count, seed, faults)
        await world.play(happens, world.main, world.do)
        return world

    world = run(main, backend=backend, seed=seed, limit=300.0)
    assert world.found == [], str(world.network)


def _may_wait(asking: Asking, world: Workers) -> bool:
    step, living = asking.step, world.runners
    if step.what == "group":
        return len(living) < len(world.names)
    return step.whom not in living or (step.what == "hang" and step.timeout != 0.4)


def _check_outcome(asking: Asking, world: Workers, *, calm: bool) -> None:
    step, outcome, story = asking.step, asking.outcome, str(world.network)
    assert asking.ended is not None
    if step.timeout is not None:
        assert asking.ended - asking.begun <= step.timeout + CLEANUP_SECONDS + 0.1, (asking, story)
    if outcome is None:
        return  # the end of the program has cut it
    answers = [each.answer for each in world.handled if each.job_id == asking.job_id]
    whole = step.timeout != 0.4 and (step.what != "relay" or not step.timeout)
    if isinstance(outcome, JobError | JobGroupError):
        ran = step.what not in ("fail", "hang", "relay") and whole and calm and faultless(world)
        assert not ran, (asking, story)
    elif step.what in ("echo", "slow"):
        assert outcome in answers, (asking, story)
    elif step.what == "group":
        assert sorted(each["by"] for each in outcome.values()) == sorted(each["by"] for each in answers)
        assert set(outcome) == set(world.workers)
    if step.what == "stream":
        completed = isinstance(outcome, dict)
        assert asking.chunks == list(range(5 if completed else len(asking.chunks))), (asking, story)


def faultless(world: Workers) -> bool:
    """Whether no answer may have come too late for its deadline."""
    return not {fault.kind for fault in world.network.records} & {"split", "delayed"}
