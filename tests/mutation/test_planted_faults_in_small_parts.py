"""Messages, events, errors and other small parts: faults that were planted there had turned no test red."""

import copy
from collections.abc import Generator
from typing import Any, Final

import anyio
import pytest
from hypothesis import given

from support.messages import Note, note
from support.pipelines import DOWN, UP
from support.workers import Helper
from workerbus import (
    BusFrameMessage,
    BusMessage,
    JobError,
    JobStatus,
    WorkerActivationArgs,
    WorkerParams,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
    messages,
)
from workerbus._events import call_handler
from workerbus.messages import BUILT_IN
from workerbus.pipeline import DataFrame, FrameDirection, TextFrame
from workerbus.pipeline._crossing import SENDERS, Twice
from workerbus.testing import Faults
from workerbus.testing.strategies import fault_plans

# --- messages

SYSTEM, LOCAL, ANNOUNCED, UNBOUNDED, OF_A_JOB = "system", "local", "announced", "unbounded", "of a job"
TRAVELS: Final[dict[str, set[str]]] = {
    "BusActivateWorkerMessage": {UNBOUNDED},
    "BusDeactivateWorkerMessage": {UNBOUNDED},
    "BusEndMessage": {UNBOUNDED, ANNOUNCED},
    "BusEndWorkerMessage": {UNBOUNDED},
    "BusCancelMessage": {SYSTEM, ANNOUNCED},
    "BusCancelWorkerMessage": {SYSTEM},
    "BusAddWorkerMessage": {SYSTEM, LOCAL, ANNOUNCED},
    "BusWorkerErrorMessage": {SYSTEM},
    "BusWorkerLocalErrorMessage": {SYSTEM, LOCAL},
    "BusWorkerRegistryMessage": {SYSTEM, ANNOUNCED},
    "BusWorkerReadyMessage": {UNBOUNDED, ANNOUNCED},
    "BusWorkerGoneMessage": {UNBOUNDED, ANNOUNCED},
    "BusJobRequestMessage": set(),
    "BusJobResponseMessage": {UNBOUNDED, OF_A_JOB},
    "BusJobResponseUrgentMessage": {SYSTEM},
    "BusJobUpdateMessage": {OF_A_JOB},
    "BusJobUpdateUrgentMessage": {SYSTEM},
    "BusJobUpdateRequestMessage": {UNBOUNDED},
    "BusJobCancelMessage": {SYSTEM},
    "BusJobStreamStartMessage": {OF_A_JOB},
    "BusJobStreamDataMessage": {OF_A_JOB},
    "BusJobStreamEndMessage": {UNBOUNDED, OF_A_JOB},
    "BusFrameMessage": set(),
    "BusTTSSpeakMessage": set(),
}
"""B2, B7, B8, B9: which overtake, stay here, are for runners and observers, wait for no room, and are of a job."""


@pytest.mark.parametrize("name", TRAVELS)
def test_each_message_travels_as_its_purpose_demands(name: str) -> None:
    """B2, B7, B8, B9"""
    kind: type[BusMessage] = getattr(messages, name)
    flags = {SYSTEM: kind.system, LOCAL: kind.local, ANNOUNCED: kind.announcement, OF_A_JOB: kind.of_a_job}
    assert {flag for flag, is_set in {**flags, UNBOUNDED: not kind.bounded}.items() if is_set} == TRAVELS[name]


def test_all_but_frames_and_what_is_to_be_spoken_is_the_librarys_own_business() -> None:
    """W4: an inactive worker takes no frames, and nothing to speak."""
    assert {kind.__name__ for kind in BUILT_IN} == TRAVELS.keys() - {"BusFrameMessage", "BusTTSSpeakMessage"}


class Special(Note):
    """Another kind of note."""


def test_messages_of_two_kinds_are_two() -> None:
    """N5: whichever is asked."""
    special = Special(1, source="me")
    assert special != note(1)
    assert note(1) != special
    assert len({special, note(1)}) == 2


# --- events, errors, arguments


def test_a_list_of_handlers_is_a_snapshot() -> None:
    """N3: who is added while they are called, is called the next time."""
    worker = Helper("worker")
    worker.add_event_handler("on_activated", print)
    handlers = worker.event_handlers("on_activated")
    worker.add_event_handler("on_activated", repr)
    assert handlers == [print]
    handlers.clear()
    assert worker.event_handlers("on_activated") == [print, repr]


async def test_whatever_a_handler_returns_is_awaited_if_it_can_be() -> None:
    """N3: not coroutines alone."""

    class Later:
        def __await__(self) -> Generator[Any, Any, str]:
            yield from anyio.lowlevel.checkpoint().__await__()
            return "at last"

    assert await call_handler(Later) == "at last"


def test_an_error_keeps_answers_of_its_own() -> None:
    """J8: what is done with them afterwards does not change it."""
    responses, statuses = {"worker": {"n": 1}}, {"worker": JobStatus.FAILED}
    error = JobError("failed", responses=responses, statuses=statuses)
    responses.clear()
    statuses.clear()
    assert error.responses == {"worker": {"n": 1}}
    assert error.statuses == {"worker": JobStatus.FAILED}


def test_metadata_that_is_empty_is_passed_on() -> None:
    """W3"""
    assert WorkerActivationArgs(metadata={}).to_dict() == {"metadata": {}}


async def test_a_worker_that_is_registered_twice_is_known_as_it_was() -> None:
    """G1: it got ready once."""
    registry, first = WorkerRegistry("here"), WorkerReadyData("worker", "here")
    assert await registry.register(first)
    assert not await registry.register(WorkerReadyData("worker", "here"))
    assert registry.get("worker") is first


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
