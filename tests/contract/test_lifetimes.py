"""L1-L6: what lives how long, how a run winds down, and what is left of it."""

import asyncio
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import trio
from anyio import CancelScope, current_time, sleep, sleep_forever

from support import clock
from support.leaks import left_in, nothing_left, task_ids
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerGoneMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    bus_message,
    job,
    worker_ready,
)

BOUND = CLEANUP_SECONDS + 0.5


LONG = 15.0
"""Seconds for which something hangs: a shield that nothing opens would outlast the test's own deadline otherwise."""


@bus_message
class Note(BusDataMessage):
    text: str = ""


def quiet_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


def on_ready(runner: WorkerRunner, do: Callable[[], Any]) -> None:
    """Do something as soon as the workers that were added before have started."""

    async def call(_: WorkerRunner) -> None:
        result = do()
        if result is not None:
            await result

    runner.add_event_handler("on_ready", call)


class Logged(Helper):
    """A worker that writes its end into a log."""

    def __init__(self, name: str, log: list[str], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.log = log

    async def cleanup(self) -> None:
        self.log.append(f"cleanup {self.name}")
        await super().cleanup()


class Published(MemoryBus):
    """A bus with a log of what is published, and of its start and stop."""

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__()
        self.log: list[str] = [] if log is None else log
        self.messages: list[BusMessage] = []

    async def start(self) -> None:
        await super().start()
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")
        await super().stop()

    async def publish(self, message: BusMessage) -> None:
        self.messages.append(message)
        if isinstance(message, BusJobResponseMessage):
            self.log.append(f"answer {message.source} {message.status}")
        elif isinstance(message, BusWorkerGoneMessage):
            self.log.append(f"gone {message.source}")
        await super().publish(message)


# --- L1: nothing is left


class Busy(Helper):
    """A worker with something of everything under way."""

    @worker_ready(name="nobody")
    async def nobody_came(self, data: WorkerReadyData) -> None:
        """Nobody comes."""

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        """Answers never."""

    async def run(self, params: WorkerParams) -> None:
        params.task_group.start_soon(self._ask_nobody)
        await super().run(params)

    async def _ask_nobody(self) -> None:
        with suppress(JobError):
            await self.job("nobody", timeout=100)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await self.request_job(data.worker_name, name="wait", timeout=50)
        await self.request_job(data.worker_name, name="later", timeout=50)
        self.release.set()
        async with self.job(data.worker_name, name="wait", timeout=50):
            await sleep_forever()


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
        await runner.bus.send(Note("hello", source="test"))
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
        await bus.send(Note("hello", source="test"))
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


async def test_the_runner_starts_and_stops_the_bus_that_it_opens() -> None:
    """L5, R6."""
    bus = Published()
    async with running(Helper("helper"), bus=bus):
        assert bus.log == ["start"]
    assert bus.log[-1] == "stop"
    assert bus.log.count("start") == bus.log.count("stop") == 1


# --- L3: cancellation winds down and goes through


async def test_a_cancelled_run_winds_down_and_lets_the_cancellation_through() -> None:
    """L3."""
    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Logged("worker", log))
    async with nothing_left(runner):
        with CancelScope() as scope:
            on_ready(runner, scope.cancel)
            await runner.run(auto_end=False)
            log.append("swallowed")
    assert scope.cancelled_caught
    assert log == ["cleanup worker"]


async def test_a_deadline_around_run_is_a_timeout() -> None:
    """L3."""
    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Logged("worker", log))
    async with nothing_left(runner):
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.1):
                await runner.run(auto_end=False)
    assert log == ["cleanup worker"]


async def test_a_run_that_is_cancelled_from_the_start_leaves_nothing() -> None:
    """L3, L1: the cancellation is there before `run()` is."""
    runner = quiet_runner()
    await runner.add_workers(Busy("busy"))
    async with nothing_left(runner):
        with CancelScope() as scope:
            scope.cancel()
            await runner.run(auto_end=False)
    assert scope.cancelled_caught


