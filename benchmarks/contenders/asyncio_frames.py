"""The floor for frames: a row of tasks of bare asyncio, with a queue between each two."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects


class Row:
    """A row of tasks, of which the last one counts.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.countdown = Countdown(0)
        self.queues: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(size)]

    async def hand_on(self, come: asyncio.Queue[str], go: asyncio.Queue[str]) -> None:
        """Read in batches, and hand on."""
        while True:
            go.put_nowait(await come.get())
            while not come.empty():
                go.put_nowait(come.get_nowait())

    async def count(self, come: asyncio.Queue[str]) -> None:
        """Read in batches, and count."""
        while True:
            await come.get()
            self.countdown.tick()
            while not come.empty():
                come.get_nowait()
                self.countdown.tick()


@asynccontextmanager
async def flowing(size: int) -> AsyncIterator[Row]:
    """Run a row of so many tasks."""
    row = Row(size)
    pairs = zip(row.queues, row.queues[1:], strict=False)
    tasks = [asyncio.create_task(row.hand_on(come, go)) for come, go in pairs]
    tasks.append(asyncio.create_task(row.count(row.queues[-1])))
    await asyncio.sleep(0)
    yield row
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Frames(Subjects):
    """What has to do with frames."""

    async def frames(self, run: Run) -> None:
        async with flowing(run.size) as row:
            for count in run.counts:
                frames = ["text" for _ in range(count)]
                row.countdown = Countdown(count)
                with run.clock():
                    for frame in frames:
                        row.queues[0].put_nowait(frame)
                    await row.countdown.done.wait()

    async def frames_wake(self, run: Run) -> None:
        async with flowing(run.size) as row:
            for count in run.counts:
                frames = ["text" for _ in range(count)]
                with run.clock():
                    for frame in frames:
                        row.countdown = Countdown(1)
                        row.queues[0].put_nowait(frame)
                        await row.countdown.done.wait()
