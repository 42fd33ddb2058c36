"""X7, L8: how long a message was on its way, by the server's clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.redis._server_time import ServerTime


def test_nothing_is_known_before_the_server_has_told_its_time() -> None:
    assert ServerTime().age(1, 100.0) == 0.0


def test_an_age_is_the_difference_by_the_servers_clock_whatever_the_clock_here_says() -> None:
    """X7: what is uncertain is not counted."""
    clock = ServerTime()
    clock.told(1_000_000, 9.9, 10.1)  # half-way, at 10.0 here, it is 1000.0 there, to within 0.1
    assert clock.age(1_000_000, 12.0) == pytest.approx(1.9)
    assert clock.age(999_500, 12.0) == pytest.approx(2.4)
    assert clock.age(1_003_000, 12.0) == 0.0


def test_a_clock_that_is_set_forward_makes_nothing_old_that_was_stored_before() -> None:
    """L8: nothing tells on which side of the jump it was."""
    clock = ServerTime()
    clock.told(1_000_000, 10.0, 10.0)
    clock.told(1_302_000, 12.0, 12.0)  # two seconds later here, five minutes and two seconds there
    assert clock.age(1_001_000, 12.5) == 0.0
    assert clock.age(1_302_000, 12.5) == pytest.approx(0.5)


def test_a_clock_that_is_set_back_makes_nothing_old() -> None:
    """L8"""
    clock = ServerTime()
    clock.told(1_000_000, 10.0, 10.0)
    clock.told(702_000, 12.0, 12.0)
    assert clock.age(1_000_000, 12.5) == 0.0
    assert clock.age(702_000, 13.0) == pytest.approx(1.0)


def test_an_answer_that_has_taken_long_is_no_jump_and_the_quicker_one_counts() -> None:
    """L8"""
    clock = ServerTime()
    clock.told(1_000_000, 9_010.0, 9_010.0)
    clock.told(1_003_000, 9_011.0, 9_015.0)
    assert clock.age(1_000_000, 9_015.0) == pytest.approx(5.0)


def test_clocks_that_drift_apart_are_not_set() -> None:
    """L8: two seconds in half an hour; what was stored before they were told of has its age."""
    clock = ServerTime()
    clock.told(1_000_000, 10.0, 10.0)
    clock.told(3_002_000, 2010.0, 2010.0)
    assert clock.age(3_001_000, 2010.0) == pytest.approx(1.0)


def test_an_old_answer_gives_way_to_one_that_is_as_certain_by_now() -> None:
    """L8: clocks drift apart."""
    clock = ServerTime()
    clock.told(1_000_000, 10.0, 10.0)
    clock.told(1_100_500, 109.95, 110.05)  # half a second more there than here, in a hundred
    assert clock.age(1_100_500, 110.05) == pytest.approx(0.0)
    assert clock.age(1_100_000, 110.05) == pytest.approx(0.5)


STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from([-3600.0, -5.0, 5.0, 300.0])),
    st.tuples(st.just("store"), st.floats(0.0, 10.0)),
    st.tuples(st.just("told"), st.floats(0.0, 10.0)),
)


@given(st.lists(STEPS, max_size=12))
def test_nothing_is_older_than_it_is_however_often_the_clock_is_set(steps: list[tuple[str, float]]) -> None:
    """X7, L8: once the server has told its time again. What is stored gets no lower number than what was before."""
    clock, now, ahead, last = ServerTime(), 100.0, 1_000_000.0, 0
    stored: list[tuple[int, float]] = []
    for what, amount in steps:
        if what == "set":
            ahead += amount
        else:
            now += amount
        if what == "store":
            last = max(last, int((now + ahead) * 1000))
            stored.append((last, now))
        clock.told(int((now + ahead) * 1000), now, now)
        for number, since in stored:
            assert clock.age(number, now) <= now - since + 0.01