async def test_a_context_that_is_cancelled_while_it_opens_leaves_nothing() -> None:
    """L3, L1."""
    runner = quiet_runner()
    await runner.add_workers(Busy("busy"))
    reached = False
    async with nothing_left(runner):
        with CancelScope() as scope:
            scope.cancel()
            async with runner:
                reached = True
                await sleep_forever()
    assert scope.cancelled_caught
    assert not reached or runner.bus.is_open is False


async def test_a_run_that_is_cancelled_while_its_bus_connects_ends() -> None:
    """L3, L4: there is no shield without a deadline."""

    class Connecting(MemoryBus):
        async def start(self) -> None:
            scope.cancel()
            await sleep(LONG)

    runner = quiet_runner(bus=Connecting())
    begun = current_time()
    async with nothing_left(runner):
        with CancelScope() as scope:
            await runner.run(auto_end=False)
    assert scope.cancelled_caught
    assert current_time() - begun < BOUND


async def test_cancel_ends_a_run_whose_bus_is_still_connecting() -> None:
    """R2, L4: `cancel()` overtakes everything."""

    class Connecting(MemoryBus):
        async def start(self) -> None:
            await runner.cancel()
            await sleep(LONG)

    runner = quiet_runner(bus=Connecting())
    begun = current_time()
    async with nothing_left(runner):
        await runner.run(auto_end=False)
    assert current_time() - begun < BOUND


async def test_a_cancellation_while_the_bus_disconnects_goes_through() -> None:
    """L3: the workers have finished already."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            scope.cancel()
            await sleep(0.1)

    runner = quiet_runner(bus=Disconnecting())
    async with nothing_left(runner):
        with CancelScope() as scope:
            await runner.run()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_a_cancel_while_the_bus_disconnects_is_a_no_op() -> None:
    """R2: `cancel()` only asks, also when nothing is left to cancel."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            await runner.cancel()
            await runner.end()

    runner = quiet_runner(bus=Disconnecting())
    async with nothing_left(runner):
        await runner.run()


async def test_a_cancelled_graceful_end_becomes_a_quick_one() -> None:
    """L3: the job under way does not get its grace after a cancellation from outside."""
    helper, runner = Helper("helper"), quiet_runner(job_grace=1000.0)
    begun = current_time()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(helper)
                async with anyio.create_task_group() as group:

                    async def ask() -> None:
                        with pytest.raises(JobError):
                            await runner.job("helper", name="wait")

                    group.start_soon(ask)
                    await helper.begun.wait()
                    await runner.end()
                    scope.cancel()
    assert scope.cancelled_caught
    assert current_time() - begun < BOUND


async def test_a_second_cancellation_during_the_wind_down_changes_nothing() -> None:
    """L3: an inner and an outer scope, one after the other."""

    class Slow(Logged):
        async def cleanup(self) -> None:
            outer.cancel()
            await sleep(0.5)
            await super().cleanup()

    log: list[str] = []
    runner = quiet_runner()
    await runner.add_workers(Slow("slow", log))
    async with nothing_left(runner):
        with CancelScope() as outer:
            with CancelScope() as inner:
                on_ready(runner, inner.cancel)
                await runner.run(auto_end=False)
            await anyio.lowlevel.checkpoint()
            log.append("swallowed")
    assert outer.cancelled_caught
    assert log == ["cleanup slow"]


async def test_a_cancellation_goes_through_although_a_worker_fails_in_the_wind_down() -> None:
    """L3: it is never swallowed."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                raise ValueError("late")

    runner = quiet_runner()
    await runner.add_workers(Failing("failing"))
    async with nothing_left(runner):
        with CancelScope() as scope:
            on_ready(runner, scope.cancel)
            await runner.run(auto_end=False)
    assert scope.cancelled_caught


async def test_the_body_of_a_runner_is_cancelled_from_outside() -> None:
    """L3: the context winds down and does not swallow it."""
    log: list[str] = []
    runner = quiet_runner()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(Logged("worker", log))
                await runner.registry.wait_for("worker")
                scope.cancel()
                await sleep_forever()
            log.append("swallowed")
    assert scope.cancelled_caught
    assert log == ["cleanup worker"]


async def test_a_cancellation_from_outside_wins_over_cancel_at_the_same_moment() -> None:
    """L3: the runner's own cancel ends silently, the outer cancellation must not."""
    runner = quiet_runner()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.cancel()
                scope.cancel()
                await sleep_forever()
            await anyio.lowlevel.checkpoint()
            pytest.fail("swallowed")
    assert scope.cancelled_caught


