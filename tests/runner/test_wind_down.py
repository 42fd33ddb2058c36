"""L4: the order of a wind-down, and its one deadline."""

from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support.remarks import Remark
from support.runners import cut_short, quiet_runner
from support.wind_downs import BOUND, LONG, HangingBus, Logged, Published, named
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    RunCancelled,
    WorkerRunner,
    job,
)


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
            if isinstance(message, Remark):
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
                    await runner.bus.send(Remark("hello", source="test", target=member.name))
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


class Hanging(Logged):
    """Its clean-up does not end by itself."""

    async def cleanup(self) -> None:
        self.log.append(f"cleanup {self.name}")
        await sleep(LONG)


async def hang(*_: Any) -> None:
    await sleep(LONG)


async def test_clean_up_that_hangs_is_given_up_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4."""
    log: list[str] = []
    begun = current_time()
    async with cut_short(), running(Hanging("hanging", log)) as runner:
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
    with CancelScope() as scope, suppress(ValueError, RunCancelled):
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
