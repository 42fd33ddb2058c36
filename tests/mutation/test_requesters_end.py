"""How a requester's wait ends: in time, late, or by its leaving, where no other test looks closely."""

import asyncio
import math
from contextlib import suppress
from typing import Any

import anyio
import pytest

from support import clock
from support.buses import PoliteBus
from support.job_handlers import at_once, never, slow_to_leave, too_slow_to_leave
from support.requesters import Listener
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
)
from workerbus.jobs._client import SAME_TIME

# --- timeouts without a context


async def test_a_timeout_is_told_in_the_name_of_who_is_late() -> None:
    """J6, J8: the hook for a timeout gets an answer of the library's making, from the worker that has not answered."""
    listener = Listener()
    async with running(Doing("a", at_once), Doing("b", never), listener):
        job_id = await listener.request_job_group("a", "b", name="do", timeout=3)
        message = await listener.until("error")
    assert message == BusJobResponseMessage(
        job_id, JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"}, source="b", target="listener"
    )


async def test_a_timeout_that_the_worker_sees_first_is_told_in_its_name() -> None:
    """J6, J8: whichever end sees the time run out first; the one that had answered is not late."""

    async def a_moment_early(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.seconds_left is not None
        await anyio.sleep(message.seconds_left - SAME_TIME / 2)
        await worker.send_job_response(message.job_id, {"error": "timeout"}, status=JobStatus.CANCELLED)

    listener = Listener()
    async with running(Doing("a", at_once), Doing("b", a_moment_early), listener):
        await listener.request_job_group("a", "b", name="do", timeout=3)
        message = await listener.until("error")
    assert (message.source, message.status, message.response["error"]) == ("b", JobStatus.CANCELLED, "timeout")


async def test_a_failing_hook_for_a_timeout_is_logged_with_the_job(caplog: pytest.LogCaptureFixture) -> None:
    """W7: with the job's id where there is one."""

    class Failing(BaseWorker):
        failed = anyio.Event()

        async def on_job_error(self, message: BusMessage) -> None:
            self.failed.set()
            raise ValueError("oh")

    failing = Failing("failing")
    failing.failed = anyio.Event()
    async with running(Doing("b", never), failing):
        job_id = await failing.request_job("b", name="do", timeout=3)
        await failing.failed.wait()
    assert f"on_job_error of worker 'failing' failed (job {job_id})" in caplog.messages


# --- what a timeout says


async def test_a_timeout_names_those_that_have_not_answered() -> None:
    """J8: at most five of them, in the order of their names; those that were asked were there."""
    names = [f"w{n}" for n in range(7)]
    workers = [Doing(name, at_once if name == "w3" else slow_to_leave) for name in names]
    async with running(*workers) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group(*reversed(names), name="do", timeout=3) as group:
                pass
    expected = f"job group {group.job_id}: timeout (no answer from 'w0', 'w1', 'w2', 'w4', 'w5')"
    assert str(caught.value) == expected


async def test_a_timeout_names_the_first_that_was_not_there() -> None:
    """J8: with the names that look like it."""
    async with running(Doing("doing", never)) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("doing", "dong", "gone", name="do", timeout=3)
    text = f"job group {caught.value.job_id}: timeout (worker 'dong' was not there; did you mean 'doing'?)"
    assert str(caught.value) == text


async def test_a_timeout_names_who_has_left_and_who_is_silent() -> None:
    """J8: the second worker leaves while the first one is asked."""
    leaving = Doing("leaving", never)

    class Slow(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusJobRequestMessage):
                await leaving.stop()
            await super().publish(message)

    async with running(Doing("silent", never), leaving, bus=Slow()) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("silent", "leaving", name="do", timeout=3)
    text = "timeout (worker 'leaving' was not there; known are 'silent'; no answer from 'silent')"
    assert str(caught.value) == f"job group {caught.value.job_id}: {text}"


async def test_nothing_is_said_of_a_job_that_ends_in_time_after_its_cancel(caplog: pytest.LogCaptureFixture) -> None:
    """J5, L4: the log names those that are late, and no others."""
    async with running(Doing("doing", never)) as runner:
        with pytest.raises(ValueError, match="enough"):
            async with runner.job("doing", name="do"):
                raise ValueError("enough")
    assert caplog.messages == []


# --- bad answers, and time that is nearly up


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"error": "it broke", "reason": "who knows"}, "it broke"),
        ({"reason": "who knows"}, "who knows"),
        ({"n": 1}, "no reason given"),
        (None, "no reason given"),
    ],
)
async def test_a_bad_answer_is_told_in_the_words_that_it_came_with(response: dict[str, Any] | None, text: str) -> None:
    """J8: who answered what, and why."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, response, status=JobStatus.FAILED)

    async with running(Doing("doing", answers)) as runner:
        with pytest.raises(JobError) as caught:
            await runner.job("doing", name="do")
    assert caught.value.reason == f"worker 'doing' answered failed: {text}"
    assert caught.value.responses == {"doing": response or {}}


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_bad_answer_is_told_to_the_hook_and_what_fails_there_is_logged_with_the_job(
    urgent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """W7, J8."""

    class Failing(Listener):
        async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
            await super().on_job_error(message)
            raise ValueError("oh")

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"n": 1}, status=JobStatus.FAILED, urgent=urgent)

    listener = Failing()
    kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
    async with running(Doing("doing", answers), listener):
        job_id = await listener.request_job("doing", name="do")
        message = await listener.until("error")
    assert message == kind(job_id, JobStatus.FAILED, {"n": 1}, source="doing", target="listener")
    assert f"on_job_error of worker 'listener' failed (job {job_id})" in caplog.messages


async def test_a_moment_before_its_end_time_is_up_only_for_who_says_so() -> None:
    """J6: whichever end sees it first; what ends for another reason in that moment, ends for that one."""

    async def a_moment_early(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.seconds_left is not None
        await anyio.sleep(message.seconds_left - SAME_TIME / 2)
        reason = message.payload["reason"] if message.payload else ""
        if reason == "error":
            raise ValueError("timeout")
        await worker.send_job_response(message.job_id, {"error": reason}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", a_moment_early)) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("doing", name="do", payload={"reason": "timeout"}, timeout=3)
        assert isinstance(caught.value, JobError)
        assert caught.value.reason == "timeout"
        for reason, text in (("error", "answered error: timeout"), ("enough", "answered cancelled: enough")):
            with pytest.raises(JobError, match=f"worker 'doing' {text}") as error:
                await runner.job("doing", name="do", payload={"reason": reason}, timeout=3)
            assert not isinstance(error.value, TimeoutError)


async def test_an_answer_that_comes_when_time_was_up_comes_too_late() -> None:
    """J6, J8: also where the body has not noticed yet."""
    async with running(Doing("doing", slow_to_leave)) as runner:
        with pytest.raises(TimeoutError) as caught:  # noqa: PT012 - the context is what raises
            async with runner.job("doing", name="do", timeout=3) as asked:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3.5)
                    await runner.bus.send(
                        BusJobResponseMessage(
                            asked.job_id, JobStatus.COMPLETED, {"n": 1}, source="doing", target=runner.name
                        )
                    )
                await anyio.sleep_forever()
    assert isinstance(caught.value, JobError)
    assert caught.value.reason == "timeout"


# --- leaving a context whose workers are late


async def test_a_requester_that_waits_no_longer_names_the_job_and_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    """J5, L4: in the log; the original exception goes through."""
    workers = [Doing("b", too_slow_to_leave), Doing("a", too_slow_to_leave), Doing("c", never)]
    async with running(*workers, name="runner") as runner:
        with pytest.raises(ValueError, match="enough"):  # noqa: PT012 - the context is what raises
            async with runner.job_group("a", "b", "c", name="do") as group:
                await anyio.wait_all_tasks_blocked()
                raise ValueError("enough")
    told = f"'runner' leaves job {group.job_id} without an answer from a, b, still busy after its cancellation"
    assert caplog.messages == [told]


def test_a_native_cancellation_while_leaving_is_raised_when_the_bound_is_over() -> None:
    """J5, L3: also where a worker has not answered by then."""
    left: list[str] = []

    async def example() -> None:
        async with running(Doing("doing", too_slow_to_leave)) as runner:

            async def leave() -> None:
                try:
                    async with runner.job("doing", name="do"):
                        await anyio.wait_all_tasks_blocked()
                        raise ValueError("enough")
                except BaseException as exc:
                    left.append(type(exc).__name__)
                    raise

            task = asyncio.ensure_future(leave())
            await anyio.sleep(CLEANUP_SECONDS / 2)
            task.cancel()
            await anyio.sleep(CLEANUP_SECONDS / 4)
            assert left == []
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(example, backend="asyncio")
    assert left == ["CancelledError"]


# --- why a context was left


async def test_a_worker_is_told_why_its_requester_left() -> None:
    """J5, J6."""
    listener = Listener()
    async with running(listener) as runner:

        async def leave(how: str) -> str:
            listener.begun, listener.heard = anyio.Event(), []
            with anyio.CancelScope() as scope, suppress(ValueError):
                if how == "deadline":
                    scope.deadline = anyio.current_time() + 3
                async with runner.job("listener", name="wait"):
                    await listener.begun.wait()
                    if how == "error":
                        raise ValueError("oh")
                    if how == "cancelled":
                        scope.cancel()
                    await anyio.sleep_forever()
            return str((await listener.until("cancelled")).reason)

        assert await leave("error") == "the requester failed: ValueError"
        assert await leave("cancelled") == "the requester was cancelled"
        assert await leave("deadline") == "timeout"


@pytest.mark.parametrize("where", ["waiting", "leaving", "loop"])
async def test_a_cancellation_from_outside_at_the_moment_of_a_bad_answer_wins(where: str) -> None:
    """J8: both in one step; the cancellation goes through, and the error does not."""
    left: list[str] = []
    helper = Helper("helper")
    async with running(helper) as runner, anyio.create_task_group() as tasks:
        outer = anyio.CancelScope()

        async def ask() -> None:
            with outer:
                try:
                    if where == "waiting":
                        await runner.job("helper", name="wait")
                    async with runner.job("helper", name="wait") as asked:
                        if where == "loop":
                            async for _ in asked:
                                pass
                except BaseException as exc:
                    left.append(type(exc).__name__)
                    raise

        tasks.start_soon(ask)
        await helper.begun.wait()
        await anyio.wait_all_tasks_blocked()
        [group] = runner.job_client.groups.values()
        answer = BusJobResponseMessage(
            group.job_id, JobStatus.ERROR, {"error": "oh"}, source="helper", target=runner.name
        )
        await runner.bus.send(answer)
        outer.cancel()
        await anyio.wait_all_tasks_blocked()
        assert outer.cancelled_caught
        assert left == [anyio.get_cancelled_exc_class().__name__]
        helper.release.set()


# --- ends that leave nothing


async def test_a_job_is_cancelled_once() -> None:
    """N4: `request_cancel_job_group` tells whether it did that."""
    begun, release = anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    asker = Helper("asker")
    async with running(Doing("doing", unwinds), asker):
        job_id = await asker.request_job("doing", name="do")
        await begun.wait()
        assert await asker.request_cancel_job_group(job_id) is True
        assert await asker.request_cancel_job_group(job_id) is False
        release.set()


async def test_who_waits_for_a_group_is_told_at_once_that_it_was_cancelled() -> None:
    """J8: not when its workers have unwound."""
    begun, told, release = anyio.Event(), anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    asker = Helper("asker")
    async with running(Doing("doing", unwinds), asker), anyio.create_task_group() as tasks:
        group = await asker.create_job_group_and_request_job(["doing"], name="do")
        assert (group.reason, group.detail) == (None, None)

        async def wait() -> None:
            with pytest.raises(JobGroupError, match="enough"):
                await group.wait()
            told.set()

        tasks.start_soon(wait)
        await begun.wait()
        await anyio.wait_all_tasks_blocked()
        await asker.cancel_job_group(group.job_id, reason="enough")
        await told.wait()
        assert not release.is_set()
        release.set()


async def test_the_body_of_a_job_that_is_done_may_outlive_its_timeout() -> None:
    """J6: the time was the job's."""
    async with running(Doing("doing", at_once)) as runner:
        async with runner.job("doing", name="do", timeout=3) as asked:
            await anyio.sleep(5)
        assert asked.response == {"by": "doing"}


