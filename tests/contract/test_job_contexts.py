"""J5, J7, J8, J11, J15 and J16: what the requester sees of a job, and how its context is left."""

import anyio
import pytest

from support.workers import Helper, running


async def test_a_body_may_go_on_when_the_job_has_completed() -> None:
    """J8: the timeout was the job's, and nothing of it is left."""
    async with running(Helper("helper")) as runner:
        async with runner.job("helper", name="echo", timeout=0.02) as asked:
            async for _ in asked:
                pass
            await anyio.sleep(0.05)
        assert asked.response["worker"] == "helper"


async def test_a_context_can_be_used_once_only() -> None:
    """J8: a second job wants a second context."""
    async with running(Helper("helper")) as runner:
        context = runner.job("helper", name="echo")
        await context
        with pytest.raises(RuntimeError):
            await context
