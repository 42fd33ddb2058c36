"""O2, X10: what a runner says to load balancers and orchestrators."""

import anyio
import attrs
import pytest

from support.restarts import SOON, fail, fragile
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import BaseWorker, MemoryBus, RunnerHealth
from workerbus.testing import settle

WELL = RunnerHealth("r", started=True, ending=False, ended=False, bus="connected", starting=(), failed=(), stalled=0.0)


async def test_a_runner_that_runs_is_live_and_ready() -> None:
    """O2"""
    async with running(Helper("w"), name="r") as runner:
        health = runner.health()
        assert health == WELL
        assert (health.live, health.ready, health.reasons) == (True, True, ())


async def test_before_its_run_a_runner_is_live_and_not_ready() -> None:
    """O2: its bus is closed, and that is no fault."""
    runner = quiet_runner(name="r")
    health = runner.health()
    assert (health.live, health.ready, health.reasons) == (True, False, ("it has not started",))
    assert health.bus == "closed"
    async with runner:
        pass


async def test_after_its_run_a_runner_is_neither_live_nor_ready() -> None:
    """O2: only another one will do any work."""
    async with quiet_runner(name="r") as runner:
        pass
    health = runner.health()
    assert (health.live, health.ready, health.reasons) == (False, False, ("it has ended",))
    assert (health.started, health.ending, health.ended) == (False, True, True)


async def test_a_runner_that_drains_is_live_and_not_ready() -> None:
    """O2, R2: what comes now would be refused; what is under way is finished."""
    helper = Helper("w")
    async with running(helper, name="r", job_grace=10) as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            await runner.job("w", name="wait")

        group.start_soon(ask)
        await helper.begun.wait()
        await runner.end()
        await settle()
        health = runner.health()
        assert (health.live, health.ready, health.reasons) == (True, False, ("it is ending",))
        helper.release.set()


def test_all_reasons_are_given_however_many_there_are() -> None:
    """O2: of each kind, and of each worker."""
    health = attrs.evolve(WELL, bus="closed", starting=("a", "b"), failed=("c", "d"), stalled=1.5)  # type: ignore[misc]  # a decorated base class
    assert health.reasons == (
        "its bus is closed",
        "worker 'a' is starting",
        "worker 'b' is starting",
        "worker 'c' has failed",
        "worker 'd' has failed",
        "the event loop has stood still for 1.5 s",
    )


async def test_a_worker_that_takes_its_time_to_start_is_named() -> None:
    """O2"""
    release = anyio.Event()

    class Slow(BaseWorker):
        async def on_activated(self, args: dict[str, object] | None) -> None:
            await release.wait()

    async with quiet_runner(name="r") as runner:
        await runner.add_workers(Slow("slow"), Helper("quick"))
        await settle()
        assert runner.health() == attrs.evolve(WELL, starting=("slow",))  # type: ignore[misc]  # made by value
        assert runner.health().reasons == ("worker 'slow' is starting",)
        release.set()
        await settle()
        assert runner.health() == WELL


async def test_a_root_worker_that_has_failed_is_named_until_another_one_takes_its_place() -> None:
    """O2, R4: the others go on; what was asked of this one is not done."""
    async with running(Helper("child-of-none"), name="r") as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(fragile()(), fragile("v")(), wait=True)
        await fail(runner)
        health = runner.health()
        assert (health.failed, health.live, health.ready) == (("w",), True, False)
        assert health.reasons == ("worker 'w' has failed",)
        await fail(runner, "v")
        assert runner.health().reasons == ("worker 'w' has failed", "worker 'v' has failed")
        await runner.add_workers(Helper("v"), wait=True)
        assert runner.health() == health
        await runner.add_workers(Helper("w"), wait=True)
        assert runner.health() == WELL


async def test_a_child_that_has_failed_is_its_parents_affair() -> None:
    """O2, W7"""
    parent = Helper("parent")
    async with running(parent, name="r") as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await parent.add_workers(fragile()())
        await runner.registry.wait_for("w")
        await fail(runner)
        assert runner.health() == WELL


async def test_a_worker_that_is_being_restarted_has_not_failed_and_one_that_is_given_up_has() -> None:
    """O2, S1"""
    async with quiet_runner(name="r") as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.supervise(fragile(), backoff=SOON, max_restarts=1)
        await runner.registry.wait_for("w")
        await fail(runner)
        assert runner.health() == WELL
        await anyio.sleep(1)
        assert runner.health() == WELL
        await fail(runner)
        await settle()
        assert runner.health().failed == ("w",)


async def test_a_bus_says_itself_whether_it_is_connected() -> None:
    """O2, X10"""

    class Flaky(MemoryBus):
        word = "connected"

        @property
        def connection(self) -> str:
            return self.word

    bus = Flaky()
    async with quiet_runner(name="r", bus=bus) as runner:
        assert runner.health() == WELL
        bus.word = "disconnected"
        health = runner.health()
        assert (health.live, health.ready, health.reasons) == (True, False, ("its bus is disconnected",))


@pytest.mark.parametrize(("stalled", "live"), [(9.9, True), (10.0, False)])
def test_only_an_event_loop_that_stands_still_for_long_has_to_be_started_anew(stalled: float, live: bool) -> None:
    """O2"""
    health = attrs.evolve(WELL, stalled=stalled)  # type: ignore[misc]  # made by value
    assert (health.live, health.ready) == (live, False)
