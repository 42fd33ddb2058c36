"""Features of workers' lives: starts, ends, children, activation, restarts, watchers, and tasks of their own."""

from contextvars import ContextVar
from typing import Any

import anyio
from anyio import CancelScope, create_task_group, sleep

from properties.beside.buses import Word, word
from properties.beside.harness import Side, feature
from properties.beside.jobs import Server, fails
from workerbus import (
    Backoff,
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    WorkerActivationArgs,
    WorkerErrorData,
    WorkerGoneData,
    WorkerParams,
    WorkerReadyData,
    WorkerRestartedData,
    WorkerRunner,
    every,
    job,
    worker_ready,
)


class Member(BaseWorker):
    """Tells a side what becomes of it; can be broken, and takes its time to end."""

    def __init__(self, name: str, side: Side, *, active: bool = True, fails_at: str = "", takes: float = 0.0) -> None:
        super().__init__(name, active=active)
        self._side = side
        self._fails_at = fails_at
        self._takes = takes
        self.broken = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        if self._fails_at == "start":
            await sleep(0.1)
            raise ValueError(f"no start of {self.name}")
        await self.start()
        async with create_task_group() as tasks:
            tasks.start_soon(self._break)
            await params.wait_for_end()
            tasks.cancel_scope.cancel()
        with CancelScope(shield=True):
            await sleep(self._takes)

    async def _break(self) -> None:
        await self.broken.wait()
        raise ValueError(f"{self.name} is broken")

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self._side.see(self.name, "activated", args)
        if self._fails_at == "activation":
            raise ValueError(f"no activation of {self.name}")

    async def on_deactivated(self) -> None:
        self._side.see(self.name, "deactivated")

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see(self.name, "ready", data.worker_name)

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see(self.name, "gone", data.worker_name, data.error)

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self._side.see(self.name, "failed", data.worker_name, data.error, data.origin, data.fatal)

    async def on_worker_restarted(self, data: WorkerRestartedData) -> None:
        self._side.see(self.name, "restarted", data.worker_name, data.error, data.restarts)

    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"by": self.name}

    @job(name="break")
    async def break_it(self, message: BusJobRequestMessage) -> None:
        self.broken.set()
        await anyio.sleep_forever()

    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(message.payload["seconds"])
        return {"by": self.name}

    async def cleanup(self) -> None:
        self._side.see(self.name, "cleaned up")
        await super().cleanup()


async def end(side: Side, worker: BaseWorker, reason: str | None = None) -> None:
    """End one worker gracefully, and wait until it has finished."""
    await side.bus.send(BusEndWorkerMessage(source=side.name("sender"), target=worker.name, reason=reason))
    await worker.wait()


@feature()
async def a_worker_that_ends(side: Side) -> Any:
    """R2, W5: its jobs are cancelled, and it is gone when it has finished; who asks is told."""
    worker = await side.hire(Member, "member", side, takes=0.3)
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(worker.name, name="sleep", payload={"seconds": 9.0}))
        await sleep(0.2)
        await end(side, worker, "that is all")
        side.see("over", worker.name in side.runner.registry)
    return side.in_order()


@feature()
async def an_end_by_message(side: Side) -> Any:
    """W6, W4: an end that is sent concerns the worker that it names."""
    worker, other = await side.hire(Member, "member", side), await side.hire(Member, "other", side)
    await end(side, worker)
    await sleep(0.1)
    side.see("over", worker.name in side.runner.registry, other.name in side.runner.registry)
    return side.in_order()


@feature()
async def children_that_end_first(side: Side) -> Any:
    """W5: the children finish before the parent, all at once."""
    parent = await side.hire(Member, "parent", side, takes=0.1)
    for number, takes in enumerate((0.5, 0.3)):
        await parent.add_workers(Member(side.name(f"child{number}"), side, takes=takes), wait=True)
        await sleep(0.05)
    await end(side, parent)
    side.see("over")
    return side.in_order()


