"""Features of pools: who does a job, priorities, members that fail, sizes, `map`, parts of a pool that is shared."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import create_task_group, move_on_after, sleep

from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from workerbus import Backoff, BaseWorker, BusJobRequestMessage, JobStatus, WorkerPool, job


@dataclass
class Task:
    seconds: float
    error: str = ""


@dataclass
class Done:
    by: str


class Hand(BaseWorker):
    """A member of a pool."""

    @job(name="work")
    async def work(self, what: Task) -> Done:
        await sleep(what.seconds)
        if what.error:
            raise ValueError(what.error)
        return Done(self.name)

    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(message.payload["seconds"])
        return {"by": self.name}

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        for number in range(message.payload["to"]):
            yield {"number": number}

    @job(name="second time")
    async def second_time(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(0.2)
        if message.attempt == 1:
            raise ValueError("not yet")
        return {"by": self.name}

    @job(name="die")
    async def die(self, message: BusJobRequestMessage) -> None:
        if message.attempt == 1:
            await self.stop()
        await sleep(0.1)


async def pool_of(side: Side, size: int, **options: Any) -> WorkerPool:
    options.setdefault("backoff", Backoff(initial=0.3, jitter=0.0))
    return await side.hire(WorkerPool, "pool", Hand, size=size, **options)


async def ask(side: Side, pool: WorkerPool, tag: int, seconds: float, **options: Any) -> None:
    """Ask a pool for work, and take down what comes of it."""
    side.see("asked", tag)
    await fails(side, side.runner.job(pool.name, Hand.work, payload=Task(seconds), **options))
    side.see("over", tag)


@feature()
async def a_pool_that_is_busy(side: Side) -> Any:
    """S2: jobs wait in order, those with a higher priority first; their time goes on."""
    pool = await pool_of(side, 1)
    async with create_task_group() as tasks:
        for tag, (priority, timeout) in enumerate(((0, None), (0, None), (2, None), (0, 0.7), (1, None))):
            tasks.start_soon(partial(ask, side, pool, tag, 0.5, priority=priority, timeout=timeout))
            await sleep(0.01)
        side.see(pool.statistics())
    return side.in_order()


@feature()
async def attempts_at_a_pool_that_is_busy(side: Side) -> Any:
    """S2, J20: each attempt has the priority of the job, and stands in line anew."""
    pool = await pool_of(side, 1)

    async def again(priority: int) -> None:
        options: dict[str, Any] = {"attempts": 2, "retry_on": ValueError, "backoff": Backoff(initial=0.1, jitter=0.0)}
        await fails(side, side.runner.job(pool.name, name="second time", priority=priority, **options))
        side.see("over", f"with priority {priority}")

    async with create_task_group() as tasks:
        for priority in (0, 1):
            tasks.start_soon(again, priority)
            await sleep(0.01)
        for tag in range(3):
            tasks.start_soon(ask, side, pool, tag, 0.5)
            await sleep(0.01)
    return side.in_order()


@feature()
async def two_members(side: Side) -> Any:
    """S2: a job goes to the least loaded."""
    pool = await pool_of(side, 2, concurrency=2)
    async with create_task_group() as tasks:
        for tag, seconds in enumerate((0.4, 0.7, 0.5, 0.3)):
            tasks.start_soon(ask, side, pool, tag, seconds)
            await sleep(0.02)
        side.see({name: member.running for name, member in pool.statistics().members.items()})
    side.see(pool.statistics())
    return side.in_order()


@feature()
async def a_pool_that_is_full(side: Side) -> Any:
    """S2: a job beyond what may wait is refused."""
    pool = await pool_of(side, 1, max_waiting=1)
    async with create_task_group() as tasks:
        for tag in range(3):
            tasks.start_soon(ask, side, pool, tag, 0.3)
            await sleep(0.01)
    return side.in_order()


@feature()
async def a_member_that_goes(side: Side) -> Any:
    """S2, J20: another one does its job again where that may be repeated; the member is made anew."""
    pool = await pool_of(side, 2)
    await fails(side, side.runner.job(pool.name, name="die"))
    await fails(
        side, side.runner.job(pool.name, name="die", attempts=2, retry_on=[JobStatus.CANCELLED, JobStatus.ERROR])
    )
    await sleep(1.0)
    members = pool.statistics().members
    side.see({name: (member.ready, member.restarts) for name, member in members.items()})
    return side.in_order()


@feature()
async def a_pool_that_grows(side: Side) -> Any:
    """S2: jobs that wait go to members that come; those that are taken away finish what they have."""
    pool = await pool_of(side, 1)
    async with create_task_group() as tasks:
        for tag in range(3):
            tasks.start_soon(ask, side, pool, tag, 0.5)
            await sleep(0.01)
        await pool.resize(3)
        side.see(pool.size, sorted(pool.statistics().members))
        await sleep(0.1)
        tasks.start_soon(pool.resize, 1)
    side.see(pool.size, len(pool.statistics().members))
    return side.in_order()


@feature()
async def a_map(side: Side) -> Any:
    """S2: in the order of the payloads, and no more at once than there are places."""
    pool = await pool_of(side, 2)
    async with pool.map(Hand.work, [Task(0.3), Task(0.1), Task(0.25)], ordered=True) as answers:
        async for answer in answers:
            side.see(answer.index, answer.payload, answer.error)
    return side.in_order()


@feature()
async def a_map_with_an_error(side: Side) -> Any:
    """S2: it is an answer where that was asked for."""
    pool = await pool_of(side, 1)
    tasks = [Task(0.2), Task(0.2, "bad"), Task(0.2)]
    async with pool.map(Hand.work, tasks, cancel_on_error=False) as answers:
        async for answer in answers:
            side.see(answer.index, str(answer.error), None if answer.error else answer.response)
    try:
        async with pool.map(Hand.work, tasks, limit=1) as answers:
            async for answer in answers:
                side.see(answer.index)
    except Exception as exc:
        side.see(type(exc).__name__, str(exc))
    return side.in_order()


@feature()
async def a_pool_that_ends(side: Side) -> Any:
    """S2, W6: its jobs are cancelled, those that wait and those that are done."""
    pool = await pool_of(side, 1)
    async with create_task_group() as tasks:
        for tag in range(2):
            tasks.start_soon(ask, side, pool, tag, 9.0)
            await sleep(0.01)
        await sleep(0.2)
        await pool.stop()
    return side.in_order()


@feature()
async def streams_of_a_pool(side: Side) -> Any:
    """S2, J19: chunks come in the pool's name, and a slow reader holds up one member."""
    pool = await pool_of(side, 2)

    async def read(tag: str, pause: float, to: int) -> None:
        read = []
        async with side.runner.job(pool.name, name="stream", payload={"to": to}, max_buffered_events=2) as asked:
            async for chunk in asked.stream():
                await sleep(pause)
                read.append(chunk["number"])
        side.see(tag, read, asked.response)

    async with create_task_group() as tasks:
        tasks.start_soon(read, "slow", 0.3, 5)
        tasks.start_soon(read, "quick", 0.1, 6)
    return side.in_order()


