"""Features of choosing: messages that a worker accepts or not, members that rest, pools that shrink, restarts."""

from typing import Any

from anyio import create_task_group, sleep

from properties.beside.buses import Nested, Word, word
from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from properties.beside.lives import Member, end
from properties.beside.pools import Hand, Task, ask, pool_of
from properties.beside.streams import Asker, Streamer
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
    JobStatus,
    WorkerActivationArgs,
    WorkerParams,
    WorkerReadyData,
    WorkerRestartedData,
    WorkerRunner,
    job,
)


class Choosy(Server):
    """Accepts no words that are loud, no cancels that give no reason, and no job ``two``."""

    heard: list[str]

    def accepts_bus_message(self, message: BusMessage) -> bool:
        if isinstance(message, BusJobRequestMessage):
            return message.job_name != "two"
        return not (isinstance(message, Word) and message.text.isupper())

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Word):
            self.heard = [*getattr(self, "heard", []), f"{message.source} {message.text}"]


@feature()
async def messages_that_are_refused(side: Side) -> Any:
    """N4: a request that is refused is answered FAILED; what is accepted keeps its order."""
    worker, asker = await side.hire(Choosy, "choosy"), await side.hire(Asker, "asker")
    for text in ("a", "B", "c"):
        await side.bus.send(word(side, text, worker.name))
    kept = await asker.request_job(worker.name, name="sleep", payload={"seconds": 0.3})
    refused = await asker.request_job(worker.name, name="two", payload={"seconds": 0.3, "tag": 1})
    at_once = await asker.request_job(worker.name, name="sleep", payload={"seconds": 0.3})
    await asker.cancel_job_group(at_once, reason=side.name("reason"))
    await side.bus.send(BusJobCancelMessage("unknown", source=asker.name, target=worker.name))
    await sleep(0.5)
    side.see([text for text in worker.heard if side.mark in text])
    return side.in_order(), [asker.heard(side, job_id) for job_id in (kept, refused, at_once)]


class ChoosyNested(Nested):
    """Asks, and accepts everything."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@feature()
async def answers_that_are_asked_about(side: Side) -> Any:
    """N4, J4: they come in order, and before it is told that their worker has gone."""
    asker, server = await side.hire(ChoosyNested, "asker"), await side.hire(Server, "server")
    async with create_task_group() as tasks:
        for seconds in (0.3, 0.2, 9.0):
            payload = {"whom": server.name, "seconds": seconds}
            tasks.start_soon(fails, side, side.runner.job(asker.name, name="ask", payload=payload))
        await sleep(0.4)
        await server.stop()
    side.see(asker.statistics())
    return side.in_order()


class FailsAtTheEnd(BaseWorker):
    async def run(self, params: WorkerParams) -> None:
        await super().run(params)
        raise ValueError(f"{self.name} fails at its end")


class ChoosyParent(Member):
    """Accepts everything, and tells of what it hears of its children."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusWorkerLocalErrorMessage) and message.target == self.name:
            self._side.see(self.name, "hears of", message.source, message.error)


@feature()
async def children_that_fail_at_the_end(side: Side) -> Any:
    """R2, W5: the hooks that they have caused run before their parent ends."""
    parent = await side.hire(ChoosyParent, "parent", side)
    await parent.add_workers(*[FailsAtTheEnd(side.name(word)) for word in ("one", "two")], wait=True)
    await sleep(0.1)
    await end(side, parent)
    return side.in_order(), side.errors()


@feature()
async def a_member_that_rests(side: Side) -> Any:
    """S2, W4: an inactive member gets no jobs and keeps the one that it has, and is as busy as before afterwards."""
    pool = await pool_of(side, 2)
    first, second = sorted(pool.children, key=lambda child: child.name)
    async with create_task_group() as tasks:
        for tag, seconds in enumerate((1.0, 0.9)):
            tasks.start_soon(ask, side, pool, tag, seconds)
            await sleep(0.01)
        await pool.deactivate_worker(first.name)
        await sleep(0.1)
        await pool.activate_worker(first.name, args=WorkerActivationArgs(metadata={"again": True}))
        await sleep(0.1)
        tasks.start_soon(ask, side, pool, 2, 0.2)
        await sleep(0.1)
        members = pool.statistics().members
        side.see({name: (member.ready, member.running) for name, member in members.items()}, pool.waiting)
        side.see(first.active, second.active)
    return side.in_order()


@feature()
async def a_map_of_a_pool_that_shrinks(side: Side) -> Any:
    """S2: from then on it takes no more payloads than there are places."""
    pool = await pool_of(side, 3)
    taken: list[float] = []

    def payloads() -> Any:
        for number in range(8):
            taken.append(side.now())
            yield Task(0.2 + number / 100)

    async with pool.map(Hand.work, payloads()) as answers:
        async for answer in answers:
            side.see(answer.index)
            if len(side.seen) == 2:
                await sleep(0.05)
                await pool.resize(1)
    return side.in_order(), taken


