"""J12, G2, L1: what many jobs leave behind."""

import gc
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.leaks import left_in, task_ids
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, JobStatus, job
from workerbus.jobs._job_table import REMEMBERED
from workerbus.testing import settle
from workerbus.worker._core import core_of


class Everything(Listener):
    """Does jobs of all kinds, quickly."""

    @job(name="queued", limit=2)
    async def queued(self, message: BusJobRequestMessage) -> None:
        pass

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        await self.send_job_stream_data(message.job_id, {"n": 1})
        await self.send_job_stream_end(message.job_id, {})

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("no")

    async def _note(self, hook: str, what: Any) -> None:
        pass


async def ask_for_everything(asker: BaseWorker, count: int) -> None:
    for number in range(count):
        match number % 8:
            case 0:
                async with asker.job("everything", name="stream") as asked:
                    async for _ in asked:
                        pass
            case 1:
                await asker.job_group("everything", "helper", name="echo", timeout=60)
            case 2:
                await asker.request_job("everything", name="queued", timeout=60)
            case 3:
                with anyio.CancelScope() as scope:
                    async with asker.job("helper", name="wait"):
                        scope.cancel()
                        await checkpoint()
            case 4:
                with pytest.raises(JobError):
                    await asker.job("everything", name="refuse")
            case 5:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await asker.job(f"nobody {number}")
            case _:
                await asker.job("everything", name="queued")


@pytest.mark.slow
def test_twenty_thousand_jobs_leave_nothing_behind(backend: str) -> None:
    """G2, J5, J12: no task, no table entry, no memory."""

    async def example() -> None:
        asker, everything, helper = Everything("asker"), Everything("everything"), Helper("helper")
        async with running(asker, everything, helper) as runner:
            await ask_for_everything(asker, 2_000)
            helper.calls.clear()
            await settled(runner, asker, everything, helper)
            tasks, registered = len(task_ids()), sizes(left_in(runner.registry))
            before = count_objects()
            await ask_for_everything(asker, 20_000)
            helper.calls.clear()
            everything.calls.clear()
            await settled(runner, asker, everything, helper)
            assert count_objects() - before < 1_000
            assert len(task_ids()) < tasks + 10  # how many are kept idle depends on the order of the tasks
            assert sizes(left_in(runner.registry)) == registered
            assert max(len(core_of(worker).job_server._ended) for worker in (everything, helper)) == REMEMBERED
        assert left_in(runner.registry) == {}

    clock.run(example, backend=backend, limit=100)


def sizes(tables: dict[str, Any]) -> dict[str, int]:
    return {name: len(table) for name, table in tables.items()}


async def settled(runner: Any, *workers: BaseWorker) -> None:
    await anyio.wait_all_tasks_blocked()
    for worker in workers:
        statistics = worker.statistics()
        assert (statistics.active_jobs, statistics.job_groups) == (0, 0)
        assert worker.active_jobs == {}
        assert worker.job_groups == {}
    depths = {name: each.depth for name, each in runner.bus.statistics().subscribers.items()}
    assert set(depths.values()) == {0}


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_stray_messages_leave_nothing_behind() -> None:
    """J9, J12: cancels of unknown jobs, answers of strangers, duplicates."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)

        async def stray(count: int) -> None:
            for number in range(count):
                await raw.cancel(f"unknown {number}", "helper")
            await raw.settle()
            raw.got.clear()

        await stray(500)
        before = count_objects()
        await stray(5_000)
        assert count_objects() - before < 200
        await raw.ask("job", "helper", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


async def test_what_nobody_can_read_is_not_kept() -> None:
    """J7, J15: the short form has no body that would take the events of the job."""

    async def tell(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"half": "done"})

    async with running(Doing("doing", tell)) as runner:
        asked = runner.job("doing", name="do")
        await asked
        assert [event async for event in asked] == []


@pytest.mark.parametrize("name", ["defer", "queued", "cancelled hook"])
async def test_nothing_of_a_job_that_was_answered_is_kept_until_its_time_would_have_been_up(name: str) -> None:
    """R9: whoever looks after its time forgets it with the answer."""

    class Payload(dict[str, Any]):
        pass

    class Deferring(Listener):
        @job(name="defer", deferred=True)
        async def defer(self, message: BusJobRequestMessage) -> None:
            pass

        @job(name="queued", sequential=True)
        async def queued(self, message: BusJobRequestMessage) -> None:
            await self.release.wait()

        @job(name="cancelled hook")
        async def hooked(self, message: BusJobRequestMessage) -> None:
            await self.release.wait()

    worker = Deferring("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        kept = []
        for n in range(3):
            payload = Payload()
            kept.append(weakref.ref(payload))
            await raw.ask(str(n), "worker", name, seconds_left=3600.0, payload=payload)
            del payload
        await settle()
        worker.release.set()
        if name == "defer":
            for n in range(3):
                await worker.send_job_response(str(n))
        for n in range(3):
            await raw.answer(str(n))
        await settle()
        raw.got.clear()
        gc.collect()
        assert [each() for each in kept] == [None] * 3


async def test_nothing_is_kept_of_whom_jobs_have_asked() -> None:
    """J4, L1: no entry, be it an empty one, under the name of a worker that is asked no more."""
    a = Helper("a")
    async with running(a, Helper("b")) as runner:
        async with runner.job("a", name="wait"):
            await runner.job("b", name="echo")
            await runner.job("a", name="echo")  # which takes nothing of the other job's with it
            asking = core_of(runner).job_client._asking
            assert asking.keys() == {"a"}
            a.release.set()
        assert asking == {}
