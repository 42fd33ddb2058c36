"""B2, W8: what comes while a worker handles a message."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from support.messages import Alarm, Note, alarm, note
from support.workers import Helper, running
from workerbus import BusJobRequestMessage, BusMessage, BusSystemMessage, JobGroupError, job
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._events import EventHandlers
from workerbus.worker._hooks import HookQueue
from workerbus.worker._inbox import WorkerInbox

Early = OrderedDict[str, tuple[str | None, int]]


def inbox_with(handle: Any, early: Early | None = None) -> WorkerInbox:
    """An inbox of a worker that has started."""
    hooks = HookQueue(object(), "worker", frozenset(), EventHandlers("Worker", frozenset()), lambda call, error: None)
    inbox = WorkerInbox(
        "worker",
        receives="own",
        handle=handle,
        accepts=None,
        hooks=(hooks.data, hooks.system),
        hears=lambda: False,
        failed_hooks=lambda: 0,
        max_buffer_size=math.inf,
        early=OrderedDict() if early is None else early,
        refuse=lambda request: None,
        end_waits=lambda end: None,
    )
    host: Any = TaskHost(None, CleanUp())  # type: ignore[arg-type]  # it starts nothing
    inbox.start(host)
    return inbox


def test_of_what_comes_while_a_message_is_handled_the_system_messages_are_next() -> None:
    """B2, B1: one at a time, system first, each lane in the order of sending."""
    handled: list[BusMessage] = []
    later = [note(1), alarm(1), note(2), alarm(2)]

    def handle(message: BusMessage) -> None:
        handled.append(message)
        while later:
            inbox.take(later.pop(0))
            assert len(handled) == 1  # nothing is handled within the handling of another

    inbox = inbox_with(handle)
    inbox.take(note(0))
    assert [isinstance(message, BusSystemMessage) for message in handled] == [False, True, True, False, False]
    assert [message.n for message in handled if isinstance(message, Note | Alarm)] == [0, 1, 2, 1, 2]


def test_a_message_that_cannot_be_handled_does_not_hold_up_the_next() -> None:
    """B3: it is counted as failed."""
    handled: list[BusMessage] = []

    def handle(message: BusMessage) -> None:
        handled.append(message)
        if len(handled) == 1:
            inbox.take(note(2))
            raise ValueError("broken")

    inbox = inbox_with(handle)
    inbox.take(note(1))
    inbox.take(note(3))
    assert len(handled) == 3
    assert (inbox.statistics().delivered, inbox.statistics().failed) == (3, 1)


async def test_a_worker_handles_what_its_own_handling_of_a_message_sends_to_it() -> None:
    """B1, B2: a bad answer cancels the rest of a group, and that rest is the worker itself."""
    helper = Helper("helper")

    class Failing(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await helper.begun.wait()
            raise ZeroDivisionError

    peer = Failing("peer")
    async with running(helper, peer):
        with pytest.raises(JobGroupError):
            async with helper.job_group("helper", "peer", name="wait"):
                pass
        assert helper.unwound.is_set()


class Counted(Early):
    """Cancels that came before their requests, and how many of them somebody has looked at."""

    looks = 0

    def values(self) -> Any:
        return self._looked_at(super().values())

    def items(self) -> Any:
        return self._looked_at(super().items())

    def _looked_at(self, view: Any) -> Iterator[Any]:
        for each in view:
            self.looks += 1
            yield each


def test_a_data_message_costs_the_same_however_many_cancels_have_overtaken_their_requests() -> None:
    """J9, R9: each is kept until what waited when it came is handled, and looked at no more often than that."""
    count = 200
    early = Counted((str(number), (None, number)) for number in range(1, count + 1))
    inbox = inbox_with(lambda message: None, early)
    for number in range(1, count + 1):
        inbox.take(note(number))
        assert len(early) == count - number
    assert early.looks <= 2 * count
