"""L1: when a run is over, nothing of it is left."""

import gc
import warnings
import weakref

import anyio
import pytest
from anyio import CancelScope, sleep_forever

from support import clock
from support.leaks import left_in, nothing_left, task_ids
from support.remarks import Remark
from support.runners import quiet_runner
from support.subscribers import Plain
from support.wind_downs import Busy, Published
from support.workers import Helper, running
from workerbus import BaseWorker, MemoryBus, RunCancelled, WorkerParams, WorkerRunner
from workerbus.testing import settle

WAYS = ("end", "cancel", "stop", "crash", "scope", "error of the body", "cancelled body", "message")


async def end_somehow(way: str, runner: WorkerRunner, roots: list[BaseWorker], crash: anyio.Event) -> None:
    if way == "end":
        await runner.end()
    elif way == "cancel":
        await runner.cancel()
    elif way == "message":
        await roots[0].cancel()
    elif way == "stop":
        for root in roots:
            await root.stop()
    elif way == "crash":
        crash.set()
        await roots[-1].wait()
        await runner.end()


async def a_busy_run(way: str, bus: MemoryBus) -> None:
    class Crasher(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await crash.wait()
            raise ValueError("crash")

    crash = anyio.Event()
    plain = Plain("plain")
    runner = WorkerRunner(bus=bus, grace_period=0.1)
    parent, child = Busy("parent"), Busy("child")
    crasher: list[BaseWorker] = [Crasher("crasher")] if way == "crash" else []
    roots: list[BaseWorker] = [parent, Busy("other"), *crasher]
    await parent.add_workers(child)
    async with nothing_left(runner, stays={"plain"}):
        await runner.bus.subscribe(plain)
        try:
            with CancelScope() as scope:
                async with runner:
                    await runner.add_workers(*roots)
                    for busy in (parent, roots[1]):
                        assert isinstance(busy, Busy)
                        await busy.release.wait()
                    if way == "scope":
                        scope.cancel()
                        await sleep_forever()
                    elif way == "error of the body":
                        raise ValueError("body")
                    elif way == "cancelled body":
                        await runner.cancel()
                        await sleep_forever()
                    await end_somehow(way, runner, roots, crash)
                    if way not in ("cancel", "message"):
                        for root in roots:
                            await root.wait()
        except RunCancelled:
            assert way == "cancelled body"
        except ValueError:
            assert way in ("crash", "error of the body")
        assert scope.cancelled_caught == (way == "scope")


@pytest.mark.parametrize("bus", [MemoryBus, Published])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_however_a_run_ends(way: str, bus: type[MemoryBus], backend: str) -> None:
    """L1: no task, subscription, watch, signal handler, unclosed stream or coroutine."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock.run(a_busy_run, way, bus(), backend=backend)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_every_task_descends_from_the_one_that_runs_the_runner() -> None:
    """L1: every task belongs to a task group that the runner owns."""
    me, before = anyio.get_current_task().id, task_ids()
    parent = Busy("parent")
    await parent.add_workers(Busy("child"))
    async with running(parent, Busy("other"), grace_period=0.1) as runner:
        await runner.bus.subscribe(Plain("plain"))
        await runner.bus.send(Remark("hello", source="test"))
        await parent.release.wait()
        parents = {task.id: task.parent_id for task in anyio.get_running_tasks()}
        mine = set(parents) - before
        assert len(mine) > 6
        for task in mine:
            above: int | None = task
            while above is not None and above != me:
                above = parents.get(above)
            assert above == me


async def test_a_bus_that_the_program_opened_owns_the_tasks_of_plain_subscribers() -> None:
    """L1, R6: and when it is closed, none is left."""
    before = task_ids()
    plain = Plain("plain", on=lambda _: sleep_forever())
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(Remark("hello", source="test"))
        await plain.until(1)
        assert task_ids() > before
    assert task_ids() == before


async def test_a_worker_that_finishes_early_leaves_nothing_while_the_run_goes_on() -> None:
    """L1, W6: tasks, subscription and watches of a stopped worker do not wait for the runner's end."""
    async with running(Helper("stays")) as runner:
        await anyio.wait_all_tasks_blocked()
        tasks, names = task_ids(), set(runner.bus.statistics().subscribers)
        tables = {name: set(table) for name, table in left_in(runner.registry).items()}
        busy = Busy("busy")
        await runner.add_workers(busy)
        await busy.release.wait()
        await busy.stop()
        await anyio.wait_all_tasks_blocked()
        # The worker that stays may keep idle tasks for its next jobs: as many as jobs were asked of it at once.
        assert len(task_ids() - tasks) <= 3
        assert set(runner.bus.statistics().subscribers) == names
        assert {name: set(table) for name, table in left_in(runner.registry).items()} == tables


async def test_a_run_whose_bus_cannot_start_leaves_nothing() -> None:
    """L1, L6: the workers that were added before are unsubscribed, and the error is a plain one."""

    class Broken(MemoryBus):
        async def start(self) -> None:
            raise error

    error = OSError("no network")
    runner = quiet_runner(bus=Broken())
    await runner.add_workers(Helper("helper"))
    async with nothing_left(runner):
        with pytest.raises(OSError, match="no network") as caught:
            await runner.run()
    assert caught.value is error


async def test_a_run_that_could_not_subscribe_leaves_nothing() -> None:
    """L1: another subscriber has the runner's name."""
    plain = Plain("taken")
    runner = quiet_runner(name="taken")
    await runner.bus.subscribe(plain)
    await runner.add_workers(Helper("helper"))
    async with nothing_left(runner, stays={"taken"}):
        with pytest.raises(ValueError, match="taken"):
            await runner.run()


async def test_a_deadline_that_is_still_to_come_keeps_no_worker() -> None:
    """R9: on asyncio the event loop keeps the context of a scope's deadline until then, though the scope was left."""
    gone: list[weakref.ref[object]] = []

    class Holds(Helper):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.much = bytearray(1000)

    async def one_session() -> None:
        worker = Holds("w")
        gone.append(weakref.ref(worker))
        async with running(worker) as runner:
            gone.append(weakref.ref(runner))
            await runner.job("w", name="echo")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 1)  # the loop has something to do before the deadline
        await settle()
        with anyio.fail_after(10):  # which the handler of the job gets, too
            await one_session()
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
