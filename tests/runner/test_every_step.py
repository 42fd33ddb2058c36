"""L3, R2: a run is ended or cancelled at any step."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from support import clock
from support.leaks import nothing_left
from support.runners import quiet_runner
from support.workers import Helper
from workerbus import MemoryBus, WorkerRunner


async def a_short_run(runner: WorkerRunner) -> None:
    """Workers start, ask each other for a job, and end."""

    class Asking(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.job("child", name="echo")
            await self.end()

    parent = Asking("parent")
    await parent.add_workers(Helper("child"))
    await runner.add_workers(parent, Helper("other"))
    await runner.run(auto_end=False)


STEPS = range(150)


def at_every_step(main: Callable[[int], Awaitable[bool]], backend: str) -> None:
    """Run something that is interrupted after so many steps, until it is too short to be interrupted so late."""
    for step in STEPS:
        interrupted = [clock.run(main, step, backend=backend, seed=seed) for seed in (2 * step, 2 * step + 1)]
        if not all(interrupted):
            assert step > 5
            return
    pytest.fail("the run takes more steps")


async def steps(count: int, then: Callable[[], Any]) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()
    result = then()
    if result is not None:
        await result


@asynccontextmanager
async def perhaps_shared(shared: bool) -> AsyncIterator[WorkerRunner]:
    """A runner for one run that must leave nothing, on its own bus or on one that is open around it."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus()) if shared else MemoryBus()
        runner = quiet_runner(bus=bus)
        async with nothing_left(runner):
            yield runner


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("ask", [WorkerRunner.cancel, WorkerRunner.end])
def test_a_run_can_be_asked_to_end_at_any_step(
    ask: Callable[[WorkerRunner], Awaitable[None]], shared: bool, backend: str
) -> None:
    """R2, L1: while it starts, while it runs and while it ends; no error comes of it, and nothing is left."""

    async def main(step: int) -> bool:
        over, late = anyio.Event(), anyio.Event()
        async with perhaps_shared(shared) as runner, anyio.create_task_group() as group:

            async def note_and_ask() -> None:
                if over.is_set():
                    late.set()
                await ask(runner)

            group.start_soon(steps, step, note_and_ask)
            await a_short_run(runner)
            over.set()
        return not late.is_set()

    at_every_step(main, backend)


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_can_be_cancelled_from_outside_at_any_step(shared: bool, backend: str) -> None:
    """L3, L1: the cancellation goes through, and nothing is left."""

    async def main(step: int) -> bool:
        returned = in_time = False
        async with perhaps_shared(shared) as runner, anyio.create_task_group() as group:
            with CancelScope() as scope:
                group.start_soon(steps, step, scope.cancel)
                await a_short_run(runner)
                returned, in_time = True, scope.cancel_called
                await anyio.lowlevel.checkpoint()
            assert returned or scope.cancelled_caught
        return in_time or not returned

    at_every_step(main, backend)


def test_a_run_can_be_cancelled_natively_at_any_step() -> None:
    """L3, L1: `asyncio.Task.cancel()` goes through, and nothing is left."""

    async def main(step: int) -> bool:
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(a_short_run(runner))
            for _ in range(step + 1):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return task.cancelled()

    at_every_step(main, "asyncio")
