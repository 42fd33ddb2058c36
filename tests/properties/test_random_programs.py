"""L1, L4, J1: whatever a program does, it ends, and leaves nothing; and many jobs leave no more than few (G2)."""

import gc
import logging

import hypothesis.strategies as st
import pytest
from anyio import move_on_after
from hypothesis import HealthCheck, given, settings

from properties.model.programs import Program
from support.workers import Helper, running
from workerbus import JobGroupError, WorkerRunner
from workerbus.testing import run
from workerbus.worker._core import core_of

pytestmark = pytest.mark.slow


BUSES = ("memory", "bounded", "slow", "faulty")


@pytest.mark.parametrize("bus", BUSES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_program_ends_and_leaves_nothing(bus: str, backend: str, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """L1, L4: no task, subscription, watch, job or group, however its workers fall over each other."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")

    async def program() -> None:
        await Program(seed, bus).run()

    run(program, backend=backend, seed=seed, limit=600.0)


def test_many_groups_leave_no_more_than_few(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """G2, J5: what lives after six hundred rounds of groups of every kind lived after three hundred."""
    caplog.set_level(logging.CRITICAL, logger="workerbus")

    async def program() -> None:
        workers = [Helper(name) for name in ("one", "two", "three")]
        async with running(*workers) as runner:
            alive = []
            for _ in range(10):
                for _ in range(60):
                    await _ask_in_every_way(runner, workers[0])
                    for worker in workers:
                        worker.calls.clear()
                        core_of(worker).job_server._ended.clear()  # bounded by itself, at more than this test asks for
                alive.append(_alive())
        assert alive[-1] - alive[4] < 100, alive

    run(program, backend=backend, limit=600.0)


async def _ask_in_every_way(runner: WorkerRunner, asker: Helper) -> None:
    async with runner.job_group("two", "three", name="echo") as group:
        async for _ in group:
            pass
    with pytest.raises(JobGroupError):
        await asker.job_group("two", "three", name="fail")
    with pytest.raises(JobGroupError):
        await asker.job_group("one", "two", name="wait", timeout=0.01)
    with move_on_after(0.01):
        await runner.job("three", name="wait")
    await (await asker.create_job_group_and_request_job(["two", "three"], name="echo")).wait()


def _alive() -> int:
    gc.collect()
    return len(gc.get_objects())
