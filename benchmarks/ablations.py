"""Where the time goes: workerbus taken apart, piece by piece, beside what the pieces cost bare.

``python -m benchmarks.ablations [--backend asyncio|trio]`` prints microseconds, the least of several rounds that take
turns. Each line is a program of its own, so the lines of one block can be compared, and need not add up.
"""

import argparse
import gc
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio import CancelScope, Event, create_task_group
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream
from rich.console import Console
from rich.table import Table

from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSubscriber,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    job,
)

COUNT, SUBSCRIBERS, ROUNDS = 1_000, 100, 7
Piece = Callable[[], Awaitable[None]]


class Echo(BaseWorker):
    """Answers at once."""

    @job(name="echo")
    async def echo(self, _message: BusJobRequestMessage) -> dict[str, bool]:
        """Do nothing."""
        return {"ok": True}


class Counter(BusSubscriber):
    """Counts what it gets."""

    receives = "own"

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Count."""
        self.count += 1


async def new_tasks() -> None:
    """A new task and an event for each."""
    async with create_task_group() as group:
        for _ in range(COUNT):
            done = Event()

            async def answer(done: Event = done) -> None:
                done.set()

            group.start_soon(answer)
            await done.wait()


async def _ping(between: Callable[[], object]) -> None:
    """A task that is used again, woken by an event, answers by another."""
    event = type(Event())
    asked, answered = event(), event()
    open_for_more = True

    async def serve() -> None:
        nonlocal asked
        while True:
            await asked.wait()
            if not open_for_more:
                return
            asked = event()
            answered.set()

    async with create_task_group() as group:
        group.start_soon(serve)
        for _ in range(COUNT):
            between()
            answered = event()
            asked.set()
            await answered.wait()
        open_for_more = False
        asked.set()


async def reused_task() -> None:
    """The same, with a task that is used again."""
    await _ping(lambda: None)


async def with_messages() -> None:
    """And a request and an answer."""

    def make() -> None:
        BusJobRequestMessage("id", "echo", {}, None, source="a", target="b")
        BusJobResponseMessage("id", JobStatus.COMPLETED, {}, source="b", target="a")

    await _ping(make)


async def with_a_scope() -> None:
    """And a cancel scope."""
    scope = type(CancelScope())

    def make() -> None:
        with scope():
            pass

    await _ping(make)


async def with_a_deadline() -> None:
    """And a look at the deadline of all scopes around."""
    await _ping(anyio.current_effective_deadline)


async def bare_handlers(subscribers: int) -> None:
    """Deques and parked tasks, an async handler awaited for each item: no order, no errors, no ends."""
    counts = [Counter(str(number)) for number in range(subscribers)]
    queues: list[deque[BusMessage]] = [deque() for _ in counts]
    message = BusDataMessage(source="bench")

    async def drain(counter: Counter, queue: deque[BusMessage]) -> None:
        while counter.count < COUNT:
            while queue:
                await counter.on_bus_message(queue.popleft())
            await checkpoint()

    async with create_task_group() as group:
        for counter, queue in zip(counts, queues, strict=True):
            group.start_soon(drain, counter, queue)
        for number in range(COUNT):
            for queue in queues:
                queue.append(message)
            if not number % 64:
                await checkpoint()


async def bare_streams(subscribers: int) -> None:
    """The same with memory object streams, from which is taken what is there, without waiting."""
    counts = [Counter(str(number)) for number in range(subscribers)]
    streams = [anyio.create_memory_object_stream[BusMessage](math.inf) for _ in counts]
    message = BusDataMessage(source="bench")

    async def drain(counter: Counter, receive: MemoryObjectReceiveStream[BusMessage]) -> None:
        with receive:
            while counter.count < COUNT:
                try:
                    while counter.count < COUNT:
                        item = receive.receive_nowait()
                        await counter.on_bus_message(item)
                except anyio.WouldBlock:
                    pass
                await checkpoint()

    async with create_task_group() as group:
        for counter, (_, receive) in zip(counts, streams, strict=True):
            group.start_soon(drain, counter, receive)
        for number in range(COUNT):
            for send, _ in streams:
                send.send_nowait(message)
            if not number % 64:
                await checkpoint()
    for send, _ in streams:
        send.close()


async def our_broadcast(subscribers: int) -> None:
    """The bus."""
    async with MemoryBus() as bus:
        counts = [Counter(str(number)) for number in range(subscribers)]
        for counter in counts:
            await bus.subscribe(counter)
        message = BusDataMessage(source="bench")
        for _ in range(COUNT):
            await bus.send(message)
        while any(counter.count < COUNT for counter in counts):
            await checkpoint()


async def bare_scopes() -> None:
    """A worker's life, bare: a task in a group of its own, with what it holds entered and left."""
    async with create_task_group() as group:
        for _ in range(COUNT):
            group.start_soon(_life)


