"""J5, L4: how a job's context is left, and how long that may take."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import CancelScope, current_time, sleep_forever
from anyio.lowlevel import checkpoint

from support import clock
from support.contexts import SlowToUnwind, fail, read_and_fail
from support.job_handlers import at_once, never, slow_to_leave_when_cancelled, too_slow_to_leave
from support.requesters import Raw
from support.wind_downs import BOUND, Stubborn
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobError,
    JobGroupError,
    JobStatus,
    NotRunningError,
    WorkerRunner,
    job,
)
from workerbus.testing import RecordingBus, settle


async def test_a_body_that_fails_cancels_the_job_and_its_exception_goes_through() -> None:
    """J5: the very exception; the worker is told, and the group is gone."""
    helper, asker = Helper("helper"), Helper("asker")
    error = LookupError("mine")
    async with running(helper, asker):
        with pytest.raises(LookupError) as caught:
            async with asker.job("helper", name="wait"):
                await fail(error, helper.begun)
        assert caught.value is error
        assert helper.unwound.is_set()
        assert helper.active_jobs == {}
        assert asker.job_groups == {}


async def test_a_requester_that_is_cancelled_while_it_waits_for_the_answer_cancels_the_job() -> None:
    """J5: before the cancellation goes on its way."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await asker.job("helper", name="wait")
            assert helper.unwound.is_set()
            assert asker.job_groups == {}
            await checkpoint()

        group.start_soon(ask)
        await helper.begun.wait()
        group.cancel_scope.cancel()
    assert group.cancel_scope.cancel_called


async def test_a_deadline_around_the_context_cancels_the_job() -> None:
    """J5: the scope's own error comes of it, and none of the job's."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.02):
            async with asker.job("helper", name="wait"):
                await anyio.sleep_forever()
        assert not isinstance(caught.value, JobError)
        assert helper.unwound.is_set()
        assert asker.job_groups == {}


@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_cancels_the_job_and_goes_through(in_body: bool) -> None:
    """J5: of `Task.cancel()`, wherever the requester is."""

    async def example() -> None:
        helper, asker = Helper("helper"), Helper("asker")
        async with running(helper, asker):

            async def ask() -> None:
                async with asker.job("helper", name="wait"):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert helper.unwound.is_set()
            assert asker.job_groups == {}

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("how", ["exception", "cancellation"])
async def test_a_context_is_left_when_the_handler_has_unwound(how: str) -> None:
    """J5: CANCELLED is sent then, and not before."""
    slow, left = SlowToUnwind(), anyio.Event()
    async with running(slow) as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)

        async def ask() -> None:
            try:
                async with runner.job("slow", name="hold"):
                    if how == "exception":
                        await fail(LookupError(), slow.begun)
                    await slow.begun.wait()
                    group.cancel_scope.cancel()
                    await anyio.sleep_forever()
            except LookupError:
                pass
            finally:
                left.set()

        group.start_soon(ask)
        with anyio.move_on_after(8, shield=True):
            await slow.unwinds.wait()
            await anyio.wait_all_tasks_blocked()
            assert not left.is_set()
            assert raw.of(BusJobResponseMessage) == []
            slow.let_go.set()
            await left.wait()
        assert slow.unwound.is_set()


async def test_a_cancellation_while_the_answers_are_waited_for_does_not_cut_that_short() -> None:
    """J5: the context is left when all have answered, and the body's exception goes through."""
    slow = SlowToUnwind()
    async with running(slow) as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(LookupError):
                async with runner.job("slow", name="hold"):
                    await fail(LookupError(), slow.begun)
            assert slow.unwound.is_set()

        async def cancel() -> None:
            await slow.unwinds.wait()
            group.cancel_scope.cancel()
            with anyio.move_on_after(8, shield=True):
                await anyio.wait_all_tasks_blocked()
            slow.let_go.set()

        group.start_soon(ask)
        group.start_soon(cancel)


def test_a_native_cancellation_while_the_answers_are_waited_for_does_not_cut_that_short() -> None:
    """J5: it goes through when all have answered."""

    async def example() -> None:
        slow = SlowToUnwind()
        async with running(slow) as runner:

            async def ask() -> None:
                async with runner.job("slow", name="hold"):
                    await fail(LookupError(), slow.begun)

            task = asyncio.create_task(ask())
            await slow.unwinds.wait()
            for _ in range(2):
                task.cancel()
                await anyio.wait_all_tasks_blocked()
                assert not task.done()
            slow.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert slow.unwound.is_set()
            assert runner.statistics().job_groups == ()

    clock.run(example, backend="asyncio")


def test_a_context_is_left_after_the_bound_if_a_handler_does_not_unwind(backend: str) -> None:
    """J5, L4: several contexts that one exception leaves share it."""

    async def example() -> None:
        first, second = SlowToUnwind("first"), SlowToUnwind("second")
        async with running(first, second) as runner:
            started = anyio.current_time()
            with pytest.raises(LookupError):
                async with runner.job("first", name="hold"), runner.job("second", name="hold"):
                    await fail(LookupError(), first.begun, second.begun)
            passed = anyio.current_time() - started
            assert CLEANUP_SECONDS <= passed < CLEANUP_SECONDS + 0.9
            first.let_go.set()
            second.let_go.set()

    clock.run(example, backend=backend)


