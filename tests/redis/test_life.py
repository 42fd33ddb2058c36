"""X3, X4: the table of a member's life, as it sees it itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.redis._life import LIFE_TABLE, LifeState, LifeTrigger, next_life

EVENTS = st.lists(st.sampled_from(LifeTrigger), max_size=12)


def walk(events: list[LifeTrigger]) -> list[LifeState]:
    states = [LifeState.JOINING]
    for event in events:
        states.append(next_life(states[-1], event))
    return states


def test_a_life_goes_from_joining_to_joined_to_left() -> None:
    assert walk([LifeTrigger.ADMIT, LifeTrigger.LEAVE]) == [LifeState.JOINING, LifeState.JOINED, LifeState.LEFT]


@pytest.mark.parametrize("broken_by", [LifeTrigger.FENCE, LifeTrigger.GAP])
def test_there_is_one_way_back_from_whatever_broke_a_life(broken_by: LifeTrigger) -> None:
    """X3, X4: all sessions have ended before it joins again."""
    broken = walk([LifeTrigger.ADMIT, broken_by])[-1]
    assert broken is LifeState.FENCED
    assert {event for event in LifeTrigger if next_life(broken, event) is not broken} == {
        LifeTrigger.UNWOUND,
        LifeTrigger.LEAVE,
    }
    assert next_life(broken, LifeTrigger.UNWOUND) is LifeState.JOINING


@given(events=EVENTS)
def test_who_has_left_stays_away(events: list[LifeTrigger]) -> None:
    states = walk(events)
    if LifeState.LEFT in states:
        assert set(states[states.index(LifeState.LEFT) :]) == {LifeState.LEFT}


@given(events=EVENTS)
def test_a_member_may_leave_wherever_it_is(events: list[LifeTrigger]) -> None:
    assert walk([*events, LifeTrigger.LEAVE])[-1] is LifeState.LEFT


@given(events=EVENTS)
def test_nobody_is_a_member_without_having_been_let_in_since(events: list[LifeTrigger]) -> None:
    """X4: a fenced one is let in anew."""
    states = walk(events)
    for before, event, after in zip(states, events, states[1:], strict=False):
        if after is LifeState.JOINED and before is not after:
            assert (before, event) == (LifeState.JOINING, LifeTrigger.ADMIT)


def test_a_word_that_comes_too_late_changes_nothing() -> None:
    """X4: as a second one that it is fenced, or that it was let in, once it is to stop."""
    assert next_life(LifeState.FENCED, LifeTrigger.FENCE) is LifeState.FENCED
    assert next_life(LifeState.JOINING, LifeTrigger.FENCE) is LifeState.JOINING
    assert next_life(LifeState.LEFT, LifeTrigger.ADMIT) is LifeState.LEFT


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(LIFE_TABLE) == set(LifeState)
    reached = {LifeState.JOINING}
    for _ in LifeState:
        reached |= {after for state in reached for after in LIFE_TABLE[state].values()}
    assert reached == set(LifeState)
