"""O2, O3: metrics of jobs and of what runners keep count of."""

from time import perf_counter

import anyio
import pytest
from anyio import to_thread

from support.redis_servers import RedisServer, until
from support.restarts import SOON, fail, fragile
from support.runners import quiet_runner, runner_on
from support.telemetry import Telemetry
from support.workers import Helper, running
from workerbus import BusJobRequestMessage, JobError, WorkerPool, WorkerRunner, job
from workerbus.otel import Names, instrument
from workerbus.redis import RedisBus
from workerbus.testing import settle


class Sequential(Helper):
    @job(name="one by one", sequential=True)
    async def one_by_one(self, message: BusJobRequestMessage) -> None:
        await self.release.wait()


async def test_durations_are_counted_by_worker_job_and_outcome(telemetry: Telemetry) -> None:
    """O2: for who asks, for the handler, for the wait before it, and for sending."""
    async with running(Helper("w"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        for _ in range(3):
            await runner.job("w", name="echo")
        with pytest.raises(JobError):
            await runner.job("w", name="fail")
    by = (Names.DESTINATION, Names.JOB, Names.STATUS, Names.ERROR)
    assert telemetry.values(Names.JOB_DURATION, *by) == {
        ("w", "echo", "completed", None): 3,
        ("w", "fail", "failed", "ValueError"): 1,
    }
    assert telemetry.values(Names.PROCESS_DURATION, *by) == {
        ("w", "echo", "completed", None): 3,
        ("w", "fail", "error", "ValueError"): 1,
    }
    for name in (Names.QUEUE_DURATION, Names.SEND_DURATION, Names.SENT):
        assert telemetry.values(name, Names.DESTINATION, Names.JOB) == {("w", "echo"): 3, ("w", "fail"): 1}


async def test_a_job_that_waits_for_its_turn_is_in_the_queue_meanwhile(telemetry: Telemetry) -> None:
    """O2: the time is the real one, so two requests are known to wait while this test does something else."""
    worker = Sequential("w")
    async with running(worker, name="r") as runner, anyio.create_task_group() as group:
        instrument(runner, **telemetry.providers)

        async def ask() -> None:
            await runner.job("w", name="one by one")

        for _ in range(3):
            group.start_soon(ask)
        await settle()
        assert telemetry.values(Names.ACTIVE, Names.DESTINATION) == {"w": 1}
        began = perf_counter()
        while (waited := perf_counter() - began) < 0.02:
            pass  # nothing waits here: the requests do
        worker.release.set()
    assert telemetry.values(Names.ACTIVE, Names.DESTINATION) == {"w": 0}
    (queued,), (processed,) = (telemetry.points(name) for name in (Names.QUEUE_DURATION, Names.PROCESS_DURATION))
    assert queued.count == processed.count == 3
    assert queued.max >= waited
    assert queued.min < queued.max


async def test_each_request_of_a_group_has_a_wait_of_its_own(telemetry: Telemetry) -> None:
    """O2: though they are of one job; the time is the real one, so it is only known that there is some."""
    workers = [Sequential(name) for name in ("a", "b", "c")]
    async with running(*workers, name="r") as runner, anyio.create_task_group() as group:
        instrument(runner, **telemetry.providers)

        async def ask(*names: str) -> None:
            async with runner.job_group(*names, name="one by one"):
                pass

        for names in ("b", "abc"):
            group.start_soon(ask, *names)
            await settle()
        for worker in workers:
            worker.release.set()
    longest = {point.attributes[Names.DESTINATION]: point.max for point in telemetry.points(Names.QUEUE_DURATION)}
    assert longest.keys() == {"a", "b", "c"}
    assert min(longest.values()) > 0


async def test_a_request_for_a_pool_that_shares_its_name_waits_in_that_name(telemetry: Telemetry) -> None:
    """O2, S2: the time is the real one, so it is only known that there is some."""
    async with running(WorkerPool("pool", Helper, size=1, shared="part"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        for _ in range(2):
            await runner.job("pool", name="echo")
    (queued,) = telemetry.points(Names.QUEUE_DURATION)
    assert (queued.attributes[Names.DESTINATION], queued.count) == ("pool", 2)
    assert queued.min > 0


async def test_what_a_runner_counts_is_there_when_a_reader_asks(telemetry: Telemetry) -> None:
    """O2: answers, hooks that raised, what waits."""
    async with running(Helper("w"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        await runner.job("w", name="echo")
        by = (Names.RUNNER, Names.STATUS)
        assert telemetry.values(Names.ANSWERED, *by) == {
            ("r", str(status)): number for status, number in runner.statistics().jobs_answered.items()
        }
        assert telemetry.values(Names.ANSWERED, *by)["r", "completed"] == 1
        assert telemetry.values(Names.DEPTH, Names.DESTINATION, Names.LANE) == {("w", "system"): 0, ("w", "data"): 0}
        assert telemetry.values(Names.HOOKS_FAILED, Names.RUNNER) == {"r": 0}
        assert telemetry.points(Names.STALLS) == []
        assert telemetry.points(Names.RECONNECTS) == []


async def test_restarts_are_counted(telemetry: Telemetry) -> None:
    """O2, S1"""
    async with quiet_runner(name="r") as runner:
        instrument(runner, **telemetry.providers)
        await runner.supervise(fragile(), backoff=SOON)
        await runner.registry.wait_for("w")
        await fail(runner)
        await runner.registry.wait_for("w")
        assert telemetry.values(Names.RESTARTS, Names.RUNNER) == {"r": 1}


async def test_a_reader_may_ask_in_a_thread_of_its_own(telemetry: Telemetry) -> None:
    """O2: while jobs are under way."""
    helper = Helper("w")
    async with running(helper, name="r") as runner, anyio.create_task_group() as group:
        instrument(runner, **telemetry.providers)

        async def ask() -> None:
            await runner.job("w", name="wait", timeout=10)

        group.start_soon(ask)
        await helper.begun.wait()
        seen = await to_thread.run_sync(lambda: telemetry.values(Names.DEPTH, Names.DESTINATION, Names.LANE))
        assert seen == {("w", "system"): 0, ("w", "data"): 0}
        helper.release.set()


async def test_a_runner_that_changes_while_a_reader_asks_leaves_the_others_to_be_read(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O2: it is told of the next time."""

    def changes(**_: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    async with running(name="a") as first, running(name="b") as second:
        with instrument(first, **telemetry.providers), instrument(second, **telemetry.providers):
            with monkeypatch.context() as patch:
                patch.setattr(first, "statistics", changes)
                assert telemetry.values(Names.RESTARTS, Names.RUNNER) == {"b": 0}
            assert telemetry.values(Names.RESTARTS, Names.RUNNER) == {"a": 0, "b": 0}


async def test_runners_of_one_provider_are_told_apart_and_leave_nothing_behind(telemetry: Telemetry) -> None:
    """O2, R9"""
    for name in ("a", "b"):
        async with running(Helper("w"), name=name) as runner:
            with instrument(runner, **telemetry.providers):
                await runner.job("w", name="echo")
                assert telemetry.values(Names.RESTARTS, Names.RUNNER) == {name: 0}
    assert telemetry.points(Names.RESTARTS) == []


async def test_a_runner_that_is_instrumented_twice_is_looked_at_until_both_have_ended(telemetry: Telemetry) -> None:
    """O1, O2: and told of once."""
    async with running(Helper("w"), name="r") as runner:
        first, second = (instrument(runner, **telemetry.providers) for _ in range(2))
        assert len(telemetry.points(Names.RESTARTS)) == 1
        for _ in range(2):
            first.remove()
            assert len(telemetry.points(Names.RESTARTS)) == 1
        second.remove()
        assert telemetry.points(Names.RESTARTS) == []


def test_an_event_loop_that_is_watched_has_its_lag_in_the_metrics(telemetry: Telemetry, backend: str) -> None:
    """O2, R8"""

    async def main() -> None:
        async with WorkerRunner(name="r", handle_sigint=False, stall_seconds=0.1) as runner:
            instrument(runner, **telemetry.providers)
            assert telemetry.values(Names.LAG, Names.RUNNER).keys() == {"r"}
            assert telemetry.values(Names.STALLS, Names.RUNNER).keys() == {"r"}

    anyio.run(main, backend=backend)


def test_connections_that_were_lost_are_counted(telemetry: Telemetry, backend: str) -> None:
    """O2, X10"""

    async def main() -> None:
        with RedisServer() as server:
            async with runner_on(RedisBus(server.url), "r") as runner:
                instrument(runner, **telemetry.providers)
                await until(lambda: runner.health().ready)
                assert telemetry.values(Names.RECONNECTS, Names.RUNNER) == {"r": 0}
                server.call("CLIENT", "KILL", "TYPE", "normal")
                await until(lambda: telemetry.values(Names.RECONNECTS, Names.RUNNER)["r"] >= 1)

    anyio.run(main, backend=backend)
