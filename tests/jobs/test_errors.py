"""J8: what the wait for a job raises, and which of several things wins."""

import asyncio
from typing import Any

import anyio
import pytest
from anyio import CancelScope, sleep
from anyio.lowlevel import checkpoint

from support import clock
from support.contexts import SlowToUnwind, answer_as, read_and_fail
from support.job_handlers import never
from support.requesters import Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobContext,
    JobError,
    JobFailure,
    JobGroupContext,
    JobGroupError,
    JobStatus,
    MemoryBus,
    NotRunningError,
    WorkerRunner,
    job,
)
from workerbus.testing import settle


@pytest.mark.parametrize("name", ["fail", "paint"])
async def test_an_error_of_a_worker_cancels_the_body(name: str) -> None:
    """J8: and the context raises `JobError`, with the job, the reason, the status and the answer."""
    async with running(Helper("helper")) as runner:
        context = runner.job("helper", name=name)
        with pytest.raises(JobError) as caught:
            async with context:
                await anyio.sleep_forever()
    error = caught.value
    assert type(error) is JobError
    assert error.job_id == context.job_id
    assert error.statuses == {"helper": JobStatus.ERROR}
    assert error.responses["helper"]["error"] in error.reason
    assert not isinstance(error, TimeoutError)


async def test_an_error_says_which_worker_has_answered_what_and_no_more() -> None:
    """J8: whom else it has asked matters after a timeout alone."""
    async with running(Helper("bad"), Helper("busy")) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("busy", "bad", name="fail")
        error = caught.value
        assert str(error) == f"job group 'fail' of 'busy', 'bad': {error.reason}"
        assert error.reason in [f"worker {name!r} raised ValueError: it went wrong" for name in ("bad", "busy")]
        assert (error.job_name, error.worker_names, error.seconds) == ("fail", ("busy", "bad"), None)


async def test_an_error_of_one_worker_ends_the_wait_for_room_at_another() -> None:
    """J8, B9: also in the first group that somebody asks for, before it knows the bus."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await release.wait()

    bad, busy = Helper("bad"), Busy("busy")
    async with running(bad, busy, bus=MemoryBus(max_buffer_size=1)) as runner:
        raw = await Raw.on(runner.bus)
        for job_id in ("handled", "waits"):
            await raw.ask(job_id, "busy", "echo")
            await settle()
        with pytest.raises(JobGroupError, match="it went wrong"):
            await runner.job_group("bad", "busy", name="fail")
        release.set()


async def test_an_error_of_one_worker_cancels_the_body_and_the_others() -> None:
    """J8: the error carries the answers that did arrive, from before and from after."""

    async def does(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        if worker.name == "bad":
            await helper.begun.wait()
            await answered.wait()
            raise JobFailure("out of stock")
        return {"done": True}

    async def let_go_after_an_answer(group: JobGroupContext[Any]) -> None:
        while not group.responses:
            await checkpoint()
        answered.set()
        await anyio.sleep_forever()

    helper, answered = Helper("helper"), anyio.Event()

    class Both(Doing):
        @job(name="wait")
        async def wait_too(self, message: BusJobRequestMessage) -> Any:
            return await does(self, message)

    good, bad = Both("good", does), Both("bad", does)
    async with running(good, bad, helper) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("good", "bad", "helper", name="wait") as group:
                await let_go_after_an_answer(group)
        assert helper.unwound.is_set()
    error = caught.value
    assert type(error) is JobGroupError
    assert error.job_id == group.job_id
    assert "out of stock" in error.reason
    assert error.statuses == {
        "good": JobStatus.COMPLETED,
        "bad": JobStatus.FAILED,
        "helper": JobStatus.CANCELLED,
    }
    assert error.responses["good"] == {"done": True}


async def test_an_error_that_comes_after_the_body_is_raised_as_well() -> None:
    """J8: while the context waits for the answers."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with pytest.raises(JobError):
            async with runner.job("helper", name="fail"):
                pass


