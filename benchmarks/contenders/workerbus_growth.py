"""What can be many in workerbus."""

import random
from collections.abc import Sequence

import anyio

from benchmarks._run import Countdown, Run
from benchmarks._subjects import Subjects
from benchmarks.contenders.workerbus_parts import (
    Answerer,
    Busy,
    BusySubscriber,
    Subscriber,
    answered,
    messages,
    running,
    send_all,
    settle,
)
from workerbus import BaseWorker, JobEvent, MemoryBus, WorkerReadyData, WorkerRegistry, WorkerRunner

BROADCASTS = 64


def names_of(size: int) -> list[str]:
    """Return names of workers."""
    return [f"w{number}" for number in range(size)]


async def ask_all(asker: BaseWorker, size: int, name: str, payload: dict[str, object] | None = None) -> list[str]:
    """Ask the busy worker for as many jobs, without waiting for answers; return their ids."""
    return [await asker.request_job("busy", name=name, payload=payload) for _ in range(size)]


class Workers(Subjects):
    """Workers, runners and subscribers."""

    async def many_messages(self, run: Run) -> None:
        async with running() as runner:
            for size in run.sizes:
                busy, to_send = BusySubscriber("busy"), messages(size, "busy")
                busy.countdown = Countdown(size)
                await runner.bus.subscribe(busy)
                await send_all(runner, messages(1, "busy"))
                await busy.started.wait()
                with run.clock():
                    await send_all(runner, to_send)
                    busy.gate.set()
                    await busy.countdown.done.wait()
                await runner.bus.unsubscribe(busy)

    async def many_subscribers(self, run: Run) -> None:
        async with running() as runner:
            there = 0
            for size in run.sizes:
                for number in range(there, size):
                    await runner.bus.subscribe(Subscriber(f"s{number}"))
                there, to_send = size, messages(BROADCASTS, None)
                Subscriber.countdown = Countdown(BROADCASTS * size)
                with run.clock():
                    await send_all(runner, to_send)
                    await Subscriber.countdown.done.wait()

    async def many_names(self, run: Run) -> None:
        for size in run.sizes:
            registry = WorkerRegistry("r0")
            workers = [WorkerReadyData(f"w{number}", f"r{number % 10}") for number in range(size)]
            with run.clock():
                for each in workers:
                    await registry.register(each)
                for each in workers:
                    await registry.wait_for(each.worker_name)
                for each in workers:
                    await registry.unregister(each.worker_name, each.runner)

    async def many_starts(self, run: Run) -> None:
        for size in run.sizes:
            with run.clock():
                runner = WorkerRunner(handle_sigint=False)
                runner.add_event_handler("on_ready", lambda runner: runner.end())
                await runner.add_workers(*map(Answerer, names_of(size)))
                await runner.run()

    async def many_cancelled(self, run: Run) -> None:
        for size in run.sizes:
            runner, names = WorkerRunner(handle_sigint=False), names_of(size)
            Answerer.asleep, Answerer.unwound = Countdown(size), Countdown(size)
            await runner.add_workers(*map(Answerer, names))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                for name in names:
                    await runner.registry.wait_for(name)
                asker = BaseWorker("asker")
                await runner.add_workers(asker)
                await runner.registry.wait_for("asker")
                await asker.request_job_group(*names, name="sleep")
                await Answerer.asleep.done.wait()
                run.start()
                await runner.cancel()
            run.stop()

    async def _children(self, run: Run, *, stop: bool) -> None:
        for size in run.sizes:
            parent, names = BaseWorker("parent"), names_of(size)
            children = [Answerer(name) for name in names]
            async with running(parent) as runner:
                if not stop:
                    run.start()
                await parent.add_workers(*children)
                for name in names:
                    await runner.registry.wait_for(name)
                if not stop:
                    run.stop()
                    continue
                await settle()
                with run.clock():
                    await parent.stop()

    async def many_children_start(self, run: Run) -> None:
        await self._children(run, stop=False)

    async def many_children_stop(self, run: Run) -> None:
        await self._children(run, stop=True)

    async def many_departures(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            others = [Answerer(name) for name in names_of(size)]
            async with running(busy, asker, *others):
                await ask_all(asker, size, "wait")
                await busy.has_started(size)
                with run.clock():
                    for other in others:
                        await other.stop()
                busy.gate.set()

    async def many_runners(self, run: Run) -> None:
        for size in run.sizes:
            names = names_of(size)
            run.start()
            async with MemoryBus() as bus:
                runners = [WorkerRunner(name=f"r{number}", bus=bus, handle_sigint=False) for number in range(size)]
                for runner, name in zip(runners, names, strict=True):
                    await runner.add_workers(Answerer(name))
                async with anyio.create_task_group() as tasks:
                    for runner in runners:
                        tasks.start_soon(runner.run)
                    for runner in runners:
                        for name in names:
                            await runner.registry.wait_for(name)
                    for runner in runners:
                        await runner.end()
            run.stop()


class Growth(Workers):
    """All that can be many, jobs and groups among them."""

    async def many_in_flight(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            gate, over = anyio.Event(), Countdown(size)

            async def ask(asker: BaseWorker = asker, gate: anyio.Event = gate, over: Countdown = over) -> None:
                await gate.wait()
                async with asker.job("busy", name="wait"):
                    pass
                over.tick()

            async with running(busy, asker), anyio.create_task_group() as tasks:
                for _ in range(size):
                    tasks.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                with run.clock():
                    gate.set()
                    await busy.has_started(size)
                    busy.gate.set()
                    await over.done.wait()

    async def many_members(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), names_of(run.size)
        async with running(asker, *map(Answerer, names)):
            for size in run.sizes:
                with run.clock():
                    async with asker.job_group(*names[:size], name="echo"):
                        pass

    async def many_members_cancelled(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), names_of(run.size)
        async with running(asker, *map(Answerer, names)):
            for size in run.sizes:
                Answerer.asleep, Answerer.unwound = Countdown(size), Countdown(size)
                with anyio.CancelScope() as scope:
                    async with asker.job_group(*names[:size], name="sleep"):
                        await Answerer.asleep.done.wait()
                        run.start()
                        scope.cancel()
                        await anyio.sleep_forever()
                run.stop()
                assert Answerer.unwound.left == 0

    async def many_members_no_context(self, run: Run) -> None:
        asker, names = BaseWorker("asker"), names_of(run.size)
        async with running(asker, *map(Answerer, names)):
            for size in run.sizes:
                Answerer.asleep, Answerer.unwound = Countdown(size), Countdown(size)
                job_id = await asker.request_job_group(*names[:size], name="sleep")
                await Answerer.asleep.done.wait()
                with run.clock():
                    await asker.cancel_job_group(job_id)
                    await Answerer.unwound.done.wait()
                    await answered(asker, 0)

    async def many_waiting(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            async with running(busy, asker):
                await ask_all(asker, 1, "turn")
                await busy.has_started(1)
                with run.clock():
                    await ask_all(asker, size, "turn")
                    await busy.has_taken(size + 1)
                busy.gate.set()

    async def _waiting(self, size: int, busy: Busy, asker: BaseWorker) -> Sequence[str]:
        await ask_all(asker, 1, "turn")
        await busy.has_started(1)
        waiting = await ask_all(asker, size, "turn")
        await busy.has_taken(size + 1)
        return waiting

    async def many_waiting_cancelled(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            async with running(busy, asker):
                waiting = list(await self._waiting(size, busy, asker))
                random.Random(1).shuffle(waiting)  # noqa: S311 - an order, not a secret
                with run.clock():
                    for job_id in waiting:
                        await asker.cancel_job_group(job_id)
                    await answered(asker, 1)
                    await settle()
                busy.gate.set()

    async def many_in_turn(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            async with running(busy, asker):
                await self._waiting(size, busy, asker)
                with run.clock():
                    busy.gate.set()
                    await answered(asker, 0)

    async def many_deferred(self, run: Run) -> None:
        for size in run.sizes:
            busy, asker = Busy("busy"), BaseWorker("asker")
            async with running(busy, asker):
                with run.clock():
                    await ask_all(asker, size, "later")
                    await busy.has_started(size)
                    await settle()
                    for job_id in busy.open_jobs:
                        await busy.send_job_response(job_id, {"ok": True})
                    await answered(asker, 0)

    async def many_results(self, run: Run) -> None:
        busy, asker = Busy("busy"), BaseWorker("asker")
        async with running(busy, asker):
            for size in run.sizes:
                chunks, seen = [{"number": number} for number in range(size)], 0
                with run.clock():
                    async with asker.job("busy", name="stream", payload={"chunks": chunks}) as asked:
                        await busy.has_streamed_what_it_may()
                        async for event in asked:
                            seen += event.type == JobEvent.STREAM_DATA
                assert seen == size
