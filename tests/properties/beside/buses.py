"""Features of messages and lanes: taps, subscribers, hooks in order, full lanes, early messages, names, strangers."""

from typing import Any

import anyio
from anyio import WouldBlock, create_task_group, move_on_after, sleep

from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from properties.beside.streams import Asker
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSubscriber,
    BusSystemMessage,
    BusWorkerErrorMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    bus_message,
    job,
)


@bus_message
class Word(BusDataMessage):
    text: str = ""


@bus_message
class Shout(BusSystemMessage):
    text: str = ""


class Listener(BaseWorker):
    """Tells a side which words it hears, and takes its time with each."""

    def __init__(self, name: str, side: Side, *, takes: float = 0.0, late: float = 0.0, active: bool = True) -> None:
        super().__init__(name, active=active)
        self._side = side
        self._takes = takes
        self._late = late

    async def run(self, params: WorkerParams) -> None:
        await sleep(self._late)
        await super().run(params)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Word | Shout) and message.source.endswith(self._side.mark):
            self._side.see(self.name, "hears", message.text)
            if message.text == "fail":
                raise ValueError("it is too loud")
            if isinstance(message, Word):
                await sleep(self._takes)
                self._side.see(self.name, "has heard", message.text)


class Plain(BusSubscriber):
    def __init__(self, side: Side, word: str, receives: Any = "all") -> None:
        self._side = side
        self._name = side.name(word)
        self.receives = receives

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Word | BusWorkerErrorMessage) and message.source.endswith(self._side.mark):
            what = message.text if isinstance(message, Word) else message.error
            self._side.see(self._name, type(message).__name__, message.source, what)


def word(side: Side, text: str, target: str | None = None) -> Word:
    return Word(text, source=side.name("me"), target=target)


@feature()
async def hooks_in_order(side: Side) -> Any:
    """B2, W8: those of data messages one at a time; a system message waits for none of them."""
    one, two = await side.hire(Listener, "one", side, takes=0.3), await side.hire(Listener, "two", side, takes=0.1)
    for text in ("a", "b", "c"):
        await side.bus.send(word(side, text, one.name))
        await side.bus.send(word(side, text))
    await sleep(0.05)
    await side.bus.send(Shout("!", source=side.name("me"), target=one.name))
    await side.bus.send(Shout("?", source=side.name("me"), target=two.name))
    await sleep(3.0)
    return side.in_order()


@feature()
async def words_before_the_start(side: Side) -> Any:
    """W2, W4: they wait for it; an inactive worker hears nothing of them."""
    late, idle = Listener(side.name("late"), side, late=0.4), Listener(side.name("idle"), side, active=False)
    side.hired += [late, idle]
    await side.runner.add_workers(late, idle)
    await sleep(0.1)
    for text in ("a", "b"):
        await side.bus.send(word(side, text))
        await side.bus.send(word(side, text, late.name))
    await sleep(1.0)
    return side.in_order()


@feature()
async def a_hook_that_fails(side: Side) -> Any:
    """W7: it is reported, counted and logged, and the next one runs."""
    worker, plain = await side.hire(Listener, "one", side), Plain(side, "plain")
    await side.bus.subscribe(plain)
    for text in ("a", "fail", "b"):
        await side.bus.send(word(side, text, worker.name))
    await sleep(0.1)
    await side.bus.unsubscribe(plain)
    return side.in_order(), side.errors(), side.lines("failed"), worker.statistics()


@feature()
async def subscribers_that_come_and_go(side: Side) -> Any:
    """B4, B5, B6: each hears what was sent while it was there, of all or of its own."""
    every_word, own = Plain(side, "every"), Plain(side, "own", "own")
    await side.bus.subscribe(every_word)
    await side.bus.send(word(side, "before"))
    await side.bus.subscribe(own)
    await side.bus.send(word(side, "for all"))
    await side.bus.send(word(side, "for one", own.name))
    await side.bus.send(word(side, "for nobody", side.name("nobody")))
    await sleep(0.1)
    counts = side.bus.statistics().subscribers
    side.see([(each.name, counts[each.name].failed) for each in (every_word, own)])
    await side.bus.unsubscribe(every_word)
    await side.bus.send(word(side, "after"))
    await sleep(0.1)
    await side.bus.unsubscribe(own)
    await side.bus.send(word(side, "too late"))
    await sleep(0.1)
    return side.in_order()


@feature()
async def a_tap(side: Side) -> Any:
    """O1: it is told of each message once, where it passes, until it is taken off."""
    server = await side.hire(Server, "server")

    def tap(message: BusMessage) -> None:
        if message.source.endswith(side.mark) or (message.target or "").endswith(side.mark):
            side.see(type(message).__name__, message.source.partition("host")[0])

    side.bus.add_tap(tap)
    await side.runner.job(server.name, name="sleep", payload={"seconds": 0.2})
    await side.bus.send(word(side, "a", side.name("nobody")))
    side.bus.remove_tap(tap)
    await side.runner.job(server.name, name="sleep", payload={"seconds": 0.2})
    return side.in_order()


