"""W3, S1: activating and deactivating workers that are being restarted, and what a new one begins with."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.conditions import eventually
from support.peers import bus_of, processes
from support.restarts import LATE, SOON, Fragile, Lingering, begin_to_fail, count_anew, fail, fragile, which
from support.shared_buses import NETWORKS, two_runners
from support.workers import Helper
from workerbus import (
    Backoff,
    BaseWorker,
    JobError,
    UnknownWorkerError,
    WorkerActivationArgs,
    WorkerRestartedData,
    WorkerRunner,
)
from workerbus.testing import settle

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    count_anew()
    Told.activations.clear()


class Told(Lingering):
    """Notes its activations, and takes a moment to start."""

    activations: list[Any] = []  # noqa: RUF012 - one for all, as a factory makes many

    async def start(self) -> None:
        await anyio.sleep(0.2)
        await super().start()

    async def on_activated(self, args: Any) -> None:
        self.activations.append((self.number, args, current_time()))


class Hello(WorkerActivationArgs):
    pass


async def hand_over(caller: Helper) -> None:
    await caller.activate_worker("w", args=Hello(), deactivate_self=True)


def active(runner: WorkerRunner, name: str = "w") -> bool | None:
    worker = runner.get_worker(name)
    return None if worker is None else worker.active


@pytest.mark.parametrize("when", ["while it goes", "in the wait", "while it starts"])
@pytest.mark.parametrize("at_a_parent", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
async def test_an_activation_waits_for_the_next_worker(network: str, at_a_parent: bool, when: str) -> None:
    """W3, S1: under its own runner and another one; in a hand-over, who hands over is active until then."""
    async with two_runners(network) as (here, there):
        callers = {"A": Helper("caller A"), "B": Helper("caller B")}
        await here.add_workers(callers["A"], wait=True)
        await there.add_workers(callers["B"], wait=True)
        parent = Helper("parent")
        await here.add_workers(parent, wait=True)
        host = parent if at_a_parent else here
        await host.supervise(fragile(kind=Told, active=False), backoff=Backoff(initial=0.5, factor=1, jitter=0))
        await there.registry.wait_for("w")
        for number, caller in enumerate(callers.values()):
            before = current_time()
            worker = here.get_worker("w")
            assert isinstance(worker, Fragile)
            worker.broken.set()
            await anyio.sleep({"while it goes": 0.2, "in the wait": 1.2, "while it starts": 1.55}[when])
            async with anyio.create_task_group() as group:
                group.start_soon(hand_over, caller)
                await anyio.wait_all_tasks_blocked()
                assert caller.active
            assert not caller.active
            await anyio.wait_all_tasks_blocked()
            [(life, args, at)] = Told.activations[number:]
            assert (life, args, at - before) == (number + 2, {}, pytest.approx(1.7))
            assert active(here)


async def test_a_deactivation_waits_for_the_next_worker() -> None:
    """W3, S1."""
    caller = Helper("caller")
    async with WorkerRunner() as runner:
        await runner.add_workers(caller, wait=True)
        await runner.supervise(fragile(kind=Told), backoff=SOON)
        await which(runner)
        await begin_to_fail(runner)
        await caller.deactivate_worker("w")
        await anyio.wait_all_tasks_blocked()
        assert active(runner) is False
        with pytest.raises(JobError, match="inactive"):
            await which(runner)


@pytest.mark.parametrize("network", NETWORKS)
async def test_an_activation_of_a_worker_that_is_given_up_is_an_error_that_says_why(network: str) -> None:
    """W3, S1: at once, and nothing was changed."""
    async with two_runners(network) as (here, there):
        callers = [Helper("caller A"), Helper("caller B")]
        await here.add_workers(callers[0], wait=True)
        await there.add_workers(callers[1], wait=True)
        supervision = await here.supervise(fragile(active=False), backoff=LATE)
        await there.registry.wait_for("w")
        worker = here.get_worker("w")
        assert isinstance(worker, Fragile)
        worker.broken.set()
        await worker.wait()
        caught: list[UnknownWorkerError] = []

        async def activate(caller: Helper) -> None:
            with pytest.raises(UnknownWorkerError, match="there is no worker 'w'; it has failed: ValueError") as error:
                await caller.activate_worker("w", deactivate_self=True)
            caught.append(error.value)

        async with anyio.create_task_group() as group:
            for caller in callers:
                group.start_soon(activate, caller)
            await anyio.sleep(1)
            assert caught == []
            before = current_time()
            await supervision.stop()
        assert current_time() == before
        assert [error.failure for error in caught] == ["ValueError: broken"] * 2
        for caller in callers:
            assert caller.active
            await activate(caller)  # and whoever comes later is told the same


async def test_an_activation_does_not_wait_for_one_that_had_ended_and_is_not_restarted_after_all() -> None:
    """W3, S1: nothing has failed then, and the name is unknown."""
    caller = Helper("caller")
    async with WorkerRunner() as runner:
        await runner.add_workers(caller, wait=True)
        supervision = await runner.supervise(fragile(), restart="always", backoff=LATE)
        await runner.job("w", name="stop")
        async with anyio.create_task_group() as group:

            async def activate() -> None:
                with pytest.raises(UnknownWorkerError) as caught:
                    await caller.activate_worker("w")
                assert caught.value.failure is None

            group.start_soon(activate)
            await anyio.sleep(1)
            await supervision.stop()


@pytest.mark.parametrize(
    ("network", "how"),
    [*((network, "end") for network in NETWORKS), ("two processes", "end"), ("two processes", "kill")],
)
async def test_an_activation_does_not_wait_for_one_whose_runner_has_gone(network: str, how: str) -> None:
    """W3, X4: nobody restarts it any more, however its runner has gone."""
    caller = Helper("caller")
    async with processes("a", "b") if network == "two processes" else two_runners(network) as (here, there):
        await there.add_workers(caller, wait=True)
        await here.supervise(fragile(), backoff=LATE)
        with pytest.raises(JobError):
            await there.job("w", name="break")
        await eventually(lambda: "w" in there.registry.restarting)
        async with anyio.create_task_group() as group:

            async def activate() -> None:
                with pytest.raises(UnknownWorkerError):
                    await caller.activate_worker("w")

            for _ in range(2):
                group.start_soon(activate)
            await settle()
            if how == "kill":
                bus_of(here).kill()
            else:
                await here.end()


async def test_a_job_that_waited_is_refused_where_the_new_worker_is_inactive() -> None:
    """S1, W4: as any job for an inactive worker."""
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(active=False), backoff=SOON)
        worker = runner.get_worker("w")
        assert isinstance(worker, Fragile)
        await runner.registry.wait_for("w")
        worker.broken.set()
        await worker.wait()
        with pytest.raises(JobError, match="worker 'w' is inactive"):
            await which(runner)


async def test_a_new_worker_is_as_active_as_its_factory_makes_it() -> None:
    """S1: and not as the one before it was; that one may have failed of just this."""
    caller = Helper("caller")
    async with WorkerRunner() as runner:
        await runner.add_workers(caller, wait=True)
        await runner.supervise(fragile("w", active=False), fragile("v"), backoff=SOON)
        await which(runner, "v")
        await caller.activate_worker("w")
        await caller.deactivate_worker("v")
        await fail(runner, "w")
        worker = runner.get_worker("v")
        assert isinstance(worker, Fragile)
        worker.broken.set()
        await anyio.sleep(1)
        assert (active(runner, "w"), active(runner, "v")) == (False, True)


async def test_a_parent_can_activate_a_child_again_that_was_restarted() -> None:
    """S1, W3: in its hook, before the new one has started."""

    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.supervise(fragile("child", Told, active=False), backoff=SOON)
            await self.activate_worker("child")

        async def on_worker_restarted(self, data: WorkerRestartedData) -> None:
            await self.activate_worker(data.worker_name, args=Hello())

    async with WorkerRunner() as runner:
        await runner.add_workers(Parent("parent"), wait=True)
        await begin_to_fail(runner, "child")
        await anyio.sleep(2)
        assert await which(runner, "child") == 2
        assert [told[:2] for told in Told.activations] == [(1, None), (2, {})]


async def test_an_activation_waits_for_one_that_fails_again_as_soon_as_it_is_ready() -> None:
    """W3, S1: it reaches the next one."""
    reached: list[int] = []

    class Weak(Fragile):
        async def run(self, params: Any) -> None:
            if self.number != 2:
                await super().run(params)
                return
            await self.start()
            raise ValueError("broken at once")

        async def on_activated(self, args: Any) -> None:
            reached.append(self.number)

    caller = Helper("caller")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(caller, wait=True)
        for at in (0, 1):
            count_anew()
            name = f"w{at}"
            host = caller if at else runner
            await host.supervise(fragile(name, Weak, active=False), backoff=SOON)
            await runner.registry.wait_for(name)
            first = runner.get_worker(name)
            assert isinstance(first, Weak)
            first.broken.set()
            await first.wait()
            await caller.activate_worker(name)
            await settle()
            assert active(runner, name)
    assert reached == [3, 3]


@pytest.mark.parametrize("at_a_parent", [False, True])
async def test_an_activation_waits_for_one_whose_first_life_failed_before_it_was_ready(at_a_parent: bool) -> None:
    """W3, S1: its name is known from then on, though it was never ready."""
    reached: list[int] = []

    class Weak(Fragile):
        async def start(self) -> None:
            if self.number == 1:
                raise ValueError("broken as it starts")
            await super().start()

        async def on_activated(self, args: Any) -> None:
            reached.append(self.number)

    caller = Helper("caller")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(caller, wait=True)
        host = caller if at_a_parent else runner
        await host.supervise(fragile(kind=Weak, active=False), backoff=SOON)
        await anyio.sleep(0.25)
        await caller.activate_worker("w")
        await settle()
    assert reached == [2]
