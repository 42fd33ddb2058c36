"""The floor: bare anyio, task groups and memory object streams."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from benchmarks._lag import lag_of
from benchmarks._late import LateJobs
from benchmarks._memory import allocating
from benchmarks._passes import idle
from benchmarks._run import Countdown, Run, resident
from benchmarks._subject import ASKING, TIMEOUT
from benchmarks.contenders.anyio_frames import Frames
from benchmarks.contenders.anyio_growth import Growth
from benchmarks.contenders.anyio_least import least


async def answer(done: anyio.Event) -> None:
    """Do a job."""
    done.set()


async def ask(tasks: TaskGroup) -> None:
    """Start a task and wait for its event."""
    done = anyio.Event()
    tasks.start_soon(answer, done)
    await done.wait()


async def ask_with_timeout(tasks: TaskGroup) -> None:
    """Start a task and wait for its event, not for ever."""
    done = anyio.Event()
    tasks.start_soon(answer, done)
    with anyio.fail_after(TIMEOUT):
        await done.wait()


class Reader:
    """Counts what comes through its stream, in batches."""

    def __init__(self) -> None:
        self.countdown = Countdown(0)
        self.send: MemoryObjectSendStream[int]
        self.receive: MemoryObjectReceiveStream[int]
        self.send, self.receive = anyio.create_memory_object_stream[int](math.inf)

    async def read(self) -> None:
        """Read in batches."""
        with self.send, self.receive:
            while True:
                await self.receive.receive()
                self.countdown.tick()
                try:
                    while True:
                        self.receive.receive_nowait()
                        self.countdown.tick()
                except anyio.WouldBlock:
                    pass


@asynccontextmanager
async def reading(count: int) -> AsyncIterator[dict[str, Reader]]:
    """Let so many tasks read; they are named s0, s1 and so on."""
    readers = {f"s{number}": Reader() for number in range(count)}
    async with anyio.create_task_group() as tasks:
        for reader in readers.values():
            tasks.start_soon(reader.read)
        await anyio.wait_all_tasks_blocked()
        yield readers
        tasks.cancel_scope.cancel()


def pair(source: str, target: str) -> tuple[str, str]:
    """Make a message."""
    return source, target


@asynccontextmanager
async def waiting(count: int) -> AsyncIterator[None]:
    """Let so many tasks wait for an event."""
    end = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(end.wait)
        await anyio.wait_all_tasks_blocked()
        yield
        end.set()


class Contender(Growth, Frames):
    """Bare anyio."""

    packages = ("anyio", "trio")

    async def _flood(self, run: Run, size: int, target: str) -> None:
        async with reading(size) as readers:
            for count in run.counts:
                items = list(range(count))
                countdown = readers[target].countdown = Countdown(count)
                with run.clock():
                    for item in items:
                        readers[target].send.send_nowait(item)
                    await countdown.done.wait()

    async def flood(self, run: Run) -> None:
        await self._flood(run, 1, "s0")

    async def flood_worker(self, run: Run) -> None:
        await self._flood(run, 1, "s0")

    async def targeted(self, run: Run) -> None:
        await self._flood(run, run.size, f"s{run.size - 1}")

    async def wake(self, run: Run) -> None:
        async with reading(1) as readers:
            reader = readers["s0"]
            for count in run.counts:
                items = list(range(count))
                with run.clock():
                    for item in items:
                        reader.countdown = Countdown(1)
                        reader.send.send_nowait(item)
                        await reader.countdown.done.wait()

    async def wake_worker(self, run: Run) -> None:
        await self.wake(run)

    async def broadcast(self, run: Run) -> None:
        async with reading(run.size) as readers:
            for count in run.counts:
                items, countdown = list(range(count)), Countdown(count * run.size)
                for reader in readers.values():
                    reader.countdown = countdown
                with run.clock():
                    for item in items:
                        for reader in readers.values():
                            reader.send.send_nowait(item)
                    await countdown.done.wait()

    async def broadcast_wake(self, run: Run) -> None:
        async with reading(run.size) as readers:
            for count in run.counts:
                items = list(range(count))
                with run.clock():
                    for item in items:
                        countdown = Countdown(run.size)
                        for reader in readers.values():
                            reader.countdown = countdown
                            reader.send.send_nowait(item)
                        await countdown.done.wait()

    async def lag(self, run: Run) -> None:
        async with reading(run.size) as readers:
            for count in run.counts:
                items, countdown = list(range(count)), Countdown(count * run.size)
                for reader in readers.values():
                    reader.countdown = countdown
                async with lag_of(run):
                    for item in items:
                        for reader in readers.values():
                            reader.send.send_nowait(item)
                        await checkpoint()
                    await countdown.done.wait()

    async def queued(self, run: Run) -> None:
        made: list[tuple[str, str] | None] = [None] * run.size
        with allocating() as more:
            for number in range(run.size):
                made[number] = pair("bench", "busy")
            run.values["message"] = more() / run.size
        made.clear()
        send, receive = anyio.create_memory_object_stream[tuple[str, str]](math.inf)
        with send, receive, allocating() as more:
            for _ in range(run.size):
                send.send_nowait(pair("bench", "busy"))
            run.values["queued"] = more() / run.size

    async def job_least(self, run: Run) -> None:
        await least(run)

    async def idle(self, run: Run) -> None:
        await idle(run, waiting(run.size))

    async def job(self, run: Run) -> None:
        async with anyio.create_task_group() as tasks:
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        await ask(tasks)

    async def job_timeout(self, run: Run) -> None:
        async with anyio.create_task_group() as tasks:
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        await ask_with_timeout(tasks)

    async def in_flight(self, run: Run) -> None:
        await self._in_flight(run, run.size, run.size)

    async def pool(self, run: Run) -> None:
        await self._in_flight(run, ASKING, run.size)

    async def _in_flight(self, run: Run, asking: int, limit: int) -> None:
        gate, over, limiter = anyio.Event(), Countdown(asking), anyio.CapacityLimiter(limit)

        async def ask_once() -> None:
            if limit == asking:
                await ask(tasks)
            else:
                async with limiter:
                    await ask(tasks)

        async def ask_all() -> None:
            await ask_once()
            await gate.wait()
            for _ in range(run.count // asking):
                await ask_once()
            over.tick()

        async with anyio.create_task_group() as tasks:
            for _ in range(asking):
                tasks.start_soon(ask_all)
            await anyio.wait_all_tasks_blocked()
            with run.clock():
                gate.set()
                await over.done.wait()

    async def group(self, run: Run) -> None:
        for count in run.counts:
            with run.clock():
                for _ in range(count):
                    async with anyio.create_task_group() as tasks:
                        for _ in range(run.size):
                            tasks.start_soon(anyio.lowlevel.checkpoint)

    async def cancel(self, run: Run) -> None:
        async def sleep() -> None:
            try:
                asleep.tick()
                await anyio.sleep_forever()
            finally:
                unwound.tick()

        for _ in run.counts:
            asleep, unwound = Countdown(run.size), Countdown(run.size)
            async with anyio.create_task_group() as tasks:
                for _ in range(run.size):
                    tasks.start_soon(sleep)
                await asleep.done.wait()
                run.start()
                tasks.cancel_scope.cancel()
            assert unwound.left == 0
            run.stop()

    async def _stream(self, run: Run, *, paced: bool) -> None:
        async def produce() -> None:
            with send:
                for chunk in chunks:
                    send.send_nowait(chunk)
                    if paced:
                        await checkpoint()

        for size in (run.size // 10, run.size):
            chunks, seen = [{"number": number} for number in range(size)], 0
            send, receive = anyio.create_memory_object_stream[dict[str, int]](math.inf)
            with run.clock():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(produce)
                    with receive:
                        async for _ in receive:
                            seen += 1
            assert seen == size

    async def stream(self, run: Run) -> None:
        await self._stream(run, paced=False)

    async def stream_paced(self, run: Run) -> None:
        await self._stream(run, paced=True)

    async def late(self, run: Run) -> None:
        async with anyio.create_task_group() as tasks:
            for hundred in LateJobs(run):
                for _ in hundred:
                    await ask(tasks)

    async def start_stop(self, run: Run) -> None:
        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    async with anyio.create_task_group() as tasks:
                        for _ in range(2 * size):
                            tasks.start_soon(checkpoint)

    async def memory(self, run: Run) -> None:
        for size in (10, run.size):
            end = anyio.Event()
            before = resident()
            async with anyio.create_task_group() as tasks:
                for _ in range(size):
                    tasks.start_soon(end.wait)
                await anyio.wait_all_tasks_blocked()
                run.values["bytes"] = (resident() - before) / size
                end.set()
