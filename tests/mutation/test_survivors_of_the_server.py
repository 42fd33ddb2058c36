"""What a worker makes of jobs whose time is up, or whose tasks are cancelled, where no other test looks closely."""

import asyncio
from typing import Any

import anyio
import pytest

from support import clock
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.jobs._server import REMEMBERED
from workerbus.testing import run

TIMED_OUT = (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})


# --- what the requester is told


async def test_a_cancel_without_a_reason_is_told_as_one() -> None:
    """J2: the answer says what has happened, even if nobody says why."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "wait")
        await helper.begun.wait()
        await raw.cancel("job", "helper")
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "cancelled", "type": "Cancelled"})


class Late(Listener):
    """Notices only after four seconds that the time of its job ``do`` is up."""

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(4)


@pytest.mark.parametrize("by", ["requester", "worker"])
def test_a_job_that_is_cancelled_after_its_time_has_timed_out(backend: str, by: str) -> None:
    """J6: the handler has not noticed yet; the hook runs once, with that reason, if the worker still runs hooks."""

    async def example() -> None:
        late = Late("late")
        async with running(late) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "late", "do", seconds_left=3)
            await anyio.sleep(3.5)
            if by == "requester":
                await raw.cancel("job", "late", "enough")
            else:
                group.start_soon(late.stop)
            assert await raw.answer("job") == TIMED_OUT
            await raw.settle()
            assert raw.answers("job") == [TIMED_OUT]
            await anyio.wait_all_tasks_blocked()
            if by == "requester":
                assert [(hook, message.reason) for hook, message in late.heard] == [("cancelled", "timeout")]

    clock.run(example, backend=backend)


@pytest.mark.parametrize("first", ["cancel", "timeout"])
def test_what_has_ended_a_job_first_is_told_though_its_handler_does_not_end(
    backend: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L4, J6: after the bound it is answered for, with the first reason, and the log names who is waited for."""
    release = anyio.Event()

    async def refuses(worker: Doing, message: BusJobRequestMessage) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    async def example() -> None:
        doing = Doing("doing", refuses)
        async with running(doing) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do", seconds_left=1 if first == "timeout" else None)
            await anyio.sleep(1.5)
            if first == "cancel":
                await raw.cancel("job", "doing", "enough")
            group.start_soon(doing.stop)
            answer = await raw.answer("job")
            assert anyio.current_time() == 1.5 + CLEANUP_SECONDS
            cancelled = (JobStatus.CANCELLED, {"error": "enough", "type": "Cancelled"})
            assert answer == (cancelled if first == "cancel" else TIMED_OUT)
            release.set()

    clock.run(example, backend=backend)
    assert caplog.messages == [
        "worker 'doing' is late: not all that it does has ended in time",
        "worker 'doing' waits for handlers that refuse cancellation: job 'do' (job)",
    ]


def test_a_cancellation_that_comes_up_after_the_time_of_the_job_is_its_timeout() -> None:
    """J6: the handler waits for a future that somebody has cancelled, and comes to that too late."""

    async def blocks(worker: Doing, message: BusJobRequestMessage) -> None:
        deadline = anyio.current_time() + 3
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        while anyio.current_time() < deadline:
            pass
        await future

    async def example() -> None:
        async with running(Doing("doing", blocks)) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do", seconds_left=1)
            assert await raw.answer("job") == TIMED_OUT

    clock.run(example, backend="asyncio")


async def test_a_handler_that_turns_the_end_of_its_worker_into_a_group_is_cancelled() -> None:
    """J1, J2: its cancellation was not that of something else, though nobody has cancelled the job before."""
    gate = anyio.Event()

    class Slow(Doing):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)  # so that the handlers end before the worker cancels its jobs

    async def does(worker: Doing, message: BusJobRequestMessage) -> None:
        if message.job_id == "end":
            await gate.wait()
            raise SystemExit(3)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    async with MemoryBus() as bus, anyio.create_task_group() as group:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Slow("slow", does))

        async def ask() -> None:
            await raw.ask("job", "slow", "do")
            await raw.ask("end", "slow", "do")
            await anyio.wait_all_tasks_blocked()
            gate.set()

        group.start_soon(ask)
        with pytest.raises(SystemExit):
            await runner.run()
        text = "worker 'slow' stopped"
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": text, "type": "Cancelled"})
        await raw.settle()
        assert len(raw.answers("job")) == 1


# --- hooks, and what is remembered


async def test_the_hook_of_a_cancel_does_not_wait_for_those_of_data_messages() -> None:
    """W8: a cancel is a system message."""
    gate, waits, cancelled = anyio.Event(), anyio.Event(), anyio.Event()

    class Slow(Helper):
        async def on_job_update(self, message: Any) -> None:
            waits.set()
            await gate.wait()

        async def on_job_cancelled(self, message: Any) -> None:
            cancelled.set()

    async def tells(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)

    slow = Slow("slow")
    async with running(slow, Doing("doing", tells)) as runner:
        raw = await Raw.on(runner.bus)
        await slow.request_job("doing", name="do")
        await waits.wait()
        await raw.ask("job", "slow", "wait")
        await slow.begun.wait()
        await raw.cancel("job", "slow")
        await cancelled.wait()
        gate.set()


async def test_exactly_the_last_1024_jobs_are_remembered() -> None:
    """J12: no fewer, and no more."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(REMEMBERED):
            await raw.ask(f"job {number}", "helper", "of another worker")
        await raw.ask("job 0", "helper", "of another worker")
        assert helper.statistics().ignored == 1
        await raw.ask("one more", "helper", "of another worker")
        await raw.ask("job 1", "helper", "of another worker")
        assert helper.statistics().ignored == 2
        await raw.ask("job 0", "helper", "of another worker")
        assert helper.statistics().ignored == 2
        await raw.settle()
        assert [len(raw.answers(f"job {number}")) for number in (0, 1)] == [2, 1]


# --- the tasks of jobs


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