async def test_a_wind_down_goes_from_the_handlers_to_the_bus() -> None:
    """L3: handlers, answers, workers from the leaves, then the bus."""
    log: list[str] = []

    class Member(Logged):
        @job(name="busy")
        async def busy(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await sleep_forever()
            finally:
                log.append(f"handler {self.name}")

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                self.release.set()
                try:
                    await sleep_forever()
                finally:
                    log.append(f"hook {self.name}")

    async def ask(name: str) -> None:
        with suppress(JobError):
            await runner.job(name, name="busy")

    parent, child = Member("parent", log), Member("child", log)
    await parent.add_workers(child)
    runner = quiet_runner(bus=Published(log))
    with CancelScope() as scope:
        async with runner:
            await runner.add_workers(parent)
            async with anyio.create_task_group() as group:
                for member in (parent, child):
                    await runner.registry.wait_for(member.name)
                    group.start_soon(ask, member.name)
                    await member.begun.wait()
                    await runner.bus.send(Note("hello", source="test", target=member.name))
                    await member.release.wait()
                scope.cancel()
                await sleep_forever()
    assert log.pop(0) == "start"
    assert log[-1] == "stop"
    for name in ("child", "parent"):
        order = [f"handler {name}", f"answer {name} cancelled", f"gone {name}"]
        assert [entry for entry in log if entry in order] == order
        assert log.index(f"hook {name}") < log.index(f"cleanup {name}") < log.index(f"gone {name}")
    assert log.index("gone child") < log.index("cleanup parent") < log.index("gone parent")


# --- L3, R2: at any step


async def a_short_run(runner: WorkerRunner) -> None:
    """Workers start, ask each other for a job, and end."""

    class Asking(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.job("child", name="echo")
            await self.end()

    parent = Asking("parent")
    await parent.add_workers(Helper("child"))
    await runner.add_workers(parent, Helper("other"))
    await runner.run(auto_end=False)


STEPS = range(150)


def at_every_step(main: Callable[[int], Awaitable[bool]], backend: str) -> None:
    """Run something that is interrupted after so many steps, until it is too short to be interrupted so late."""
    for step in STEPS:
        interrupted = [clock.run(main, step, backend=backend) for _ in range(3)]  # trio shuffles its tasks
        if not all(interrupted):
            assert step > 5
            return
    pytest.fail("the run takes more steps")


async def steps(count: int, then: Callable[[], Any]) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()
    result = then()
    if result is not None:
        await result


@asynccontextmanager
async def perhaps_shared(shared: bool) -> AsyncIterator[WorkerRunner]:
    """A runner for one run that must leave nothing, on its own bus or on one that is open around it."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus()) if shared else MemoryBus()
        runner = quiet_runner(bus=bus)
        async with nothing_left(runner):
            yield runner


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("ask", [WorkerRunner.cancel, WorkerRunner.end])
def test_a_run_can_be_asked_to_end_at_any_step(
    ask: Callable[[WorkerRunner], Awaitable[None]], shared: bool, backend: str
) -> None:
    """R2, L1: while it starts, while it runs and while it ends; no error comes of it, and nothing is left."""

    async def main(step: int) -> bool:
        over, late = anyio.Event(), anyio.Event()
        async with perhaps_shared(shared) as runner, anyio.create_task_group() as group:

            async def note_and_ask() -> None:
                if over.is_set():
                    late.set()
                await ask(runner)

            group.start_soon(steps, step, note_and_ask)
            await a_short_run(runner)
            over.set()
        return not late.is_set()

    at_every_step(main, backend)


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_can_be_cancelled_from_outside_at_any_step(shared: bool, backend: str) -> None:
    """L3, L1: the cancellation goes through, and nothing is left."""

    async def main(step: int) -> bool:
        returned = in_time = False
        async with perhaps_shared(shared) as runner, anyio.create_task_group() as group:
            with CancelScope() as scope:
                group.start_soon(steps, step, scope.cancel)
                await a_short_run(runner)
                returned, in_time = True, scope.cancel_called
                await anyio.lowlevel.checkpoint()
            assert returned or scope.cancelled_caught
        return in_time or not returned

    at_every_step(main, backend)


def test_a_run_can_be_cancelled_natively_at_any_step() -> None:
    """L3, L1: `asyncio.Task.cancel()` goes through, and nothing is left."""

    async def main(step: int) -> bool:
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(a_short_run(runner))
            for _ in range(step + 1):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return task.cancelled()

    at_every_step(main, "asyncio")


# --- L3: the backends' own cancellation


def test_a_native_task_cancel_winds_down_and_goes_through() -> None:
    """L3: `asyncio.Task.cancel()`."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            task = asyncio.create_task(runner.run(auto_end=False))
            await runner.registry.wait_for("worker")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        assert log == ["cleanup worker"]

    clock.run(main, backend="asyncio")


def test_a_second_native_cancel_does_not_disturb_the_wind_down() -> None:
    """L3, L4: the clean-up of the worker is shielded."""

    class Slow(Logged):
        async def cleanup(self) -> None:
            tasks[0].cancel()
            await sleep(0.5)
            await super().cleanup()

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Slow("slow", log))
        async with nothing_left(runner):
            tasks.append(asyncio.create_task(runner.run(auto_end=False)))
            await runner.registry.wait_for("slow")
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
        assert log == ["cleanup slow"]

    clock.run(main, backend="asyncio")


def test_a_native_timeout_around_run_is_a_timeout() -> None:
    """L3: `asyncio.timeout()` counts the cancellations of its task."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await runner.run(auto_end=False)
        assert log == ["cleanup worker"]
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    clock.run(main, backend="asyncio")


def test_a_native_task_group_ends_a_run_when_a_sibling_fails() -> None:
    """L3: and sees no error but the sibling's."""

    async def main() -> None:
        async def fail() -> None:
            await runner.registry.wait_for("worker")
            raise ValueError("sibling")

        runner = quiet_runner()
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block itself raises
                async with asyncio.TaskGroup() as group:
                    group.create_task(runner.run(auto_end=False))
                    group.create_task(fail())
        assert [str(exc) for exc in caught.value.exceptions] == ["sibling"]

    clock.run(main, backend="asyncio")


def test_a_native_cancel_of_the_body_goes_through() -> None:
    """L3: `async with` a runner."""

    async def main() -> None:
        async def body() -> None:
            async with runner:
                await runner.add_workers(Logged("worker", log))
                await sleep_forever()

        log: list[str] = []
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(body())
            await runner.registry.wait_for("worker")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert log == ["cleanup worker"]

    clock.run(main, backend="asyncio")


@pytest.mark.parametrize("native_first", [True, False])
def test_a_native_cancel_is_not_lost_in_a_cancel_of_the_runner(native_first: bool) -> None:
    """L3: both at the same moment; the runner's own cancel ends silently, the native one must not."""

    async def main() -> None:
        async def body() -> None:
            async with runner:
                begun.set()
                await sleep_forever()

        begun = anyio.Event()
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(body())
            await begun.wait()
            if native_first:
                task.cancel()
            await runner.cancel()
            if not native_first:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(main, backend="asyncio")


def test_a_native_cancel_while_the_run_opens_goes_through() -> None:
    """L3: the bus is still connecting."""

    class Connecting(Published):
        async def start(self) -> None:
            await super().start()
            tasks[0].cancel()
            await sleep(0.1)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        runner = quiet_runner(bus=Connecting())
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            tasks.append(asyncio.create_task(runner.run(auto_end=False)))
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]

    clock.run(main, backend="asyncio")