def test_an_exception_that_is_raised_again_later_has_its_clean_up_again(backend: str) -> None:
    """J5: every context is left when all have answered, or after the bound, whatever the exception has been through."""

    async def example() -> None:
        error = LookupError("kept, and raised again")
        for name in ("first", "second"):
            slow = SlowToUnwind(name)
            slow.seconds = 0.5
            async with running(slow) as runner:
                with pytest.raises(LookupError):
                    async with runner.job(name, name="hold"):
                        await fail(error, slow.begun)
                assert slow.unwound.is_set(), name
            await anyio.sleep(CLEANUP_SECONDS)

    clock.run(example, backend=backend)


async def test_the_workers_of_a_group_are_all_told() -> None:
    """J5: each that has not answered."""
    workers = [Helper(f"w{n}") for n in range(3)]
    async with running(*workers) as runner:
        with pytest.raises(LookupError):
            async with runner.job_group("w0", "w1", "w2", name="wait"):
                await fail(LookupError(), *(worker.begun for worker in workers))
        assert all(worker.unwound.is_set() for worker in workers)


async def test_a_handler_that_has_answered_may_still_run() -> None:
    """J5: it alone; it is not cancelled, and not waited for."""
    release, ended = anyio.Event(), anyio.Event()

    async def goes_on(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {})
        await release.wait()
        ended.set()

    async with running(Doing("doing", goes_on)) as runner:
        with pytest.raises(LookupError):
            async with runner.job("doing", name="do") as asked:
                await read_and_fail(asked, LookupError())
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        release.set()
        await ended.wait()


async def leave_by_an_error(runner: WorkerRunner) -> None:
    with pytest.raises(ValueError, match="body"):
        async with (
            runner.job("a", name="refuse"),
            runner.job_group("b", "c", name="refuse"),
            runner.job("d", name="refuse"),
        ):
            raise ValueError("body")


async def leave_by_a_cancellation(runner: WorkerRunner) -> None:
    with CancelScope() as scope:
        async with (
            runner.job("a", name="refuse"),
            runner.job_group("b", "c", name="refuse"),
            runner.job("d", name="refuse"),
        ):
            scope.cancel()
            await sleep_forever()
    assert scope.cancelled_caught


async def leave_by_a_timeout_outside(runner: WorkerRunner) -> None:
    with pytest.raises(TimeoutError):
        async with (
            runner.job("a", name="refuse", timeout=0.1),
            runner.job_group("b", "c", name="refuse"),
            runner.job("d", name="refuse"),
        ):
            await sleep_forever()


async def leave_by_a_timeout_inside(runner: WorkerRunner) -> None:
    with pytest.raises(TimeoutError):
        async with (
            runner.job("a", name="refuse"),
            runner.job_group("b", "c", name="refuse"),
            runner.job("d", name="refuse", timeout=0.1),
        ):
            await sleep_forever()


