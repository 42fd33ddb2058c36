"""W6: a worker that ends when its jobs are done."""

from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.requesters import Raw, outcome_of
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    PipelineWorker,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.pipeline import FrameProcessor, Pipeline
from workerbus.testing import nothing_left, settle


def how_it_ended(raw: Raw, job_id: str) -> list[JobStatus]:
    return [status for status, _ in raw.answers(job_id)]


class Last(Helper):
    """Keeps the last message that it was sent, and does its jobs one after the other."""

    last: BusMessage | None = None

    async def on_bus_message(self, message: BusMessage) -> None:
        self.last = message

    @job(name="in turn", sequential=True)
    async def in_turn(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.wait_for_release(message)


async def test_the_jobs_that_a_worker_has_are_done_before_it_ends() -> None:
    """W6: also those that wait for their turn, and longer than any grace period."""
    worker = Last("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "in turn")
        await raw.ask("2", "w", "in turn")
        await worker.begun.wait()
        await worker.stop_when_done()
        await anyio.sleep(12)
        assert runner.get_worker("w") is worker
        worker.release.set()
        await worker.wait()
        await raw.until_answered("1", "2")
        assert how_it_ended(raw, "1") == how_it_ended(raw, "2") == [JobStatus.COMPLETED]
        assert runner.get_worker("w") is None
    assert isinstance(worker.last, BusEndWorkerMessage)


async def test_new_jobs_are_refused_meanwhile() -> None:
    """W6"""
    worker = Helper("w")
    async with running(worker) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await worker.stop_when_done()
        status, answer = await outcome_of(runner, "w", name="echo")
        assert (status, answer["error"]) == (JobStatus.CANCELLED, "worker 'w' is stopping")
        assert runner.statistics().workers["w"].phase == "stopping"
        worker.release.set()
        await worker.wait()


async def test_a_worker_without_jobs_ends_at_once_and_once() -> None:
    """W6"""
    worker = Helper("w")
    async with running(worker) as runner:
        await worker.stop_when_done()
        await worker.stop_when_done()
        await worker.wait()
        await worker.stop_when_done()
        again = Helper("w")
        await runner.add_workers(again, wait=True)
        assert await runner.job("w", name="echo")


async def test_jobs_that_a_worker_has_asked_for_are_waited_for() -> None:
    """W6: with the hooks of their answers."""
    helper, answers = Helper("helper"), []
    worker = BaseWorker("w")
    worker.add_event_handler("on_job_response", lambda _, message: answers.append(message.response))
    async with running(helper, worker):
        await worker.request_job("helper", name="wait")
        await helper.begun.wait()
        await worker.stop_when_done()
        await settle()
        assert not answers
        helper.release.set()
        await worker.wait()
    assert answers == [{"released": True}]


async def test_a_worker_may_ask_that_of_itself_in_a_job() -> None:
    """W6: it only asks, and its job is done."""

    class Leaves(BaseWorker):
        @job(name="leave")
        async def leave(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await self.stop_when_done()
            await settle()
            return {"left": True}

    worker = Leaves("w")
    async with running(worker) as runner:
        assert await runner.job("w", name="leave") == {"left": True}
        await worker.wait()


@pytest.mark.parametrize("when", ["before the run", "while it starts"])
async def test_a_worker_that_has_not_started_ends_when_it_has(when: str) -> None:
    """W2, W6"""
    seen: list[str] = []

    class Starts(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if when == "while it starts":
                await self.stop_when_done()
                await settle()
            seen.append("activated")

    worker, runner = Starts("w"), quiet_runner()
    worker.add_event_handler("on_deactivated", lambda _: seen.append("deactivated"))
    if when == "before the run":
        await worker.stop_when_done()
    await runner.add_workers(worker)
    async with nothing_left(runner):
        await runner.run()
    assert seen == ["activated"]
    assert worker.started_at is not None


async def test_children_do_their_jobs_for_it_and_end_gracefully_before_it() -> None:
    """W5, W6"""
    order: list[str] = []

    class Parent(BaseWorker):
        @job(name="ask")
        async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return await self.job("child", name="wait")

        async def cleanup(self) -> None:
            order.append("parent")
            await super().cleanup()

    class Child(Last):
        async def cleanup(self) -> None:
            order.append("child")
            await super().cleanup()

    parent, child = Parent("parent"), Child("child")
    async with running(parent) as runner:
        await parent.add_workers(child, wait=True)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "parent", "ask")
        await child.begun.wait()
        await parent.stop_when_done()
        await settle()
        child.release.set()
        await parent.wait()
        assert how_it_ended(raw, "1") == [JobStatus.COMPLETED]
    assert order == ["child", "parent"]
    assert isinstance(child.last, BusEndWorkerMessage)


async def test_a_job_that_comes_while_it_starts_is_done() -> None:
    """W2, W6"""
    activating, go_on = anyio.Event(), anyio.Event()

    class Starts(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.stop_when_done()
            activating.set()
            await go_on.wait()

    worker = Starts("w")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(worker)
        raw = await Raw.on(runner.bus)
        await activating.wait()
        await raw.ask("1", "w", "echo")
        await settle()
        go_on.set()
        await worker.wait()
        assert how_it_ended(raw, "1") == [JobStatus.COMPLETED]


async def test_an_end_that_is_under_way_goes_on_as_it_is() -> None:
    """W5, W6: a worker takes jobs while it waits for its children."""
    answers: list[object] = []

    class Child(BaseWorker):
        async def stop(self) -> None:
            await parent.stop_when_done()
            answers.append(await self.job("parent", name="echo"))
            await super().stop()

    parent = Helper("parent")
    async with running(parent):
        await parent.add_workers(Child("child"), wait=True)
    assert answers == [{"worker": "parent", "payload": {}}]


@pytest.mark.parametrize("how", ["stop", "end", "cancel", "message"])
async def test_nothing_else_that_ends_a_worker_waits_for_its_jobs(how: str) -> None:
    """R2, W6"""
    worker = Helper("w")
    begun = anyio.current_time()
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await worker.stop_when_done()
        await settle()
        if how == "stop":
            await worker.stop()
        elif how == "end":
            await runner.end()
        elif how == "cancel":
            await runner.bus.send(BusCancelWorkerMessage(source="test", target="w"))
        else:
            await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        await worker.wait()
    assert worker.unwound.is_set()
    assert how_it_ended(raw, "1") == [JobStatus.CANCELLED]
    assert anyio.current_time() == begun


async def test_what_stop_when_done_of_the_runner_stops_are_pipelines() -> None:
    """N1: the others may be needed by them, and go on."""
    worker, pipeline = Helper("w"), PipelineWorker(Pipeline([FrameProcessor()]), name="pipeline")
    async with running(worker, pipeline) as runner:
        await runner.stop_when_done()
        await pipeline.wait()
        assert await runner.job("w", name="echo")


async def test_a_runner_stops_all_that_are_to_be_stopped_however_long_each_takes() -> None:
    """N1: one may have gone by the time that the next is told."""

    class Slow(Helper):
        async def stop_when_done(self) -> None:
            await self.stop()
            await self.wait()

    workers = [Slow(name) for name in "abc"]
    async with running(*workers) as runner:
        await runner.stop_when_done()
        assert list(runner.statistics().workers) == []


async def test_a_worker_that_is_made_anew_leaves_new_jobs_to_the_next_one() -> None:
    """S1, W6: so it is replaced without a job lost."""
    made: list[Helper] = []

    def make() -> Helper:
        made.append(Helper("w"))
        return made[-1]

    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as tasks:
        await runner.supervise(make, restart="always")
        answers: list[object] = []

        async def ask(name: str) -> None:
            answers.append(await runner.job("w", name=name))

        tasks.start_soon(ask, "wait")
        await made[0].begun.wait()
        await made[0].stop_when_done()
        tasks.start_soon(ask, "echo")
        await settle()
        assert answers == []
        made[0].release.set()
        await made[0].wait()
        await eventually(lambda: len(answers) == 2)
        assert answers == [{"released": True}, {"worker": "w", "payload": {}}]
        assert len(made) == 2


async def test_a_pool_does_all_of_its_jobs_before_it_ends() -> None:
    """S2, W6: also those that wait for a member."""
    release = anyio.Event()

    class Member(BaseWorker):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await release.wait()
            return {"done": message.payload["n"] if message.payload else None}

    pool = WorkerPool("pool", Member, size=2)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(5):
            await raw.ask(str(number), "pool", "wait", payload={"n": number})
        await settle()
        await pool.stop_when_done()
        await settle()
        release.set()
        await pool.wait()
        await raw.until_answered(*map(str, range(5)))
        assert [how_it_ended(raw, str(number)) for number in range(5)] == [[JobStatus.COMPLETED]] * 5