def test_a_native_cancel_while_the_programs_bus_disconnects_goes_through() -> None:
    """L3, L4: it comes through the shield, and leaves nothing all the same."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            tasks[0].cancel()
            await sleep(0.1)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        async def program() -> None:
            async with bus:
                await bus.subscribe(plain)
                await bus.send(Note("hello", source="test"))
                await plain.until(1)

        bus, plain, before = Disconnecting(), Plain("plain"), task_ids()
        tasks.append(asyncio.create_task(program()))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert task_ids() == before
        assert not bus.is_open

    clock.run(main, backend="asyncio")


def test_a_cancel_scope_of_trio_around_run_goes_through() -> None:
    """L3."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            with trio.move_on_after(0.1) as scope:
                await runner.run(auto_end=False)
                log.append("swallowed")
        assert scope.cancelled_caught
        assert log == ["cleanup worker"]

    clock.run(main, backend="trio")


def test_a_nursery_of_trio_ends_a_run_when_a_sibling_fails() -> None:
    """L3: and sees no error but the sibling's."""

    async def main() -> None:
        async def fail() -> None:
            await runner.registry.wait_for("worker")
            raise ValueError("sibling")

        runner = quiet_runner()
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block itself raises
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(runner.run)
                    nursery.start_soon(fail)
        assert [str(exc) for exc in caught.value.exceptions] == ["sibling"]

    clock.run(main, backend="trio")


