"""Features of jobs and groups: deadlines, cancels, outcomes, attempts, limits, and what travels with a request."""

from typing import Any

import anyio
from anyio import create_task_group, sleep

from properties.beside.harness import Side, feature
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobFailure,
    JobGroupError,
    Rate,
    job,
)


class Server(BaseWorker):
    """Does jobs of many kinds; what it does, and when, it tells the side that the payload names."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.at_work = 0
        self.tries: dict[str, int] = {}

    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> dict[str, Any]:
        payload = message.payload
        begun = anyio.current_time()
        try:
            await sleep(payload["seconds"])
            if "error" in payload:
                raise ValueError(payload["error"])
        finally:
            with anyio.CancelScope(shield=True):
                await sleep(payload.get("cleaning", 0))
        return {"slept": round(anyio.current_time() - begun, 6), "tag": payload.get("tag")}

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        await sleep(message.payload.get("seconds", 0))
        raise ValueError(f"no {message.payload.get('tag')}")

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        raise JobFailure(f"not {message.payload['tag']}")

    @job(name="turn", sequential=True)
    async def turn(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(message.payload["seconds"])
        return {"tag": message.payload["tag"]}

    @job(name="third time")
    async def third_time(self, message: BusJobRequestMessage) -> dict[str, Any]:
        tag = message.payload["tag"]
        self.tries[tag] = self.tries.get(tag, 0) + 1
        if message.attempt < 3:
            raise ConnectionError(f"attempt {message.attempt}")
        return {"attempt": message.attempt, "tries": self.tries.pop(tag)}

    @job(name="two", limit=2)
    async def two(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(message.payload["seconds"])
        return {"tag": message.payload["tag"]}

    @job(name="rated", rate=Rate(2))
    async def rated(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"tag": message.payload["tag"]}

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        self.create_task(self._answer, message)

    async def _answer(self, message: BusJobRequestMessage) -> None:
        await sleep(message.payload["seconds"])
        if message.job_id in self.active_jobs:
            await self.send_job_response(message.job_id, {"tag": message.payload["tag"]})


async def fails(side: Side, awaitable: Any) -> None:
    """Await what is to fail, and take down how."""
    try:
        side.see("answered", await awaitable)
    except JobGroupError as exc:
        side.see(type(exc).__name__, str(exc), exc.reason, exc.statuses, exc.responses)
    except JobError as exc:
        side.see(type(exc).__name__, str(exc).split(";")[0], exc.reason.split(";")[0])  # without names that are near


@feature(shares=True)
async def a_timeout(side: Side) -> Any:
    """J6, J8: the deadline is the job's own, and so are the texts."""
    server = await side.hire(Server, "server")
    await fails(
        side, side.runner.job(server.name, name="sleep", payload={"seconds": 5.0, "cleaning": 0.2}, timeout=0.7)
    )
    await fails(side, side.runner.job(server.name, name="sleep", payload={"seconds": 0.5}, timeout=0.7))
    return side.seen


@feature()
async def timeouts_of_many(side: Side) -> Any:
    """J6: of several jobs that run at once each has its own deadline, whichever was asked for first."""
    server = await side.hire(Server, "server")
    async with create_task_group() as tasks:
        for timeout in (1.7, 0.4, 3.2, 0.9):
            tasks.start_soon(
                fails, side, side.runner.job(server.name, name="sleep", payload={"seconds": 2.0}, timeout=timeout)
            )
    return side.seen


@feature()
async def a_group_cancelled_on_an_error(side: Side) -> Any:
    """J8: one worker's error ends the jobs of the others of its group, and of no other group."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three")]
    other = side.runner.job_group(*names, name="sleep", payload={"seconds": 1.0})
    payloads: dict[str, Any] = {
        names[0]: {"seconds": 3.0, "cleaning": 0.1},
        names[1]: {"seconds": 0.2, "error": "no two"},
        names[2]: {"seconds": 3.0},
    }
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job_group(*names, name="sleep", payloads=payloads))
        tasks.start_soon(fails, side, other)
    return side.seen


@feature()
async def a_group_that_goes_on_after_errors(side: Side) -> Any:
    """J11: statuses stand beside the answers."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two")]
    payloads: dict[str, Any] = {names[0]: {"seconds": 0.4}, names[1]: {"seconds": 0.2, "error": "no more"}}
    async with side.runner.job_group(*names, name="sleep", payloads=payloads, cancel_on_error=False) as group:
        async for _ in group:
            pass
    side.see(group.statuses, group.responses)
    return side.seen


