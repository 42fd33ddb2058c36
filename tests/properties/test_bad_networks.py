"""Jobs, workers and runners on a network that loses, doubles, delays and cuts off."""

from typing import Any

from anyio import current_time, sleep
from hypothesis import given
from hypothesis import strategies as st

from support.networks import Speaker, announcement, another_runner, laws, network, runners, seeds
from support.workers import Helper
from workerbus import BusWorkerRegistryMessage, JobError, MemoryBus, WorkerParams, WorkerRunner
from workerbus.testing import Faults, FaultyBus, run


def test_a_request_that_comes_twice_runs_once(backend: str) -> None:
    """J12."""

    async def main() -> None:
        async with network("left", "right", faults=Faults(duplicate=1.0, delay=1.0, spare=announcement)) as (
            left,
            right,
        ):
            speaker = Speaker("b", seconds=0.5)
            async with runners(left, right, speaker) as (asker, _):
                for _ in range(5):
                    await asker.job("b", name="say")
                await sleep(5)
                assert sorted(speaker.asked.values()) == [1] * 5

    run(main, backend=backend)


@laws
@given(seed=seeds, lose=st.sampled_from([0.05, 0.3, 0.7]), spared=st.booleans(), timeout=st.sampled_from([0.2, 3.0]))
def test_a_job_with_a_timeout_always_ends_on_a_lossy_network_and_leaves_nothing(
    backend: str, seed: int, lose: float, spared: bool, timeout: float
) -> None:
    """J1, J6, L1."""
    outcomes: list[str] = []

    async def main() -> None:
        plan = Faults(lose=lose, delay=0.3, duplicate=0.1, spare=announcement if spared else None)
        async with network("left", "right", seed=seed, faults=plan) as (left, right):
            asker = WorkerRunner(bus=left, name="asker", handle_sigint=False, grace_period=1.0)
            host = WorkerRunner(bus=right, name="host", handle_sigint=False, grace_period=1.0)
            async with host, asker:
                await host.add_workers(Speaker("b", seconds=0.1))
                for _ in range(4):
                    begun = current_time()
                    try:
                        answer = await asker.job("b", name="say", payload={"text": "x"}, timeout=timeout)
                        assert answer == {"said": "x", "by": "b"}
                        outcomes.append("answered")
                    except JobError as error:
                        outcomes.append(error.reason)
                    assert current_time() - begun <= timeout + 2.1  # the job's time, and that of its cancellation (L4)
                assert asker.job_client.groups == {}
                ending = current_time()
            # Each of the two: its grace period, and the bound of its clean-up.
            assert current_time() - ending <= 2 * (1.0 + 2.0) + 0.1

    run(main, backend=backend, seed=seed, limit=200.0)
    assert len(outcomes) == 4


overtaken = Faults(delay=(1.0, 1.0), spare=lambda message: not isinstance(message, BusWorkerRegistryMessage))
"""Lists of workers are late, and nothing else: per sender the order holds (X2), but a worker and its runner are two."""


def test_a_list_of_workers_that_is_late_does_not_make_newer_workers_disappear(backend: str) -> None:
    """J4."""

    async def main() -> None:
        async with (
            network("left", "right", faults=overtaken) as (left, right),
            runners(left, right, Speaker("b", 5.0)) as (asker, _),
        ):
            assert await asker.job("b", name="say")
            assert asker.registry.remote_workers == ["b"]

    run(main, backend=backend)


def test_a_list_of_workers_that_is_late_does_not_bring_back_a_worker_that_has_gone(backend: str) -> None:
    """G2, J4."""

    async def main() -> None:
        async with network("left", "right", faults=overtaken) as (left, right):
            worker = Speaker("b")
            async with runners(left, right, worker):
                await sleep(2)
                async with another_runner(left) as late:
                    await sleep(1.5)
                    await worker.stop()
                    await sleep(5)
                    assert late.registry.remote_workers == []

    run(main, backend=backend)


async def test_a_runner_that_comes_under_the_name_of_one_that_left_is_told_of_the_workers_there() -> None:
    """On a plain `MemoryBus`."""
    async with MemoryBus() as bus, another_runner(bus, Helper("a")):
        for _ in range(2):
            async with WorkerRunner(bus=bus, name="again", handle_sigint=False) as runner:
                await runner.job("a", name="echo", timeout=0.5)


class Parent(Helper):
    async def on_activated(self, args: dict[str, Any] | None = None) -> None:
        await self.add_workers(Helper("child"))


def test_a_parent_stops_in_bounded_time_when_its_childs_cancel_is_lost(backend: str) -> None:
    async def main() -> None:
        async with network("left") as (bus,), another_runner(bus, Parent("parent")) as runner:
            await runner.registry.wait_for("child")
            bus.faults = Faults(lose=1.0)
            parent = runner.get_worker("parent")
            assert parent is not None
            await parent.stop()

    run(main, backend=backend)


def test_the_answers_of_a_worker_that_ends_count_before_its_departure(backend: str) -> None:
    """The answer is still under way, and the registry tells at once that the worker has gone (J4)."""

    async def main() -> None:
        speaker = Speaker("b", 0.5)
        async with (
            network("left", faults=Faults(delay=(0.1, 0.1))) as (bus,),
            another_runner(bus, speaker, job_grace=5.0) as runner,
        ):
            await runner.registry.wait_for("b")
            async with runner.job("b", name="say", payload={"text": "x"}) as asked:
                await runner.end()
            assert asked.response == {"said": "x", "by": "b"}

    run(main, backend=backend)


def test_a_run_that_was_cancelled_before_it_began_runs_no_worker(backend: str) -> None:
    class Runs(Helper):
        ran = False

        async def run(self, params: WorkerParams) -> None:
            self.ran = True
            await super().run(params)

    async def main() -> None:
        worker = Runs("worker")
        runner = WorkerRunner(bus=FaultyBus(MemoryBus()), handle_sigint=False)
        await runner.add_workers(worker)
        await runner.cancel()
        await runner.run()
        assert not worker.ran

    run(main, backend=backend)
