"""What a requester sees of its jobs, where no other test looks closely."""

import functools
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.buses import PoliteBus
from support.job_handlers import never
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamEndMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobGroupResponse,
    JobStatus,
    NotRunningError,
    WorkerRunner,
    job,
)

# --- asking


async def test_a_requester_says_for_whom_it_waits_and_asks_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    """J1: after five seconds, with the names that look like it; then it waits on."""
    async with running(Helper("helper"), name="runner") as runner, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await runner.job("helper2", name="echo"))

        tasks.start_soon(ask)
        await anyio.sleep(4.9)
        assert caplog.messages == []
        await anyio.sleep(0.2)
        text = "'runner' still waits for worker 'helper2', which is not there; did you mean 'helper'?"
        assert caplog.messages == [text]
        await anyio.sleep(10)
        assert answers == []
        await runner.add_workers(Helper("helper2"))
    assert caplog.messages == [text]
    assert answers == [{"worker": "helper2", "payload": None}]


async def test_a_worker_that_does_not_come_in_time_is_an_error_and_leaves_nothing() -> None:
    """J8, G2."""
    helper = Helper("helper")
    async with running(helper):
        with pytest.raises(JobError) as caught:
            await helper.request_job("helper2", name="echo", timeout=3)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.reason == "timeout"
        with pytest.raises(JobGroupError) as group:
            await helper.request_job_group("helper", "helper2", name="echo", timeout=3)
        assert isinstance(group.value, TimeoutError)
        assert helper.statistics().job_groups == 0
    assert helper.calls == []


async def test_only_a_job_with_a_timeout_has_a_task_that_watches_it() -> None:
    """B1: what is not needed is not there; and a task says what it is for. The worker asks, and not this test, which
    has a deadline of its own."""

    def watches() -> list[str | None]:
        return [task.name for task in anyio.get_running_tasks() if "job timeout" in str(task.name)]

    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        asker.tasks.start(functools.partial(asker.request_job, "helper", name="wait"), name="asks")
        await anyio.wait_all_tasks_blocked()
        assert watches() == []
        asker.tasks.start(functools.partial(asker.request_job, "helper", name="wait", timeout=100), name="asks")
        await anyio.wait_all_tasks_blocked()
        assert watches() == ["asker job timeout"]
        helper.release.set()
        await anyio.wait_all_tasks_blocked()
        assert watches() == []


