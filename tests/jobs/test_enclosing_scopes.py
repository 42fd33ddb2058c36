"""J6: deadlines of scopes around a request."""

import contextlib
import math
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.contexts import answer_as, answer_at_once
from support.deadlines import EarlyBus, Waiting
from support.job_handlers import slow_to_leave
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
)
from workerbus.jobs._group_table import CLOCK_SKEW


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
@pytest.mark.parametrize("timeout", [None, 9])
async def test_an_enclosing_scope_ends_the_wait_by_its_own_cancellation(
    backend: str, timeout: float | None, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: J8's error is for the job's own timeout alone."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with anyio.move_on_after(1) as scope:
            await runner.job("waiting", name="do", timeout=timeout)
        assert scope.cancelled_caught
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert waiting.cancellations == 1
        assert [hook for hook, _ in waiting.heard] == ["cancelled"]


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
async def test_the_deadline_of_an_enclosing_scope_is_a_timeout_for_the_worker(
    backend: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: time ran out, whichever end has seen it first; `on_job_cancelled` says so."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with anyio.move_on_after(1):
            await runner.job("waiting", name="do")
        assert (await waiting.until("cancelled")).reason == "timeout"


@pytest.mark.parametrize("how", ["job", "job_group"])
async def test_a_scope_that_is_given_more_time_after_the_request_does_not_leave_its_requester_waiting(
    backend: str, how: str
) -> None:
    """J6, J1, J8: the worker cancels at the time that it was told, which nobody here has asked for."""
    waiting = Waiting()
    async with running(waiting) as runner:
        with anyio.move_on_after(1) as scope:
            with pytest.raises((JobError, JobGroupError)) as caught:
                async with getattr(runner, how)("waiting", name="do"):
                    scope.deadline += 100
            assert caught.value.statuses == {"waiting": JobStatus.CANCELLED}
        assert not scope.cancelled_caught


async def test_a_scope_inside_the_body_is_none_of_the_jobs_business(backend: str) -> None:
    """J6: only what encloses the context counts."""
    waiting = Waiting()
    async with running(waiting) as runner, runner.job("waiting", name="wait") as asked:
        with anyio.move_on_after(1):
            async for _ in asked:
                pass
        assert list(waiting.active_jobs) == [asked.job_id]
        waiting.release.set()


async def test_a_scope_that_is_given_more_time_at_the_last_moment_does_not_leave_its_requester_waiting() -> None:
    """J6, J1: the worker's timeout has come, the scope's was about to, and then it had more time."""
    silent = Helper("silent")
    async with running(silent) as runner, anyio.create_task_group() as tasks:

        async def extend(job_id: str, scope: anyio.CancelScope) -> None:
            while anyio.current_time() < scope.deadline - CLOCK_SKEW / 2:
                await checkpoint()
            late = BusJobResponseMessage(
                job_id, JobStatus.CANCELLED, {"error": "timeout"}, source="silent", target=runner.name
            )
            await runner.bus.send(late)
            await checkpoint()
            scope.deadline += 100

        with anyio.move_on_after(0.05) as scope, contextlib.suppress(JobError):
            async with runner.job("silent", name="wait") as asked:
                tasks.start_soon(extend, asked.job_id, scope)
        assert asked.statuses == {"silent": JobStatus.CANCELLED}


async def test_a_moment_before_its_end_time_is_up_only_for_who_says_so() -> None:
    """J6: whichever end sees it first; what ends for another reason in that moment, ends for that one."""

    async def a_moment_early(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.seconds_left is not None
        await anyio.sleep(message.seconds_left - CLOCK_SKEW / 2)
        reason = message.payload["reason"] if message.payload else ""
        if reason == "error":
            raise ValueError("timeout")
        await worker.send_job_response(message.job_id, {"error": reason}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", a_moment_early)) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("doing", name="do", payload={"reason": "timeout"}, timeout=3)
        assert isinstance(caught.value, JobError)
        assert caught.value.reason == "timeout"
        for reason, text in (("error", "raised ValueError: timeout"), ("enough", "was cancelled: enough")):
            with pytest.raises(JobError, match=f"^job 'do' at 'doing' {text}") as error:
                await runner.job("doing", name="do", payload={"reason": reason}, timeout=3)
            assert not isinstance(error.value, TimeoutError)


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
            await anyio.sleep_until(scope.deadline - CLOCK_SKEW / 2)
            late = BusJobResponseMessage(
                job_id, JobStatus.CANCELLED, {"error": "timeout"}, source="silent", target=runner.name
            )
            await runner.bus.send(late)
            scope.deadline += 100

        with anyio.move_on_after(3) as scope:
            with pytest.raises(JobError, match=r"^job '.*' at 'silent' was cancelled: timeout$"):
                async with runner.job("silent", name="do") as asked:
                    tasks.start_soon(extend, asked.job_id, scope)
        assert not scope.cancelled_caught


async def test_workers_are_told_that_an_enclosing_scope_has_run_out_of_time() -> None:
    """J6: the reason is the same whichever end sees it."""
    async with running(Doing("slow", slow_to_leave)) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(3):
            await runner.job("slow", name="do")
        await raw.until(1, BusJobCancelMessage)
    assert [message.reason for message in raw.got if isinstance(message, BusJobCancelMessage)] == ["timeout"]


async def test_two_early_timeouts_of_a_scope_that_has_more_time_now_count_as_two_answers() -> None:
    """J6, J11: and the third worker is still waited for."""
    names = ["a", "b", "c"]
    async with running(*(Doing(name, slow_to_leave) for name in names), Helper("helper")) as runner:
        with anyio.move_on_after(3) as scope:
            async with runner.job_group(*names, name="do", cancel_on_error=False) as asked:
                await anyio.sleep(3 - CLOCK_SKEW / 2)
                await answer_at_once(runner, asked.job_id, "a", JobStatus.CANCELLED)
                await answer_at_once(runner, asked.job_id, "b", JobStatus.CANCELLED)
                scope.deadline += 100
        assert asked.statuses == dict.fromkeys(names, JobStatus.CANCELLED)
        assert anyio.current_time() > 3.5
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": {}}


async def test_an_early_timeout_of_a_scope_that_did_end_is_no_error() -> None:
    """J6, J8: the scope's own cancellation ends the wait, so that no hook tells of a failure afterwards."""
    asker = Listener("asker")
    async with running(Doing("silent", slow_to_leave), asker) as runner:
        with anyio.move_on_after(3) as scope:
            async with asker.job("silent", name="do") as asked:
                await anyio.sleep(3 - CLOCK_SKEW / 2)
                await answer_at_once(runner, asked.job_id, "silent", JobStatus.CANCELLED, to="asker")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await anyio.sleep(10 * CLOCK_SKEW)
        await anyio.wait_all_tasks_blocked()
    assert [hook for hook, _ in asker.heard] == ["response"]


async def test_an_early_timeout_is_looked_at_again_when_the_scope_should_have_ended() -> None:
    """J6: a scope may be given more time after the worker has seen the end of what it had."""
    async with running(Doing("silent", slow_to_leave)) as runner, anyio.create_task_group() as tasks:

        async def extend(job_id: str, scope: anyio.CancelScope) -> None:
            await anyio.sleep_until(scope.deadline - CLOCK_SKEW / 2)
            await answer_as(runner, job_id, "silent", JobStatus.CANCELLED, "timeout")
            await anyio.sleep_until(scope.deadline - CLOCK_SKEW / 4)
            scope.deadline += 100

        begun = anyio.current_time()
        with anyio.move_on_after(3) as scope:
            with pytest.raises(JobError, match=r"^job '.*' at 'silent' was cancelled: timeout$"):
                async with runner.job("silent", name="do") as asked:
                    tasks.start_soon(extend, asked.job_id, scope)
        assert not scope.cancelled_caught
        assert 3 < anyio.current_time() - begun < 3.1


async def test_a_worker_is_told_of_the_end_of_a_scope_that_was_left_long_ago() -> None:
    """J6: its deadline went with the request, whoever waits for the answer."""
    asker = Helper("asker")
    async with running(Doing("slow", slow_to_leave), asker) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(3):
            job_id = await asker.request_job("slow", name="do")
        [message] = await raw.until(1, BusJobCancelMessage)
        assert isinstance(message, BusJobCancelMessage)
        assert (message.job_id, message.reason, anyio.current_time()) == (job_id, "timeout", 3)


@pytest.mark.parametrize("second", ["COMPLETED", "timeout"])
@pytest.mark.parametrize("more", [0, 100])
async def test_an_answer_that_is_in_doubt_settles_nothing_whatever_another_worker_answers_meanwhile(
    second: str, more: float
) -> None:
    """J6, J8: the scope's cancellation is about to come; where it does not, the first one is an error after all."""
    names = ("one", "two")
    async with running(*map(Helper, names)) as runner, anyio.create_task_group() as tasks:

        async def answer(job_id: str, scope: anyio.CancelScope) -> None:
            await anyio.sleep_until(scope.deadline - CLOCK_SKEW / 2)
            await answer_as(runner, job_id, "one", JobStatus.CANCELLED, "timeout")
            status = JobStatus.COMPLETED if second == "COMPLETED" else JobStatus.CANCELLED
            await answer_as(runner, job_id, "two", status, "timeout")
            scope.deadline += more

        with anyio.move_on_after(1) as scope, pytest.raises(JobGroupError) if more else contextlib.nullcontext():
            async with runner.job_group(*names, name="wait") as asked:
                tasks.start_soon(answer, asked.job_id, scope)
        assert scope.cancelled_caught is not bool(more)