async def test_a_worker_that_goes_is_noticed_by_who_has_asked_others_too() -> None:
    """J4, G2: as long as a job is open, and no longer."""
    asker = Helper("asker")
    async with running(Doing("silent", never), Helper("helper"), asker) as runner:
        group = await asker.create_job_group_and_request_job(["silent"], name="do")
        await asker.job("helper", name="echo")
        assert list(runner._asking) == [asker.job_client]
        await runner.registry.unregister("silent")
        with pytest.raises(JobGroupError, match="left without an answer"):
            await group.wait()
        assert runner._asking == {}
        await asker.job("helper", name="echo")
        assert runner._asking == {}


@pytest.mark.parametrize(("enclosing", "told"), [(3, [3, 10]), (math.inf, [10]), (20, [10])])
async def test_the_end_of_an_enclosing_scope_is_told_and_is_no_timeout_of_the_job(
    enclosing: float, told: list[int]
) -> None:
    """J6: for a request without a context, which outlives the scope in which it was made."""
    times: list[int] = []

    async def busy(worker: Doing, message: BusJobRequestMessage) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(12)

    def note_time(message: BusMessage) -> None:
        if isinstance(message, BusJobCancelMessage):
            assert message == BusJobCancelMessage(message.job_id, "timeout", source="asker", target="busy")
            times.append(round(anyio.current_time()))

    asker = Helper("asker")
    async with running(Doing("busy", busy), asker) as runner:
        await runner.bus.subscribe(Plain("observer", on=note_time))
        began = anyio.current_time()
        with anyio.CancelScope(deadline=began + enclosing):
            group = await asker.create_job_group_and_request_job(["busy"], name="do", timeout=10)
        with pytest.raises(TimeoutError):
            await group.wait()
        assert round(anyio.current_time() - began) == 10
        await anyio.sleep(5)
    assert [time - round(began) for time in times] == told


async def test_a_scope_that_is_given_more_time_leaves_the_worker_s_own_words() -> None:
    """J6, J8: its answer counts as any other."""
    async with running(Doing("silent", slow_to_leave)) as runner, anyio.create_task_group() as tasks:

        async def extend(job_id: str, scope: anyio.CancelScope) -> None:
            await anyio.sleep_until(scope.deadline - SAME_TIME / 2)
            late = BusJobResponseMessage(
                job_id, JobStatus.CANCELLED, {"error": "timeout"}, source="silent", target=runner.name
            )
            await runner.bus.send(late)
            scope.deadline += 100

        with anyio.move_on_after(3) as scope:
            with pytest.raises(JobError, match="worker 'silent' answered cancelled: timeout"):
                async with runner.job("silent", name="do") as asked:
                    tasks.start_soon(extend, asked.job_id, scope)
        assert not scope.cancelled_caught
