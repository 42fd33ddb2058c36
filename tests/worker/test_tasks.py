"""W10: tasks of a worker's own, and what they are called."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest
from anyio import get_current_task
from anyio.abc import TaskStatus

from support import clock
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusEndWorkerMessage,
    BusMessage,
    NotRunningError,
    UnknownJobError,
    WorkerParams,
    WorkerRunner,
)
from workerbus.testing import settle


class Grouped(BaseWorker):
    """Has something done in its ``run()``, and then ends."""

    def __init__(self, do: Callable[[WorkerParams], Awaitable[Any]]) -> None:
        super().__init__("grouped")
        self.do = do

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.do(params)


async def run_alone(worker: BaseWorker) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def test_a_task_made_of_a_coroutine_bears_its_name_or_the_one_it_is_given() -> None:
    """N2: as in anyio's own task groups."""
    names: list[str | None] = []

    async def note_the_name() -> None:
        names.append(get_current_task().name)

    async def do(params: WorkerParams) -> None:
        params.task_group.create_task(note_the_name())
        await settle()
        params.task_group.create_task(note_the_name(), name="its own")
        await settle()

    await run_alone(Grouped(do))
    assert names == [note_the_name.__qualname__, "its own"]


async def test_a_task_made_of_a_coroutine_runs_in_the_context_it_is_given() -> None:
    """N2: as in anyio's own task groups."""
    seen: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def look() -> None:
        seen.append(variable.get())

    async def do(params: WorkerParams) -> None:
        context = copy_context()
        context.run(variable.set, "something")
        params.task_group.create_task(look(), context=context)
        await settle()

    await run_alone(Grouped(do))
    assert seen == ["something"]


def test_a_task_of_a_worker_that_lets_a_native_cancellation_through_is_an_error() -> None:
    """W7, L6: nobody has cancelled the worker."""

    async def give_up() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await anyio.sleep(1)

    async def do(params: WorkerParams) -> None:
        params.task_group.create_task(give_up())
        await anyio.sleep(1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="a cancellation of its own task"):
            await run_alone(Grouped(do))

    clock.run(main, backend="asyncio")


@pytest.mark.parametrize("how", ["a group of errors", "after its start"])
async def test_an_error_of_a_workers_own_task_ends_it_however_it_comes(how: str) -> None:
    """W7, L6"""

    async def fail_in_a_group() -> None:
        raise ExceptionGroup("of one", [ValueError("the one")])

    async def fail_later(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep(1)
        raise ValueError("the one")

    class Broken(Helper):
        async def run(self, params: WorkerParams) -> None:
            if how == "after its start":
                await params.task_group.start(fail_later)
            else:
                params.task_group.start_soon(fail_in_a_group)
            await super().run(params)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Broken("broken"))
    with pytest.raises(ValueError, match="the one"):
        await runner.run()


async def test_a_task_that_says_when_it_has_started_gets_its_arguments_and_its_name() -> None:
    """N2: as in anyio's own task groups."""
    seen: list[object] = []

    async def serve(port: int, *, task_status: TaskStatus[int]) -> None:
        seen.append(get_current_task().name)
        task_status.started(port)
        await anyio.sleep_forever()

    async def do(params: WorkerParams) -> None:
        seen.append(await params.task_group.start(serve, 80, name="its own"))

    await run_alone(Grouped(do))
    assert seen == ["its own", 80]


async def test_a_worker_may_cancel_the_tasks_of_its_group() -> None:
    """N2: as in anyio's own task groups."""
    cancelled: list[bool] = []

    async def stay() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    async def do(params: WorkerParams) -> None:
        params.task_group.start_soon(stay)
        await settle()
        params.task_group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await settle()
            assert cancelled == [True]

    await run_alone(Grouped(do))
    assert cancelled == [True]


async def test_a_run_that_fails_while_it_has_tasks_fails_with_its_own_error() -> None:
    """W7, L6: and not with their cancellation."""

    async def do(params: WorkerParams) -> None:
        params.task_group.start_soon(anyio.sleep_forever)
        await settle()
        raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"):
        await run_alone(Grouped(do))


