"""L4: who refuses cancellation is waited for, and named."""

from itertools import product

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support.leaks import nothing_left
from support.runners import quiet_runner
from support.wind_downs import BOUND, REFUSAL, Stubborn, named
from support.workers import Helper, running
from workerbus import BaseWorker, JobError, JobStatus, MemoryBus, WorkerRunner
from workerbus.testing import settle

PLACES = ("run", "task", "hook", "event handler", "last hook", "handler", "answered handler", "cleanup")


@pytest.mark.parametrize(
    ("place", "how"),
    # An end's message comes before the worker stops, so that no hook is the last.
    [each for each in product(PLACES, ("cancel", "end", "scope")) if each != ("last hook", "end")],
)
async def test_a_worker_that_refuses_cancellation_is_waited_for_and_named(
    place: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L4."""
    stubborn = Stubborn("stubborn", place)
    runner = quiet_runner(grace_period=0.1)
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(stubborn, Helper("helper"))
                await runner.registry.wait_for("stubborn")
                await stubborn.provoke(runner)
                begun = current_time()
                if how == "scope":
                    scope.cancel()
                    await sleep_forever()
                else:
                    await (runner.cancel() if how == "cancel" else runner.end())
        assert stubborn.log == ["unwound"]
        assert current_time() - begun >= REFUSAL
        assert named(caplog, "stubborn")
        assert not named(caplog, "helper")


async def test_the_jobs_of_a_handler_that_refuses_are_answered_at_the_bound() -> None:
    """L4, W6: the requester does not wait for the user's own clean-up."""
    stubborn, answered = Stubborn("stubborn", "handler"), list[float]()
    async with MemoryBus() as bus, running(bus=bus, name="asking") as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(JobError) as caught:
                await runner.job("stubborn", name="refuse")
            assert caught.value.statuses == {"stubborn": JobStatus.CANCELLED}
            assert current_time() - begun < BOUND
            assert stubborn.log == []
            answered.append(current_time())

        other = quiet_runner(bus=bus, name="asked")
        await other.add_workers(stubborn)
        group.start_soon(other.run)
        for _ in range(3):
            group.start_soon(ask)
        await stubborn.begun.wait()
        await settle()
        begun = current_time()
        await other.cancel()
    assert len(answered) == 3


async def test_a_worker_that_is_late_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """L4: an end whose grace has run out was followed by a cancel."""

    class Stubborn(BaseWorker):
        async def cleanup(self) -> None:
            with CancelScope(shield=True):
                await sleep(10)

    runner = WorkerRunner(handle_sigint=False, grace_period=1.0)
    await runner.add_workers(Stubborn("stubborn"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("stubborn")
        await runner.end()
        await sleep(1.5)
        await runner.cancel()
    named = [record for record in caplog.records if "still waits for worker 'stubborn'" in record.getMessage()]
    assert len(named) == 1
