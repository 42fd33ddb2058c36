"""Jobs that are over before their requester has waited for anything."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.workers import Helper, running
from workerbus import JobError, WorkerRunner

TIMES = 200
"""More often than the bus lets anybody send without a pause."""


class Clock:
    """Counts how often others came to their turn."""

    def __init__(self) -> None:
        self.turns = 0

    async def tick(self) -> None:
        while True:
            self.turns += 1
            await checkpoint()


async def refused(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        with pytest.raises(JobError, match="inactive"):
            await runner.job("off")


async def refused_quietly(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        await runner.job_group("off", cancel_on_error=False)


async def refused_in_contexts(runner: WorkerRunner) -> None:
    for _ in range(TIMES):
        async with runner.job_group("off", cancel_on_error=False):
            pass


@pytest.mark.parametrize("use", [refused, refused_quietly, refused_in_contexts])
async def test_jobs_that_are_refused_at_once_let_others_run(use: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """B2: every 64th request yields, so that who tries again and again starves nobody."""
    clock = Clock()
    async with running(Helper("off", active=False)) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.tick)
        await checkpoint()
        before = clock.turns
        await use(runner)
        after = clock.turns
        tasks.cancel_scope.cancel()
    assert after > before


async def test_entering_many_contexts_lets_others_run() -> None:
    """B2: a context that is entered sends a request, and every 64th yields."""
    clock = Clock()
    async with running(Helper("on")) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.tick)
        await checkpoint()
        before = clock.turns
        async with AsyncExitStack() as stack:
            for _ in range(TIMES):
                await stack.enter_async_context(runner.job("on", name="echo"))
            after = clock.turns
        tasks.cancel_scope.cancel()
    assert after > before
