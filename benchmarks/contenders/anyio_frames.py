"""The floor for frames: a row of tasks of bare anyio, with a memory object stream between each two."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects


class Row:
    """A row of tasks, of which the last one counts.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.countdown = Countdown(0)
        streams = [anyio.create_memory_object_stream[str](math.inf) for _ in range(size)]
        self.sends = [send for send, _ in streams]
        self.receives = [receive for _, receive in streams]

    async def hand_on(self, receive: MemoryObjectReceiveStream[str], send: MemoryObjectSendStream[str]) -> None:
        """Read in batches, and hand on."""
        while True:
            send.send_nowait(await receive.receive())
            try:
                while True:
                    send.send_nowait(receive.receive_nowait())
            except anyio.WouldBlock:
                pass

    async def count(self, receive: MemoryObjectReceiveStream[str]) -> None:
        """Read in batches, and count."""
        while True:
            await receive.receive()
            self.countdown.tick()
            try:
                while True:
                    receive.receive_nowait()
                    self.countdown.tick()
            except anyio.WouldBlock:
                pass


@asynccontextmanager
async def flowing(size: int) -> AsyncIterator[Row]:
    """Run a row of so many tasks."""
    row = Row(size)
    async with anyio.create_task_group() as tasks:
        for receive, send in zip(row.receives, row.sends[1:], strict=False):
            tasks.start_soon(row.hand_on, receive, send)
        tasks.start_soon(row.count, row.receives[-1])
        await anyio.wait_all_tasks_blocked()
        yield row
        tasks.cancel_scope.cancel()
    for send, receive in zip(row.sends, row.receives, strict=True):
        send.close()
        receive.close()


class Frames(Subjects):
    """What has to do with frames."""

    async def frames(self, run: Run) -> None:
        async with flowing(run.size) as row:
            for count in run.counts:
                frames = ["text" for _ in range(count)]
                row.countdown = Countdown(count)
                with run.clock():
                    for frame in frames:
                        row.sends[0].send_nowait(frame)
                    await row.countdown.done.wait()

    async def frames_wake(self, run: Run) -> None:
        async with flowing(run.size) as row:
            for count in run.counts:
                frames = ["text" for _ in range(count)]
                with run.clock():
                    for frame in frames:
                        row.countdown = Countdown(1)
                        row.sends[0].send_nowait(frame)
                        await row.countdown.done.wait()
