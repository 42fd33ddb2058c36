"""W8, L1, L3: tasks of jobs, and what becomes of a job whose task is cancelled."""

import asyncio
import functools
import gc
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

import anyio
import pytest

from support import clock
from support.requesters import Raw
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
    testing,
)
from workerbus.jobs._pool import IDLE_TASKS
from workerbus.testing import run
from workerbus.worker._core import core_of


async def about_its_task(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
    """Answer with what the task is."""
    if message.job_name == "defer":
        await worker.send_job_update(message.job_id)
        await anyio.sleep_forever()
    task = anyio.get_current_task()
    return {"id": task.id, "name": task.name}


async def test_the_task_of_a_job_does_the_next_one_too() -> None:
    """W8: starting one takes longer than a whole job."""
    async with running(Doing("doing", about_its_task)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await raw.answer("job")
        await anyio.wait_all_tasks_blocked()
        [idle] = [task.id for task in anyio.get_running_tasks() if task.name == "doing job"]
        await raw.ask("next", "doing", "do")
        assert await raw.answer("next") == (JobStatus.COMPLETED, {"id": idle, "name": "doing job"})


@pytest.mark.parametrize("seed", range(5))
def test_a_job_is_not_cut_by_the_cancel_of_the_one_before_it(backend: str, seed: int) -> None:
    """W8, J1: it is asked for in the step in which the other one, cancelled too late, returns; perhaps just after."""

    async def example() -> None:
        gate = anyio.Event()
        helper = Helper("helper")
        async with running(helper) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "helper", "wait")
            await helper.begun.wait()

            async def ask() -> None:
                await gate.wait()
                await raw.ask("next", "helper", "wait")

            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            gate.set()
            helper.release.set()
            await raw.cancel("job", "helper")
            assert await raw.answer("next") == (JobStatus.COMPLETED, {"released": True})

    run(example, backend=backend, seed=seed)


def tasks_of(name: str) -> list[asyncio.Task[Any]]:
    """The tasks of a worker's jobs."""
    return [task for task in asyncio.all_tasks() if task.get_name() == f"{name} job"]


def test_a_task_that_was_cancelled_natively_does_no_other_job() -> None:
    """W8: asyncio does not forget such a cancellation; its task groups would take it for one of the next handler's."""

    async def example() -> None:
        async with running(Doing("doing", about_its_task)) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "defer")
            await raw.until(1, BusJobUpdateMessage)
            [task] = tasks_of("doing")
            task.cancel()
            assert (await raw.answer("job"))[0] == JobStatus.ERROR
            await anyio.wait_all_tasks_blocked()
            assert task.done()
            await raw.ask("next", "doing", "do")
            status, answer = await raw.answer("next")
            assert status == JobStatus.COMPLETED
            assert answer is not None
            assert answer["id"] != id(task)

    clock.run(example, backend="asyncio")


def test_an_idle_task_that_is_cancelled_natively_is_missed_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """J1: the worker goes on, and so do its other jobs; nothing is given to that task any more."""

    async def example() -> None:
        helper = Helper("helper")
        async with running(helper) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("under way", "helper", "wait")
            await helper.begun.wait()
            [busy] = tasks_of("helper")
            await raw.ask("first", "helper", "echo")
            await raw.answer("first")
            await anyio.wait_all_tasks_blocked()
            [idle] = [task for task in tasks_of("helper") if task is not busy]
            idle.cancel()
            await anyio.wait_all_tasks_blocked()
            assert idle.done()
            await raw.ask("next", "helper", "echo")
            assert (await raw.answer("next"))[0] == JobStatus.COMPLETED
            helper.release.set()
            assert await raw.answer("under way") == (JobStatus.COMPLETED, {"released": True})

    clock.run(example, backend="asyncio")
    assert caplog.messages == []


