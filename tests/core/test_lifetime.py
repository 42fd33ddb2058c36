"""L3, L4, L6, R5: the clock of a wind-down, the host of tasks, and what counts of several errors."""

import anyio
import pytest
from anyio import current_time, sleep, sleep_forever

from workerbus import CLEANUP_SECONDS
from workerbus._concurrency.failures import unwrap_group
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus.testing import settle


async def test_a_shield_that_is_asked_for_when_somebody_has_insisted_holds_nothing_off() -> None:
    """R5: all shields are open then, those that are still to come too."""
    clean_up = CleanUp()
    clean_up.abandon()
    begin = current_time()
    with clean_up.shield() as shield:
        await sleep_forever()
    assert shield.cancelled_caught
    assert current_time() == begin


async def test_who_insists_opens_all_shields_and_nothing_stays_of_them() -> None:
    """R5, G2: one inside another, and of a part of the wind-down."""
    whole = CleanUp()
    begin = current_time()
    with whole.shield() as outer:
        with CleanUp(whole).shield() as inner:
            assert whole.shields == {outer, inner}
            whole.abandon()
            await sleep_forever()
        assert inner.cancelled_caught
        await sleep_forever()
    assert outer.cancelled_caught
    assert current_time() == begin
    assert whole.shields == set()


async def test_what_an_exception_leaves_right_after_its_deadline_gets_no_time_of_its_own() -> None:
    """L4: nested contexts do not add up, though each is left a little later than it might be."""
    exc = ValueError()
    deadline = CleanUp().deadline(exc)
    await sleep(CLEANUP_SECONDS + 0.05)
    assert CleanUp().deadline(exc) == deadline
    await sleep(0.1)
    assert CleanUp().deadline(exc) == current_time() + CLEANUP_SECONDS  # it was kept, and is raised again


async def test_a_wind_down_that_has_begun_keeps_its_deadline() -> None:
    """L4: however often its clock is started."""
    clean_up = CleanUp()
    deadline = clean_up.begin()
    await sleep(CLEANUP_SECONDS / 2)
    assert clean_up.begin() == deadline


@pytest.mark.parametrize("first", ["part", "whole"])
async def test_of_a_part_and_the_whole_the_earlier_deadline_counts(first: str) -> None:
    """L4: one that began its clean-up before the run did gets no more time for it."""
    whole = CleanUp()
    part = CleanUp(whole)
    clocks = [part, whole] if first == "part" else [whole, part]
    deadline = clocks[0].begin()
    assert part.begun == deadline
    await sleep(CLEANUP_SECONDS / 2)
    clocks[1].begin()
    assert part.deadline() == deadline


def test_a_wind_down_is_interrupted_once() -> None:
    """R5: from then on the run is shielded again, since only the user's own clean-up can take time."""
    clean_up = CleanUp()
    assert not clean_up.interrupt()
    assert not clean_up.abandoned
    clean_up.interruptible = True
    assert clean_up.interrupt()
    assert clean_up.abandoned
    assert not clean_up.interruptible
    assert not clean_up.interrupt()


async def test_a_host_knows_how_many_of_its_tasks_run() -> None:
    """L1: an owner that ends cancels them if there are any."""
    one, other = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        assert host.running == 0
        host.start(one.wait, name="one")
        host.start(other.wait, name="other")
        assert host.running == 2
        one.set()
        await settle()
        assert host.running == 1
        other.set()
    assert host.running == 0


async def test_of_two_exits_the_first_one_counts() -> None:
    """L3: the exit code is that of what has ended the program."""

    async def leave(code: int) -> None:
        raise SystemExit(code)

    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        host.end_with(SystemExit(1))
        host.start(leave, 2, name="another")
    with pytest.raises(SystemExit) as caught:
        host.raise_fatal()
    assert caught.value.code == 1


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_comes_first_of_several(ending: BaseException) -> None:
    """L3, L6: whatever failed beside it."""
    inner = BaseExceptionGroup("inner", [ending, ValueError("two")])
    assert unwrap_group(BaseExceptionGroup("outer", [ValueError("one"), inner])) is ending