async def test_an_outer_cancellation_at_the_same_moment_wins() -> None:
    """J8: over a cancelled group."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:
        errors: list[BaseException] = []

        async def ask() -> None:
            try:
                async with asker.job("helper", name="wait") as asked:
                    started.append(asked.job_id)
                    await anyio.sleep_forever()
            except BaseException as exc:
                errors.append(exc)
                raise

        started: list[str] = []
        group.start_soon(ask)
        await helper.begun.wait()
        await asker.cancel_job_group(started[0])
        group.cancel_scope.cancel()
    assert isinstance(errors[0], anyio.get_cancelled_exc_class())


async def test_an_outer_deadline_at_the_same_moment_wins() -> None:
    """J8: over the job's own timeout."""
    async with running(Helper("helper")) as runner:
        with anyio.move_on_after(0.02) as scope:
            await runner.job("helper", name="wait", timeout=0.02)
        assert scope.cancelled_caught


async def test_an_outer_cancellation_before_the_context_has_been_left_wins() -> None:
    """J8: the group has failed, and its answers are still waited for."""
    slow, errors = SlowToUnwind(), list[BaseException]()
    async with running(slow) as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            try:
                await runner.job("slow", name="hold", timeout=0.01)
            except BaseException as exc:
                errors.append(exc)
                raise

        group.start_soon(ask)
        await slow.unwinds.wait()
        group.cancel_scope.cancel()
        with anyio.move_on_after(8, shield=True):
            await anyio.wait_all_tasks_blocked()
        slow.let_go.set()
    assert isinstance(errors[0], anyio.get_cancelled_exc_class())


@pytest.mark.parametrize("native_first", [False, True])
@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_at_the_same_moment_wins(in_body: bool, native_first: bool) -> None:
    """J8: over a cancelled group, whichever of the two came first."""

    async def example() -> None:
        helper, asker = Helper("helper"), Helper("asker")
        async with running(helper, asker):

            async def ask() -> None:
                async with asker.job("helper", name="wait"):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            (job_id,) = asker.job_groups
            if native_first:
                task.cancel()
            await asker.cancel_job_group(job_id)
            if not native_first:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_before_the_context_has_been_left_wins(in_body: bool) -> None:
    """J8: time was up, and the answers are still waited for."""

    async def example() -> None:
        slow = SlowToUnwind()
        async with running(slow) as runner:

            async def ask() -> None:
                async with runner.job("slow", name="hold", timeout=0.01):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await slow.unwinds.wait()
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            slow.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("why", ["error", "timeout", "outer"])
async def test_what_the_body_raises_while_it_is_cancelled_goes_through(why: str) -> None:
    """J8: as the body raised it."""
    error, scope = LookupError("mine"), anyio.CancelScope()
    timeout = 0.01 if why == "timeout" else None

    async def body() -> None:
        if why == "outer":
            scope.cancel()
        if why == "error":
            release.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def breaks(worker: Doing, message: BusJobRequestMessage) -> None:
        await release.wait()
        raise ValueError("oh")

    release = anyio.Event()
    async with running(Doing("doing", breaks)) as runner:
        with scope, pytest.raises(LookupError) as caught:
            async with runner.job("doing", name="do", timeout=timeout):
                await body()
        assert caught.value is error


async def test_what_the_tasks_of_a_body_raise_while_they_are_cancelled_goes_through() -> None:
    """J8: in the group of the body's own, without a trace of the cancellation."""

    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("mine")

    async with running(Helper("helper")) as runner:
        with pytest.raises(ExceptionGroup) as caught:
            async with runner.job("helper", name="wait", timeout=0.01), anyio.create_task_group() as group:
                group.start_soon(fails)
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]


async def test_a_body_that_fails_after_the_job_has_completed_raises_its_own_error() -> None:
    """J8: as it is."""
    error = LookupError("mine")
    async with running(Helper("helper")) as runner:
        with pytest.raises(LookupError) as caught:
            async with runner.job("helper", name="echo") as asked:
                await read_and_fail(asked, error)
        assert caught.value is error
        assert asked.response["worker"] == "helper"


