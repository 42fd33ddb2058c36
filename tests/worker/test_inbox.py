"""B2, W8: what comes while a worker handles a message."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from support.messages import Alarm, Note, alarm, note
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, BusMessage, BusSystemMessage, JobGroupError, job
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._events import EventHandlers
from workerbus.worker._hooks import HookQueue
from workerbus.worker._inbox import WorkerInbox

Early = OrderedDict[str, tuple[str | None, int]]


def inbox_with(handle: Any, early: Early | None = None, *, accepts: Any = None, started: bool = True) -> WorkerInbox:
    """An inbox of a worker that has started, or has not."""
    events = EventHandlers("Worker", frozenset())
    hooks = HookQueue(BaseWorker("worker"), "worker", frozenset(), events, lambda call, error: None)
    inbox = WorkerInbox(
        "worker",
        receives="own",
        handle=handle,
        accepts=accepts,
        hooks=(hooks.data, hooks.system),
        hears=lambda: False,
        failed_hooks=lambda: 0,
        max_buffer_size=math.inf,
        early=OrderedDict() if early is None else early,
        refuse=lambda request: None,
        end_waits=lambda end: None,
        panicked=lambda error, origin: None,
    )
    if started:
        start(inbox)
    return inbox


def start(inbox: WorkerInbox) -> None:
    host: Any = TaskHost(None, CleanUp())  # type: ignore[arg-type]  # it starts nothing
    inbox.start(host)


@pytest.mark.parametrize("started", [True, False])
def test_of_what_comes_while_a_message_is_handled_the_system_messages_are_next(started: bool) -> None:
    """B2, B1, W2: one at a time, system first, each lane in the order of sending; also what waited for the start."""
    handled: list[BusMessage] = []
    later = [note(1), alarm(1), note(2), alarm(2)]

    def handle(message: BusMessage) -> None:
        handled.append(message)
        while later:
            inbox.take(later.pop(0))
            assert len(handled) == 1  # nothing is handled within the handling of another

    inbox = inbox_with(handle, started=started)
    inbox.take(note(0))
    if not started:
        assert handled == []
        start(inbox)
    assert [isinstance(message, BusSystemMessage) for message in handled] == [False, True, True, False, False]
    assert [message.n for message in handled if isinstance(message, Note | Alarm)] == [0, 1, 2, 1, 2]


@pytest.mark.parametrize("later", [[note(1), alarm(1), note(2), alarm(2)], [alarm(1), alarm(2)]])
def test_before_the_start_system_messages_are_handled_one_at_a_time(later: list[BusMessage]) -> None:
    """B2, W2: data messages wait for the start meanwhile."""
    handled: list[BusMessage] = []
    coming = list(later)

    def handle(message: BusMessage) -> None:
        handled.append(message)
        while coming:
            inbox.take(coming.pop(0))
            assert len(handled) == 1  # nothing is handled within the handling of another

    first = alarm(0)
    inbox = inbox_with(handle, started=False)
    inbox.take(first)
    assert handled == [first, *(message for message in later if isinstance(message, Alarm))]
    start(inbox)
    assert handled[3:] == [message for message in later if isinstance(message, Note)]


def test_a_start_within_the_handling_of_a_message_handles_nothing_itself() -> None:
    """B2: whoever handles one goes on with the others."""
    log: list[str] = []

    def handle(message: BusMessage) -> None:
        log.append("begin")
        if len(log) == 1:
            inbox.take(note(1))
            start(inbox)
        log.append("end")

    inbox = inbox_with(handle, started=False)
    inbox.take(alarm(0))
    assert log == ["begin", "end", "begin", "end"]


@pytest.mark.parametrize("first", [note(0), alarm(0)])
def test_what_is_to_come_behind_messages_that_wait_to_be_accepted_is_not_lost(first: BusMessage) -> None:
    """J4, N4, W6: also where the worker stops and none of them is handled any more."""
    called: list[str] = []
    inbox = inbox_with(lambda message: called.append("message"), accepts=lambda message: True, started=False)
    inbox.call_behind(lambda: called.append("idle"))
    assert called == ["idle"]
    inbox.take(first)
    inbox.call_behind(lambda: called.append("behind"))
    assert called == ["idle"]
    assert not inbox.holds_work()
    inbox.refuse_the_rest()
    inbox.call_behind(lambda: called.append("stopping"))
    inbox.close()
    inbox.call_behind(lambda: called.append("closed"))
    assert called == ["idle", "behind", "stopping", "closed"]


def test_a_closed_inbox_handles_nothing_any_more() -> None:
    """B5: whoever started it once more, too."""
    handled: list[BusMessage] = []
    first = note(0)
    inbox = inbox_with(handled.append)
    inbox.take(first)
    inbox.close()
    inbox.take(note(1))
    start(inbox)
    inbox.take(note(2))
    inbox.take(alarm(3))
    assert handled == [first]


def test_a_message_that_cannot_be_handled_does_not_hold_up_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """B3: it is counted as failed, and named in the log."""
    handled: list[BusMessage] = []

    def handle(message: BusMessage) -> None:
        handled.append(message)
        if len(handled) == 1:
            inbox.take(note(2))
        if len(handled) < 3:
            raise ValueError("broken")

    inbox = inbox_with(handle)
    inbox.take(note(1))
    inbox.take(note(3))
    assert len(handled) == 3
    assert (inbox.statistics().delivered, inbox.statistics().failed) == (3, 2)
    assert caplog.messages == ["worker 'worker' failed to handle Note"] * 2


@pytest.mark.parametrize("place", ["before the start", "the start", "after the start"])
def test_an_interruption_of_the_handling_of_a_message_holds_up_no_later_one(place: str) -> None:
    """L3, B2: it comes up in the step of whoever sends or starts."""
    handled: list[BusMessage] = []

    def handle(message: BusMessage) -> None:
        handled.append(message)
        if len(handled) == 1:
            raise KeyboardInterrupt

    first = note(0) if place == "the start" else alarm(0)
    inbox = inbox_with(handle, started=place == "after the start")
    if place == "the start":
        inbox.take(first)
    with pytest.raises(KeyboardInterrupt):
        start(inbox) if place == "the start" else inbox.take(first)
    second = alarm(1)
    inbox.take(second)
    assert handled == [first, second]


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