class Second(PoliteBus):
    """A bus on which the request to the worker ``second`` takes until ``go`` is set, and then fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go = anyio.Event()
        self.error = error

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.target == "second":
            await self.go.wait()
            if self.error is not None:
                raise self.error
        await super().publish(message)


async def test_a_group_that_fails_while_it_is_being_asked_for_is_told_by_the_hooks() -> None:
    """J16, J8: whoever goes on without a context is not interrupted by an error that its hooks tell it."""
    listener = Listener()
    async with running(Helper("first"), Helper("second"), listener, bus=Second()):
        group = await listener.create_job_group_and_request_job(["first", "second"], name="fail")
        message = await listener.until("error")
        assert message.job_id == group.job_id
        assert group.is_done
        with pytest.raises(JobGroupError, match="worker 'first' answered error: it went wrong"):
            await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert listener.statistics().job_groups == 0


async def test_workers_are_told_why_the_others_could_not_be_asked() -> None:
    """J5: a failed send to the second of two; it may have got the request, or not. The original exception goes on."""
    bus, first, asker = Second(OSError("no connection")), Listener("first"), Helper("asker")
    async with running(first, Helper("second"), asker, bus=bus) as runner, anyio.create_task_group() as tasks:
        raw = await Raw.on(runner.bus)

        async def ask() -> None:
            with pytest.raises(OSError, match="no connection"):
                await asker.request_job_group("first", "second", name="wait")

        tasks.start_soon(ask)
        await first.begun.wait()
        [job_id] = asker.job_groups
        bus.go.set()
        await first.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert asker.statistics().job_groups == 0
        told = {message.target: message for message in raw.of(BusJobCancelMessage)}
    assert told == {
        "first": BusJobCancelMessage(job_id, "OSError while asking", source="asker", target="first"),
        "second": BusJobCancelMessage(job_id, "the request was withdrawn", source="asker", target="second"),
    }


async def test_nobody_is_asked_any_more_when_the_group_has_failed() -> None:
    """J5, J8: the first one has refused in the very step of asking."""
    helper = Helper("helper")
    async with running(Helper("inactive", active=False), helper) as runner:
        with pytest.raises(JobGroupError, match="worker 'inactive' answered failed"):
            await runner.job_group("inactive", "helper", name="echo")
    assert helper.calls == []


async def test_a_worker_that_leaves_while_others_are_asked_is_waited_for() -> None:
    """J1: it may come back."""
    asked, left = anyio.Event(), anyio.Event()
    leaving = Helper("leaving")

    class Slow(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            await super().publish(message)
            if isinstance(message, BusJobRequestMessage) and not left.is_set():
                await leaving.stop()
                left.set()

    async with running(Helper("helper"), leaving, bus=Slow()) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            responses = await runner.job_group("helper", "leaving", name="echo")
            assert list(responses) == ["helper", "leaving"]
            asked.set()

        tasks.start_soon(ask)
        await left.wait()
        await anyio.wait_all_tasks_blocked()
        assert not asked.is_set()
        await runner.add_workers(Helper("leaving"))
        await asked.wait()
    assert leaving.calls == []


# --- what the methods pass on


async def request_job(worker: BaseWorker, **options: Any) -> None:
    await worker.request_job("listener", name="wait", **options)


async def request_job_group(worker: BaseWorker, **options: Any) -> None:
    await worker.request_job_group("listener", name="wait", **options)


async def create_job_group(worker: BaseWorker, **options: Any) -> None:
    await worker.create_job_group_and_request_job(["listener"], name="wait", **options)


async def enter_job(worker: BaseWorker, **options: Any) -> None:
    async with worker.job("listener", name="wait", **options):
        pass


async def enter_job_group(worker: BaseWorker, **options: Any) -> None:
    async with worker.job_group("listener", name="wait", **options):
        pass


FORMS = [request_job, request_job_group, create_job_group, enter_job, enter_job_group]


class Waiting(Listener):
    """Keeps the requests for the job ``wait``."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[BusJobRequestMessage] = []

    @job(name="wait")
    async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.requests.append(message)
        return await super().wait_for_release(message)


@pytest.mark.parametrize("options", [{}, {"label": "fast", "cancellable": False}, {"cancellable": True}])
@pytest.mark.parametrize("ask", FORMS)
async def test_every_way_of_asking_passes_on_what_it_was_given(
    ask: Callable[..., Any], options: dict[str, Any]
) -> None:
    """N4, N1: a label, whether others may cancel it (they may, if nothing is said), the payload, the name."""
    listener, asker = Waiting(), Helper("asker")
    async with running(listener, asker), anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(ask, asker, payload={"n": 1}, **options))
        await listener.begun.wait()
        [group] = asker.job_groups.values()
        assert group.label == options.get("label")
        assert group.cancellable is options.get("cancellable", True)
        assert group.cancel_on_error is True
        [request] = listener.requests
        assert (request.job_name, request.payload) == ("wait", {"n": 1})
        listener.release.set()


@pytest.mark.parametrize("ask", FORMS)
@pytest.mark.parametrize(
    ("options", "error"), [({"payload": [1]}, TypeError), ({"timeout": "1"}, TypeError), ({"timeout": -1}, ValueError)]
)
async def test_every_way_of_asking_refuses_what_makes_no_sense(
    ask: Callable[..., Any], options: dict[str, Any], error: type[Exception]
) -> None:
    """N1: at once, and before anything was sent."""
    asker = Helper("asker")
    async with running(asker):
        with pytest.raises(error):
            await ask(asker, **options)
        assert asker.job_groups == {}


