"""R7: jobs for code that is no worker."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import current_time, sleep_forever
from anyio.lowlevel import checkpoint

from support.runners import cut_short, quiet_runner
from support.workers import Doing, Helper, running
from workerbus import BusJobRequestMessage, BusMessage, JobError, JobStatus, MemoryBus, WorkerRunner


async def test_a_program_asks_for_a_job() -> None:
    """R7: as a context and in short."""
    async with running(Helper("helper")) as runner:
        assert await runner.job("helper", name="echo", payload={"n": 1}) == {"worker": "helper", "payload": {"n": 1}}
        async with runner.job("helper", name="echo", payload={"n": 2}) as context:
            pass
        assert context.response["payload"] == {"n": 2}


async def test_a_program_asks_for_a_job_group() -> None:
    """R7."""
    async with running(Helper("one"), Helper("two")) as runner:
        async with runner.job_group("one", "two", name="echo") as group:
            pass
        assert set(group.responses) == {"one", "two"}


async def test_a_program_asks_beside_a_run_in_another_task() -> None:
    """R7: it need not be the body of `async with`."""
    runner = quiet_runner()
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        assert await runner.job("helper", name="echo")
        await runner.end()


async def test_many_tasks_of_a_program_ask_at_once() -> None:
    """R7: each gets its own answer."""
    answers: dict[int, Any] = {}

    async def ask(n: int) -> None:
        answers[n] = (await runner.job("helper", name="echo", payload={"n": n}))["payload"]["n"]

    async with running(Helper("helper")) as runner, anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(ask, n)
    assert answers == {n: n for n in range(50)}


@pytest.mark.parametrize("what", ["job", "job_group"])
async def test_asking_a_runner_that_does_not_run_is_a_runtime_error(what: str) -> None:
    """R7, J14: it says whether it does not run yet, or no more."""
    runner = quiet_runner()
    await runner.add_workers(Helper("helper"))
    with pytest.raises(RuntimeError, match="yet"):
        getattr(runner, what)("helper", name="echo")
    await runner.cancel()
    await runner.run()
    with pytest.raises(RuntimeError, match=r"more|once"):
        getattr(runner, what)("helper", name="echo")


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
@pytest.mark.parametrize("worker", ["helper", "nobody"])
async def test_a_program_that_waits_for_a_job_is_told_when_the_run_ends(
    ask: Callable[[WorkerRunner], Awaitable[None]], worker: str
) -> None:
    """R7, J4: also if the worker has never come."""
    failed: list[JobError] = []

    async def wait() -> None:
        try:
            await runner.job(worker, name="wait")
        except JobError as exc:
            failed.append(exc)

    helper, runner = Helper("helper"), quiet_runner()
    await runner.add_workers(helper)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: runner.run(auto_end=False))
        await runner.registry.wait_for("helper")
        group.start_soon(wait)
        if worker == "helper":
            await helper.begun.wait()
        await anyio.wait_all_tasks_blocked()
        begun = current_time()
        await ask(runner)
    assert current_time() - begun < 1.0
    assert len(failed) == 1


async def test_the_job_that_a_body_waits_for_is_cancelled_with_the_body() -> None:
    """R7, R1: no error comes of it."""
    helper = Helper("helper")

    async def cancel() -> None:
        await helper.begun.wait()
        await runner.cancel()

    async with anyio.create_task_group() as group, cut_short(), running(helper) as runner:
        group.start_soon(cancel)
        await runner.job("helper", name="wait")
        pytest.fail("it was answered")
    assert helper.unwound.is_set()


async def test_a_body_that_ends_the_run_while_it_holds_a_job_gets_its_error() -> None:
    """R7, R1: an end lets the body go on."""
    helper = Helper("helper")
    with pytest.raises(JobError) as caught:  # noqa: PT012 - the block itself raises
        async with running(helper) as runner, runner.job("helper", name="wait"):
            await helper.begun.wait()
            await runner.end()
            await sleep_forever()
    assert caught.value.statuses == {"helper": JobStatus.CANCELLED}


async def test_a_job_of_a_program_has_a_timeout() -> None:
    """R7, J8."""
    async with running(Helper("helper")) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("helper", name="wait", timeout=0.05)
        with suppress(TimeoutError):
            await runner.job("nobody", timeout=0.05)
        assert await runner.job("helper", name="echo")


class Lagging(MemoryBus):
    """A bus on which nothing that this side sends arrives before `go_on`, once it lags."""

    def __init__(self) -> None:
        super().__init__()
        self.lags, self.go_on = False, anyio.Event()

    async def publish(self, message: BusMessage) -> None:
        if self.lags:
            await self.go_on.wait()
        await super().publish(message)


async def test_an_answer_that_is_on_its_way_when_the_last_worker_leaves_still_counts() -> None:
    """J4, R7: the end of the runner waits for the announcement behind it."""
    bus, outcomes = Lagging(), list[Any]()
    runner = WorkerRunner(bus=bus, handle_sigint=False)

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        bus.lags = True
        return {"by": worker.name}

    doing = Doing("doing", answer)
    await runner.add_workers(doing)

    async def ask() -> None:
        await runner.registry.wait_for("doing")
        async with runner.job_group("doing", name="do", cancel_on_error=False) as group:
            pass
        outcomes.append((group.statuses, group.responses))

    async def stop() -> None:
        while not bus.lags:
            await checkpoint()
        await doing.stop()
        await anyio.wait_all_tasks_blocked()
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("doing")
        tasks.start_soon(ask)
        tasks.start_soon(stop)
    assert outcomes == [({"doing": JobStatus.COMPLETED}, {"doing": {"by": "doing"}})]
