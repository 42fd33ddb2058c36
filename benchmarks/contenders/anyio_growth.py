"""How bare anyio grows, where it has something like it: caches, timers and the loop itself are the same for all."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects


async def cancel_all(run: Run, size: int) -> None:
    """Start as many tasks that sleep, and time their end by a cancel."""
    asleep = Countdown(size)

    async def sleep() -> None:
        try:
            asleep.tick()
            await anyio.sleep_forever()
        finally:
            unwound.tick()

    unwound = Countdown(size)
    async with anyio.create_task_group() as tasks:
        for _ in range(size):
            tasks.start_soon(sleep)
        await asleep.done.wait()
        run.start()
        tasks.cancel_scope.cancel()
    run.stop()
    assert unwound.left == 0


async def start_all(size: int, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start as many tasks, and wait for their end."""
    async with anyio.create_task_group() as tasks:
        for _ in range(size):
            tasks.start_soon(what)


class Growth(Subjects):
    """What can be many tasks."""

    async def many_starts(self, run: Run) -> None:
        for size in run.sizes:
            with run.clock():
                await start_all(2 * size, checkpoint)

    async def many_cancelled(self, run: Run) -> None:
        for size in run.sizes:
            await cancel_all(run, size)

    async def many_in_flight(self, run: Run) -> None:
        for size in run.sizes:
            gate, there, answered = anyio.Event(), Countdown(size), Countdown(size)

            async def answer(
                done: anyio.Event, gate: anyio.Event = gate, there: Countdown = there, answered: Countdown = answered
            ) -> None:
                there.tick()
                await gate.wait()
                done.set()
                answered.tick()

            async with anyio.create_task_group() as tasks:
                with run.clock():
                    events = [anyio.Event() for _ in range(size)]
                    for event in events:
                        tasks.start_soon(answer, event)
                        tasks.start_soon(event.wait)
                    await there.done.wait()
                    gate.set()
                    await answered.done.wait()

    async def many_members(self, run: Run) -> None:
        for size in run.sizes:
            with run.clock():
                await start_all(size, checkpoint)

    async def many_members_cancelled(self, run: Run) -> None:
        await self.many_cancelled(run)
