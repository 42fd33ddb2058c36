"""L3: a cancelled run winds down and lets the cancellation through."""

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support.leaks import nothing_left
from support.runners import quiet_runner
from support.wind_downs import BOUND, LONG, Busy, Logged, on_ready
from support.workers import Helper
from workerbus import BaseWorker, JobError, MemoryBus, WorkerParams, WorkerRunner


async def test_a_cancelled_run_winds_down_and_lets_the_cancellation_through() -> None:
    """L3."""
    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Logged("worker", log))
    async with nothing_left(runner):
        with CancelScope() as scope:
            on_ready(runner, scope.cancel)
            await runner.run(auto_end=False)
            log.append("swallowed")
    assert scope.cancelled_caught
    assert log == ["cleanup worker"]


async def test_a_deadline_around_run_is_a_timeout() -> None:
    """L3."""
    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Logged("worker", log))
    async with nothing_left(runner):
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.1):
                await runner.run(auto_end=False)
    assert log == ["cleanup worker"]


async def test_a_run_that_is_cancelled_from_the_start_leaves_nothing() -> None:
    """L3, L1: the cancellation is there before `run()` is."""
    runner = quiet_runner()
    await runner.add_workers(Busy("busy"))
    async with nothing_left(runner):
        with CancelScope() as scope:
            scope.cancel()
            await runner.run(auto_end=False)
    assert scope.cancelled_caught


async def test_a_context_that_is_cancelled_while_it_opens_leaves_nothing() -> None:
    """L3, L1."""
    runner = quiet_runner()
    await runner.add_workers(Busy("busy"))
    reached = False
    async with nothing_left(runner):
        with CancelScope() as scope:
            scope.cancel()
            async with runner:
                reached = True
                await sleep_forever()
    assert scope.cancelled_caught
    assert not reached or runner.bus.is_open is False


async def test_a_run_that_is_cancelled_while_its_bus_connects_ends() -> None:
    """L3, L4: there is no shield without a deadline."""

    class Connecting(MemoryBus):
        async def start(self) -> None:
            scope.cancel()
            await sleep(LONG)

    runner = quiet_runner(bus=Connecting())
    begun = current_time()
    async with nothing_left(runner):
        with CancelScope() as scope:
            await runner.run(auto_end=False)
    assert scope.cancelled_caught
    assert current_time() - begun < BOUND


async def test_cancel_ends_a_run_whose_bus_is_still_connecting() -> None:
    """R2, L4: `cancel()` overtakes everything. At once: there is nothing yet to wind down."""

    class Connecting(MemoryBus):
        async def start(self) -> None:
            await runner.cancel()
            await sleep(LONG)

    runner = quiet_runner(bus=Connecting())
    begun = current_time()
    async with nothing_left(runner):
        await runner.run(auto_end=False)
    assert current_time() == begun


async def test_a_cancellation_while_the_bus_disconnects_goes_through() -> None:
    """L3: the workers have finished already."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            scope.cancel()
            await sleep(0.1)

    runner = quiet_runner(bus=Disconnecting())
    async with nothing_left(runner):
        with CancelScope() as scope:
            await runner.run()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_a_cancel_while_the_bus_disconnects_is_a_no_op() -> None:
    """R2: `cancel()` only asks, also when nothing is left to cancel."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            await runner.cancel()
            await runner.end()

    runner = quiet_runner(bus=Disconnecting())
    async with nothing_left(runner):
        await runner.run()


async def test_a_cancelled_graceful_end_becomes_a_quick_one() -> None:
    """L3: the job under way does not get its grace after a cancellation from outside."""
    helper, runner = Helper("helper"), quiet_runner(job_grace=1000.0)
    begun = current_time()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(helper)
                async with anyio.create_task_group() as group:

                    async def ask() -> None:
                        with pytest.raises(JobError):
                            await runner.job("helper", name="wait")

                    group.start_soon(ask)
                    await helper.begun.wait()
                    await runner.end()
                    scope.cancel()
    assert scope.cancelled_caught
    assert current_time() - begun < BOUND


async def test_a_second_cancellation_during_the_wind_down_changes_nothing() -> None:
    """L3: an inner and an outer scope, one after the other."""

    class Slow(Logged):
        async def cleanup(self) -> None:
            outer.cancel()
            await sleep(0.5)
            await super().cleanup()

    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Slow("slow", log))
    async with nothing_left(runner):
        with CancelScope() as outer:
            with CancelScope() as inner:
                on_ready(runner, inner.cancel)
                await runner.run(auto_end=False)
            await anyio.lowlevel.checkpoint()
            log.append("swallowed")
    assert outer.cancelled_caught
    assert log == ["cleanup slow"]


async def test_a_cancellation_goes_through_although_a_worker_fails_in_the_wind_down() -> None:
    """L3: it is never swallowed."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                raise ValueError("late")

    runner = quiet_runner()
    await runner.add_workers(Failing("failing"))
    async with nothing_left(runner):
        with CancelScope() as scope:
            on_ready(runner, scope.cancel)
            await runner.run(auto_end=False)
    assert scope.cancelled_caught


async def test_a_cancellation_from_outside_wins_over_cancel_at_the_same_moment() -> None:
    """L3: the runner's own cancel ends silently, the outer cancellation must not."""
    runner = quiet_runner()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.cancel()
                scope.cancel()
                await sleep_forever()
            await anyio.lowlevel.checkpoint()
            pytest.fail("swallowed")
    assert scope.cancelled_caught


async def test_a_cancelled_run_does_not_return() -> None:
    """L3: the cancellation goes on from where the program waits."""
    after: list[str] = []
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await runner.run()
                after.append("went on")

        tasks.start_soon(run)
        await runner.registry.wait_for("helper")
        scope.cancel()
    assert scope.cancelled_caught
    assert after == []
