"""Adding, activating, stopping and running, cut at each checkpoint: a worker is wholly there or not at all (R3, W6).

As in ``test_jobs_cut_at_every_checkpoint``, for what concerns lives rather than jobs.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from anyio import create_task_group, sleep
from anyio.abc import TaskGroup
from attrs import define, field

from support.cuts import Case, cuts_of
from support.leaks import left_in, nothing_left
from support.messages import Note, note
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusMessage,
    BusSubscriber,
    MemoryBus,
    WorkerBus,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
)
from workerbus.testing.cancellation._cutting import How

pytestmark = pytest.mark.slow


A_WHILE = 12.0
"""Seconds in which everything that was begun comes to its end."""


class Slow(MemoryBus):
    """A bus on which everything takes time."""

    async def start(self) -> None:
        await sleep(0.01)
        await super().start()
        await sleep(0.01)

    async def stop(self) -> None:
        await sleep(0.01)
        await super().stop()
        await sleep(0.01)

    async def publish(self, message: BusMessage) -> None:
        await sleep(0.01)
        await super().publish(message)
        await sleep(0.01)


class Sleepy(Helper):
    """A worker that takes its time with everything in its life."""

    cleaned = 0

    async def attach(self, **kwargs: Any) -> None:
        await sleep(0.1)
        await super().attach(**kwargs)
        await sleep(0.1)

    async def start(self) -> None:
        await sleep(0.1)
        await super().start()
        await sleep(0.1)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await sleep(0.1)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await sleep(0.1)

    async def cleanup(self) -> None:
        self.cleaned += 1
        await sleep(0.1)
        await super().cleanup()
        await sleep(0.1)


@define
class Program:
    """A runner that runs, with workers of these names; and tasks of the program's own."""

    runner: WorkerRunner
    background: TaskGroup
    added: list[BaseWorker] = field(factory=list)
    seen: list[int] = field(factory=list)

    def __getitem__(self, name: str) -> Any:
        worker = self.runner.get_worker(name)
        assert worker is not None
        return worker

    def new(self, *names: str, kind: type[BaseWorker] = Sleepy) -> list[BaseWorker]:
        workers = [kind(name) for name in names]
        self.added += workers
        return workers

    def later(self, seconds: float, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        async def wait_and_call() -> None:
            await sleep(seconds)
            await function(*args)

        self.background.start_soon(wait_and_call)


async def ends(program: Program) -> None:
    """The program goes on: it is ended when the check is over."""


SetUp = Callable[[], AbstractAsyncContextManager[Program]]


def running(
    *names: str, bus: Callable[..., WorkerBus] = MemoryBus, kind: type[BaseWorker] = Helper, **options: Any
) -> SetUp:
    """A runner that runs in a task of its own, whatever the scenario does to it; it ends, and leaves nothing (L1)."""

    @asynccontextmanager
    async def set_up() -> AsyncIterator[Program]:
        runner = WorkerRunner(bus=bus(**options), handle_sigint=False)
        failure: BaseException | None = None
        async with nothing_left(runner), runner.bus, create_task_group() as background:
            await runner.add_workers(*map(kind, names))
            async with create_task_group() as runs:
                runs.start_soon(lambda: runner.run(auto_end=False))
                for name in names:
                    await runner.registry.wait_for(name)
                try:
                    yield Program(runner, background)
                except Exception as exc:
                    failure = exc  # out of here, it would be in an exception group
                await runner.end()
            background.cancel_scope.cancel()
        if failure is not None:
            raise failure

    set_up.__name__ = kind.__name__.lower() + "_on_a_slow_bus" * (bus is Slow)
    return set_up


def unopened(
    *names: str, bus: Callable[..., WorkerBus] = MemoryBus, kind: type[BaseWorker] = Sleepy, own: bool = True
) -> SetUp:
    """A runner with workers, that the scenario is to run."""

    @asynccontextmanager
    async def set_up() -> AsyncIterator[Program]:
        runner = WorkerRunner(bus=bus(), handle_sigint=False)
        failure: BaseException | None = None
        async with nothing_left(runner), create_task_group() as background:
            program = Program(runner, background)
            await runner.add_workers(*program.new(*names, kind=kind))
            try:
                if own:
                    yield program
                else:
                    async with runner.bus:
                        yield program
            except Exception as exc:
                failure = exc
            background.cancel_scope.cancel()
        if failure is not None:
            raise failure

    set_up.__name__ = kind.__name__.lower() + "_on_a_slow_bus" * (bus is Slow)
    return set_up


CASES: dict[str, Case[Program]] = {}


def case(
    check: Callable[[Program], Awaitable[object]], *set_ups: SetUp
) -> Callable[[Callable[[Program], Coroutine[Any, Any, object]]], None]:
    def add(scenario: Callable[[Program], Coroutine[Any, Any, object]]) -> None:
        for number, set_up in enumerate(set_ups):
            CASES[f"{scenario.__name__}-{number}-{set_up.__name__}"] = Case(scenario, set_up, check)

    return add


# --- adding


async def in_or_out(it: Program) -> None:
    """Each worker that was added is wholly in, and can be stopped, or its name is free (R3, W6)."""
    await sleep(A_WHILE)
    asking = it["me"]
    parent = it.runner.get_worker("parent")
    for worker in it.added:
        hosted = it.runner.get_worker(worker.name)
        if hosted is not None:
            assert hosted is worker
            assert (await asking.job(worker.name, name="echo"))["worker"] == worker.name
            await worker.stop()
        assert not it.runner.bus.has_subscriber(worker.name)
        assert it.runner.registry.get(worker.name) is None
        again = Helper(worker.name)
        if parent is not None:
            await parent.add_workers(again)
            assert again in parent.children
        else:
            await it.runner.add_workers(again)
        assert (await asking.job(worker.name, name="echo"))["worker"] == worker.name
        await again.stop()
    assert parent is None or parent.children == []


@case(in_or_out, running("me"), running("me", bus=Slow))
async def adding_workers(it: Program) -> None:
    await it.runner.add_workers(*it.new("x", "y"))


@case(in_or_out, running("me"), running("me", bus=Slow))
async def adding_a_plain_worker_and_asking_it(it: Program) -> None:
    await it.runner.add_workers(*it.new("x", kind=Helper))
    await it["me"].job("x", name="echo")


@case(in_or_out, running("me", "parent"), running("me", "parent", bus=Slow))
async def adding_children(it: Program) -> None:
    await it["parent"].add_workers(*it.new("x", "y"))


@case(in_or_out, running("me", "parent"), running("me", "parent", bus=Slow))
async def adding_children_unwatched(it: Program) -> None:
    await it["parent"].add_workers(*it.new("x", "y", kind=Helper), watch=False)


@case(in_or_out, running("me", kind=Sleepy))
async def adding_and_stopping(it: Program) -> None:
    (worker,) = it.new("x")
    await it.runner.add_workers(worker)
    await sleep(0.25)
    await worker.stop()


class Refusing(Helper):
    """A worker that cannot be attached."""

    async def attach(self, **kwargs: Any) -> None:
        await sleep(0.1)
        raise OSError("no line")


class RefusingLate(Helper):
    """A worker that finds out that it cannot be attached when it is."""

    async def attach(self, **kwargs: Any) -> None:
        await super().attach(**kwargs)
        await sleep(0.1)
        raise OSError("no line")


@case(in_or_out, running("me"), running("me", "parent"), running("me", bus=Slow), running("me", "parent", bus=Slow))
async def adding_some_that_cannot_be_attached(it: Program) -> None:
    adds = it["parent"] if it.runner.get_worker("parent") else it.runner
    for kind in (Refusing, RefusingLate):
        good, bad, late = (
            it.new(f"good{kind.__name__}"),
            it.new(f"bad{kind.__name__}", kind=kind),
            it.new(kind.__name__),
        )
        with suppress(OSError):
            await adds.add_workers(*good, *bad, *late)


async def same_again(it: Program) -> None:
    """What was not added can be added, the very same object (R3)."""
    await sleep(A_WHILE)
    for worker in it.added:
        with suppress(RuntimeError):  # it runs once, if it has run
            await it["parent"].add_workers(worker)
            assert (await it["me"].job(worker.name, name="echo", timeout=1))["worker"] == worker.name


@case(same_again, running("me", "parent"), running("me", "parent", bus=Slow))
async def adding_children_to_be_added_again(it: Program) -> None:
    await it["parent"].add_workers(*it.new("x", kind=Helper))


# --- activating


async def one_is_active(it: Program) -> None:
    """One step: never both, and never neither (W3)."""
    assert not (it["me"].active and it["x"].active)
    await sleep(A_WHILE)
    assert [it["me"].active, it["x"].active].count(True) == 1
    await (it["me"] if it["me"].active else it["x"]).activate_worker("y", deactivate_self=True)
    await sleep(A_WHILE)
    assert [name for name in ("me", "x", "y") if it[name].active] == ["y"]


def inactive_but_me(**options: Any) -> SetUp:
    class Quiet(Helper):
        def __init__(self, name: str) -> None:
            super().__init__(name, active=name == "me")

    return running("me", "x", "y", kind=Quiet, **options)


@case(one_is_active, inactive_but_me(), inactive_but_me(bus=Slow))
async def handing_over(it: Program) -> None:
    await it["me"].activate_worker("x", deactivate_self=True)
    await sleep(0.1)


async def unchanged(it: Program) -> None:
    assert it["me"].active


@case(unchanged, running("me"))
async def handing_over_to_nobody(it: Program) -> None:
    with suppress(LookupError):
        await it["me"].activate_worker("x", deactivate_self=True)
    await sleep(0.1)


@case(in_or_out, running("me"), running("me", bus=Slow))
async def activating_one_that_is_on_its_way(it: Program) -> None:
    it.later(0, it.runner.add_workers, *it.new("x"))
    await sleep(0.05)
    await it["me"].activate_worker("x")


# --- stopping and ending


@case(in_or_out, running("me", "x", kind=Sleepy), running("me", "x", kind=Sleepy, bus=Slow))
async def stopping(it: Program) -> None:
    it.later(0, suppressing(it["me"].job), "x")
    await sleep(0.05)
    await it["x"].stop()


def suppressing(ask: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    async def call(name: str) -> None:
        with suppress(Exception):
            await ask(name, name="wait")

    return call


async def all_gone(it: Program) -> None:
    """A stop that was begun comes to its end, whoever waits for it (W6)."""
    await sleep(A_WHILE)
    for name in ("parent", "x", "y"):
        worker = it.runner.get_worker(name)
        if worker is not None:
            await worker.stop()
    await in_or_out(it)


@case(all_gone, running("me", "parent", kind=Sleepy), running("me", "parent", bus=Slow, kind=Sleepy))
async def stopping_a_family(it: Program) -> None:
    await it["parent"].add_workers(Sleepy("x"), Sleepy("y"))
    await it["parent"].stop()


@case(in_or_out, running("me"), running("me", bus=Slow))
async def a_neighbour(it: Program) -> None:
    async with WorkerRunner(bus=it.runner.bus, handle_sigint=False) as another:
        await another.add_workers(Helper("there"))
        assert (await it["me"].job("there", name="echo"))["worker"] == "there"
        assert (await another.job("me", name="echo"))["worker"] == "me"
        with suppress(TimeoutError):
            await another.job("me", name="wait", timeout=1)


async def anything(_: Program) -> None:
    """The program comes to its end."""


for how in ("end", "cancel"):

    def _shutdown(how: str) -> Callable[[Program], Coroutine[Any, Any, object]]:
        async def ending(it: Program) -> None:
            await getattr(it["me"], how)()
            await getattr(it.runner, how)()
            await it["me"].wait()

        ending.__name__ = f"asking_for_the_{how}"
        return ending

    case(anything, running("me", "x", kind=Sleepy), running("me", kind=Sleepy, bus=Slow))(_shutdown(how))


# --- running


async def is_over(it: Program) -> None:
    """Nothing is left; what began was cleaned up, once; another runner may use the bus and the names (L3)."""
    assert left_in(it.runner.registry) == {}
    assert it.runner.bus.statistics().subscribers == {}
    for worker in it.added:
        assert isinstance(worker, Sleepy)
        assert worker.cleaned <= 1
        assert worker.cleaned == 1 or worker.started_at is None
    async with WorkerRunner(bus=it.runner.bus, handle_sigint=False) as another:
        await another.add_workers(*[Helper(worker.name) for worker in it.added])
        for worker in it.added:
            assert (await another.job(worker.name, name="echo"))["worker"] == worker.name


RUNNERS = (unopened("x", "y"), unopened("x", "y", bus=Slow), unopened("x", "y", own=False))


@case(is_over, *RUNNERS)
async def a_run_that_is_ended(it: Program) -> None:
    it.later(1, it.runner.end)
    await it.runner.run(auto_end=False)


@case(is_over, *RUNNERS)
async def a_run_that_is_cancelled(it: Program) -> None:
    it.later(1, it.runner.cancel)
    await it.runner.run(auto_end=False)


@case(is_over, *RUNNERS)
async def a_run_that_ends_by_itself(it: Program) -> None:
    for worker in it.added:
        it.later(1, worker.stop)
    await it.runner.run()


@case(is_over, *RUNNERS)
async def a_body(it: Program) -> None:
    async with it.runner:
        await it.runner.job("x", name="echo")
        await sleep(0.1)
        with suppress(TimeoutError):
            await it.runner.job("y", name="wait", timeout=1)


@case(is_over, *RUNNERS)
async def a_body_that_raises(it: Program) -> None:
    with suppress(ZeroDivisionError):
        async with it.runner:
            await it.runner.registry.wait_for("x")
            await sleep(0.5)
            raise ZeroDivisionError


@case(is_over, *RUNNERS)
async def a_body_that_adds_a_family(it: Program) -> None:
    async with it.runner:
        parent, child = it.new("parent", "child")
        await parent.add_workers(child)
        await it.runner.add_workers(parent)
        await it.runner.job("child", name="echo")


class Crashing(Sleepy):
    async def run(self, params: Any) -> None:
        await self.start()
        await sleep(0.3)
        raise ZeroDivisionError


@case(is_over, unopened("x", "y", kind=Crashing), unopened("x", "y", kind=Crashing, bus=Slow))
async def a_run_in_which_all_crashes(it: Program) -> None:
    try:
        await it.runner.run()
    except* ZeroDivisionError:
        pass


# --- the bus and the registry


class Reader(BusSubscriber):
    """Reads slowly, and not on when it was told to stop."""

    def __init__(self) -> None:
        self.read: list[int] = []

    @property
    def name(self) -> str:
        return "reader"

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await sleep(1)
            self.read.append(message.n)


@asynccontextmanager
async def bounded_bus() -> AsyncIterator[tuple[WorkerBus, Reader]]:
    reader = Reader()
    async with MemoryBus(max_buffer_size=2) as bus:
        await bus.subscribe(reader)
        yield bus, reader


async def sending_to_a_full_lane(it: tuple[WorkerBus, Reader]) -> None:
    for n in range(6):
        await it[0].send(note(n))


async def in_order_and_with_room(it: tuple[WorkerBus, Reader]) -> None:
    """What was sent is read once and in order, and no place in the queue is left (B2, B9)."""
    bus, reader = it
    await bus.send(note(100))
    await sleep(A_WHILE)
    assert reader.read[-1] == 100
    assert reader.read[:-1] == list(range(len(reader.read) - 1))
    assert bus.statistics().subscribers["reader"].depth == 0
    await bus.unsubscribe(reader)


@asynccontextmanager
async def a_registry() -> AsyncIterator[WorkerRegistry]:
    registry = WorkerRegistry("runner")
    async with create_task_group() as background:

        async def come() -> None:
            await sleep(1)
            await registry.register(WorkerReadyData("a", "runner"))

        background.start_soon(come)
        yield registry


async def waiting_for_two(registry: WorkerRegistry) -> None:
    async with create_task_group() as both:
        both.start_soon(registry.wait_for, "a")
        await registry.wait_for("a")


async def nobody_waits(registry: WorkerRegistry) -> None:
    """Who waited has left nothing behind, whether or not it was served (G2)."""
    assert "_waiting" not in left_in(registry)
    await sleep(2)
    assert left_in(registry) == {"_local": {"a": registry.get("a")}}
    assert await registry.wait_for("a") is registry.get("a")


@asynccontextmanager
async def a_bus() -> AsyncIterator[WorkerBus]:
    yield Slow()


async def opening_a_bus(bus: WorkerBus) -> None:
    async with bus:
        await bus.send(note(0))


async def opens_again(bus: WorkerBus) -> None:
    """R6."""
    assert not bus.is_open
    async with bus:
        await bus.send(note(0))


for name, scenario, set_up, check in (
    ("sending_to_a_full_lane", sending_to_a_full_lane, bounded_bus, in_order_and_with_room),
    ("waiting_for_two", waiting_for_two, a_registry, nobody_waits),
    ("opening_a_bus", opening_a_bus, a_bus, opens_again),
):
    CASES[name] = Case(scenario, set_up, check)  # type: ignore[arg-type]  # each with a subject of its own


@pytest.mark.parametrize(("name", "backend", "how"), list(cuts_of(CASES)))
def test_a_life_is_whole_wherever_an_operation_is_cut(name: str, backend: str, how: How) -> None:
    report = CASES[name].cut(backend, how)
    assert report.checkpoints, "nothing was cut"