@pytest.mark.parametrize("ask", FORMS)
async def test_every_way_of_asking_needs_a_worker_that_runs(ask: Callable[..., Any]) -> None:
    """J14."""
    runner, asker = WorkerRunner(), Helper("asker")
    await runner.add_workers(asker)
    with pytest.raises(NotRunningError, match="'asker' is not running yet"):
        await ask(asker)
    async with runner:
        pass
    with pytest.raises(NotRunningError, match="'asker' is not running any more"):
        await ask(asker)
    assert asker.job_groups == {}


# --- requests for an update


class Asked(Helper):
    """Writes down who asks it for updates."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[BusMessage] = []

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        self.asked.append(message)


async def test_an_update_request_says_who_asks() -> None:
    """N1: `BusJobUpdateRequestMessage` names its sender, so that a hook knows whom it is for."""
    asked, asker = Asked("asked"), Helper("asker")
    async with running(asked, asker):
        job_id = await asker.request_job("asked", name="wait")
        await asker.request_job_update(job_id, "asked")
        await anyio.wait_all_tasks_blocked()
        asked.release.set()
    assert asked.asked == [BusJobUpdateRequestMessage(job_id, source="asker", target="asked")]


async def test_nobody_is_asked_for_updates_of_a_job_that_has_ended() -> None:
    asked, asker = Asked("asked"), Helper("asker")
    async with running(asked, asker) as runner:
        raw = await Raw.on(runner.bus)
        await asker.request_job_update("no such job", "asked")
        async with asker.job_group("asked", "asker", name="echo") as group:
            while len(group.responses) < 2:
                await anyio.wait_all_tasks_blocked()
        await asker.request_job_update(group.job_id, "asked")
        await raw.settle()
    assert raw.of(BusJobUpdateRequestMessage) == []
    assert asked.asked == []


async def test_who_has_answered_is_not_asked_for_updates() -> None:
    asked, other, asker = Asked("asked"), Helper("other"), Listener()
    async with running(asked, other, asker) as runner:
        raw = await Raw.on(runner.bus)
        job_id = await asker.request_job_group("asked", "other", name="wait")
        await asked.begun.wait()
        asked.release.set()
        await asker.until("response")
        await asker.request_job_update(job_id, "asked")
        await asker.request_job_update(job_id, "other")
        await raw.settle()
        other.release.set()
    assert [message.target for message in raw.of(BusJobUpdateRequestMessage)] == ["other"]


async def test_an_update_request_for_a_stranger_names_those_that_were_asked() -> None:
    helpers, asker = [Helper("a"), Helper("b")], Helper("asker")
    async with running(*helpers, asker):
        job_id = await asker.request_job_group("a", "b", name="wait")
        with pytest.raises(ValueError, match=f"'c' was not asked for job {job_id}; asked were 'a', 'b'$"):
            await asker.request_job_update(job_id, "c")
        for helper in helpers:
            helper.release.set()


# --- answers that are not of this library's making


def answering(status: Any, response: Any) -> BaseWorker:
    """Return a worker that answers by a message of its own."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_bus_message(
            BusJobResponseMessage(message.job_id, status, response, source=worker.name, target=message.source)
        )

    return Doing("odd", answers)


NO_DICT = {"error": "worker 'odd' answered with list, not with a dict", "type": "TypeError"}


@pytest.mark.parametrize(
    ("status", "response", "outcome"),
    [
        ("completed", {"n": 1}, (JobStatus.COMPLETED, {"n": 1})),
        ("failed", {"n": 1}, (JobStatus.FAILED, {"n": 1})),
        ("splendid", {"n": 1}, (JobStatus.ERROR, {"n": 1})),
        ("splendid", None, (JobStatus.ERROR, {})),
        (JobStatus.COMPLETED, [1], (JobStatus.ERROR, NO_DICT)),
        ("completed", [1], (JobStatus.ERROR, NO_DICT)),
    ],
)
async def test_an_odd_answer_is_an_outcome_all_the_same(
    status: Any, response: Any, outcome: tuple[JobStatus, dict[str, Any]]
) -> None:
    """J1: whatever a message from elsewhere says, the requester and its hooks get a status and a dict."""
    listener = Listener()
    async with running(answering(status, response), listener):
        async with listener.job_group("odd", name="defer", cancel_on_error=False) as group:
            pass
        told = await listener.until("response")
    assert (group.statuses["odd"], group.responses["odd"]) == outcome
    assert type(group.statuses["odd"]) is JobStatus
    assert (told.job_id, told.source, told.target) == (group.job_id, "odd", "listener")
    assert (told.status, told.response or {}) == outcome