@feature()
async def a_cut_job_of_a_pool(side: Side) -> Any:
    """S2, J5: a cancel reaches the member, and the next job its place."""
    pool = await pool_of(side, 1)
    for tag, seconds in enumerate((0.1, 9.0)):
        with move_on_after(seconds):
            await ask(side, pool, tag, 0.4)
    side.see({name: member.answered for name, member in pool.statistics().members.items()})
    return side.in_order()


@feature()
async def a_part_of_a_pool(side: Side) -> Any:
    """S2: a part that shares its name answers in the name that it was asked by."""
    word = "pool"
    pool = WorkerPool(side.name(word), Hand, size=1, shared=side.name("part"))
    side.hired.append(pool)
    await side.runner.add_workers(pool, wait=True)
    await side.runner.registry.wait_for(pool.name)
    async with side.runner.job(side.name(word), Hand.work, payload=Task(0.2)) as asked:
        pass
    side.see(asked.response, asked.statuses)
    async with side.runner.job(pool.name, name="stream", payload={"to": 3}) as stream:
        side.see([chunk async for chunk in stream.stream()])
    side.see(stream.statuses)
    return side.in_order()


class Doer(WorkerPool):
    """A pool that does some jobs itself."""

    @job(name="own")
    async def own(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        for number in range(6):
            yield {"own": number}


@feature()
async def a_pool_that_streams_itself(side: Side) -> Any:
    """S2, J19: the stream of a pool's own handler goes on as its reader has read, as those of its members do."""
    pool = await side.hire(Doer, "pool", Hand, size=1)
    for name in ("own", "stream"):
        async with side.runner.job(pool.name, name=name, payload={"to": 5}, max_buffered_events=2) as asked:
            await sleep(0.1)
            side.see([chunk async for chunk in asked.stream()])
        side.see(asked.response)
    return side.in_order()


@feature()
async def a_pool_beside_a_worker(side: Side) -> Any:
    """J20, S2: a group of both."""
    pool, server = await pool_of(side, 1), await side.hire(Server, "server")
    names = (pool.name, server.name)
    payloads = {pool.name: {"seconds": 0.5}, server.name: {"seconds": 0.3, "cleaning": 0.1}}
    async with side.runner.job_group(*names, name="work", payloads={**payloads}, cancel_on_error=False) as group:
        async for answer in group.as_completed():
            side.see(answer.worker_name, answer.status)
    return side.in_order()
