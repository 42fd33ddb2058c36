"""The floor: bare asyncio, tasks and queues."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from benchmarks._lag import lag_of
from benchmarks._late import LateJobs
from benchmarks._run import Countdown, Run, resident
from benchmarks._subject import ASKING, TIMEOUT
from benchmarks.contenders.asyncio_frames import Frames


async def answer(done: asyncio.Event) -> None:
    """Do a job."""
    done.set()


async def ask(tasks: asyncio.TaskGroup) -> None:
    """Start a task and wait for its event."""
    done = asyncio.Event()
    tasks.create_task(answer(done))
    await done.wait()


async def ask_with_timeout(tasks: asyncio.TaskGroup) -> None:
    """Start a task and wait for its event, not for ever."""
    done = asyncio.Event()
    tasks.create_task(answer(done))
    async with asyncio.timeout(TIMEOUT):
        await done.wait()


async def nothing() -> None:
    """Be a task."""
    await asyncio.sleep(0)


class Reader:
    """Counts what comes through its queue, in batches."""

    def __init__(self) -> None:
        self.countdown = Countdown(0)
        self.queue = asyncio.Queue[int]()

    async def read(self) -> None:
        """Read in batches."""
        while True:
            await self.queue.get()
            self.countdown.tick()
            with suppress(asyncio.QueueEmpty):
                while True:
                    self.queue.get_nowait()
                    self.countdown.tick()


@asynccontextmanager
async def reading(count: int) -> AsyncIterator[dict[str, Reader]]:
    """Let so many tasks read; they are named s0, s1 and so on."""
    readers = {f"s{number}": Reader() for number in range(count)}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.read()) for reader in readers.values()]
        await asyncio.sleep(0)
        yield readers
        for task in tasks:
            task.cancel()


class Contender(Frames):
    """Bare asyncio."""

    async def _flood(self, run: Run, size: int, target: str) -> None:
        async with reading(size) as readers:
            for count in run.counts:
                items = list(range(count))
                countdown = readers[target].countdown = Countdown(count)
                with run.clock():
                    for item in items:
                        readers[target].queue.put_nowait(item)
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
                        reader.queue.put_nowait(item)
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
                            reader.queue.put_nowait(item)
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
                            reader.queue.put_nowait(item)
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
                            reader.queue.put_nowait(item)
                        await asyncio.sleep(0)
                    await countdown.done.wait()

    async def job(self, run: Run) -> None:
        async with asyncio.TaskGroup() as tasks:
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        await ask(tasks)

    async def job_timeout(self, run: Run) -> None:
        async with asyncio.TaskGroup() as tasks:
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        await ask_with_timeout(tasks)

    async def in_flight(self, run: Run) -> None:
        await self._in_flight(run, run.size, run.size)

    async def pool(self, run: Run) -> None:
        await self._in_flight(run, ASKING, run.size)

    async def _in_flight(self, run: Run, asking: int, limit: int) -> None:
        gate, asked, over, limiter = asyncio.Event(), Countdown(asking), Countdown(asking), asyncio.Semaphore(limit)

        async def ask_once() -> None:
            if limit == asking:
                await ask(tasks)
            else:
                async with limiter:
                    await ask(tasks)

        async def ask_all() -> None:
            await ask_once()
            asked.tick()
            await gate.wait()
            for _ in range(run.count // asking):
                await ask_once()
            over.tick()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(asking):
                tasks.create_task(ask_all())
            await asked.done.wait()
            with run.clock():
                gate.set()
                await over.done.wait()

    async def group(self, run: Run) -> None:
        for count in run.counts:
            with run.clock():
                for _ in range(count):
                    async with asyncio.TaskGroup() as tasks:
                        for _ in range(run.size):
                            tasks.create_task(nothing())

    async def cancel(self, run: Run) -> None:
        async def sleep() -> None:
            try:
                asleep.tick()
                await asyncio.get_running_loop().create_future()
            finally:
                unwound.tick()

        for _ in run.counts:
            asleep, unwound = Countdown(run.size), Countdown(run.size)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(sleep()) for _ in range(run.size)]
                await asleep.done.wait()
                with run.clock():
                    for task in tasks:
                        task.cancel()
                    await unwound.done.wait()

    async def _stream(self, run: Run, *, paced: bool) -> None:
        async def produce() -> None:
            for chunk in chunks:
                queue.put_nowait(chunk)
                if paced:
                    await asyncio.sleep(0)
            queue.put_nowait(None)

        for size in (run.size // 10, run.size):
            chunks, seen = [{"number": number} for number in range(size)], 0
            queue = asyncio.Queue[dict[str, int] | None]()
            with run.clock():
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(produce())
                    while await queue.get() is not None:
                        seen += 1
            assert seen == size

    async def stream(self, run: Run) -> None:
        await self._stream(run, paced=False)

    async def stream_paced(self, run: Run) -> None:
        await self._stream(run, paced=True)

    async def late(self, run: Run) -> None:
        async with asyncio.TaskGroup() as tasks:
            for hundred in LateJobs(run):
                for _ in hundred:
                    await ask(tasks)

    async def start_stop(self, run: Run) -> None:
        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    async with asyncio.TaskGroup() as tasks:
                        for _ in range(2 * size):
                            tasks.create_task(nothing())

    async def memory(self, run: Run) -> None:
        for size in (10, run.size):
            end = asyncio.Event()
            before = resident()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(size):
                    tasks.create_task(end.wait())
                await asyncio.sleep(0)
                run.values["bytes"] = (resident() - before) / size
                end.set()
