"""R8, O2: handlers that take long, and jobs that wait for longer than they run."""

import logging

import anyio
import pytest
from anyio import sleep

from support.runners import runner_on
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, MemoryBus, WorkerRunner, job


class Sleeper(BaseWorker):
    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> None:
        await sleep(message.payload["seconds"])

    @job(name="in turn", sequential=True)
    async def in_turn(self, message: BusJobRequestMessage) -> None:
        await sleep(1)


async def test_handlers_that_take_longer_are_named_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """R8, O2"""
    async with running(Sleeper("w"), name="r", slow_seconds=2) as runner:
        for seconds in (1, 2, 3.5):
            await runner.job("w", name="sleep", payload={"seconds": seconds})
        assert runner.statistics().slow_handlers == 1
    (record,) = [each for each in caplog.records if "has taken" in each.getMessage()]
    job_id = vars(record)["job"]
    assert record.getMessage() == f"the handler of job 'sleep' ({job_id}) at worker 'w' has taken 3.5 s"
    assert (record.levelno, vars(record)["runner"], vars(record)["worker"]) == (logging.WARNING, "r", "w")


async def test_each_worker_of_a_group_is_judged_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """R8, O2: they share the job's id, and not the time."""
    payloads = {"quick": {"seconds": 1}, "slow": {"seconds": 4}, "slower": {"seconds": 5}}
    async with running(*map(Sleeper, payloads), name="r", slow_seconds=2) as runner:
        await runner.job_group(name="sleep", payloads=payloads)
        assert runner.statistics().slow_handlers == 2
    records = [each for each in caplog.records if "has taken" in each.getMessage()]
    assert [(vars(each)["worker"], each.getMessage().rpartition(" taken ")[2]) for each in records] == [
        ("slow", "4 s"),
        ("slower", "5 s"),
    ]


async def test_jobs_that_wait_for_longer_than_they_run_are_counted() -> None:
    """O2: of five that take a second each, the third has waited for two; the second one for as long as it has run."""
    async with running(Sleeper("w"), name="r", slow_seconds=2) as runner:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                await runner.job("w", name="in turn")

            for _ in range(5):
                group.start_soon(ask)
        assert (runner.statistics().slow_handlers, runner.statistics().jobs_waited_longer) == (0, 3)


async def test_a_handler_that_is_cancelled_is_judged_as_any_other() -> None:
    """O2, J6"""
    async with running(Sleeper("w"), name="r", slow_seconds=2) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("w", name="sleep", payload={"seconds": 100}, timeout=5)
        assert runner.statistics().slow_handlers == 1


async def test_a_runner_judges_its_own_workers_alone() -> None:
    """O2: another one on the same bus has a limit of its own, or none."""
    async with MemoryBus() as bus, runner_on(bus, "a", slow_seconds=2) as one, runner_on(bus, "b") as other:
        await other.add_workers(Sleeper("w"), wait=True)
        await one.job("w", name="sleep", payload={"seconds": 5})
        assert one.statistics().slow_handlers == 0
        assert other.statistics().slow_handlers is None
        assert bus.job_taps
    assert not bus.job_taps


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(seconds: float) -> None:
    """N8, R8"""
    with pytest.raises(ValueError, match="slow_seconds is a number of seconds, not less than 0"):
        WorkerRunner(slow_seconds=seconds)
