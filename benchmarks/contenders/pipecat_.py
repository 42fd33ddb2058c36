"""Pipecat's workers, by their public interface, with logging off."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from loguru import logger
from pipecat.bus import BusDataMessage, BusMessage, BusSubscriber, BusSystemMessage
from pipecat.pipeline.job_context import JobEvent, JobGroupParams, JobParams
from pipecat.pipeline.job_decorator import job
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

from benchmarks._lag import lag_of
from benchmarks._late import LateJobs
from benchmarks._memory import allocating
from benchmarks._passes import idle
from benchmarks._run import Countdown, Run, resident
from benchmarks._subject import ASKING, TIMEOUT
from benchmarks.contenders.pipecat_frames import Frames

logger.disable("pipecat")

ECHO = JobParams(name="echo")


class Answerer(BaseWorker):
    """Has a handler for each kind of job."""

    asleep: Countdown
    unwound: Countdown

    @job(name="echo")
    async def echo(self, message: Any) -> None:
        """Answer at once."""
        await self.send_job_response(message.job_id, {"ok": True})

    @job(name="sleep")
    async def sleep(self, _message: Any) -> None:
        """Sleep until it is cancelled."""
        try:
            self.asleep.tick()
            await asyncio.get_running_loop().create_future()
        finally:
            self.unwound.tick()

    @job(name="flood")
    async def flood(self, message: Any) -> None:
        """Stream as fast as it can."""
        await self.send_job_stream_start(message.job_id)
        for chunk in message.payload["chunks"]:
            await self.send_job_stream_data(message.job_id, chunk)
        await self.send_job_stream_end(message.job_id)

    @job(name="report")
    async def report(self, message: Any) -> None:
        """Report progress as fast as it can."""
        for update in message.payload["updates"]:
            await self.send_job_update(message.job_id, update)
        await self.send_job_response(message.job_id, {})

    @job(name="pace")
    async def pace(self, message: Any) -> None:
        """Stream, and let the others run after each."""
        await self.send_job_stream_start(message.job_id)
        for chunk in message.payload["chunks"]:
            await self.send_job_stream_data(message.job_id, chunk)
            await asyncio.sleep(0)
        await self.send_job_stream_end(message.job_id)


class Subscriber(BusSubscriber):
    """A subscriber that counts.

    Args:
        name: Its name.
    """

    name = ""
    countdown = Countdown(0)

    def __init__(self, name: str) -> None:
        self.name = name

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Count."""
        self.countdown.tick()


class OwnSubscriber(Subscriber):
    """A subscriber that leaves what is not for it."""

    countdown = Countdown(0)

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Say whether it is for it."""
        return message.target is None or message.target == self.name


class Counter(BaseWorker):
    """A worker that counts."""

    countdown = Countdown(0)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Count."""
        await super().on_bus_message(message)
        self.countdown.tick()


class Informed(BaseWorker):
    """A worker that counts the progress of its jobs."""

    countdown = Countdown(0)

    async def on_job_update(self, _message: Any) -> None:
        """Count."""
        self.countdown.tick()


class BusySubscriber(BusSubscriber):
    """A subscriber whose handler waits in its first message."""

    name = "busy"

    def __init__(self) -> None:
        self.started, self.gate = asyncio.Event(), asyncio.Event()

    async def on_bus_message(self, _message: BusMessage) -> None:
        """Wait."""
        self.started.set()
        await self.gate.wait()


class Sequential(BaseWorker):
    """Has a handler for which jobs wait."""

    started: asyncio.Event
    gate: asyncio.Event

    @job(name="turn", sequential=True)
    async def turn(self, message: Any) -> None:
        """Wait, and answer."""
        self.started.set()
        await self.gate.wait()
        await self.send_job_response(message.job_id, {})


class Overtaken:
    """Sends a system message from the handler of its 100th data message."""

    bus: Any
    gate: asyncio.Event
    handled = 0
    sent_at = 0
    countdown = Countdown(0)

    async def count(self, message: BusMessage) -> None:
        """Count what is handled until the system message is."""
        if message.source != "bench":
            return
        if isinstance(message, BusSystemMessage):
            self.countdown.left = self.handled - self.sent_at
            self.countdown.done.set()
            return
        self.handled += 1
        if self.handled == 1:
            await self.gate.wait()
        if self.handled == 100:
            self.sent_at = self.handled
            await self.bus.send(BusSystemMessage(source="bench", target="counter"))


class OvertakenSubscriber(Overtaken, BusSubscriber):
    """A subscriber that is overtaken."""

    name = "counter"

    async def on_bus_message(self, message: BusMessage) -> None:
        """Count."""
        await self.count(message)


class OvertakenWorker(Overtaken, BaseWorker):
    """A worker that is overtaken."""

    bus = BaseWorker.bus

    async def on_bus_message(self, message: BusMessage) -> None:
        """Count."""
        await super().on_bus_message(message)
        await self.count(message)