@pytest.mark.parametrize("cancelled_first", [False, True])
def test_a_job_is_done_though_the_task_that_got_it_is_cancelled_natively(
    cancelled_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """J1: in the very step; another task of the worker does it, and the worker ends in time."""

    async def example() -> None:
        async with running(Doing("doing", about_its_task)) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("first", "doing", "do")
            await raw.answer("first")
            await anyio.wait_all_tasks_blocked()
            [idle] = tasks_of("doing")
            if cancelled_first:
                idle.cancel()
                await raw.ask("next", "doing", "do")
            else:
                await raw.ask("next", "doing", "do")
                idle.cancel()
            status, answer = await raw.answer("next")
            assert status == JobStatus.COMPLETED
            assert answer is not None
            assert answer["name"] == "doing job"
            assert answer["id"] != id(idle)
            assert idle.done()

    clock.run(example, backend="asyncio")
    assert caplog.messages == []


class Queue(BaseWorker):
    """Does one job of each kind at a time, and keeps ``do`` until it is released."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[str] = []
        self.release = anyio.Event()

    @job(name="do", sequential=True)
    async def do(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        await self.release.wait()

    @job(name="defer", deferred=True, sequential=True)
    async def defer(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)


def tasks_of_jobs() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() == "queue job"}


async def task_of(ask: Callable[[], Any]) -> asyncio.Task[Any]:
    """Ask for a job, and return the task that it waits in."""
    before = tasks_of_jobs()
    await ask()
    await anyio.wait_all_tasks_blocked()
    [task] = tasks_of_jobs() - before
    return task


def test_who_waits_has_its_turn_when_the_task_before_it_is_cancelled_natively() -> None:
    """J1, J13: at once."""

    async def example() -> None:
        queue = Queue("queue")
        async with running(queue) as runner:
            raw = await Raw.on(runner.bus)
            task = await task_of(partial(raw.ask, "one", "queue", "do"))
            await raw.ask("two", "queue", "do")
            task.cancel()
            assert await raw.answer("one") == (JobStatus.ERROR, {"error": "", "type": "CancelledError"})
            queue.release.set()
            assert await raw.answer("two") == (JobStatus.COMPLETED, {})
            await raw.settle()
            assert len(raw.answers("one")) == 1
        assert queue.calls == ["one", "two"]

    clock.run(example, backend="asyncio")


def test_a_deferred_job_does_not_end_with_the_task_that_its_handler_had() -> None:
    """J1, J6: it keeps its place (J13) and its deadline."""

    async def example() -> None:
        queue = Queue("queue")
        async with running(queue) as runner:
            raw = await Raw.on(runner.bus)
            begin = anyio.current_time()
            task = await task_of(partial(raw.ask, "one", "queue", "defer", seconds_left=3))
            await raw.ask("two", "queue", "defer")
            task.cancel()
            await anyio.wait_all_tasks_blocked()
            assert task.done()
            assert queue.calls == ["one"]
            assert await raw.answer("one") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})
            assert anyio.current_time() == begin + 3
            await anyio.wait_all_tasks_blocked()
            assert queue.calls == ["one", "two"]
            assert list(queue.active_jobs) == ["two"]

    clock.run(example, backend="asyncio")


async def test_an_idle_task_keeps_no_payload_alive() -> None:
    """W8: neither that of its last job nor that of its first; payloads may be large."""

    class Large: ...

    async def takes(worker: Doing, message: BusJobRequestMessage) -> None: ...

    payloads: list[ref[Large]] = []
    async with running(Doing("doing", takes)) as runner:
        for _ in range(3):
            large = Large()
            payloads.append(ref(large))
            assert await runner.job("doing", name="do", payload={"large": large}) == {}
            del large
            await anyio.wait_all_tasks_blocked()
        assert "doing job" in [task.name for task in anyio.get_running_tasks()]
        gc.collect()
        assert [payload() for payload in payloads] == [None, None, None]


async def test_a_worker_keeps_64_tasks_for_its_next_jobs() -> None:
    """W8: what was busy beside them ends."""
    helper = Helper("helper")

    def tasks() -> int:
        return sum(task.name == "helper job" for task in anyio.get_running_tasks())

    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        count = IDLE_TASKS + 5
        for n in range(count):
            await raw.ask(str(n), "helper", "wait")
        await anyio.wait_all_tasks_blocked()
        assert tasks() == count
        helper.release.set()
        await raw.until(count, BusJobResponseMessage)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == IDLE_TASKS


async def test_nobody_watches_the_deadline_of_a_job_that_is_over() -> None:
    """L1, R9: nor does anything wake the worker at that time."""

    class Told(Helper):
        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            pass

    told = Told("told")
    async with running(told) as runner:
        before = {task.id for task in anyio.get_running_tasks()}
        for _ in range(3):
            await runner.job("told", name="echo", timeout=3600)
        await testing.settle()
        names = [task.name for task in anyio.get_running_tasks() if task.id not in before]
        assert sorted(map(str, names)) == ["told deadlines", "told job"]
        deadlines = core_of(told).job_server._deadlines
        assert len(deadlines) == 0
        assert deadlines._scope is not None
        assert deadlines._scope.deadline == math.inf


async def test_the_task_of_a_job_says_whose_it_is() -> None:
    """W8, L1: also where it is used again."""

    async def name(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"task": anyio.get_current_task().name}

    async with running(Doing("doing", name)) as runner:
        for _ in range(2):
            assert await runner.job("doing", name="do") == {"task": "doing job"}


async def test_only_a_job_with_a_timeout_has_a_task_that_watches_it() -> None:
    """B1: what is not needed is not there; and a task says what it is for. The worker asks, and not this test, which
    has a deadline of its own."""

    def watches() -> list[str | None]:
        return [task.name for task in anyio.get_running_tasks() if "job timeout" in str(task.name)]

    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        tasks = core_of(asker).state.tasks
        tasks.start(functools.partial(asker.request_job, "helper", name="wait"), name="asks")
        await anyio.wait_all_tasks_blocked()
        assert watches() == []
        core_of(asker).state.tasks.start(
            functools.partial(asker.request_job, "helper", name="wait", timeout=100), name="asks"
        )
        await anyio.wait_all_tasks_blocked()
        assert watches() == ["asker job timeout"]
        helper.release.set()
        await anyio.wait_all_tasks_blocked()
        assert watches() == []


async def test_a_worker_that_is_made_to_end_cancels_what_waits_there() -> None:
    """J4: what is cancelled with the worker was not cancelled alone."""
    gate = anyio.Event()

    class Ended(Queue):
        @job(name="end")
        async def end_it_all(self, message: BusJobRequestMessage) -> None:
            await gate.wait()
            raise SystemExit(3)

        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)  # so that the tasks of the jobs end before the worker cancels the jobs

    asked = {"end": "end", "deferred": "defer", "running": "do", "waiting": "do"}

    async with MemoryBus() as bus, anyio.create_task_group() as group:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Ended("queue"))

        async def ask() -> None:
            for job_id, name in asked.items():
                await raw.ask(job_id, "queue", name)
            await anyio.wait_all_tasks_blocked()
            gate.set()

        group.start_soon(ask)
        with pytest.raises(SystemExit):
            await runner.run()
        for job_id in ("deferred", "running", "waiting"):
            assert (await raw.answer(job_id))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("seed", range(10))
def test_a_program_that_ends_does_not_wait_for_a_job_that_an_idle_task_has_just_got(
    backend: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """L3, J1: a request comes in the step in which a handler ends the program, in either order."""
    gate = anyio.Event()

    async def does(worker: Doing, message: BusJobRequestMessage) -> None:
        if message.job_id == "end":
            await gate.wait()
            raise SystemExit(3)

    async def example() -> None:
        async with MemoryBus() as bus, anyio.create_task_group() as group:
            raw = await Raw.on(bus)
            runner = WorkerRunner(bus=bus, handle_sigint=False)
            await runner.add_workers(Doing("doing", does))

            async def ask_late() -> None:
                await gate.wait()
                await raw.ask("late", "doing", "do")

            async def ask() -> None:
                await raw.ask("end", "doing", "do")
                await raw.ask("first", "doing", "do")
                await raw.answer("first")
                group.start_soon(ask_late)
                await anyio.wait_all_tasks_blocked()
                gate.set()

            group.start_soon(ask)
            with pytest.raises(SystemExit):
                await runner.run()
            await raw.answer("late")
            assert anyio.current_time() < CLEANUP_SECONDS

    run(example, backend=backend, seed=seed)
    assert caplog.messages == []