# --- L4: clean-up is shielded and bounded


REFUSAL = 5.0


async def refuse(log: list[str], begun: anyio.Event | None = None) -> None:
    """Wait for the cancellation, and go on for some seconds after it."""
    try:
        if begun is not None:
            begun.set()
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await sleep(REFUSAL)
        log.append("unwound")


class Stubborn(BaseWorker):
    """Refuses cancellation in one place."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name)
        self.place = place
        self.log: list[str] = []
        self.begun = anyio.Event()
        if place == "event handler":
            self.add_event_handler("on_bus_message", Stubborn.on_note)

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        if self.place == "task":
            params.task_group.start_soon(refuse, self.log, self.begun)
        if self.place == "run":
            await refuse(self.log, self.begun)
        await sleep_forever()

    async def on_note(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await refuse(self.log, self.begun)

    async def on_bus_message(self, message: BusMessage) -> None:
        if self.place == "hook":
            await self.on_note(message)
        elif self.place == "last hook" and isinstance(message, BusCancelWorkerMessage):
            with CancelScope(shield=True):
                await sleep(REFUSAL)
            self.log.append("unwound")

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        await refuse(self.log, self.begun)

    @job(name="refuse after the answer")
    async def answer_and_refuse(self, message: BusJobRequestMessage) -> None:
        await self.send_job_response(message.job_id)
        await refuse(self.log, self.begun)

    async def cleanup(self) -> None:
        if self.place == "cleanup":
            with CancelScope(shield=True):
                await sleep(REFUSAL)
            self.log.append("unwound")
        await super().cleanup()

    async def provoke(self, runner: WorkerRunner) -> None:
        """Let it come to the place where it refuses."""
        if self.place in ("hook", "event handler"):
            await runner.bus.send(Note("now", source="test", target=self.name))
        elif self.place == "handler":
            await runner.bus.send(BusJobRequestMessage("1", "refuse", source=runner.name, target=self.name))
        elif self.place == "answered handler":
            await runner.bus.send(
                BusJobRequestMessage("1", "refuse after the answer", source=runner.name, target=self.name)
            )
        if self.place not in ("cleanup", "last hook"):
            await self.begun.wait()


def named(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """The warnings of the library that name somebody."""
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in texts if repr(name) in text]


PLACES = ("run", "task", "hook", "event handler", "last hook", "handler", "answered handler", "cleanup")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["cancel", "end", "scope"])
async def test_a_worker_that_refuses_cancellation_is_waited_for_and_named(
    place: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L4."""
    if place == "last hook" and how == "end":
        pytest.skip("an end's message comes before the worker stops")
    stubborn = Stubborn("stubborn", place)
    runner = quiet_runner(grace_period=0.1)
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(stubborn, Helper("helper"))
                await runner.registry.wait_for("stubborn")
                await stubborn.provoke(runner)
                begun = current_time()
                if how == "scope":
                    scope.cancel()
                    await sleep_forever()
                else:
                    await (runner.cancel() if how == "cancel" else runner.end())
        assert stubborn.log == ["unwound"]
        assert current_time() - begun >= REFUSAL
        assert named(caplog, "stubborn")


