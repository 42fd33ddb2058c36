"""How a requester's wait ends: in time, late, or by its leaving, where no other test looks closely."""

import anyio
import pytest

from support.workers import Doing, Helper, running
from workerbus import (
    BusJobRequestMessage,
    JobGroupError,
)


async def test_who_waits_for_a_group_is_told_at_once_that_it_was_cancelled() -> None:
    """J8: not when its workers have unwound."""
    begun, told, release = anyio.Event(), anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    asker = Helper("asker")
    async with running(Doing("doing", unwinds), asker), anyio.create_task_group() as tasks:
        group = await asker.create_job_group_and_request_job(["doing"], name="do")
        assert (group.reason, group.detail) == (None, None)

        async def wait() -> None:
            with pytest.raises(JobGroupError, match="enough"):
                await group.wait()
            told.set()

        tasks.start_soon(wait)
        await begun.wait()
        await anyio.wait_all_tasks_blocked()
        await asker.cancel_job_group(group.job_id, reason="enough")
        await told.wait()
        assert not release.is_set()
        release.set()
