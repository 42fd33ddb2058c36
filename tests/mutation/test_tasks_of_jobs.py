"""What becomes of jobs whose tasks are cancelled while no handler runs there, and what a task keeps of a job."""

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

import anyio
import pytest

from support import clock
from support.requesters import Raw
from support.workers import Doing, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import run


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


def test_a_waiter_whose_task_is_cancelled_natively_is_an_error() -> None:
    """J1, J13: at once, and its handler never starts; the next one has its turn."""

    async def example() -> None:
        queue = Queue("queue")
        async with running(queue) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("one", "queue", "do")
            task = await task_of(partial(raw.ask, "two", "queue", "do"))
            await raw.ask("three", "queue", "do")
            task.cancel()
            assert await raw.answer("two") == (JobStatus.ERROR, {"error": "", "type": "CancelledError"})
            await anyio.wait_all_tasks_blocked()
            assert task.done()
            queue.release.set()
            assert await raw.answer("three") == (JobStatus.COMPLETED, {})
            await raw.settle()
            assert len(raw.answers("two")) == 1
        assert queue.calls == ["one", "three"]

    clock.run(example, backend="asyncio")


def test_a_deferred_job_whose_task_is_cancelled_natively_is_an_error() -> None:
    """J1, J6: nothing would keep its deadline any more, nor its place (J13)."""

    async def example() -> None:
        queue = Queue("queue")
        async with running(queue) as runner:
            raw = await Raw.on(runner.bus)
            task = await task_of(partial(raw.ask, "one", "queue", "defer", seconds_left=3))
            await raw.ask("two", "queue", "defer")
            await anyio.wait_all_tasks_blocked()
            assert queue.calls == ["one"]
            task.cancel()
            assert await raw.answer("one") == (JobStatus.ERROR, {"error": "", "type": "CancelledError"})
            await anyio.wait_all_tasks_blocked()
            assert queue.calls == ["one", "two"]
            assert list(queue.active_jobs) == ["two"]

    clock.run(example, backend="asyncio")


def test_a_deferred_job_whose_task_is_cancelled_natively_after_its_time_has_timed_out() -> None:
    """J6: though nothing could run in the meantime."""

    async def example() -> None:
        async with running(Queue("queue")) as runner:
            raw = await Raw.on(runner.bus)
            task = await task_of(partial(raw.ask, "one", "queue", "defer", seconds_left=3))
            deadline = anyio.current_time() + 4
            while anyio.current_time() < deadline:
                pass
            task.cancel()
            assert await raw.answer("one") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})

    clock.run(example, backend="asyncio")


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