@feature()
async def a_name_that_is_taken(side: Side) -> Any:
    """R3: whoever comes second is refused, and the first one goes on."""
    server = await side.hire(Server, "server")
    for runner in (side.runner, WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False)):
        try:
            if runner is side.runner:
                await runner.add_workers(Server(server.name))
            else:
                async with runner:
                    await runner.add_workers(Server(server.name))
        except ValueError as exc:
            side.see(type(exc).__name__, server.name in str(exc))
    await fails(side, side.runner.job(server.name, name="sleep", payload={"seconds": 0.2}))
    return side.in_order()


@feature(shares=True)
async def a_request_that_comes_twice(side: Side) -> Any:
    """J12: it runs once, and one that was never asked is ignored."""
    server, asker = await side.hire(Server, "server"), await side.hire(Asker, "asker")
    job_id = await asker.request_job(server.name, name="sleep", payload={"seconds": 0.3})
    request = BusJobRequestMessage(job_id, "sleep", {"seconds": 0.1}, source=asker.name, target=server.name)
    await side.bus.send(request)
    answer = BusJobResponseMessage(job_id, JobStatus.FAILED, {}, source=side.name("stranger"), target=asker.name)
    await side.bus.send(answer)
    await sleep(0.5)
    await side.bus.send(request)
    await sleep(0.5)
    return asker.heard(side, job_id)


@feature(shares=True)
async def a_cancel_that_comes_first(side: Side) -> Any:
    """J9: a handler that has not started never starts; a cancel of nothing is forgotten."""
    server, asker = await side.hire(Server, "server"), await side.hire(Asker, "asker")
    jobs = []
    for number in range(3):
        payload = {"seconds": 0.2, "cleaning": 5.0}
        jobs.append(await asker.request_job(server.name, name="sleep", payload=payload, delay=0.1 * (number + 1)))
    await asker.cancel_job_group(jobs[1], reason="at once")
    await side.bus.send(BusJobCancelMessage("unknown", source=asker.name, target=server.name))
    await sleep(0.05)
    side.see([job_id in server.active_jobs for job_id in jobs])
    await asker.cancel_job_group(jobs[0], reason="soon")
    await sleep(6.0)
    return side.in_order(), [asker.heard(side, job_id) for job_id in jobs]


class Nested(BaseWorker):
    """Asks others for jobs in its handlers."""

    @job(name="ask")
    async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
        payload = message.payload
        begun = anyio.current_time()
        try:
            return dict(await self.job(payload["whom"], name="sleep", payload=payload, timeout=payload.get("timeout")))
        except TimeoutError as exc:
            return {"timeout": str(exc), "after": round(anyio.current_time() - begun, 6)}

    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(message.payload["seconds"])
        return {"left": None if message.seconds_left is None else round(message.seconds_left, 6)}


@feature(shares=True)
async def jobs_in_jobs(side: Side) -> Any:
    """J6, W8: the smaller of two deadlines counts, also for a job of itself; an enclosing scope's, too."""
    first, second = await side.hire(Nested, "first"), await side.hire(Nested, "second")

    async def ask(whom: str, seconds: float, inner: float | None, outer: float | None) -> None:
        payload = {"whom": whom, "seconds": seconds, "timeout": inner}
        await fails(side, side.runner.job(first.name, name="ask", payload=payload, timeout=outer))

    async with create_task_group() as tasks:
        tasks.start_soon(ask, second.name, 0.2, 0.4, 1.0)
        tasks.start_soon(ask, second.name, 0.3, 0.9, 0.5)
        tasks.start_soon(ask, second.name, 2.0, 0.6, None)
        tasks.start_soon(ask, second.name, 2.0, None, 0.7)
        tasks.start_soon(ask, first.name, 0.35, None, 0.8)
    with move_on_after(0.45):
        await ask(second.name, 3.0, None, None)
    return side.in_order()


@feature()
async def a_full_lane(side: Side) -> Any:
    """B9: a sender waits for room; a hook that sends to its own full lane is refused; others are not held up."""

    bus = MemoryBus(max_buffer_size=2)

    class Own(Listener):
        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            if isinstance(message, Word) and message.text == "a":
                try:
                    for text in ("x", "y", "z"):
                        await bus.send(word(side, text, self.name))
                        side.see("sent", text)
                except WouldBlock:
                    side.see("refused")

    async with WorkerRunner(name=side.name("second"), bus=bus, handle_sigint=False) as runner:
        one, two = Own(side.name("one"), side, takes=0.2), Listener(side.name("two"), side, takes=0.1)
        await runner.add_workers(one, two, wait=True)
        await bus.send(word(side, "a", one.name))
        await sleep(0.05)
        async with create_task_group() as tasks:
            for target in (one, two):
                for text in ("b", "c", "d"):
                    tasks.start_soon(bus.send, word(side, text, target.name))
                    await sleep(0.01)
            side.see("all are on their way")
        side.see("all are sent")
        await sleep(2.0)
    return side.in_order()
