"""J13: who has a place, and who waits in line for one."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.jobs._limiter import Limiter, Turn

STEPS = st.lists(st.none() | st.integers(0, 30), max_size=40)
"""None stands in line; a number lets somebody leave, who may have left before."""


@given(limit=st.integers(1, 4), steps=STEPS)
def test_the_first_in_line_have_the_places(limit: int, steps: list[int | None]) -> None:
    """J13: after whatever came and went, those and no others."""
    limiter = Limiter(limit)
    turns: list[Turn] = []
    gone: set[int] = set()
    for step in steps:
        if step is None:
            turns.append(limiter.stand())
        elif turns:
            which = step % len(turns)
            turns[which].leave()
            gone.add(which)
        here = [turn for number, turn in enumerate(turns) if number not in gone]
        assert [turn.taken for turn in here] == [number < limit for number in range(len(here))]
        assert list(limiter.line) == here[limit:]
        assert not any(turns[number].taken for number in gone)


async def test_a_turn_comes_when_a_place_is_free() -> None:
    limiter = Limiter(1)
    first, second = limiter.stand(), limiter.stand()
    await first.come()
    came = anyio.Event()

    async def wait() -> None:
        await second.come()
        assert second.taken
        came.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not came.is_set()
        first.leave()
        await came.wait()


@pytest.mark.parametrize("waits_already", [False, True])
async def test_who_has_left_the_line_waits_no_more(waits_already: bool) -> None:
    limiter = Limiter(1)
    limiter.stand()
    second = limiter.stand()
    async with anyio.create_task_group() as group:
        if waits_already:
            group.start_soon(second.come)
            await anyio.wait_all_tasks_blocked()
        second.leave()
        if not waits_already:
            group.start_soon(second.come)
    assert not second.taken


async def test_a_place_is_given_before_its_new_owner_runs() -> None:
    """J13: the order is that of arrival, not of the scheduler."""
    limiter = Limiter(1)
    first, second = limiter.stand(), limiter.stand()
    first.leave()
    third = limiter.stand()
    assert second.taken
    assert not third.taken