async def test_a_worker_s_task_group_is_entered_already() -> None:
    refused = anyio.Event()

    class Entering(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            with pytest.raises(NotRunningError, match=r"^a worker's task group is left when the worker ends$"):
                await params.task_group.__aexit__(None, None, None)
            with pytest.raises(NotRunningError, match=r"^a worker's task group is entered already: "):
                async with params.task_group:
                    pass
            refused.set()
            await super().run(params)

    async with running(Entering("w")):
        assert refused.is_set()


async def test_a_task_of_a_worker_may_say_that_it_has_started() -> None:
    class Serving(BaseWorker):
        port = 0

        async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
            task_status.started(8080)
            await anyio.sleep_forever()

        async def run(self, params: WorkerParams) -> None:
            self.port = await params.task_group.start(self.serve)
            await super().run(params)

    worker = Serving("w")
    async with running(worker):
        assert worker.port == 8080


async def test_a_worker_runs_in_what_its_parameters_carry() -> None:
    """N2: `WorkerParams` carries what the runner gives a worker to run in."""
    ran = anyio.Event()

    class Starter(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(self.work)
            await super().run(params)

        async def work(self) -> None:
            ran.set()

    async with running(Starter("starter")):
        await ran.wait()


async def test_the_tasks_of_a_worker_s_hooks_say_whose_they_are() -> None:
    """W8, L1: one for each lane, from its first hook on."""
    names: list[str | None] = []

    class Naming(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                names.append(anyio.get_current_task().name)

    async with running(Naming("naming")) as runner:
        await runner.bus.send(note(1, target="naming"))
        await anyio.wait_all_tasks_blocked()
        await runner.bus.send(alarm(1, target="naming"))
        await anyio.wait_all_tasks_blocked()
    assert names == ["naming data dispatcher", "naming system dispatcher"]


async def test_the_tasks_of_a_run_that_returns_are_cancelled() -> None:
    """W10: they end with the worker."""
    cancelled: list[bool] = []

    async def stay() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    async def do(params: WorkerParams) -> None:
        params.task_group.start_soon(stay)
        await settle()

    await run_alone(Grouped(do))
    assert cancelled == [True]


async def test_the_tasks_of_a_run_that_returns_do_not_wait_for_its_children() -> None:
    """W10: they are cancelled at once, whatever takes its time in the wind-down."""
    cancelled: list[float] = []

    class Slow(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    async def stay() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(anyio.current_time())

    async def do(params: WorkerParams) -> None:
        await worker.add_workers(Slow("child"), wait=True)
        params.task_group.start_soon(stay)
        await settle()
        begun.append(anyio.current_time())

    begun: list[float] = []
    worker = Grouped(do)
    await run_alone(worker)
    assert cancelled == begun


async def test_a_task_that_fails_with_an_error_of_the_library_ends_its_worker() -> None:
    """W7: it is an error like any other, as long as nobody ends the worker."""

    async def ask_for_nothing(worker: BaseWorker) -> None:
        await worker.send_job_response("no job")

    async def do(params: WorkerParams) -> None:
        params.task_group.start_soon(ask_for_nothing, worker)
        await anyio.sleep_forever()

    worker = Grouped(do)
    with pytest.raises(UnknownJobError):
        await run_alone(worker)


async def test_the_tasks_of_a_worker_say_whose_they_are() -> None:
    """L1: whoever looks for what hangs finds its name."""

    class Silent(Helper):
        async def run(self, params: WorkerParams) -> None:
            assert not params.ending
            self.begun.set()
            await anyio.sleep_forever()

    class Choosy(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    busy, silent = Helper("busy"), Silent("silent")
    async with quiet_runner(job_grace=1) as runner:
        await runner.add_workers(busy, silent, Choosy("choosy"))
        await runner.bus.send(note(1, "choosy"))
        await runner.bus.send(alarm(1, "choosy"))
        await (await Raw.on(runner.bus)).ask("1", "busy", "wait")
        for worker in (busy, silent):
            await worker.begun.wait()
            await runner.bus.send(BusEndWorkerMessage(source="test", target=worker.name))
        await settle()
        names = {task.name for task in anyio.get_running_tasks()}
    assert {"worker busy", "busy end", "worker silent", "silent grace period"} <= names
    assert {"choosy system intake dispatcher", "choosy data intake dispatcher"} <= names


async def test_a_job_that_the_clean_up_of_a_task_asks_for_and_the_end_cancels_is_no_failure_of_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W7, W6: it is logged, and the run ends well."""

    async def tidy_up(worker: Grouped) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await worker.job("helper", name="wait")

    class Slow(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    async def do(params: WorkerParams) -> None:
        await worker.add_workers(Slow("child"), wait=True)
        params.task_group.start_soon(tidy_up, worker)
        await settle()

    worker, helper = Grouped(do), Helper("helper")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker, helper)
        await worker.wait()
        assert helper.unwound.is_set()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a task of worker 'grouped' failed while it ended"
    ]