async def test_contexts_left_out_of_order_raise_after_the_workers_were_told() -> None:
    """J8: a `RuntimeError`."""
    one, two = Helper("one"), Helper("two")

    async def misuse(runner: WorkerRunner) -> None:
        outer, inner = runner.job("one", name="wait"), runner.job("two", name="wait")
        await outer.__aenter__()
        await inner.__aenter__()
        await one.begun.wait()
        await two.begun.wait()
        error = LookupError("mine")
        try:
            with pytest.raises(RuntimeError):
                await outer.__aexit__(LookupError, error, None)
            assert one.unwound.is_set()
        finally:
            for context in (inner, outer):
                await leave_anyhow(context, error)

    async def leave_anyhow(context: JobContext[Any], error: Exception) -> None:
        try:
            await context.__aexit__(type(error), error, None)
        except (RuntimeError, anyio.get_cancelled_exc_class()):
            pass

    async with running(one, two) as runner:
        await misuse(runner)


async def test_a_cancelled_that_nobody_asked_for_is_an_error() -> None:
    """J8: the worker gave up by itself."""

    async def gives_up(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"reason": "tired"}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", gives_up)) as runner:
        with pytest.raises(JobError) as caught:
            await runner.job("doing", name="do")
        assert caught.value.statuses == {"doing": JobStatus.CANCELLED}
        assert not isinstance(caught.value, TimeoutError)
        with pytest.raises(JobGroupError):
            await runner.job_group("doing", name="do")


async def test_a_requester_that_stops_hears_its_answers() -> None:
    """J5, W6: it waits for its groups, so that their contexts are left with the answer and not after the bound."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(JobError) as caught:
                await asker.job("helper", name="wait")
            assert caught.value.statuses == {"helper": JobStatus.CANCELLED}

        group.start_soon(ask)
        await helper.begun.wait()
        await asker.stop()


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
    assert caught.value.reason == f"worker 'doing' failed: {text}"
    assert str(caught.value) == f"job 'do' at 'doing' failed: {text}"
    assert caught.value.responses == {"doing": response or {}}


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


async def test_a_cancellation_that_comes_while_a_failed_job_is_left_wins() -> None:
    """J8: without a body, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await sleep(0.1)
        raise ValueError("it went wrong")

    async def leave_slowly(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(1)

    async with running(Doing("fails", fail), Doing("slow", leave_slowly)) as runner:
        with anyio.move_on_after(0.5) as scope:
            await runner.job_group("fails", "slow", name="do")
        assert scope.cancelled_caught


async def test_a_cancellation_from_outside_wins_where_the_body_has_noticed_neither() -> None:
    """J8: both come while it shields itself."""
    left: list[str] = []
    shielded, release = anyio.Event(), anyio.Event()
    async with running(Doing("doing", never)) as runner, anyio.create_task_group() as tasks:
        outer = anyio.CancelScope()

        async def ask() -> None:
            with outer:
                try:
                    async with runner.job("doing", name="do"):
                        with anyio.CancelScope(shield=True):
                            shielded.set()
                            await release.wait()
                except BaseException as exc:
                    left.append(type(exc).__name__)
                    raise

        tasks.start_soon(ask)
        await shielded.wait()
        [job_id] = runner.job_client.groups
        await answer_as(runner, job_id, "doing", JobStatus.ERROR)
        outer.cancel()
        release.set()
    assert outer.cancelled_caught
    assert left == [anyio.get_cancelled_exc_class().__name__]


def test_an_error_keeps_answers_of_its_own() -> None:
    """J8: what is done with them afterwards does not change it."""
    responses, statuses = {"worker": {"n": 1}}, {"worker": JobStatus.FAILED}
    error = JobError("failed", responses=responses, statuses=statuses)
    responses.clear()
    statuses.clear()
    assert error.responses == {"worker": {"n": 1}}
    assert error.statuses == {"worker": JobStatus.FAILED}


async def test_a_job_context_is_used_once() -> None:
    """J8: a second job wants a second context."""
    async with running(Helper("helper")) as runner:
        asked = runner.job("helper", name="echo")
        with pytest.raises(NotRunningError, match="not been asked"):
            _ = asked.job_id
        await asked
        with pytest.raises(NotRunningError, match="used once"):
            await asked


async def test_an_answer_that_has_not_come_is_an_error() -> None:
    helper = Helper("helper")
    async with running(helper) as runner, runner.job("helper", name="wait") as asked:
        await helper.begun.wait()
        with pytest.raises(NotRunningError, match="no answer yet"):
            _ = asked.response
        helper.release.set()
