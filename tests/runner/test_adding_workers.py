"""R3: who may be added, when, and under which name."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, sleep
from anyio.lowlevel import checkpoint

from support.broken_buses import Broken, Picky
from support.endings import Told
from support.leaks import nothing_left
from support.runners import quiet_runner, runner_on
from support.shared_buses import pair
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusAddWorkerMessage,
    BusSubscriber,
    MemoryBus,
    NameTakenError,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
)
from workerbus.testing import settle


async def test_a_worker_added_while_another_is_starting_is_started_once() -> None:
    """R3."""

    class Counting(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.calls.append("activated")

    class Adding(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await runner.add_workers(added)

    added, runner = Counting("added"), quiet_runner()
    await runner.add_workers(Adding("adding"))
    async with runner:
        await runner.registry.wait_for("added")
        await anyio.wait_all_tasks_blocked()
    assert added.calls == ["activated"]


async def test_adding_the_same_worker_again_is_a_no_op() -> None:
    """R3: before the run, during it, and twice in one call."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    worker, runner = Counting("worker"), quiet_runner()
    await runner.add_workers(worker, worker)
    await runner.add_workers(worker)
    async with runner:
        await runner.add_workers(worker)
        await runner.registry.wait_for("worker")
        await runner.add_workers(worker)
        await anyio.wait_all_tasks_blocked()
    assert worker.calls == ["run"]


class SlowToSubscribe(MemoryBus):
    """A bus as a transport may be: subscribing takes a moment."""

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        await sleep(0.01)
        await super().subscribe(subscriber)


