"""Circles among waits."""

import hypothesis.strategies as st
from hypothesis import given

from workerbus.testing._circles import circles_in

WAITS = st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9)


@given(WAITS)
def test_what_is_found_are_circles_that_have_no_task_in_common(waits: dict[int, list[int]]) -> None:
    circles = circles_in(waits)
    for circle in circles:
        assert all(after in waits[task] for task, after in zip(circle, circle[1:] + circle[:1], strict=True))
        assert circle[0] == min(circle)
    tasks = [task for circle in circles for task in circle]
    assert len(tasks) == len(set(tasks))


@given(WAITS)
def test_one_is_found_where_there_is_one(waits: dict[int, list[int]]) -> None:
    def reached(task: int) -> set[int]:
        seen: set[int] = set()
        ahead = [task]
        while ahead:
            for after in waits.get(ahead.pop(), []):
                if after not in seen:
                    seen.add(after)
                    ahead.append(after)
        return seen

    assert bool(circles_in(waits)) == any(task in reached(task) for task in waits)


def test_a_circle_behind_a_wait_for_somebody_else_is_found() -> None:
    assert circles_in({0: [1, 2], 1: [], 2: [3], 3: [2]}) == [[2, 3]]
