"""W6: `stop()`, from everywhere."""

import pytest

from support.workers import Helper, running


async def test_a_worker_object_runs_once() -> None:
    """W6"""
    worker = Helper("w")
    async with running(worker) as runner:
        await worker.stop()
        with pytest.raises(RuntimeError):
            await runner.add_workers(worker)