async def test_who_waits_for_the_start_of_a_worker_that_was_added_before_waits_for_it_as_well() -> None:
    """R3, W9: though it is not added again."""

    class Slow(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await sleep(3)

    async with quiet_runner() as runner:
        await runner.add_workers(slow := Slow("slow"))
        await sleep(1)
        await runner.add_workers(BaseWorker("other"), slow, wait=True)
        assert anyio.current_time() == 3
        await runner.add_workers(slow, wait=True)


async def test_one_of_several_that_are_being_added_is_not_added_by_anybody_else_meanwhile() -> None:
    """R3: though its turn has not come."""

    class Slow(Helper):
        async def attach(self, **options: Any) -> None:
            await sleep(1)
            await super().attach(**options)

    async with running() as runner, anyio.create_task_group() as group:
        other = Helper("other")
        group.start_soon(runner.add_workers, Slow("slow"), other)
        await settle()
        await runner.add_workers(other)
        with pytest.raises(NameTakenError):
            await runner.add_workers(Helper("other"))
        assert await runner.job("other", name="echo", timeout=5) == {"worker": "other", "payload": {}}


@pytest.mark.parametrize("bus", [MemoryBus, SlowToSubscribe])
async def test_a_worker_that_two_tasks_add_at_once_is_started_once(bus: type[MemoryBus]) -> None:
    """R3: on any bus."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    first, worker, runner = Counting("first"), Counting("worker"), quiet_runner(bus=bus())
    async with nothing_left(runner), runner:
        async with anyio.create_task_group() as group:
            group.start_soon(runner.add_workers, first, worker)
            for _ in range(3):
                group.start_soon(runner.add_workers, worker)
        for name in ("first", "worker"):
            await runner.registry.wait_for(name)
            assert await runner.job(name, name="echo")
    assert first.calls.count("run") == worker.calls.count("run") == 1


@pytest.mark.parametrize("bus", [MemoryBus, SlowToSubscribe])
async def test_of_two_workers_of_one_name_that_are_added_at_once_one_is_refused(bus: type[MemoryBus]) -> None:
    """R3."""
    refused: list[ValueError] = []

    async def add(worker: BaseWorker) -> None:
        try:
            await runner.add_workers(worker)
        except ValueError as exc:
            refused.append(exc)

    runner = quiet_runner(bus=bus())
    async with nothing_left(runner), runner:
        async with anyio.create_task_group() as group:
            group.start_soon(add, Helper("name"))
            group.start_soon(add, Helper("name"))
        assert len(refused) == 1
        assert await runner.job("name", name="echo")


@pytest.mark.parametrize("when", ["before", "during"])
async def test_another_worker_under_a_taken_name_is_a_value_error(when: str) -> None:
    """R3."""
    runner, helper = quiet_runner(), Helper("taken")
    await runner.add_workers(helper)
    if when == "before":
        with pytest.raises(ValueError, match="taken"):
            await runner.add_workers(Helper("taken"))
    async with runner:
        await runner.registry.wait_for("taken")
        if when == "during":
            with pytest.raises(ValueError, match=f"the name 'taken' is taken on runner {runner.name!r}"):
                await runner.add_workers(Helper("taken"))
        assert runner.get_worker("taken") is helper
        assert await runner.job("taken", name="echo")


@pytest.mark.parametrize("name", ["child", "runner", "plain"])
async def test_no_worker_takes_the_name_of_another_subscriber(name: str) -> None:
    """R3, B5: a child's, the runner's own, or a plain subscriber's."""
    parent = Helper("parent")
    await parent.add_workers(Helper("child"))
    async with running(parent, name="runner") as runner:
        await runner.bus.subscribe(Plain("plain"))
        await runner.registry.wait_for("child")
        with pytest.raises(ValueError, match=name):
            await runner.add_workers(Helper(name))
        with pytest.raises(ValueError, match=name):
            await parent.add_workers(Helper(name))


async def test_one_name_twice_in_a_call_adds_nobody() -> None:
    """R3."""
    runner = quiet_runner()
    with pytest.raises(NameTakenError, match="is taken on this call") as caught:
        await runner.add_workers(Helper("other"), Helper("name"), Helper("name"))
    assert caught.value.name == "name"
    assert runner.get_worker("other") is None
    assert runner.bus.statistics().subscribers == {}


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_no_worker_is_added_after_the_end(ask: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """R3: neither while the runner ends nor when it has ended, to it or to a worker of it."""
    told = Told("told")
    async with running(told) as runner:
        await told.tell("hold")
        await told.held.wait()
        with CancelScope(shield=True):
            await ask(runner)
            with pytest.raises(RuntimeError):
                await runner.add_workers(Helper("late"))
            with pytest.raises(RuntimeError):
                await told.add_workers(Helper("late child"))
            told.let_go.set()
    with pytest.raises(RuntimeError):
        await runner.add_workers(Helper("later"))
    assert runner.bus.statistics().subscribers == {}


async def test_no_worker_is_added_when_the_run_has_ended_by_itself() -> None:
    """R3."""
    runner = quiet_runner()
    await runner.run()
    with pytest.raises(RuntimeError):
        await runner.add_workers(Helper("late"))


async def test_a_worker_that_has_run_cannot_run_again() -> None:
    """R3, W6: at this runner or another."""
    helper = Helper("helper")
    async with running(helper) as runner:
        await helper.stop()
        with pytest.raises(RuntimeError, match=r"^worker 'helper' is not running any more"):
            await runner.add_workers(helper)
    with pytest.raises(RuntimeError, match=r"^worker 'helper' is not running any more"):
        await quiet_runner().add_workers(helper)


async def test_a_worker_of_one_runner_is_refused_by_another() -> None:
    """R3, W1."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with pytest.raises(RuntimeError):
            await quiet_runner().add_workers(helper)
        assert await runner.job("helper", name="echo")


async def test_the_name_of_a_finished_worker_can_be_used_again() -> None:
    """R3, W6."""
    async with running(Helper("name")) as runner:
        for _ in range(3):
            worker = runner.get_worker("name")
            assert worker is not None
            await worker.stop()
            await runner.add_workers(Helper("name"))
            assert await runner.job("name", name="echo")


@pytest.mark.parametrize("running", [False, True])
async def test_of_workers_that_are_added_together_those_behind_one_that_fails_are_free(running: bool) -> None:
    """R3: they were not added, and may be."""
    bus = Picky("first")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    first, second = Helper("first"), Helper("second")
    async with bus:
        if running:
            await runner.__aenter__()
        with pytest.raises(OSError, match="no room"):
            await runner.add_workers(first, second)
        assert runner.known_workers() == []
        bus.refused.clear()
        await runner.add_workers(second, first)
        if not running:
            await runner.__aenter__()
        assert await runner.job_group("first", "second", name="echo")
        await runner.__aexit__(None, None, None)


@pytest.mark.parametrize("running", [False, True])
async def test_of_workers_that_are_added_together_those_before_one_that_fails_are_there(running: bool) -> None:
    """R3: they are run with the others."""
    bus = Picky("second")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    first = Helper("first")
    async with bus:
        if running:
            await runner.__aenter__()
        with pytest.raises(OSError, match="no room"):
            await runner.add_workers(first, Helper("second"))
        assert runner.get_worker("first") is first
        await runner.add_workers(first)
        if not running:
            await runner.__aenter__()
        assert await runner.job("first", name="echo")
        await runner.__aexit__(None, None, None)


async def test_a_worker_that_is_there_is_added_again_without_effect_during_an_end_too() -> None:
    """R3"""
    helper = Helper("helper")
    async with running(helper) as runner:
        await runner.end()
        await runner.add_workers(helper)
        with pytest.raises(RuntimeError, match="comes too late"):
            await runner.add_workers(Helper("another"))


async def test_where_one_name_is_taken_by_a_subscriber_none_of_the_workers_is_added() -> None:
    """R3"""
    async with MemoryBus() as bus:
        await bus.subscribe(Plain("taken"))
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        with pytest.raises(NameTakenError):
            await runner.add_workers(Helper("free"), Helper("taken"))
        assert runner.known_workers() == []
        assert not bus.has_subscriber("free")


async def test_a_worker_that_is_sent_to_all_runners_is_added_by_one_and_refused_by_none() -> None:
    """R6"""
    told: list[Any] = []
    worker = Helper("worker")
    async with MemoryBus() as bus:
        runners = [WorkerRunner(bus=bus, name=name, handle_sigint=False) for name in ("A", "B")]
        async with runners[0], runners[1]:
            for runner in runners:
                runner.add_event_handler("on_error", lambda _, data: told.append(data))
            await bus.send(BusAddWorkerMessage(worker, source="me"))
            assert await runners[0].job("worker", name="echo")
            assert [runner.get_worker("worker") for runner in runners].count(worker) == 1
    assert told == []


async def test_a_run_ends_when_the_last_root_worker_could_not_be_attached() -> None:
    """R1: it was sent over the bus, and the others have finished meanwhile."""
    asked, may_fail = anyio.Event(), anyio.Event()

    class Late(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "late":
                asked.set()
                await may_fail.wait()
                raise OSError("no room")
            await super().subscribe(subscriber)

    first = Helper("first")
    told: list[WorkerErrorData] = []
    runner = WorkerRunner(bus=Late(), handle_sigint=False)
    runner.add_event_handler("on_error", lambda _, data: told.append(data))
    await runner.add_workers(first)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("first")
        await runner.bus.send(BusAddWorkerMessage(Helper("late"), source="me"))
        await asked.wait()
        await first.stop()
        await settle()
        may_fail.set()
    assert told == [WorkerErrorData("late", "OSError: no room")]


async def test_a_run_that_cannot_begin_lets_go_of_all_its_workers() -> None:
    """L1, R6"""
    async with MemoryBus() as bus:
        bus.opened_by = "somebody"
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        workers = [Helper(f"worker {number}") for number in range(3)]
        await runner.add_workers(*workers)
        with pytest.raises(RuntimeError, match="somebody"):
            await runner.run()
        assert [bus.has_subscriber(worker.name) for worker in workers] == [False, False, False]
        bus.opened_by = None


async def test_a_root_worker_that_could_not_be_attached_is_free_again() -> None:
    """R3."""
    bus, child = Broken(), Helper("child")
    async with running(bus=bus) as runner:
        with pytest.raises(OSError, match="no connection"):
            await runner.add_workers(child)
        assert runner.known_workers() == []
        bus.broken = False
        await runner.add_workers(child)
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": {}}


async def test_a_worker_that_was_never_on_the_bus_is_not_stopped() -> None:
    """W6, N7: there is no end of it."""
    stopped: list[str] = []

    class Stopping(Helper):
        async def stop(self) -> None:
            stopped.append(self.name)
            await super().stop()

    async with running(bus=Picky("worker")) as runner:
        with pytest.raises(OSError, match="no room"):
            await runner.add_workers(Stopping("worker"))
    assert stopped == []


async def test_a_worker_that_could_not_leave_the_bus_properly_is_hosted_no_more() -> None:
    """W6"""

    class Clinging(MemoryBus):
        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            await super().unsubscribe(subscriber)
            if subscriber.name == "worker":
                raise OSError("no connection")

    worker = Helper("worker")
    with pytest.raises(OSError, match="no connection"):  # noqa: PT012 - the block itself raises
        async with running(worker, bus=Clinging()) as runner:
            await worker.stop()
            assert runner.get_worker("worker") is None


@pytest.mark.parametrize("child", [False, True])
async def test_what_is_no_worker_is_named_when_it_is_refused(child: bool) -> None:
    """W5: also beside one that is."""
    anything: Any = "a name"
    parent, other = Helper("parent"), Helper("other")
    async with running(parent):
        with pytest.raises(TypeError, match=r"^children are workers, not 'a name'$"):
            await parent.add_workers(*((other, anything) if child else (anything,)))
        assert parent.children == []
    assert other.parent is None


NOT_WORKERS: Any = "a name"


async def test_what_is_no_worker_is_refused() -> None:
    async with running(Helper("parent")) as runner:
        with pytest.raises(TypeError, match="a runner runs workers"):
            await runner.add_workers(NOT_WORKERS)
        parent = runner.get_worker("parent")
        assert parent is not None
        with pytest.raises(TypeError, match="children are workers"):
            await parent.add_workers(NOT_WORKERS)
        assert runner.known_workers() == ["parent"]


async def test_a_message_that_adds_no_worker_is_reported() -> None:
    told: list[WorkerErrorData] = []
    async with running() as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.bus.send(BusAddWorkerMessage("nobody", source="me", target=runner.name))
        await settle()
    assert told == [WorkerErrorData("me", "cannot add 'nobody': it is no worker")]


async def test_a_message_that_adds_a_second_worker_of_a_name_is_reported() -> None:
    errors: list[WorkerErrorData] = []
    async with running(Helper("one")) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        await runner.bus.send(BusAddWorkerMessage(Helper("one"), source="me", target=runner.name))
        await anyio.wait_all_tasks_blocked()
        assert errors == [WorkerErrorData("one", str(NameTakenError("one", f"runner {runner.name!r}")))]


async def test_a_worker_that_is_sent_again_is_started_once() -> None:
    """R3"""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    worker = Counting("worker")
    async with running() as runner:
        for _ in range(2):
            await runner.bus.send(BusAddWorkerMessage(worker, source="me", target=runner.name))
        await runner.registry.wait_for("worker")
        await settle()
        assert worker.calls == ["run"]


class SubscribingInSteps(MemoryBus):
    """A bus on which subscribing takes a few steps, as on that of a network."""

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        for _ in range(3):
            await checkpoint()
        await super().subscribe(subscriber)


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize(
    ("kind", "handle_sigint"), [(MemoryBus, True), (SubscribingInSteps, False)], ids=["signals", "slow bus"]
)
async def test_a_worker_that_is_added_while_a_run_begins_is_started_once(
    steps: int, kind: type[MemoryBus], handle_sigint: bool
) -> None:
    """R3: at whatever step."""
    runs: list[str] = []

    class Counting(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            runs.append(self.name)
            await super().run(params)

    runner = WorkerRunner(bus=kind(), handle_sigint=handle_sigint)

    async def use() -> None:
        async with runner:
            await runner.registry.wait_for("counting")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        for _ in range(steps):
            await checkpoint()
        await runner.add_workers(Counting("counting"))
    assert runs == ["counting"]


async def test_a_worker_that_comes_while_the_bus_is_closed_leaves_it_again() -> None:
    """L1, W6: it was being added when the end came, and is never started."""
    stopping, added = anyio.Event(), anyio.Event()

    class Slow(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "late":
                await stopping.wait()
            await super().subscribe(subscriber)

        async def stop(self) -> None:
            stopping.set()
            await added.wait()

    bus, late = Slow(), Helper("late")

    async def add() -> None:
        await runner.add_workers(late)
        added.set()

    async with anyio.create_task_group() as tasks, running(bus=bus) as runner:
        tasks.start_soon(add)
        await anyio.wait_all_tasks_blocked()
    await late.wait()
    assert not bus.has_subscriber("late")
    assert (late.started_at, runner.get_worker("late")) == (None, None)


async def test_a_worker_name_is_unique_on_the_bus() -> None:
    """R6, R3: for roots and for children."""
    async with pair() as both:
        with pytest.raises(ValueError, match="on a"):
            await both.b.add_workers(Helper("on a"))
        with pytest.raises(ValueError, match="on a"):
            await both.on_b.add_workers(Helper("on a"))
        with pytest.raises(ValueError, match="A"):
            await both.b.add_workers(Helper("A"))
        assert await both.b.job("on a", name="echo")


async def test_a_worker_name_is_unique_on_the_bus_before_the_runs() -> None:
    """R6, W1: a worker is subscribed when it has been added."""
    async with MemoryBus() as bus:
        a, b = runner_on(bus, "A"), runner_on(bus, "B")
        helper = Helper("name")
        await a.add_workers(helper)
        with pytest.raises(ValueError, match="name"):
            await b.add_workers(Helper("name"))
        await helper.stop()
        await b.add_workers(Helper("name"))
        async with b:
            assert await b.job("name", name="echo")