class Occupied(Member):
    """Has a hook that takes long."""

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Word) and message.target == self.name:
            await sleep(9.0)


@feature()
async def a_parent_that_stops(side: Side) -> Any:
    """W5, W9: its children are cancelled before it, and it is told of each that it watches, whatever it does then."""
    parent = await side.hire(Occupied, "parent", side)
    names = [side.name(word) for word in ("one", "two", "three")]
    for name in names:
        await parent.add_workers(Member(name, side), wait=True, watch=name != names[2])
    await parent.watch_workers(names[0], side.name("nobody"))
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(names[1], name="sleep", payload={"seconds": 9.0}))
        await sleep(0.1)
        await side.bus.send(word(side, "busy", parent.name))
        await parent.stop()
    side.see("over")
    return side.in_order()


@feature()
async def a_child_that_breaks(side: Side) -> Any:
    """W7, W9: its parent is told of what it has failed, and that it is gone; who asks it later, too."""
    parent = await side.hire(Member, "parent", side)
    child = Member(side.name("child"), side)
    await parent.add_workers(child, wait=True)
    await fails(side, side.runner.job(child.name, name="break"))
    await child.wait()
    await sleep(0.1)
    await fails(side, side.runner.job(child.name, name="echo"))
    await sleep(0.05)
    return side.in_order(), side.errors()


@feature()
async def a_failed_start(side: Side) -> Any:
    """W9, J4: who adds it is told, who waits for it is told, and the runner."""
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(side.name("member"), name="echo"))
        try:
            await side.runner.add_workers(Member(side.name("member"), side, fails_at="start"), wait=True)
        except ValueError as exc:
            side.see("not added", str(exc))
    await sleep(0.05)
    return side.in_order(), side.errors()


@feature()
async def a_first_activation_that_fails(side: Side) -> Any:
    """W2: it is part of the start."""
    try:
        await side.runner.add_workers(Member(side.name("member"), side, fails_at="activation"), wait=True)
    except ValueError as exc:
        side.see("not added", str(exc))
    await fails(side, side.runner.job(side.name("member"), name="echo"))
    await sleep(0.05)
    return side.in_order(), side.errors()


@feature()
async def a_hand_over(side: Side) -> Any:
    """W3, W4: the one is inactive before the other is active; arguments come through; jobs are refused meanwhile."""
    first = await side.hire(Member, "first", side)
    second = await side.hire(Member, "second", side, active=False)
    await fails(side, side.runner.job(second.name, name="echo"))
    args = WorkerActivationArgs(metadata={"from": first.name})
    await first.activate_worker(second.name, args=args, deactivate_self=True)
    await sleep(0.1)
    side.see(first.active, second.active, second.activation_args)
    await fails(side, side.runner.job(first.name, name="echo"))
    await fails(side, side.runner.job(second.name, name="echo"))
    return side.in_order()


@feature()
async def a_worker_that_is_restarted(side: Side) -> Any:
    """S1, J4: jobs wait for the new one; the pauses grow."""
    name = side.name("member")
    supervision = await side.runner.supervise(
        lambda: Member(name, side), backoff=Backoff(initial=0.4, factor=2.0, jitter=0.0), within=60.0
    )
    await side.runner.registry.wait_for(name)
    for _ in range(2):
        await fails(side, side.runner.job(name, name="break"))
        await fails(side, side.runner.job(name, name="echo"))
        await sleep(0.05)
    side.see(supervision.restarts, supervision.states)
    await supervision.stop()
    await sleep(0.05)
    return side.in_order(), side.errors()