@feature(shares=True)
async def payloads_of_a_group(side: Side) -> Any:
    """J20: each worker gets its own, and those that have none get the common one."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three", "four")]
    own = {names[0]: {"seconds": 0.3, "tag": "first"}, names[2]: {"seconds": 0.4, "tag": "third"}}
    await fails(side, side.runner.job_group(*names, name="sleep", payload={"seconds": 0.2, "tag": "all"}, payloads=own))
    return side.seen


@feature()
async def the_first_of_three(side: Side) -> Any:
    """J20: the rest has unwound when the context is left."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three")]
    seconds = dict(zip(names, (2.0, 0.5, 1.0), strict=True))
    payloads = {name: {"seconds": seconds[name], "cleaning": 0.25} for name in names}
    async with side.runner.job_group(*names, name="sleep", payloads=payloads) as group:
        side.see(await group.first())
    side.see(group.statuses)
    return side.seen


@feature()
async def a_quorum(side: Side) -> Any:
    """J20: two of three are enough."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three")]
    payloads = {name: {"seconds": seconds} for name, seconds in zip(names, (0.3, 5.0, 0.6), strict=True)}
    async with side.runner.job_group(*names, name="sleep", payloads=payloads) as group:
        side.see(await group.quorum(2))
    side.see(group.statuses)
    return side.seen


@feature()
async def answers_as_they_come(side: Side) -> Any:
    """J20: in the order in which they come."""
    names = [(await side.hire(Server, word)).name for word in ("one", "two", "three")]
    payloads = {name: {"seconds": seconds} for name, seconds in zip(names, (0.6, 0.2, 0.4), strict=True)}
    async with side.runner.job_group(*names, name="sleep", payloads=payloads) as group:
        async for answer in group.as_completed():
            side.see(answer)
    return side.seen


@feature(shares=True)
async def attempts(side: Side) -> Any:
    """J20: a job is tried again, with a pause; its deadline is for all attempts, and its delay for the first."""
    server, tag = await side.hire(Server, "server"), side.mark
    backoff = Backoff(initial=0.4, factor=2.0, jitter=0.0)
    tried = side.runner.job(
        server.name, name="third time", payload={"tag": tag}, attempts=3, retry_on=ConnectionError, backoff=backoff
    )
    await fails(side, tried)
    side.see(tried.attempts)
    failing = side.runner.job(
        server.name, name="fail", payload={"tag": "luck"}, attempts=5, retry_on=ValueError, backoff=backoff, timeout=1.0
    )
    await fails(side, failing)
    side.see(failing.attempts)
    once: dict[str, Any] = {"delay": 0.5, "attempts": 2, "retry_on": ValueError, "backoff": backoff}
    await fails(side, side.runner.job(server.name, name="fail", payload={"tag": "delay but one"}, **once))
    return side.seen


@feature()
async def a_job_at_a_time(side: Side) -> Any:
    """J13: in the order of arrival; one whose time is up while it waits never starts."""
    server = await side.hire(Server, "server")

    async def ask(tag: int, timeout: float | None = None) -> None:
        await fails(
            side, side.runner.job(server.name, name="turn", payload={"tag": tag, "seconds": 0.5}, timeout=timeout)
        )

    async with create_task_group() as tasks:
        for tag, timeout in enumerate((None, 0.7, None)):
            tasks.start_soon(ask, tag, timeout)
            await sleep(0.01)
    return side.seen


@feature()
async def two_at_a_time(side: Side) -> Any:
    """J13: a limit is a handler's own."""
    server = await side.hire(Server, "server")

    async def ask(tag: int) -> None:
        await fails(side, side.runner.job(server.name, name="two", payload={"tag": tag, "seconds": 0.5}))

    async with create_task_group() as tasks:
        for tag in range(5):
            tasks.start_soon(ask, tag)
            await sleep(0.01)
    return side.seen


@feature()
async def so_many_in_a_second(side: Side) -> Any:
    """J13: a rate is a handler's own."""
    server = await side.hire(Server, "server")

    async def ask(tag: int) -> None:
        await fails(side, side.runner.job(server.name, name="rated", payload={"tag": tag}))

    async with create_task_group() as tasks:
        for tag in range(5):
            tasks.start_soon(ask, tag)
            await sleep(0.01)
    return side.seen