async def test_an_event_handler_of_the_runner_that_refuses_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4."""
    log: list[str] = []
    begun = anyio.Event()
    runner = quiet_runner(name="stubborn runner")
    runner.add_event_handler("on_ready", lambda _: refuse(log, begun))
    async with nothing_left(runner), runner:
        await begun.wait()
        await runner.cancel()
        await sleep_forever()
    assert log == ["unwound"]
    assert named(caplog, "stubborn runner")


async def test_the_jobs_of_a_handler_that_refuses_are_answered_at_the_bound() -> None:
    """L4, W6: the requester does not wait for the user's own clean-up."""
    stubborn = Stubborn("stubborn", "handler")
    async with MemoryBus() as bus, running(bus=bus, name="asking") as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(JobError) as caught:
                await runner.job("stubborn", name="refuse")
            assert caught.value.statuses == {"stubborn": JobStatus.CANCELLED}
            assert current_time() - begun < BOUND
            assert stubborn.log == []

        other = quiet_runner(bus=bus, name="asked")
        await other.add_workers(stubborn)
        group.start_soon(other.run)
        group.start_soon(ask)
        await stubborn.begun.wait()
        begun = current_time()
        await other.cancel()


class Hanging(Logged):
    """Its clean-up does not end by itself."""

    async def cleanup(self) -> None:
        self.log.append(f"cleanup {self.name}")
        await sleep(LONG)


class HangingBus(MemoryBus):
    async def stop(self) -> None:
        await sleep(LONG)


async def hang(*_: Any) -> None:
    await sleep(LONG)


async def test_clean_up_that_hangs_is_given_up_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4."""
    log: list[str] = []
    begun = current_time()
    async with running(Hanging("hanging", log)) as runner:
        await runner.cancel()
        await sleep_forever()
    assert log == ["cleanup hanging"]
    assert CLEANUP_SECONDS - 0.1 < current_time() - begun < BOUND
    assert named(caplog, "hanging")


async def hanging_tree(runner: WorkerRunner, log: list[str]) -> BaseWorker:
    """Three generations, a watcher, an event handler and a bus: all of them hang in the wind-down."""
    grandparent, parent, child = Hanging("grandparent", log), Hanging("parent", log), Hanging("child", log)
    await grandparent.add_workers(parent)
    await parent.add_workers(child)
    await runner.add_workers(grandparent)
    for worker in (grandparent, parent, child):
        await runner.registry.watch_departure(worker.name, hang)
    runner.add_event_handler("on_error", hang)
    return grandparent


@pytest.mark.parametrize("how", ["cancel", "scope", "error"])
async def test_one_deadline_covers_everything_that_hangs_in_a_cancelled_run(how: str) -> None:
    """L4: nested clean-up does not add up."""
    log: list[str] = []
    runner = quiet_runner(bus=HangingBus())
    await hanging_tree(runner, log)
    with CancelScope() as scope, suppress(ValueError):
        async with runner:
            await runner.registry.wait_for("child")
            begun = current_time()
            if how == "scope":
                scope.cancel()
            elif how == "error":
                raise ValueError("body")
            else:
                await runner.cancel()
            await sleep_forever()
    assert current_time() - begun < BOUND
    assert log[0] == "cleanup child"


async def test_one_deadline_covers_everything_that_hangs_after_the_grace_period() -> None:
    """L4, R2: a graceful end takes the grace period and the bound, and no more."""
    log: list[str] = []
    runner = quiet_runner(bus=HangingBus(), grace_period=0.1)
    await hanging_tree(runner, log)
    async with runner:
        await runner.registry.wait_for("child")
        begun = current_time()
        await runner.end()
    assert current_time() - begun < BOUND


async def test_one_deadline_covers_a_worker_that_is_stopped() -> None:
    """L4, W6: its children, its own clean-up and those who watch for its departure."""
    log: list[str] = []
    async with running(Helper("stays")) as runner:
        grandparent = await hanging_tree(runner, log)
        await runner.registry.wait_for("child")
        begun = current_time()
        await grandparent.stop()
        assert current_time() - begun < BOUND


# --- L3: what ends programs arrives as itself; L6: one cause, one plain exception


class Boom(Logged):
    """Raises in one place."""

    def __init__(self, place: str, exc: BaseException, log: list[str]) -> None:
        super().__init__("boom", log)
        self.place, self.exc = place, exc
        if place == "event handler":
            self.add_event_handler("on_bus_message", self.on_event)
        if place == "async event handler":
            self.add_event_handler("on_bus_message", self.on_event_async)

    def at(self, place: str) -> None:
        if place == self.place:
            raise self.exc

    def on_event(self, worker: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.at("event handler")

    async def on_event_async(self, worker: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.at("async event handler")

    async def run(self, params: WorkerParams) -> None:
        self.at("run")
        if self.place == "task":
            params.task_group.start_soon(self.in_task)
        await super().run(params)
        self.at("end of run")

    async def in_task(self) -> None:
        await self.begun.wait()
        self.at("task")

    async def start(self) -> None:
        self.at("start")
        await super().start()
        self.begun.set()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.at("first on_activated")

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.at("hook")
        if isinstance(message, BusCancelWorkerMessage):
            self.at("last hook")

    @job(name="boom")
    async def boom(self, message: BusJobRequestMessage) -> None:
        self.at("handler")

    @job(name="unwinding")
    async def unwinding(self, message: BusJobRequestMessage) -> None:
        self.release.set()
        try:
            await sleep_forever()
        finally:
            self.at("handler that is cancelled")

    async def cleanup(self) -> None:
        self.at("cleanup")
        await super().cleanup()


class Choosy(Boom):
    """Is asked before each message, too."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        if isinstance(message, Note):
            self.at("accepts_bus_message")
        return True