@feature()
async def equal_updates(side: Side) -> Any:
    """J7: of several that say the same each is told of."""
    streamer = await side.hire(Repeating, "streamer")
    async with side.runner.job(streamer.name, name="repeat", payload={"times": 3}) as asked:
        async for report in asked.progress():
            side.see(report.answered, report.event and report.event.data)
    return side.in_order()


class Repeating(Streamer):
    @job(name="repeat")
    async def repeat(self, message: BusJobRequestMessage) -> dict[str, Any]:
        for _ in range(message.payload["times"]):
            await sleep(0.1)
            await self.send_job_update(message.job_id, {"half": "way"})
        return {}


@feature()
async def a_runner_with_handlers(side: Side) -> Any:
    """N3, S1: each handler of an event is called in order, also where the one before it has failed."""

    async def one(_: Any, data: WorkerRestartedData) -> None:
        side.see("one", data.worker_name, data.error, data.restarts)
        raise ValueError("a handler fails")

    def two(_: Any, data: WorkerRestartedData) -> None:
        side.see("two", data.worker_name, data.error, data.restarts)

    async with WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False) as runner:
        for handler in (one, two):
            runner.add_event_handler("on_worker_restarted", handler)
        name = side.name("member")
        await runner.supervise(lambda: Member(name, side), restart="always", backoff=Backoff(initial=0.2, jitter=0.0))
        await side.runner.registry.wait_for(name)
        await fails(side, side.runner.job(name, name="break"))
        await fails(side, side.runner.job(name, name="echo"))
        await sleep(0.1)
        member = runner.get_worker(name)
        assert member is not None
        await member.stop()
        await sleep(0.6)
        side.see(runner.statistics().restarts)
    return side.in_order(), side.lines("a handler")


@feature()
async def restarts_that_are_stopped(side: Side) -> Any:
    """S1, J4: of two workers that are just being restarted both are given up; who waits for them is told."""
    names = [side.name("one"), side.name("two")]
    parent = await side.hire(Member, "parent", side)
    supervision = await parent.supervise(
        *[lambda name=name: Member(name, side) for name in names], backoff=Backoff(initial=0.5, jitter=0.0)
    )
    for name in names:
        await side.runner.registry.wait_for(name)
    async with create_task_group() as tasks:
        for name in names:
            await fails(side, side.runner.job(name, name="break"))
            await sleep(0.1)
            tasks.start_soon(fails, side, side.runner.job(name, name="echo"))
        side.see(supervision.states)
        await supervision.stop()
        side.see(supervision.states, supervision.restarts)
    return side.in_order()


@feature()
async def a_successor(side: Side) -> Any:
    """W6, W9: it has the name as soon as the departure is told of, and hears of others as the first one did."""
    name = side.name("member")
    first = Member(name, side)

    async def succeed(_: WorkerReadyData) -> None:
        side.runner.registry.unwatch(name, succeed)
        await side.hire(Member, "member", side)
        side.see("succeeds")

    await side.runner.add_workers(first, wait=True)
    await side.runner.registry.watch_departure(name, succeed)
    await sleep(0.1)
    await first.stop()
    await sleep(0.1)
    await side.hire(Member, "other", side)
    await sleep(0.1)
    await fails(side, side.runner.job(name, name="echo"))
    return side.in_order()


@feature()
async def a_loop_that_is_left(side: Side) -> Any:
    """J19: the window of a stream goes by the loop that still reads."""
    streamer = await side.hire(Streamer, "streamer")
    payload = {"tag": side.mark, "to": 12}
    read, most = 0, 0
    async with side.runner.job(streamer.name, name="by hand", payload=payload, max_buffered_events=2) as asked:
        stays, leaves = aiter(asked), aiter(asked)
        await anext(stays)
        for _ in range(2):
            await anext(leaves)
            read += 1
        del leaves
        async for event in stays:
            if event.type == "stream_data":
                await sleep(0.1)
                read += 1
                most = max(most, streamer.made[side.mark] - read)
    side.see(read, most <= 3, asked.response)
    return side.in_order()


@feature()
async def what_is_ignored(side: Side) -> Any:
    """J12: answers of strangers and requests that come twice, counted together; the runner's are its own."""
    server, asker = await side.hire(Server, "server"), await side.hire(Asker, "asker")
    job_id = await asker.request_job(server.name, name="sleep", payload={"seconds": 0.2})
    for _ in range(2):
        await side.bus.send(
            BusJobRequestMessage(job_id, "sleep", {"seconds": 0.2}, source=asker.name, target=server.name)
        )
    for target in (server, asker, asker):
        stranger = side.name("stranger")
        await side.bus.send(BusJobResponseMessage(job_id, JobStatus.FAILED, {}, source=stranger, target=target.name))
    await sleep(0.3)
    side.see(server.statistics(), asker.statistics())
    return side.in_order(), asker.heard(side, job_id)
