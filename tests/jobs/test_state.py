"""J1, J4, J9, J14: the tables of what happens to a job, and to a group."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.jobs import GROUP_TABLE, JOB_TABLE
from workerbus.jobs._state import OPEN_JOBS, GroupState, GroupTrigger, JobState, JobTrigger, next_group, next_job

JOB_EVENTS = st.lists(st.sampled_from(JobTrigger), max_size=12)


ASK_EVENTS = st.lists(st.sampled_from(GroupTrigger), max_size=8)


def walk(events: list[JobTrigger]) -> list[JobState]:
    states = [JobState.QUEUED]
    for event in events:
        states.append(next_job(states[-1], event))
    return states


def exits(states: list[JobState]) -> int:
    return sum(before in OPEN_JOBS and after not in OPEN_JOBS for before, after in pairwise(states))


@given(events=JOB_EVENTS)
def test_a_job_is_answered_at_most_once(events: list[JobTrigger]) -> None:
    """J1: no way leads back into the open states."""
    states = walk(events)
    assert exits(states) <= 1
    assert not any(before not in OPEN_JOBS and after in OPEN_JOBS for before, after in pairwise(states))


@given(events=JOB_EVENTS)
def test_a_cancel_and_the_end_of_the_handler_end_every_job(events: list[JobTrigger]) -> None:
    """J1: from wherever it is, and with one answer."""
    states = walk([*events, JobTrigger.CANCEL, JobTrigger.FINISH])
    assert states[-1] is JobState.OVER
    assert exits(states) == 1


@given(events=JOB_EVENTS)
def test_a_job_that_is_over_stays_over(events: list[JobTrigger]) -> None:
    states = walk(events)
    if JobState.OVER in states:
        assert set(states[states.index(JobState.OVER) :]) == {JobState.OVER}


@given(events=JOB_EVENTS)
def test_a_handler_starts_at_most_once_and_never_after_a_cancel(events: list[JobTrigger]) -> None:
    """J9, J13."""
    states = walk(events)
    starts = [
        n
        for n, (before, after) in enumerate(pairwise(states))
        if before is JobState.QUEUED and after is JobState.RUNNING
    ]
    assert len(starts) <= 1
    if starts:
        assert JobTrigger.CANCEL not in events[: starts[0]]


@given(events=JOB_EVENTS)
def test_a_cancelled_job_is_not_left_open_by_its_handler(events: list[JobTrigger]) -> None:
    """J2: after a cancel, returning is an end, in a deferred handler, too."""
    states = walk(events)
    if JobState.CANCELLING in states:
        after = states[states.index(JobState.CANCELLING) :]
        assert not {JobState.QUEUED, JobState.RUNNING, JobState.DEFERRED} & set(after)


@given(events=ASK_EVENTS)
def test_the_outcome_of_a_group_stands(events: list[GroupTrigger]) -> None:
    """J8, J16: the first event decides, whatever follows."""
    state = GroupState.OPEN
    for event in events:
        state = next_group(state, event)
    assert state is (next_group(GroupState.OPEN, events[0]) if events else GroupState.OPEN)
    assert (state is GroupState.OPEN) == (not events)


def test_each_event_gives_a_group_an_outcome_of_its_own() -> None:
    """J8, J20: but that a group is complete when there are enough answers, and when there are all."""
    outcomes = {event: next_group(GroupState.OPEN, event) for event in GroupTrigger}
    assert outcomes.pop(GroupTrigger.ENOUGH) is outcomes[GroupTrigger.LAST_ANSWER]
    assert len(set(outcomes.values())) == len(outcomes)


@pytest.mark.parametrize(("table", "states"), [(JOB_TABLE, JobState), (GROUP_TABLE, GroupState)])
def test_the_tables_have_a_row_for_every_state(table: Any, states: Any) -> None:
    assert set(table) == set(states)


@pytest.mark.parametrize(("table", "start"), [(JOB_TABLE, JobState.QUEUED), (GROUP_TABLE, GroupState.OPEN)])
def test_every_state_can_be_reached(table: Any, start: Any) -> None:
    reached, todo = {start}, [start]
    while todo:
        for state in table[todo.pop()].values():
            if state not in reached:
                reached.add(state)
                todo.append(state)
    assert reached == set(table)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", JobTrigger)
def test_what_is_not_in_the_table_changes_nothing(state: JobState, event: JobTrigger) -> None:
    if event not in JOB_TABLE[state]:
        assert next_job(state, event) is state