@feature()
async def all_for_one(side: Side) -> Any:
    """S1: one that fails has the others made anew; a job that one of these had is cancelled."""
    parent = await side.hire(Member, "parent", side)
    names = [side.name("one"), side.name("two")]
    made: list[str] = []

    def make(name: str) -> Member:
        made.append(name)
        return Member(name, side)

    supervision = await parent.supervise(
        lambda: make(names[0]), lambda: make(names[1]), strategy="all_for_one", backoff=Backoff(initial=0.2, jitter=0.0)
    )
    for name in names:
        await side.runner.registry.wait_for(name)
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(names[0], name="sleep", payload={"seconds": 9.0}))
        await sleep(0.1)
        await fails(side, side.runner.job(names[1], name="break"))
    await fails(side, side.runner.job(names[0], name="echo"))
    await sleep(0.05)
    side.see(made, supervision.restarts)
    return side.in_order()


@feature()
async def given_up(side: Side) -> Any:
    """S1: beyond the limit the failure goes up, and who asks is told."""
    parent = await side.hire(Member, "parent", side)
    name = side.name("member")
    supervision = await parent.supervise(
        lambda: Member(name, side), max_restarts=1, within=60.0, backoff=Backoff(initial=0.1, jitter=0.0)
    )
    await side.runner.registry.wait_for(name)
    for _ in range(3):
        await fails(side, side.runner.job(name, name="break"))
        await sleep(0.05)
    side.see(supervision.is_over, supervision.states)
    return side.in_order()


