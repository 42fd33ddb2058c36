"""L8: what came before what, in this process and in others."""

import multiprocessing
import sys
from typing import Any

import pytest

from support.workers import Helper, running
from workerbus import BusActivateWorkerMessage, WorkerRegistry
from workerbus._order import MOST_PROCESSES, PROCESS, merged, new_incarnation
from workerbus.testing import RecordingBus


def test_events_are_numbered_in_their_order() -> None:
    numbers = [PROCESS.next_number() for _ in range(3)]
    assert 0 < numbers[0] < numbers[1] < numbers[2]


def test_no_two_lives_have_the_same_id() -> None:
    assert len({new_incarnation() for _ in range(100)} | {PROCESS.id}) == 101


def test_of_two_accounts_the_higher_number_counts() -> None:
    """Whichever came first."""
    assert merged({"a": 1, "b": 5}, {"b": 4, "c": 2}) == {"a": 1, "b": 5, "c": 2}
    assert merged({"b": 4}, {"b": 5}) == {"b": 5}
    assert merged(None, {"a": 1}, None) == {"a": 1}
    assert merged() == merged(None) == {}


def test_an_account_is_not_changed_by_being_merged() -> None:
    first = {"a": 1}
    assert merged(first, {"b": 1}) is not first
    assert first == {"a": 1}


def test_of_many_processes_those_are_remembered_that_were_heard_of_last() -> None:
    many = {str(number): 1 for number in range(MOST_PROCESSES)}
    assert list(merged(many, {"0": 1, "new": 1}))[-2:] == ["0", "new"]
    kept = merged(many, {"0": 1, "new": 1})
    assert len(kept) == MOST_PROCESSES
    assert "1" not in kept
    others = {f"other {number}": 1 for number in range(MOST_PROCESSES)}
    assert merged(many, others) == others


async def test_nothing_of_that_travels_within_one_process() -> None:
    """N1: where a worker activates another one, and nobody else is there."""
    bus, one = RecordingBus(), Helper("one")
    async with running(one, Helper("other", active=False), bus=bus):
        await one.activate_worker("other", deactivate_self=True)
    [message] = bus.messages(BusActivateWorkerMessage)
    assert message == BusActivateWorkerMessage(source="one", target="other")


def _look(of: Any, registry: WorkerRegistry) -> None:
    of.put((PROCESS.id, registry.incarnation))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_life_of_its_own() -> None:
    """L7, L8: and so has a runner that was made before the fork and runs in the child."""
    context = multiprocessing.get_context("fork")
    answers, registry = context.SimpleQueue(), WorkerRegistry("runner")
    child = context.Process(target=_look, args=(answers, registry))
    child.start()
    process, incarnation = answers.get()
    child.join()
    assert process != PROCESS.id
    assert incarnation != registry.incarnation
