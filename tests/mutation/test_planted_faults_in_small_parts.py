"""Messages, events, errors and other small parts: faults that were planted there had turned no test red."""

import copy

import anyio
import pytest
from hypothesis import given

from support.pipelines import DOWN, UP
from support.workers import Helper
from workerbus import (
    BusFrameMessage,
    WorkerParams,
    WorkerRunner,
)
from workerbus.pipeline import DataFrame, FrameDirection, TextFrame
from workerbus.pipeline._crossing import SENDERS, Twice
from workerbus.testing import Faults
from workerbus.testing.strategies import fault_plans

# --- the tasks of a worker


@pytest.mark.parametrize("how", ["a group of errors", "after its start"])
async def test_an_error_of_a_workers_own_task_ends_it_however_it_comes(how: str) -> None:
    """W7, L6"""

    async def fail_in_a_group() -> None:
        raise ExceptionGroup("of one", [ValueError("the one")])

    async def fail_later(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep(1)
        raise ValueError("the one")

    class Broken(Helper):
        async def run(self, params: WorkerParams) -> None:
            if how == "after its start":
                await params.task_group.start(fail_later)
            else:
                params.task_group.start_soon(fail_in_a_group)
            await super().run(params)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Broken("broken"))
    with pytest.raises(ValueError, match="the one"):
        await runner.run()


# --- frames that cross


def crossing(frame: TextFrame, direction: FrameDirection, bridge: str, source: str = "w") -> BusFrameMessage:
    return BusFrameMessage(frame, direction, bridge, source=source)


def test_a_frame_that_goes_both_ways_is_seen_twice() -> None:
    """P3: a second copy is one that goes the same way over another bridge."""
    twice, frame = Twice(), TextFrame("a")
    assert not twice.seen(crossing(frame, DOWN, "one"))
    assert not twice.seen(crossing(frame, UP, "two"))
    assert twice.seen(crossing(frame, DOWN, "two"))


def test_of_many_senders_the_last_ones_are_kept_apart() -> None:
    """P3: a sender that comes pushes out the one that came first, and no other."""
    twice, frame = Twice(), TextFrame("a")
    for number in range(SENDERS + 1):
        assert not twice.seen(crossing(frame, DOWN, "one", f"sender {number}"))
    for number in range(1, SENDERS + 1):
        assert twice.seen(crossing(frame, DOWN, "two", f"sender {number}"))


class Plain(DataFrame):
    """A frame whose attribute nobody declared."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word


def test_a_copy_of_a_frame_has_all_that_was_set_on_it() -> None:
    """P3: a receiver gets a copy of its own."""
    twin = copy.copy(Plain("word"))
    assert twin.word == "word"


# --- plans of faults


@given(fault_plans(kinds=("delay", "split")))
def test_a_plan_in_which_nothing_gets_lost_loses_nothing(faults: Faults) -> None:
    assert faults.lose == 0
    assert faults.duplicate == 0
    assert not faults.split_loses