class Watcher(BaseWorker):
    """Watches workers of one side; tells it of who is ready and gone."""

    def __init__(self, name: str, side: Side) -> None:
        super().__init__(name)
        self._side = side

    @worker_ready(name="watched_left")
    async def on_left(self, data: WorkerReadyData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see("decorated", data.worker_name)

    @worker_ready(name="watched_right")
    async def on_right(self, data: WorkerReadyData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see("decorated", data.worker_name)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see("ready", data.worker_name)

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        if data.worker_name.endswith(self._side.mark):
            self._side.see("gone", data.worker_name, data.error)


@feature()
async def a_second_life_of_a_name(side: Side) -> Any:
    """W6, G1: who watches a name is told of each life of it; a job reaches the one that lives."""
    watcher = await side.hire(Watcher, "watcher", side)
    name = side.name("other")
    await watcher.watch_workers(name)
    for life in range(2):
        worker = Member(name, side)
        await side.runner.add_workers(worker, wait=True)
        await fails(side, side.runner.job(name, name="echo"))
        await sleep(0.1)
        await worker.stop()
        side.see("life", life, "over")
        await sleep(0.1)
    return side.in_order()


@feature()
async def one_job_for_two_lives(side: Side) -> Any:
    """J4: a job of a first life is cancelled with it, and nothing of it reaches the second one."""
    name = side.name("member")
    first = Member(name, side)
    await side.runner.add_workers(first, wait=True)
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(name, name="sleep", payload={"seconds": 1.0}))
        await sleep(0.2)
        await first.stop()
        second = await side.hire(Member, "member", side)
        await fails(side, side.runner.job(name, name="sleep", payload={"seconds": 0.5}))
        side.see(second.statistics())
    return side.in_order()


@feature()
async def a_job_before_its_worker(side: Side) -> Any:
    """J1, J6: it waits for the worker; its timeout counts from the beginning."""
    name = side.name("member")
    async with create_task_group() as tasks:
        tasks.start_soon(fails, side, side.runner.job(name, name="sleep", payload={"seconds": 0.3}, timeout=0.9))
        tasks.start_soon(fails, side, side.runner.job(name, name="sleep", payload={"seconds": 0.6}, timeout=0.8))
        tasks.start_soon(fails, side, side.runner.job(name, name="echo", timeout=0.2))
        await sleep(0.5)
        await side.hire(Member, "member", side)
    return side.in_order()


@feature()
async def a_watched_worker(side: Side) -> Any:
    """W2, W9: a decorated watcher is told once, whenever the worker comes."""
    await side.hire(Watcher, "watcher", side)
    await sleep(0.2)
    worker = await side.hire(Member, "watched", side)
    await sleep(0.2)
    await worker.stop()
    await sleep(0.2)
    return side.in_order()


class Busy(BaseWorker):
    """Has tasks of its own, one that comes again, and context variables."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ticks: list[float] = []

    @every(0.3)
    async def tick(self) -> None:
        self.ticks.append(anyio.current_time())

    @job(name="set")
    async def set_it(self, message: BusJobRequestMessage) -> dict[str, Any]:
        before = VARIABLE.get()
        VARIABLE.set(message.payload["value"])
        await sleep(message.payload["seconds"])
        return {"before": before, "after": VARIABLE.get()}


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


@feature(shares=True)
async def context_variables_of_handlers(side: Side) -> Any:
    """W8: what a handler sets ends with it."""
    worker = await side.hire(Busy, "busy")
    VARIABLE.set(side.mark)

    async def ask(value: str, seconds: float) -> None:
        await fails(side, side.runner.job(worker.name, name="set", payload={"value": value, "seconds": seconds}))

    async with create_task_group() as tasks:
        for value, seconds in (("a", 0.5), ("b", 0.2), ("c", 0.3)):
            tasks.start_soon(ask, value, seconds)
    await ask("d", 0.1)
    side.see(VARIABLE.get() == side.mark)
    return side.in_order()


@feature()
async def tasks_of_its_own(side: Side) -> Any:
    """W10: one is cancelled alone, the others with the worker; what comes again does so evenly."""
    worker = await side.hire(Busy, "busy")

    async def work(what: str, seconds: float) -> None:
        try:
            await sleep(seconds)
            side.see(what, "done")
        finally:
            side.see(what, "over")

    first = worker.create_task(work, "first", 9.0)
    worker.create_task(work, "second", 9.0)
    third = worker.create_task(work, "third", 0.4)

    async def wait(who: str) -> None:
        await third.wait()
        side.see(who, "goes on")

    async with create_task_group() as tasks:
        for who in ("one", "another one"):
            tasks.start_soon(wait, who)
    await sleep(0.1)
    await worker.cancel_task(first)
    await sleep(0.5)
    await end(side, worker)
    return side.in_order(), [side.at(when) for when in worker.ticks]


@feature()
async def a_runner_of_its_own(side: Side) -> Any:
    """R2, R6: its end concerns its own workers; jobs that they do get their grace, and the others are cancelled."""
    keeps = await side.hire(Server, "keeps")
    async with create_task_group() as tasks:
        async with WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False, job_grace=0.5) as runner:
            member = Member(side.name("member"), side)
            await runner.add_workers(member, wait=True)
            await side.runner.registry.wait_for(member.name)
            for seconds in (0.4, 0.9):
                ask = side.runner.job(member.name, name="sleep", payload={"seconds": seconds})
                tasks.start_soon(fails, side, ask)
            tasks.start_soon(fails, side, runner.job(keeps.name, name="sleep", payload={"seconds": 0.45}))
            await sleep(0.1)
            await runner.end("enough")
        side.see(runner.outcome, member.name in side.runner.registry)
    await fails(side, side.runner.job(keeps.name, name="sleep", payload={"seconds": 0.1}))
    return side.in_order()


@feature()
async def a_runner_that_is_cancelled(side: Side) -> Any:
    """R2, R6, J5: its jobs elsewhere are told, and unwind; those of others there go on."""
    server = await side.hire(Server, "server")
    async with create_task_group() as tasks:
        runner = WorkerRunner(name=side.name("second"), bus=side.bus, handle_sigint=False)
        tasks.start_soon(lambda: runner.run(auto_end=False))
        asker = Member(side.name("asker"), side)
        await runner.add_workers(asker)
        await side.runner.registry.wait_for(asker.name)
        payload = {"seconds": 9.0, "cleaning": 0.2}
        tasks.start_soon(fails, side, side.runner.job(server.name, name="sleep", payload={"seconds": 0.7}))
        await asker.request_job(server.name, name="sleep", payload=payload)
        await sleep(0.1)
        side.see(len(server.active_jobs))
        await runner.cancel("by hand")
    side.see(len(server.active_jobs), server.statistics())
    return side.in_order()