class BoomBus(MemoryBus):
    place: str = ""
    exc: BaseException

    async def start(self) -> None:
        if self.place == "start of the bus":
            raise self.exc

    async def stop(self) -> None:
        if self.place == "stop of the bus":
            raise self.exc


class Touchy(Plain):
    """A plain subscriber that raises in one of two places."""

    def __init__(self, place: str, exc: BaseException) -> None:
        super().__init__("subscriber")
        self.place, self.exc = place, exc

    def accepts_bus_message(self, message: BusMessage) -> bool:
        if isinstance(message, Note) and self.place == "accepts_bus_message of a subscriber":
            raise self.exc
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note) and self.place == "subscriber":
            raise self.exc


class Explosive:
    """A runner whose run comes to the place by itself, and ends there; an innocent worker is there as well."""

    def __init__(self, place: str, exc: BaseException) -> None:
        self.place, self.exc = place, exc
        self.log: list[str] = []
        bus = BoomBus()
        bus.place, bus.exc = place, exc
        self.runner = quiet_runner(bus=bus, grace_period=0.1)
        self.boom = (Choosy if place == "accepts_bus_message" else Boom)(place, exc, self.log)
        if place == "on_ready":
            self.runner.add_event_handler("on_ready", self.explode)
        self.runner.add_event_handler("on_ready", self.go_on)
        self.stays = {"subscriber"} | ({"boom", "innocent"} if place == "start of the bus" else set())

    async def add_workers(self) -> None:
        await self.runner.bus.subscribe(Touchy(self.place, self.exc))
        if self.place == "watcher":
            await self.runner.registry.watch("boom", self.explode)
        if self.place == "departure watcher":
            await self.runner.registry.watch_departure("boom", self.explode)
        await self.runner.add_workers(Logged("innocent", self.log), self.boom)

    async def explode(self, *_: Any) -> None:
        self.runner.registry.unwatch("boom", self.explode)
        raise self.exc

    async def go_on(self, runner: WorkerRunner) -> None:
        await runner.bus.send(Note("now", source="test"))
        for name in ("boom", "unwinding"):
            await runner.bus.send(BusJobRequestMessage(name, name, source=runner.name, target="boom"))
        if self.place == "end of run":
            await runner.end()
        elif self.place in (
            "cleanup",
            "stop of the bus",
            "departure watcher",
            "last hook",
            "handler that is cancelled",
        ):
            await self.boom.release.wait()
            await runner.cancel()


