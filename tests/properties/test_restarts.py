"""The table of a supervised worker, and how often there may be another one."""

from hypothesis import given
from hypothesis import strategies as st

from workerbus.supervision._state import (
    SUPERVISION_TABLE,
    RestartIntensity,
    SupervisedState,
    SupervisedTrigger,
    wants_back,
)


def test_what_has_failed_stays_so_and_what_has_ended_comes_again_only_with_all() -> None:
    """S1."""
    assert not SUPERVISION_TABLE[SupervisedState.FAILED]
    assert SUPERVISION_TABLE[SupervisedState.ENDED] == {SupervisedTrigger.ALL: SupervisedState.RESTARTING}
    for state in (SupervisedState.RUNNING, SupervisedState.RESTARTING):
        assert SUPERVISION_TABLE[state][SupervisedTrigger.STOP] is SupervisedState.ENDED


@given(st.booleans())
def test_who_never_is_restarted_is_not_and_who_always_is_is(failed: bool) -> None:
    """S1."""
    assert not wants_back("never", failed=failed)
    assert wants_back("always", failed=failed)
    assert wants_back("on_failure", failed=failed) is failed


@given(st.integers(0, 5), st.integers(1, 20), st.lists(st.integers(0, 15), max_size=40))
def test_no_stretch_of_time_has_more_restarts_than_allowed_and_none_is_refused_without_need(
    most: int, within: int, gaps: list[int]
) -> None:
    """S1."""
    intensity, now, permitted = RestartIntensity(most, within), 0, list[int]()
    for gap in gaps:
        now += gap
        recent = [at for at in permitted if now - at <= within]
        assert intensity.permits(now) is (len(recent) < most)
        if len(recent) < most:
            permitted.append(now)