@asynccontextmanager
async def running(*workers: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """Run workers; all are ready in the body."""
    runner, ready = WorkerRunner(handle_sigint=False), asyncio.Event()

    @runner.event_handler("on_ready")
    async def on_ready(_runner: WorkerRunner) -> None:
        ready.set()

    await runner.add_workers(*workers)
    run = asyncio.create_task(runner.run(auto_end=False))
    await ready.wait()
    yield runner
    await runner.end()
    await run


def messages(count: int, target: str | None) -> list[BusDataMessage]:
    """Make messages."""
    return [BusDataMessage(source="bench", target=target) for _ in range(count)]


async def send_all(runner: WorkerRunner, to_send: Iterable[BusMessage]) -> None:
    """Send as fast as it goes."""
    send = runner.bus.send
    for message in to_send:
        await send(message)


class Contender(Frames):
    """Pipecat."""

    packages = ("pipecat-ai",)

    async def _flood(self, run: Run, counter: Any, runner: WorkerRunner, target: str | None, readers: int) -> None:
        for count in run.counts:
            counter.countdown = Countdown(count * readers)
            to_send = messages(count, target)
            with run.clock():
                await send_all(runner, to_send)
                await counter.countdown.done.wait()

    async def flood(self, run: Run) -> None:
        async with running() as runner:
            counter = Subscriber("counter")
            await runner.bus.subscribe(counter)
            await self._flood(run, counter, runner, "counter", 1)

    async def flood_worker(self, run: Run) -> None:
        counter = Counter("counter")
        async with running(counter) as runner:
            await self._flood(run, counter, runner, "counter", 1)

    async def _wake(self, run: Run, counter: Any, runner: WorkerRunner) -> None:
        for count in run.counts:
            to_send = messages(count, "counter")
            with run.clock():
                for message in to_send:
                    counter.countdown = Countdown(1)
                    await runner.bus.send(message)
                    await counter.countdown.done.wait()

    async def wake(self, run: Run) -> None:
        async with running() as runner:
            counter = Subscriber("counter")
            await runner.bus.subscribe(counter)
            await self._wake(run, counter, runner)

    async def wake_worker(self, run: Run) -> None:
        counter = Counter("counter")
        async with running(counter) as runner:
            await self._wake(run, counter, runner)

    async def hooks(self, run: Run) -> None:
        asker, answerer = Informed("asker"), Answerer("answerer")
        async with running(asker, answerer):
            for count in run.counts:
                asker.countdown = Countdown(count)
                payload = {"updates": [{"number": number} for number in range(count)]}
                with run.clock():
                    await asker.request_job("answerer", params=JobParams(name="report", payload=payload))
                    await asker.countdown.done.wait()

    async def broadcast(self, run: Run) -> None:
        async with running() as runner:
            for number in range(run.size):
                await runner.bus.subscribe(Subscriber(f"s{number}"))
            await self._flood(run, Subscriber, runner, None, run.size)

    async def broadcast_wake(self, run: Run) -> None:
        async with running() as runner:
            for number in range(run.size):
                await runner.bus.subscribe(Subscriber(f"s{number}"))
            for count in run.counts:
                to_send = messages(count, None)
                with run.clock():
                    for message in to_send:
                        Subscriber.countdown = Countdown(run.size)
                        await runner.bus.send(message)
                        await Subscriber.countdown.done.wait()

    async def targeted(self, run: Run) -> None:
        async with running() as runner:
            for number in range(run.size):
                await runner.bus.subscribe(OwnSubscriber(f"s{number}"))
            await self._flood(run, OwnSubscriber, runner, f"s{run.size - 1}", 1)

    async def _overtake(self, run: Run, counter: Overtaken, runner: WorkerRunner) -> None:
        await send_all(runner, messages(run.size, "counter"))
        counter.gate.set()
        await counter.countdown.done.wait()
        run.values["ahead"] = counter.countdown.left

    async def overtake(self, run: Run) -> None:
        async with running() as runner:
            counter = OvertakenSubscriber()
            counter.bus, counter.gate, counter.countdown = runner.bus, asyncio.Event(), Countdown(0)
            await runner.bus.subscribe(counter)
            await self._overtake(run, counter, runner)

    async def overtake_worker(self, run: Run) -> None:
        counter = OvertakenWorker("counter")
        counter.gate, counter.countdown = asyncio.Event(), Countdown(0)
        async with running(counter) as runner:
            await self._overtake(run, counter, runner)

    async def lag(self, run: Run) -> None:
        async with running() as runner:
            for number in range(run.size):
                await runner.bus.subscribe(Subscriber(f"s{number}"))
            for count in run.counts:
                Subscriber.countdown = Countdown(count * run.size)
                to_send = messages(count, None)
                async with lag_of(run):
                    await send_all(runner, to_send)
                    await Subscriber.countdown.done.wait()

    async def queued(self, run: Run) -> None:
        made: list[BusDataMessage | None] = [None] * run.size
        with allocating() as more:
            for number in range(run.size):
                made[number] = BusDataMessage(source="bench", target="busy")
            run.values["message"] = more() / run.size
        made.clear()
        async with running() as runner:
            busy = BusySubscriber()
            await runner.bus.subscribe(busy)
            await send_all(runner, messages(1, "busy"))
            await busy.started.wait()
            send = runner.bus.send
            with allocating() as more:
                for _ in range(run.size):
                    await send(BusDataMessage(source="bench", target="busy"))
                run.values["queued"] = more() / run.size
            busy.gate.set()

    async def queued_job(self, run: Run) -> None:
        busy, asker = Sequential("busy"), BaseWorker("asker")
        busy.started, busy.gate = asyncio.Event(), asyncio.Event()
        async with running(busy, asker):
            await asker.request_job("busy", params=JobParams(name="turn"))
            await busy.started.wait()
            with allocating() as more:
                for _ in range(run.size):
                    await asker.request_job("busy", params=JobParams(name="turn"))
                await anyio.wait_all_tasks_blocked()
                run.values["asked"] = more() / run.size

    async def idle(self, run: Run) -> None:
        await idle(run, running(*[Answerer(f"w{number}") for number in range(run.size)]))

    async def _jobs(self, run: Run, params: JobParams) -> None:
        asker, answerer = BaseWorker("asker"), Answerer("answerer")
        async with running(asker, answerer):
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        async with asker.job("answerer", params=params):
                            pass

    async def job(self, run: Run) -> None:
        await self._jobs(run, ECHO)

    async def job_timeout(self, run: Run) -> None:
        await self._jobs(run, JobParams(name="echo", timeout=TIMEOUT))

    async def in_flight(self, run: Run) -> None:
        await self._in_flight(run, run.size, 1)

    async def pool(self, run: Run) -> None:
        await self._in_flight(run, ASKING, run.size)

    async def _in_flight(self, run: Run, asking: int, asked_in_turn: int) -> None:
        asker, names = BaseWorker("asker"), [f"w{number}" for number in range(asked_in_turn)]
        gate, asked, over = asyncio.Event(), Countdown(asking), Countdown(asking)
        turns = itertools.cycle(names)

        async def ask() -> None:
            async with asker.job(next(turns), params=ECHO):
                pass
            asked.tick()
            await gate.wait()
            for _ in range(run.count // asking):
                async with asker.job(next(turns), params=ECHO):
                    pass
            over.tick()

        async with running(asker, *map(Answerer, names)), asyncio.TaskGroup() as tasks:
            for _ in range(asking):
                tasks.create_task(ask())
            await asked.done.wait()
            with run.clock():
                gate.set()
                await over.done.wait()

    async def group(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), [f"w{number}" for number in range(run.size)]
        params = JobGroupParams(name="echo")
        async with running(asker, *map(Answerer, names)):
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        async with asker.job_group(*names, params=params):
                            pass

    async def cancel(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), [f"w{number}" for number in range(run.size)]
        params = JobGroupParams(name="sleep")
        async with running(asker, *map(Answerer, names)):
            for _ in run.counts:
                Answerer.asleep, Answerer.unwound = Countdown(run.size), Countdown(run.size)
                group = await asker.create_job_group_and_request_job(names, params=params)
                await Answerer.asleep.done.wait()
                with run.clock():
                    await asker.cancel_job_group(group.job_id)
                    await Answerer.unwound.done.wait()

    async def _stream(self, run: Run, name: str) -> None:
        asker, answerer = BaseWorker("asker"), Answerer("answerer")
        async with running(asker, answerer):
            for size in (run.size // 10, run.size):
                chunks, seen = [{"number": number} for number in range(size)], 0
                params = JobParams(name=name, payload={"chunks": chunks})
                with run.clock():
                    async with asker.job("answerer", params=params) as asked:
                        async for event in asked:
                            seen += event.type == JobEvent.STREAM_DATA
                assert seen == size

    async def stream(self, run: Run) -> None:
        await self._stream(run, "flood")

    async def stream_paced(self, run: Run) -> None:
        await self._stream(run, "pace")

    async def late(self, run: Run) -> None:
        asker, answerer, jobs = BaseWorker("asker"), Answerer("answerer"), LateJobs(run)
        async with running(asker, answerer):
            for hundred in jobs:
                for _ in hundred:
                    async with asker.job("answerer", params=ECHO):
                        pass

    async def start_stop(self, run: Run) -> None:
        async def on_ready(runner: WorkerRunner) -> None:
            await runner.end()

        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    runner = WorkerRunner(handle_sigint=False)
                    runner.add_event_handler("on_ready", on_ready)
                    await runner.add_workers(*[Answerer(f"w{number}") for number in range(size)])
                    await runner.run()

    async def memory(self, run: Run) -> None:
        async with running(*[Answerer(f"w{number}") for number in range(10)]):
            pass
        before = resident()
        async with running(*[Answerer(f"w{number}") for number in range(run.size)]):
            run.values["bytes"] = (resident() - before) / run.size