# --- the group, and its context


async def test_a_loop_over_an_iterator_of_events_goes_on_with_it() -> None:
    """J7: ``async for`` over what ``aiter`` returned, as over any asynchronous iterator."""

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        for n in range(3):
            await worker.send_job_update(message.job_id, {"n": n})

    async with running(Doing("doing", talks)) as runner, runner.job("doing", name="do") as asked:
        events = aiter(asked)
        assert (await anext(events)).data == {"n": 0}
        assert [event.data async for event in events] == [{"n": 1}, {"n": 2}]


async def test_a_group_that_is_settled_is_gone_from_the_job_groups_while_its_workers_unwind() -> None:
    """J5: `job_groups` has what may still become something; `statistics()`, all that is still in the table."""
    begun, release = anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    listener = Listener()
    async with running(Doing("doing", unwinds), listener):
        group = await listener.create_job_group_and_request_job(["doing"], name="do")
        assert listener.job_groups == {group.job_id: group}
        assert group.is_done is False
        await begun.wait()
        await listener.cancel_job_group(group.job_id)
        assert listener.job_groups == {}
        assert group.is_done is True
        assert listener.statistics().job_groups == 1
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert listener.statistics().job_groups == 0


async def test_the_reason_of_a_requested_cancel_reaches_the_worker() -> None:
    """N4, J5."""
    helper, asker = Listener("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="wait")
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(group.job_id, reason="too dear") is True
        message = await helper.until("cancelled")
        with pytest.raises(JobGroupError, match="too dear"):
            await group.wait()
    assert message == BusJobCancelMessage(group.job_id, "too dear", source="asker", target="helper")


# --- events


@pytest.mark.parametrize("kind", ["update", "stream_start", "stream_data", "stream_end"])
async def test_what_comes_after_the_outcome_is_no_event(kind: str) -> None:
    """J7: the group has failed; what a worker sends while it unwinds is not for its loop, nor for a hook."""
    begun, sent = anyio.Event(), anyio.Event()

    async def sends_late(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                if kind == "stream_end":  # after a cancel, the library would make an answer of it (J2)
                    await worker.send_bus_message(
                        BusJobStreamEndMessage(
                            message.job_id, {"late": True}, source=worker.name, target=message.source
                        )
                    )
                else:
                    await getattr(worker, f"send_job_{kind}")(message.job_id, {"late": True})
                sent.set()

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await begun.wait()
        raise ValueError("oh")

    events: list[Any] = []
    listener = Listener()
    async with running(Doing("late", sends_late), Doing("failing", fails), listener):
        with pytest.raises(JobGroupError):  # noqa: PT012 - the context is what raises
            async with listener.job_group("late", "failing", name="do") as group:
                with anyio.CancelScope(shield=True):
                    await sent.wait()
                    await anyio.wait_all_tasks_blocked()
                    events += [event async for event in group]
    assert events == []
    assert "update" not in [hook for hook, _ in listener.heard]


async def test_a_loop_that_comes_late_to_the_end_of_a_failed_job_goes_no_further() -> None:
    """J8: the body is being cancelled, and so it ends with its loop, not a line later."""
    beyond: list[str] = []

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        raise ValueError("oh")

    async with running(Doing("failing", fails)) as runner:
        with pytest.raises(JobError, match="oh"):  # noqa: PT012 - the context is what raises
            async with runner.job("failing", name="do") as asked:
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
                beyond += [str(event.data) async for event in asked]
                beyond.append("beyond")
    assert beyond == []


async def test_a_loop_over_events_that_are_all_there_lets_others_run() -> None:
    """J7, B2: once in 64 events, so that a flood starves nobody and costs little."""
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await checkpoint()

    async def floods(worker: Doing, message: BusJobRequestMessage) -> None:
        for n in range(1000):
            await worker.send_job_update(message.job_id, {"n": n})

    async with running(Doing("doing", floods)) as runner, runner.job("doing", name="do") as asked:
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await checkpoint()
            before = steps
            numbers = [event.data["n"] async for event in asked if event.data]
            tasks.cancel_scope.cancel()
    assert numbers == list(range(1000))
    assert 12 <= steps - before <= 20


# --- hooks


async def test_the_end_of_a_stream_is_told_as_it_came(caplog: pytest.LogCaptureFixture) -> None:
    """N1, J16, W7: `on_job_stream_end` gets that message; what fails after it is logged with the job."""

    class Failing(Listener):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            await super().on_job_completed(result)
            raise ValueError("oh")

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_stream_end(message.job_id, {"n": 1})

    listener = Failing()
    async with running(Doing("doing", streams), listener):
        job_id = await listener.request_job("doing", name="do")
        message = await listener.until("stream end")
        result = await listener.until("completed")
    assert message == BusJobStreamEndMessage(job_id, {"n": 1}, source="doing", target="listener")
    assert result == JobGroupResponse(job_id, {"doing": {"n": 1}}, {"doing": JobStatus.COMPLETED})
    assert f"on_job_completed of worker 'listener' failed (job {job_id})" in caplog.messages
    assert "response" not in [hook for hook, _ in listener.heard]


async def test_an_urgent_update_overtakes_the_hooks_of_others() -> None:
    """W8, J7: its hook runs in the system lane."""
    listener = Listener()
    listener.gate = anyio.Event()

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        await worker.send_job_update(message.job_id, {"n": 2})
        await worker.send_job_update(message.job_id, {"n": 3}, urgent=True)

    async with running(Doing("doing", talks), listener):
        async with listener.job("doing", name="do"):
            await anyio.wait_all_tasks_blocked()
            listener.gate.set()
        await anyio.wait_all_tasks_blocked()
        updates = [message.update["n"] for hook, message in listener.heard if hook == "update"]
    assert updates.index(3) < updates.index(2)


async def test_the_last_hook_of_an_urgent_answer_does_not_wait_for_other_hooks() -> None:
    """W8: it is a system message's hook, whatever waits in the data lane."""
    gate, completed = anyio.Event(), anyio.Event()

    class Held(Helper):
        async def on_job_update(self, message: BusMessage) -> None:
            await gate.wait()

        async def on_job_completed(self, result: JobGroupResponse) -> None:
            completed.set()

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        await worker.send_job_response(message.job_id, {"n": 2}, urgent=True)

    held = Held("held")
    async with running(Doing("doing", answers), held):
        await held.request_job("doing", name="do")
        await completed.wait()
        assert not gate.is_set()
        gate.set()


async def test_a_worker_that_has_gone_is_answered_for_in_its_name() -> None:
    """J4: at once, as an ERROR that says so, to the context and to the hooks."""
    listener = Listener()
    async with running(Doing("silent", never), listener) as runner:
        async with listener.job_group("silent", name="do", cancel_on_error=False) as group:
            await anyio.wait_all_tasks_blocked()
            await runner.registry.unregister("silent")
        told = await listener.until("response")
    response = {"error": "worker 'silent' left without an answer", "type": "WorkerGone"}
    assert (group.statuses, group.responses) == ({"silent": JobStatus.ERROR}, {"silent": response})
    assert told == BusJobResponseMessage(group.job_id, JobStatus.ERROR, response, source="silent", target="listener")


async def test_a_cancel_without_a_reason_says_who_wanted_it() -> None:
    """J5, J8: to the worker, and in the error."""
    helper, asker = Listener("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="wait")
        await helper.begun.wait()
        await asker.cancel_job_group("another")
        assert await asker.request_cancel_job_group("another") is False
        assert not group.is_done
        await asker.cancel_job_group(group.job_id)
        message = await helper.until("cancelled")
        with pytest.raises(JobGroupError, match=f"^job group {group.job_id}: cancelled by the requester$"):
            await group.wait()
    assert message.reason == "cancelled by the requester"


# --- what is refused, and how it is said


@pytest.mark.parametrize(
    ("names", "options", "error", "text"),
    [
        (("a", 7), {}, TypeError, "workers are asked by name, a str, not 7"),
        (
            ("c", "b", "a", "b", "d", "a"),
            {},
            ValueError,
            "a job group asks each worker once, but has 'a', 'b' more than once",
        ),
        (("a",), {"payload": [1]}, TypeError, "a job's payload is a dict or None, not [1]"),
        (("a",), {"timeout": "1"}, TypeError, "timeout is a number of seconds or None, not '1'"),
        (("a",), {"timeout": True}, TypeError, "timeout is a number of seconds or None, not True"),
        (("a",), {"timeout": -1}, ValueError, "timeout is a number of seconds, not less than 0, not -1"),
        (("a",), {"timeout": math.nan}, ValueError, "timeout is a number of seconds, not less than 0, not nan"),
    ],
)
async def test_what_makes_no_sense_is_named(
    names: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """J12, N1."""
    async with running() as runner:
        with pytest.raises(error) as caught:
            runner.job_group(*names, **options)
    assert str(caught.value) == text


async def test_an_answer_after_the_outcome_is_told_to_no_hook() -> None:
    """J7, J16: the group has failed, and the others are only waited for."""
    begun = anyio.Event()

    async def late(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await begun.wait()
        raise ValueError("oh")

    listener = Listener()
    async with running(Doing("late", late), Doing("failing", fails), listener):
        group = await listener.create_job_group_and_request_job(["late", "failing"], name="do")
        await listener.until("error")
        await anyio.wait_all_tasks_blocked()
        told = [(hook, message.source) for hook, message in listener.heard]
        assert group.statuses == {"failing": JobStatus.ERROR, "late": JobStatus.CANCELLED}
    assert told == [("response", "failing"), ("error", "failing")]


async def test_the_hook_for_an_urgent_answer_does_not_wait_for_other_hooks() -> None:
    """W8."""
    gate, told = anyio.Event(), anyio.Event()

    class Held(Helper):
        async def on_job_update(self, message: BusMessage) -> None:
            await gate.wait()

        async def on_job_response(self, message: BusMessage) -> None:
            told.set()

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        await worker.send_job_response(message.job_id, {"n": 2}, urgent=True)

    held = Held("held")
    async with running(Doing("doing", answers), held):
        await held.request_job("doing", name="do")
        await told.wait()
        assert not gate.is_set()
        gate.set()


@pytest.mark.parametrize("hook", ["on_job_response", "on_job_update", "on_job_stream_start", "on_job_stream_data"])
async def test_a_failing_hook_of_a_job_is_logged_with_the_job(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """W7."""
    asker = Helper("asker")

    def fail(*_: object) -> None:
        raise ValueError("oh")

    asker.add_event_handler(hook, fail)

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        await worker.send_job_stream_start(message.job_id)
        await worker.send_job_stream_data(message.job_id)

    async with running(Doing("doing", talks), asker):
        job_id = await asker.request_job("doing", name="do")
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == [f"{hook} of worker 'asker' failed (job {job_id})"]


async def test_a_context_says_what_it_can_not_tell_yet_and_what_it_can_not_do_again() -> None:
    """J8, J14."""
    helper = Helper("helper")
    async with running(helper) as runner:
        asked = runner.job("helper", name="wait")
        with pytest.raises(NotRunningError) as caught:
            _ = asked.statuses
        text = "this job has not been asked for yet: enter it with 'async with', or await it"
        assert str(caught.value) == text
        async with asked:
            with pytest.raises(NotRunningError) as caught:
                _ = asked.response
            text = f"job {asked.job_id} has no answer yet: it is there when the context has been left"
            assert str(caught.value) == text
            helper.release.set()
        with pytest.raises(NotRunningError) as caught:
            await asked
        assert str(caught.value) == "a job context is used once: make another one for another job"
        assert asked.response == {"released": True}
