"""workerbus, by its public interface, as users write it."""

from typing import Any

import anyio

import workerbus
from benchmarks._late import LateJobs
from benchmarks._run import Countdown, Run, resident
from benchmarks._subject import ASKING, TIMEOUT, MissingError
from benchmarks._subjects import Subjects
from benchmarks.contenders.workerbus_growth import Growth
from benchmarks.contenders.workerbus_limits import Limits
from benchmarks.contenders.workerbus_parts import (
    Answerer,
    Counter,
    Informed,
    Subscriber,
    messages,
    running,
    send_all,
)
from workerbus import BaseWorker, BusMessage, BusSubscriber, BusSystemMessage, JobEvent, WorkerRunner

try:
    from benchmarks.contenders.workerbus_frames import Frames
except ImportError:  # one from before it had pipelines, with --beside
    Frames = Subjects  # type: ignore[assignment,misc]  # it has none of them


class Overtaken:
    """Sends a system message from the handler of its 100th data message."""

    bus: Any
    gate: anyio.Event
    handled = 0
    sent_at = 0
    countdown = Countdown(0)

    async def on_bus_message(self, message: BusMessage) -> None:
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


class OvertakenWorker(Overtaken, BaseWorker):
    """A worker that is overtaken."""


class Contender(Growth, Limits, Frames):
    """workerbus."""

    packages = ("workerbus", "anyio", "trio", "attrs")

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
                    await asker.request_job("answerer", name="report", payload=payload)
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
                await runner.bus.subscribe(Subscriber(f"s{number}", own=True))
            await self._flood(run, Subscriber, runner, f"s{run.size - 1}", 1)

    async def _overtake(self, run: Run, counter: Overtaken, runner: WorkerRunner) -> None:
        counter.gate, counter.countdown = anyio.Event(), Countdown(0)
        await send_all(runner, messages(run.size, "counter"))
        counter.gate.set()
        await counter.countdown.done.wait()
        run.values["ahead"] = counter.countdown.left

    async def overtake(self, run: Run) -> None:
        async with running() as runner:
            counter = OvertakenSubscriber()
            counter.bus = runner.bus
            await runner.bus.subscribe(counter)
            await self._overtake(run, counter, runner)

    async def overtake_worker(self, run: Run) -> None:
        counter = OvertakenWorker("counter")
        async with running(counter) as runner:
            await self._overtake(run, counter, runner)

    async def _jobs(self, run: Run, timeout: float | None) -> None:
        asker, answerer = BaseWorker("asker"), Answerer("answerer")
        async with running(asker, answerer):
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        async with asker.job("answerer", name="echo", timeout=timeout):
                            pass

    async def job(self, run: Run) -> None:
        await self._jobs(run, None)

    async def job_least(self, run: Run) -> None:
        await self._jobs(run, None)

    async def job_timeout(self, run: Run) -> None:
        await self._jobs(run, TIMEOUT)

    async def in_flight(self, run: Run) -> None:
        await self._in_flight(run, run.size, Answerer("answerer"))

    async def pool(self, run: Run) -> None:
        pool = getattr(workerbus, "WorkerPool", None)
        if pool is None:
            raise MissingError  # it is an earlier tree
        await self._in_flight(run, ASKING, pool("answerer", Answerer, size=run.size))

    async def _in_flight(self, run: Run, asking: int, answerer: BaseWorker) -> None:
        asker = BaseWorker("asker")
        gate, over = anyio.Event(), Countdown(asking)

        async def ask() -> None:
            async with asker.job("answerer", name="echo"):
                pass
            await gate.wait()
            for _ in range(run.count // asking):
                async with asker.job("answerer", name="echo"):
                    pass
            over.tick()

        async with running(asker, answerer), anyio.create_task_group() as tasks:
            for _ in range(asking):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            with run.clock():
                gate.set()
                await over.done.wait()

    async def group(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), [f"w{number}" for number in range(run.size)]
        async with running(asker, *map(Answerer, names)):
            for count in run.counts:
                with run.clock():
                    for _ in range(count):
                        async with asker.job_group(*names, name="echo"):
                            pass

    async def cancel(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), [f"w{number}" for number in range(run.size)]
        async with running(asker, *map(Answerer, names)):
            for _ in run.counts:
                Answerer.asleep, Answerer.unwound = Countdown(run.size), Countdown(run.size)
                with anyio.CancelScope() as scope:
                    async with asker.job_group(*names, name="sleep"):
                        await Answerer.asleep.done.wait()
                        run.start()
                        scope.cancel()
                        await anyio.sleep_forever()
                assert Answerer.unwound.left == 0
                run.stop()

    async def _stream(self, run: Run, name: str) -> None:
        asker, answerer = BaseWorker("asker"), Answerer("answerer")
        async with running(asker, answerer):
            for size in (run.size // 10, run.size):
                chunks, seen = [{"number": number} for number in range(size)], 0
                with run.clock():
                    async with asker.job("answerer", name=name, payload={"chunks": chunks}) as asked:
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
                    async with asker.job("answerer", name="echo"):
                        pass

    async def start_stop(self, run: Run) -> None:
        for size, count in ((10, 1), (run.size, run.count)):
            with run.clock():
                for _ in range(count):
                    runner = WorkerRunner(handle_sigint=False)
                    runner.add_event_handler("on_ready", lambda runner: runner.end())
                    await runner.add_workers(*[Answerer(f"w{number}") for number in range(size)])
                    await runner.run()

    async def memory(self, run: Run) -> None:
        async with running(*[Answerer(f"w{number}") for number in range(10)]):
            pass
        before = resident()
        async with running(*[Answerer(f"w{number}") for number in range(run.size)]):
            run.values["bytes"] = (resident() - before) / run.size
