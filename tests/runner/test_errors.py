"""R4, L6: what becomes of the errors of a run."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import anyio
import pytest
from anyio import sleep, sleep_forever

from support.endings import Crashing, FailingStart, Told
from support.leaks import nothing_left
from support.remarks import Remark
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusMessage,
    JobError,
    JobGroupError,
    MemoryBus,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
)


@pytest.mark.parametrize("kind", [Crashing, FailingStart])
async def test_a_crashed_worker_leaves_the_others_running_and_run_raises_at_the_end(
    kind: type[BaseWorker], caplog: pytest.LogCaptureFixture
) -> None:
    """R4, W7: and says whose error it is."""
    failing = kind("failing")
    runner = quiet_runner()
    with pytest.raises(ValueError, match="failing") as caught:  # noqa: PT012 - the block itself raises
        async with runner:
            await runner.add_workers(failing, Helper("helper"))
            if isinstance(failing, Crashing):
                failing.now.set()
            await failing.wait()
            assert await runner.job("helper", name="echo")
    assert caught.value.__notes__ == ["raised by worker 'failing'"]
    assert "worker 'failing' failed" in caplog.messages


async def test_an_error_of_a_hook_does_not_make_run_raise() -> None:
    """R4: only a failed start or `run()` does."""

    class Clumsy(Told):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Remark):
                raise ValueError(message.text)

        async def cleanup(self) -> None:
            raise ValueError("cleanup")

    clumsy = Clumsy("clumsy")
    async with running(clumsy) as runner:
        await clumsy.tell("one", "two")
        with pytest.raises(JobError):
            await runner.job("clumsy", name="fail")


@pytest.mark.parametrize("handled", [True, False])
async def test_a_crash_of_a_child_is_not_lost(handled: bool) -> None:
    """R4: an `on_error` handler is told of it, or `run()` raises."""
    seen: list[str] = []
    parent, child, runner = Helper("parent"), Crashing("child"), quiet_runner()
    if handled:
        runner.add_event_handler("on_error", lambda _, data: seen.append(data.worker_name))
    await parent.add_workers(child)
    try:
        async with runner:
            await runner.add_workers(parent)
            await runner.registry.wait_for("child")
            child.now.set()
            await child.wait()
            assert await runner.job("parent", name="echo")
    except ValueError as exc:
        seen.append(f"raised {exc}")
    assert seen == (["child"] if handled else ["raised child"])


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_an_error_that_came_before_the_end_is_raised_all_the_same(
    ask: Callable[[WorkerRunner], Awaitable[None]],
) -> None:
    """R4: also after a cancel."""
    failing, runner = Crashing("failing"), quiet_runner()

    async def crash_and_end() -> None:
        await runner.registry.wait_for("failing")
        failing.now.set()
        await failing.wait()
        await ask(runner)

    await runner.add_workers(failing, Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(crash_and_end)
        with pytest.raises(ValueError, match="failing"):
            await runner.run()


@pytest.mark.parametrize("how", ["end", "stop"])
async def test_a_worker_that_ends_while_its_own_task_awaits_a_job_has_not_failed(how: str) -> None:
    """R4, W6: its tasks are cancelled, as its handlers are; a job that ends with the worker is no crash."""

    class Asking(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            params.task_group.start_soon(self.ask)
            await sleep_forever()

        async def ask(self) -> None:
            self.begun.set()
            await self.job("nobody")

        async def cleanup(self) -> None:
            await sleep(0.1)

    asking, runner = Asking("asking"), quiet_runner(grace_period=0.1)
    async with nothing_left(runner), runner:
        await runner.add_workers(asking)
        await asking.begun.wait()
        await anyio.wait_all_tasks_blocked()
        await (asking.stop() if how == "stop" else runner.end())


async def test_several_workers_that_failed_are_raised_together() -> None:
    """R4, L6."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError(self.name)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Failing("one"), Failing("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await runner.run()
    assert caught.value.message == "several workers failed"
    assert sorted(str(error) for error in caught.value.exceptions) == ["one", "two"]


@pytest.mark.parametrize("handled", [False, True])
async def test_the_failure_of_a_child_is_its_parents_business_if_that_wants_it(handled: bool) -> None:
    """R4, W7: otherwise it is the runner's."""
    told: list[str] = []

    class Parent(Helper):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(data.error)

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError("oh")

    parent, runner = (Parent if handled else Helper)("parent"), WorkerRunner(handle_sigint=False)
    await runner.add_workers(parent)
    raised = nullcontext() if handled else pytest.raises(ValueError, match="oh")
    with raised:
        async with runner:
            await runner.registry.wait_for("parent")
            child = Failing("child")
            await parent.add_workers(child)
            await child.wait()
            await anyio.wait_all_tasks_blocked()
    assert told == (["ValueError: oh"] if handled else [])


async def test_a_failed_job_is_one_plain_exception_through_all_that_is_around_it() -> None:
    """L6, J8."""
    with pytest.raises(JobGroupError) as caught:
        async with MemoryBus() as bus, running(Helper("helper"), bus=bus) as runner:
            await runner.job_group("helper", name="fail")
    assert caught.value.responses["helper"]["type"] == "ValueError"
