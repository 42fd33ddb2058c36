"""W7: a worker that crashes is finished, its jobs are answered, and nothing of it is lost."""

from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Crashing, Errors, Parent, crash, tracebacks
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import BaseWorker, JobStatus, WorkerErrorData, WorkerParams, WorkerRunner


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_the_jobs_of_a_crashed_worker_are_answered_error(how: str) -> None:
    """W7: the running, the deferred, and the one that waits in line"""
    worker = Crashing(how=how)
    async with running(worker) as runner:
        await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        for number, name in enumerate(["line", "line", "later", "wait"]):
            await raw.ask(str(number), "w", name)
        await worker.begun.wait()
        await anyio.wait_all_tasks_blocked()
        await crash(worker, runner)
        outcomes = [await raw.answer(str(number)) for number in range(4)]
    assert outcomes == [(JobStatus.ERROR, {"error": "boom", "type": "ValueError"})] * 4


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_a_crashed_worker_is_finished_and_reported(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    worker = Crashing(how=how)
    async with running(worker, Helper("peer")) as runner:
        errors = await Errors().of(runner)
        await crash(worker, runner)
        assert runner.registry.get("w") is None
        assert not runner.bus.has_subscriber("w")
        await eventually(lambda: errors.told and errors.sent("w"))
        assert (await runner.job("peer", name="echo"))["worker"] == "peer"
        await runner.add_workers(Helper("w"))
        assert (await runner.job("w", name="echo"))["worker"] == "w"
    assert [data.worker_name for data in errors.told] == ["w"]
    assert "boom" in errors.told[0].error
    assert "boom" in errors.sent("w")[0]
    assert tracebacks(caplog, worker.error)


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_what_a_worker_crashed_with_is_raised_by_the_run(how: str) -> None:
    """W7, R4, L6"""
    worker, caught = Crashing(how=how), None
    try:
        async with running(worker) as runner:
            await crash(worker, runner)
    except ValueError as exc:
        caught = exc
    assert caught is worker.error


@dataclass(frozen=True)
class FrozenError(Exception):
    """Lets nobody set an attribute, such as the notes of an error."""

    code: int


async def test_a_crash_is_raised_as_it_is_although_its_error_is_frozen() -> None:
    """W7, R4: and a note says of which worker it is."""
    worker, caught = Crashing(error=FrozenError(7)), None
    try:
        async with running(worker) as runner:
            await crash(worker, runner)
    except FrozenError as exc:
        caught = exc
    assert caught is worker.error
    assert caught.__notes__ == ["raised by worker 'w'"]


async def test_a_job_is_not_completed_by_its_worker_s_cancelled_task_group() -> None:
    """J2, W7: a worker may cancel ``params.task_group`` to end; what it had not done was not done"""

    class Shutdown(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.begun.wait()
            params.task_group.cancel_scope.cancel()
            await anyio.sleep_forever()

    workers = [Shutdown(f"w{n}") for n in range(8)]
    async with running(*workers) as runner:
        raw = await Raw.on(runner.bus)
        for worker in workers:
            await raw.ask(worker.name, worker.name, "wait")
        assert {(await raw.answer(worker.name))[0] for worker in workers} == {JobStatus.CANCELLED}


async def test_a_crashed_parent_takes_its_children_with_it() -> None:
    """W7, W5"""
    parent, child = Crashing("parent"), Helper("child")
    async with running(parent) as runner:
        await Errors().of(runner)
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await crash(parent, runner)
        await child.wait()


@pytest.mark.parametrize("handled", [False, True])
async def test_a_crashed_child_that_concerns_no_parent_is_not_lost(handled: bool) -> None:
    """W7, R4: either an ``on_error`` handler takes it, or `run()` raises it"""
    parent, child, caught = Helper("parent"), Crashing("child"), None
    errors = Errors()
    try:
        async with running(parent) as runner:
            if handled:
                await errors.of(runner)
            await parent.add_workers(child)
            await crash(child, runner)
    except ValueError as exc:
        caught = exc
    assert (caught is None) == handled
    assert errors.told == [WorkerErrorData("child", "ValueError: boom")] * handled


async def test_the_first_activation_of_a_child_that_fails_concerns_its_parent() -> None:
    """W7, W2"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise ValueError("no key")

    parent, child = Parent(), Failing("child")
    async with running(parent) as runner:
        await Errors().of(runner)
        await parent.add_workers(child)
        await child.wait()
        await eventually(lambda: parent.failed)
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert len(parent.failed) == 1
    assert "no key" in parent.failed[0].error


async def test_an_error_while_run_is_cancelled_is_a_crash() -> None:
    """W7"""

    class Stubborn(Helper):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                raise ValueError("boom")

    worker = Stubborn("w")
    async with running(worker) as runner:
        errors = await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await worker.stop()
        assert (await raw.answer("1"))[0] is JobStatus.ERROR
        await eventually(lambda: errors.told)
    assert errors.told[0].worker_name == "w"


async def test_an_error_in_cleanup_does_not_hide_that_of_run(caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    second = ValueError("second")

    class Cleaning(Crashing):
        async def cleanup(self) -> None:
            raise second

    worker, caught = Cleaning(), None
    try:
        async with running(worker) as runner:
            await crash(worker, runner)
    except ValueError as exc:
        caught = exc
    assert caught is worker.error
    assert tracebacks(caplog, second)


async def test_no_error_of_a_worker_s_tasks_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """W7, L6: ``run()`` raises one, and a task in ``params.task_group`` another"""
    first, second = ValueError("first"), KeyError("second")

    class Double(BaseWorker):
        async def other(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise second

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            params.task_group.start_soon(self.other)
            await params.wait_for_end()
            raise first

    caught: BaseException | None = None
    try:
        async with running(Double("w")):
            pass
    except Exception as exc:
        caught = exc
    errors = caught.exceptions if isinstance(caught, ExceptionGroup) else (caught,)
    assert first in errors
    assert second in errors or tracebacks(caplog, second)


async def test_requesters_are_told_of_the_first_error_of_several() -> None:
    """J4, W7: of what has begun the end, and not of what came up on the way."""
    go = anyio.Event()

    class Double(Helper):
        async def other(self) -> None:
            await go.wait()
            raise ValueError("first")

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            params.task_group.start_soon(self.other)
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("second")

    double = Double("w")
    async with running(double) as runner:
        await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await double.begun.wait()
        go.set()
        assert await raw.answer("1") == (JobStatus.ERROR, {"error": "first", "type": "ValueError"})


async def test_several_crashes_are_raised_together() -> None:
    """R4, L6"""
    workers = [Crashing(f"w{n}", error=ValueError(n)) for n in range(3)]
    caught: BaseException | None = None
    try:
        async with running(*workers) as runner:
            for worker in workers:
                await crash(worker, runner)
    except ExceptionGroup as exc:
        caught = exc
    assert isinstance(caught, ExceptionGroup)
    assert set(caught.exceptions) == {worker.error for worker in workers}


async def test_one_error_that_comes_out_of_a_worker_in_two_ways_is_one() -> None:
    """L6, W7: of a task in its group, and of its run()."""
    error = ValueError("the one")

    async def fail() -> None:
        raise error

    class Broken(Helper):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(fail)
            try:
                await super().run(params)
            finally:
                raise error

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Broken("broken"))
    with pytest.raises(ValueError, match="the one"):
        await runner.run()
