"""What workerbus keeps the loop from, keeps in memory, and does when there is nothing to do."""

from benchmarks._lag import lag_of
from benchmarks._memory import allocating
from benchmarks._passes import idle
from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects
from benchmarks.contenders.workerbus_parts import (
    Answerer,
    Busy,
    BusySubscriber,
    Subscriber,
    messages,
    running,
    send_all,
)
from workerbus import BaseWorker, BusDataMessage, BusJobRequestMessage


class Limits(Subjects):
    """Lag, memory, and rest."""

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
            busy = BusySubscriber("busy")
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
        busy, other, asker = Busy("busy"), Busy("other"), BaseWorker("asker")
        async with running(busy, other, asker) as runner:
            await asker.request_job("busy", name="turn")
            await asker.request_job("other", name="turn")
            await busy.has_started(1)
            await other.has_started(1)
            send = runner.bus.send
            with allocating() as more:
                for number in range(run.size):
                    await send(BusJobRequestMessage(f"job-{number}", "turn", source="bench", target="busy"))
                await busy.has_taken(run.size + 1)
                run.values["queued"] = more() / run.size
            with allocating() as more:
                for _ in range(run.size):
                    await asker.request_job("other", name="turn")
                await other.has_taken(run.size + 1)
                run.values["asked"] = more() / run.size

    async def idle(self, run: Run) -> None:
        await idle(run, running(*[Answerer(f"w{number}") for number in range(run.size)]))
