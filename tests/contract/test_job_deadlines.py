"""J6: one deadline covers the wait for the workers and the job, at both ends. Idle time is skipped."""

import pytest

from support.requesters import Listener
from support.workers import running
from workerbus import (
    JobError,
    JobGroupError,
)


async def test_a_request_for_a_worker_that_does_not_come_runs_out_of_time(backend: str) -> None:
    """J6: without a context, too."""
    asker = Listener("asker")
    async with running(asker):
        with pytest.raises(TimeoutError) as caught:
            await asker.request_job("nobody", timeout=1)
        assert isinstance(caught.value, JobError)
        with pytest.raises(JobGroupError):
            await asker.request_job_group("nobody", "asker", timeout=1)
        assert asker.job_groups == {}
        assert asker.calls == []