@pytest.mark.parametrize(
    "leave", [leave_by_an_error, leave_by_a_cancellation, leave_by_a_timeout_outside, leave_by_a_timeout_inside]
)
async def test_nested_job_contexts_share_one_deadline(leave: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """L4, J5: handlers that refuse cancellation hold three contexts up no longer than one."""
    async with running(*(Stubborn(name, "handler") for name in "abcd")) as runner:
        begun = current_time()
        await leave(runner)
        assert current_time() - begun < BOUND


def test_nested_job_contexts_share_one_deadline_under_a_native_cancel() -> None:
    """L4, J5: `asyncio.Task.cancel()`."""

    async def main() -> None:
        async def ask() -> None:
            async with runner.job("a", name="refuse"), runner.job("b", name="refuse"):
                asked.set()
                await sleep_forever()

        asked = anyio.Event()
        async with running(Stubborn("a", "handler"), Stubborn("b", "handler")) as runner:
            task = asyncio.create_task(ask())
            await asked.wait()
            begun = current_time()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert current_time() - begun < BOUND

    clock.run(main, backend="asyncio")


class TakesTenSeconds(BaseWorker):
    """Takes long to leave, and asks another in the meantime of its life."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun = anyio.Event()

    @job(name="wait")
    async def wait_long(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)


async def test_waits_that_one_error_leaves_one_after_the_other_share_their_bound() -> None:
    """L4: an awaited job in the body of another context; two seconds for both, and not for each."""
    outer, inner, asker = TakesTenSeconds("outer"), TakesTenSeconds("inner"), Helper("asker")
    async with running(outer, inner, asker), anyio.create_task_group() as tasks:
        left = anyio.Event()

        async def ask_both() -> None:
            async with asker.job("outer", name="wait"):
                await outer.begun.wait()
                await asker.job("inner", name="wait")

        async def ask() -> None:
            with pytest.raises(JobError):
                await ask_both()
            left.set()

        tasks.start_soon(ask)
        await inner.begun.wait()
        begun = anyio.current_time()
        [group] = [each for each in asker.job_groups.values() if each.worker_names == ["inner"]]
        await asker.cancel_job_group(group.job_id)
        await left.wait()
        assert anyio.current_time() - begun < 2.5


async def test_nothing_is_said_of_a_job_that_ends_in_time_after_its_cancel(caplog: pytest.LogCaptureFixture) -> None:
    """J5, L4: the log names those that are late, and no others."""
    async with running(Doing("doing", never)) as runner:
        with pytest.raises(ValueError, match="enough"):
            async with runner.job("doing", name="do"):
                raise ValueError("enough")
    assert caplog.messages == []


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


async def test_the_body_of_a_job_that_is_done_may_outlive_its_timeout() -> None:
    """J6: the time was the job's."""
    async with running(Doing("doing", at_once)) as runner:
        async with runner.job("doing", name="do", timeout=3) as asked:
            await anyio.sleep(5)
        assert asked.response == {"by": "doing"}


async def test_a_group_that_has_failed_waits_for_nobody_longer_than_the_bound() -> None:
    """J5, L4: though one refuses to leave."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async with running(Doing("fails", fail), Doing("stays", too_slow_to_leave)) as runner:
        begin = current_time()
        with pytest.raises(JobGroupError):
            async with runner.job_group("fails", "stays", name="do"):
                pass
        assert current_time() == begin + CLEANUP_SECONDS


async def test_answers_that_come_while_a_failed_group_is_left_are_in_its_error() -> None:
    """J5, J8: without a body, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async with running(Doing("fails", fail), Doing("other", never)) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("fails", "other", name="do")
    assert caught.value.statuses == {"fails": JobStatus.ERROR, "other": JobStatus.CANCELLED}


async def test_errors_that_leave_one_job_after_the_other_share_one_deadline() -> None:
    """L4: jobs that are awaited, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    workers = Doing("fails", fail), Doing("stays", too_slow_to_leave), Doing("stays too", too_slow_to_leave)
    async with running(*workers) as runner:
        begin = current_time()
        with pytest.raises(JobGroupError):
            async with runner.job("stays too", name="do"):
                await runner.job_group("fails", "stays", name="do")
        assert current_time() == begin + CLEANUP_SECONDS


async def test_nothing_is_said_of_a_worker_that_unwinds_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """J5, L4: it has begun, and takes a few steps to leave."""
    begun = anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await checkpoint()

    async with running(Doing("doing", unwinds)) as runner:
        with pytest.raises(ValueError, match="enough"):  # noqa: PT012 - the context is what raises
            async with runner.job("doing", name="do"):
                await begun.wait()
                raise ValueError("enough")
    assert caplog.messages == []


async def test_the_body_of_a_group_of_none_has_all_the_time_it_wants() -> None:
    """J12, J6: the group was complete before its time was up."""
    async with running() as runner:
        async with runner.job_group(timeout=0) as group:
            await anyio.sleep(1)
        assert group.responses == {}


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


@pytest.mark.parametrize("form", ["short", "context"])
async def test_an_error_has_the_answers_that_came_while_its_job_was_left(form: str) -> None:
    """J5, J8: those of workers that take their time to unwind."""
    async with running(Doing("fails", fails_later), Doing("other", slow_to_leave_when_cancelled)) as runner:
        await runner.job_group()  # from the second job on, the short form takes a shorter way
        with pytest.raises(JobGroupError) as caught:
            await leave(runner, form)
    assert caught.value.statuses == {"fails": JobStatus.ERROR, "other": JobStatus.CANCELLED}
    assert caught.value.responses.keys() == {"fails", "other"}


@pytest.mark.parametrize("form", ["short", "context"])
async def test_a_cancellation_that_comes_while_a_failed_job_is_left_wins_over_its_error(form: str) -> None:
    """J8: it is told when the workers have unwound."""
    async with running(Doing("fails", fails_later), Doing("other", slow_to_leave_when_cancelled)) as runner:
        await runner.job_group()  # from the second job on, the short form takes a shorter way
        begun = current_time()
        with anyio.move_on_after(2) as scope:
            await leave(runner, form)
        assert scope.cancelled_caught
        assert current_time() == begun + 1 + CLEANUP_SECONDS - 0.5


async def fails_later(worker: Doing, message: BusJobRequestMessage) -> None:
    await anyio.sleep(1)
    raise ValueError("it went wrong")


async def leave(runner: WorkerRunner, form: str) -> None:
    if form == "short":
        await runner.job_group("fails", "other", name="do")
    else:
        async with runner.job_group("fails", "other", name="do"):
            pass


async def test_the_workers_of_a_group_are_told_in_the_order_in_which_they_were_asked() -> None:
    """J5: so that the same program does the same in every process, however it hashes names."""
    names = [f"worker-{n}" for n in range(20)]
    bus = RecordingBus()
    async with running(*(Helper(name) for name in names), bus=bus) as runner:
        with pytest.raises(ZeroDivisionError):
            async with runner.job_group(*names, name="wait"):
                raise ZeroDivisionError
    assert [message.target for message in bus.messages(BusJobCancelMessage)] == names
