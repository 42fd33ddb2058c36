"""What a requester's contexts do in corners where changing the code had turned no test red."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.job_handlers import never, slow_to_leave
from support.workers import Doing, running
from workerbus import BusJobRequestMessage, BusJobResponseMessage, JobError, JobStatus, WorkerRunner
from workerbus.jobs._client import SAME_TIME


async def answer(runner: WorkerRunner, job_id: str, worker: str, status: JobStatus, error: str = "oh") -> None:
    """Answer a job of the runner in the name of a worker."""
    await runner.bus.send(BusJobResponseMessage(job_id, status, {"error": error}, source=worker, target=runner.name))


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


async def test_a_loop_ends_with_the_answer_that_comes_too_late_for_it() -> None:
    """J7, J8: also where the body does not let itself be cancelled."""
    ended: list[float] = []
    async with running(Doing("doing", slow_to_leave)) as runner, anyio.create_task_group() as tasks:

        async def answer_late(job_id: str) -> None:
            await anyio.sleep(3.5)
            await answer(runner, job_id, "doing", JobStatus.COMPLETED)

        with pytest.raises(TimeoutError):  # noqa: PT012 - the context is what raises
            async with runner.job("doing", name="do", timeout=3) as asked:
                begun = anyio.current_time()
                tasks.start_soon(answer_late, asked.job_id)
                with anyio.CancelScope(shield=True):
                    async for _ in asked:
                        pass
                    ended.append(anyio.current_time() - begun)
    assert ended == [pytest.approx(3.5)]


async def test_the_body_of_a_group_of_none_has_all_the_time_it_wants() -> None:
    """J12, J6: the group was complete before its time was up."""
    async with running() as runner:
        async with runner.job_group(timeout=0) as group:
            await anyio.sleep(1)
        assert group.responses == {}


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
        await answer(runner, job_id, "doing", JobStatus.ERROR)
        outer.cancel()
        release.set()
    assert outer.cancelled_caught
    assert left == [anyio.get_cancelled_exc_class().__name__]


async def test_an_early_timeout_is_looked_at_again_when_the_scope_should_have_ended() -> None:
    """J6: a scope may be given more time after the worker has seen the end of what it had."""
    async with running(Doing("silent", slow_to_leave)) as runner, anyio.create_task_group() as tasks:

        async def extend(job_id: str, scope: anyio.CancelScope) -> None:
            await anyio.sleep_until(scope.deadline - SAME_TIME / 2)
            await answer(runner, job_id, "silent", JobStatus.CANCELLED, "timeout")
            await anyio.sleep_until(scope.deadline - SAME_TIME / 4)
            scope.deadline += 100

        begun = anyio.current_time()
        with anyio.move_on_after(3) as scope:
            with pytest.raises(JobError, match="worker 'silent' answered cancelled: timeout"):
                async with runner.job("silent", name="do") as asked:
                    tasks.start_soon(extend, asked.job_id, scope)
        assert not scope.cancelled_caught
        assert 3 < anyio.current_time() - begun < 3.1
