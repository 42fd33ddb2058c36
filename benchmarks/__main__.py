"""What a job, a group and a worker cost beside bare anyio on the same backend, interleaved in one run.

``python -m benchmarks [--rounds N] [--backend asyncio|trio]`` prints medians and ratios. The floor of a job is a task
and an event; of a group, a task group of as many tasks; of a worker's life, two tasks; of a message, one item of a
stream that is read in batches.
"""

import argparse
import time
from collections.abc import Awaitable, Callable
from statistics import median

import anyio
from rich.console import Console
from rich.table import Table

from workerbus import BaseWorker, BusDataMessage, BusJobRequestMessage, BusMessage, BusSubscriber, WorkerRunner, job

JOBS, MESSAGES, WORKERS = 500, 5_000, 200
Work = Callable[[], Awaitable[None]]


class Echo(BaseWorker):
    """Answers at once."""

    @job(name="echo")
    async def echo(self, _message: BusJobRequestMessage) -> dict[str, bool]:
        """Do nothing."""
        return {"ok": True}


class Sink(BusSubscriber):
    """Counts to the number of messages, again and again."""

    name = "sink"
    receives = "own"

    def __init__(self) -> None:
        self.count = 0
        self.done = anyio.Event()

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Count."""
        self.count += 1
        if self.count % MESSAGES == 0:
            self.done.set()


async def bare_jobs() -> None:
    """One task and one event for each job."""
    async with anyio.create_task_group() as group:
        for _ in range(JOBS):
            done = anyio.Event()

            async def answer(done: anyio.Event = done) -> None:
                done.set()

            group.start_soon(answer)
            await done.wait()


async def bare_tasks(count: int) -> None:
    """So many tasks that do nothing."""
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(anyio.lowlevel.checkpoint)


async def bare_stream() -> None:
    """So many items through a stream, taken in batches."""
    send, receive = anyio.create_memory_object_stream[int](MESSAGES)
    with send, receive:
        for number in range(MESSAGES):
            send.send_nowait(number)
        await receive.receive()
        for _ in range(MESSAGES - 1):
            receive.receive_nowait()


async def lives() -> None:
    """Workers from their start to their end."""
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda runner: runner.end())
    await runner.add_workers(*(Echo() for _ in range(WORKERS)))
    await runner.run()


async def timed(work: Work) -> float:
    """Return the seconds that it takes."""
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def measure(rounds: int) -> list[tuple[str, float, float, int]]:
    """Return subject, our median, the floor's, and how many of it there were, for each subject."""
    async with WorkerRunner(handle_sigint=False) as runner:
        names = [f"w{number}" for number in range(100)]
        await runner.add_workers(*map(Echo, names))
        for name in names:
            await runner.registry.wait_for(name)
        sink = Sink()
        await runner.bus.subscribe(sink)

        async def jobs() -> None:
            for _ in range(JOBS):
                await runner.job("w0", name="echo")

        async def group() -> None:
            await runner.job_group(*names, name="echo")

        async def flood() -> None:
            sink.done = anyio.Event()
            message = BusDataMessage(source="bench", target="sink")
            for _ in range(MESSAGES):
                await runner.bus.send(message)
            await sink.done.wait()

        subjects: list[tuple[str, Work, Work, int]] = [
            ("job, there and back", jobs, bare_jobs, JOBS),
            ("group of 100", group, lambda: bare_tasks(100), 1),
            ("message to a subscriber", flood, bare_stream, MESSAGES),
            (f"start and end of {WORKERS} workers", lives, lambda: bare_tasks(2 * WORKERS), 1),
        ]
        ours: dict[str, list[float]] = {subject: [] for subject, *_ in subjects}
        floors: dict[str, list[float]] = {subject: [] for subject, *_ in subjects}
        for _ in range(rounds):
            for subject, work, floor, _number in subjects:
                ours[subject].append(await timed(work))
                floors[subject].append(await timed(floor))
    return [(subject, median(ours[subject]), median(floors[subject]), number) for subject, _, _, number in subjects]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each subject is measured (default: 7)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append", help="default: both")
    options = parser.parse_args()
    for backend in options.backend or ["asyncio", "trio"]:
        table = Table(title=f"{backend}, medians of {options.rounds} rounds")
        for column in ("subject", "workerbus, µs", "bare anyio, µs", "ratio"):
            table.add_column(column, justify="left" if column == "subject" else "right")
        for subject, ours, floor, number in anyio.run(measure, options.rounds, backend=backend):
            scale = 1e6 / number
            table.add_row(subject, f"{ours * scale:,.1f}", f"{floor * scale:,.1f}", f"{ours / floor:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