async def _life() -> None:
    async with create_task_group():
        with CancelScope():
            await checkpoint()
        with CancelScope(shield=True, deadline=anyio.current_time() + 2):
            await checkpoint()


async def bare_tasks() -> None:
    """Two tasks for each."""
    async with create_task_group() as group:
        for _ in range(2 * COUNT):
            group.start_soon(checkpoint)


async def our_lives() -> None:
    """Workers from their start to their end."""
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda runner: runner.end())
    await runner.add_workers(*(Echo() for _ in range(COUNT)))
    await runner.run()


async def measure(rounds: int) -> list[tuple[str, str, float]]:
    """Return block, piece, and the least time of one in microseconds."""
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(Echo("echo"))
        await runner.registry.wait_for("echo")

        async def awaited() -> None:
            for _ in range(COUNT):
                await runner.job("echo", name="echo")

        async def as_context() -> None:
            for _ in range(COUNT):
                async with runner.job("echo", name="echo"):
                    pass

        async def timed() -> None:
            for _ in range(COUNT):
                await runner.job("echo", name="echo", timeout=5)

        many = COUNT * SUBSCRIBERS
        pieces: list[tuple[str, str, Piece, int]] = [
            ("a job", "a new task and an event", new_tasks, COUNT),
            ("a job", "a task that is used again, two events", reused_task, COUNT),
            ("a job", "… and two messages", with_messages, COUNT),
            ("a job", "… or a cancel scope", with_a_scope, COUNT),
            ("a job", "… or a look at the deadlines around", with_a_deadline, COUNT),
            ("a job", "workerbus, awaited", awaited, COUNT),
            ("a job", "workerbus, as a context", as_context, COUNT),
            ("a job", "workerbus, awaited with a timeout", timed, COUNT),
            ("a delivery to one of 100", "deques and handlers, bare", lambda: bare_handlers(SUBSCRIBERS), many),
            ("a delivery to one of 100", "streams and handlers, bare", lambda: bare_streams(SUBSCRIBERS), many),
            ("a delivery to one of 100", "workerbus", lambda: our_broadcast(SUBSCRIBERS), many),
            ("a delivery to the only one", "deques and handlers, bare", lambda: bare_handlers(1), COUNT),
            ("a delivery to the only one", "streams and handlers, bare", lambda: bare_streams(1), COUNT),
            ("a delivery to the only one", "workerbus", lambda: our_broadcast(1), COUNT),
            ("a worker's life", "two tasks", bare_tasks, COUNT),
            ("a worker's life", "a task, a group in it, a scope, a shield", bare_scopes, COUNT),
            ("a worker's life", "workerbus", our_lives, COUNT),
        ]
        least = {(block, name): float("inf") for block, name, _, _ in pieces}
        for _ in range(rounds):
            for block, name, piece, number in pieces:
                gc.collect()
                start = time.perf_counter()
                await piece()
                least[block, name] = min(least[block, name], (time.perf_counter() - start) / number * 1e6)
    return [(block, name, time_) for (block, name), time_ in least.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append", help="default: both")
    options = parser.parse_args()
    backends = options.backend or ["asyncio", "trio"]
    results = [anyio.run(measure, options.rounds, backend=backend) for backend in backends]
    table = Table(title=f"µs, the least of {options.rounds} rounds")
    for column in ("", "piece", *backends):
        table.add_column(column, justify="right" if column in backends else "left")
    before = None
    for lines in zip(*results, strict=True):
        block, name, _ = lines[0]
        if before not in (None, block):
            table.add_section()
        table.add_row("" if block == before else block, name, *(f"{each[2]:.2f}" for each in lines))
        before = block
    Console().print(table)


if __name__ == "__main__":
    main()