async def run_around_a_body(runner: WorkerRunner, *, leave: bool = False) -> None:
    async with runner:
        if not leave:
            await sleep_forever()


EVERYWHERE = (
    "run",
    "start",
    "first on_activated",
    "task",
    "end of run",
    "hook",
    "last hook",
    "event handler",
    "async event handler",
    "accepts_bus_message",
    "handler",
    "handler that is cancelled",
    "cleanup",
    "subscriber",
    "accepts_bus_message of a subscriber",
    "on_ready",
    "watcher",
    "departure watcher",
    "start of the bus",
    "stop of the bus",
)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("form", ["run", "async with"])
@pytest.mark.parametrize("place", sorted({*EVERYWHERE} - {"task"}))  # out of a task of its own, asyncio ends the loop
def test_what_ends_programs_arrives_as_itself(place: str, form: str, kind: type[BaseException], backend: str) -> None:
    """L3: wherever the user's code raises it, and nothing is left."""

    async def main() -> None:
        it = Explosive(place, kind("from here"))
        await it.add_workers()
        async with nothing_left(it.runner, stays=it.stays):
            with pytest.raises(kind) as caught:
                await it.runner.run(auto_end=False) if form == "run" else await run_around_a_body(it.runner)
            assert caught.value is it.exc
        assert it.log.count("cleanup innocent") == (place != "start of the bus")

    try:
        clock.run(main, backend=backend)
    except (KeyboardInterrupt, SystemExit) as exc:
        pytest.fail(f"{exc!r} came out of the event loop instead")


@pytest.mark.parametrize("form", ["run", "async with"])
@pytest.mark.parametrize("place", ["run", "start", "first on_activated", "task", "end of run", "start of the bus"])
async def test_one_cause_is_one_plain_exception(place: str, form: str) -> None:
    """L6, R4: the very exception that the worker, or the bus, has raised."""
    it = Explosive(place, ValueError("from here"))
    await it.add_workers()
    it.runner.add_event_handler("on_ready", lambda runner: runner.end())
    async with nothing_left(it.runner, stays=it.stays):
        with pytest.raises(ValueError, match="from here") as caught:
            await it.runner.run(auto_end=False) if form == "run" else await run_around_a_body(it.runner, leave=True)
        assert caught.value is it.exc


async def test_several_causes_are_an_exception_group() -> None:
    """L6."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError(self.name)

    runner = quiet_runner()
    await runner.add_workers(Failing("one"), Failing("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await runner.run()
    assert sorted(str(exc) for exc in caught.value.exceptions) == ["one", "two"]


async def test_an_error_of_the_body_is_left_as_it_is() -> None:
    """L6: by the runner, the bus, the job and the job group around it."""
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with (
            MemoryBus() as bus,
            running(Helper("helper"), bus=bus) as runner,
            runner.job("helper", name="wait"),
            runner.job_group("helper", name="wait"),
        ):
            raise error
    assert caught.value is error


async def test_an_exception_group_of_the_body_is_left_as_it_is() -> None:
    """L6: it is the program's own, even if it has one member only."""
    error = ExceptionGroup("mine", [ValueError("body")])
    with pytest.raises(ExceptionGroup) as caught:
        async with (
            MemoryBus() as bus,
            running(Helper("helper"), bus=bus) as runner,
            runner.job("helper", name="wait"),
        ):
            raise error
    assert caught.value.message == "mine"
    assert caught.value.exceptions == error.exceptions


async def test_a_failed_job_is_one_plain_exception_through_all_that_is_around_it() -> None:
    """L6, J8."""
    with pytest.raises(JobGroupError) as caught:
        async with MemoryBus() as bus, running(Helper("helper"), bus=bus) as runner:
            await runner.job_group("helper", name="fail")
    assert caught.value.responses["helper"]["type"] == "ValueError"


async def test_an_error_in_a_task_group_of_the_body_stays_the_programs_own() -> None:
    """L6: the runner adds no group of its own around it, and takes none away."""
    error = ValueError("in a task")

    async def fail() -> None:
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        async with running(Helper("helper")), anyio.create_task_group() as group:
            group.start_soon(fail)
    assert caught.value.exceptions == (error,)
