"""Bad input gets a clear, typed error at the earliest point, and changes nothing."""

from collections.abc import Callable

import pytest

from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    MemoryBus,
    WorkerRunner,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorkerRunner(job_grace=-1),
        lambda: WorkerRunner(grace_period=float("nan")),
        lambda: MemoryBus(max_buffer_size=0),
        lambda: BaseWorker(""),
    ],
    ids=["job grace", "grace period", "buffer size", "worker name"],
)
def test_a_value_that_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"not"):
        make()


async def test_an_update_request_for_a_worker_that_was_not_asked_is_refused() -> None:
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        job_id = await asker.request_job("helper", name="wait")
        with pytest.raises(ValueError, match="'asker' was not asked"):
            await asker.request_job_update(job_id, "asker")
        helper.release.set()
