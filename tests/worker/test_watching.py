"""W9, G1: hooks for workers that come and go."""

from typing import Any

import anyio
import pytest

from support.buses import PoliteBus
from support.job_handlers import never
from support.leaks import left_in
from support.workers import Doing, Helper, running
from workerbus import BusActivateWorkerMessage, BusMessage, JobError, WorkerErrorData, WorkerReadyData
from workerbus.testing import settle
from workerbus.worker._core import core_of


class Curious(Helper):
    """Writes down of whom it is told, after ``gate``."""

    def __init__(self, name: str = "curious") -> None:
        super().__init__(name)
        self.told: list[str] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def on_activated(self, args: object) -> None:
        await self.gate.wait()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.told.append(data.worker_name)
        if data.worker_name == "failing":
            raise ValueError("oh")


async def test_a_worker_remembers_of_whom_it_was_told_as_long_as_they_are_there() -> None:
    """G1, G2: once for each time that one gets ready; what it remembers does not grow with those that have gone."""
    curious = Curious()
    async with running(curious, Helper("stays")) as runner:
        for n in range(600):
            await curious.registry.register(WorkerReadyData(f"w{n}", "elsewhere"))
            await curious.watch_workers(f"w{n}")
            await curious.registry.unregister(f"w{n}", "elsewhere")
        await curious.watch_workers("stays")
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["stays", *(f"w{n}" for n in range(600))]
        assert len(core_of(curious).presence._told) < 300
        assert runner.get_worker("stays") is not None


async def test_the_task_that_waits_for_a_departure_says_whose_it_is() -> None:
    """L1, J4: while the announcement is on its way."""
    names: set[str] = set()

    class Seeing(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            await super().publish(message)
            names.update(str(task.name) for task in anyio.get_running_tasks())

    silent = Doing("silent", never)
    async with running(silent, name="runner", bus=Seeing()) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(JobError):
                await runner.job("silent", name="do")

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await silent.stop()
    assert "runner departure of silent" in names


async def test_a_failing_hook_is_named_in_the_log_and_in_the_report(caplog: pytest.LogCaptureFixture) -> None:
    """W7: the hook, the worker, the error, and no job where there is none."""
    told: list[WorkerErrorData] = []
    async with running(Curious()) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.add_workers(Helper("failing"))
        await anyio.wait_all_tasks_blocked()
    assert told == [WorkerErrorData("curious", "on_worker_ready: ValueError: oh")]
    assert caplog.messages == ["on_worker_ready of worker 'curious' failed"]


async def test_nothing_stays_of_what_a_worker_has_watched() -> None:
    """G1, G2: for whomever it waited."""
    curious = Curious()
    async with running(curious) as runner:
        await curious.watch_workers("one", "other")
        await curious.watch_workers("third")
        await curious.stop()
        assert left_in(runner.registry) == {}


@pytest.mark.parametrize("how", ["it stops", "it cannot be added"])
async def test_nothing_stays_of_a_child_that_has_gone(how: str) -> None:
    """W5, R9: while its parent lives on, unless the parent watches for the name itself."""

    class Unattachable(Helper):
        async def attach(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("not today")

    parent = Curious()
    async with running(parent) as runner:
        for name in ("child", "again", "known"):
            if name == "known":
                await parent.watch_workers(name)
            if how == "it stops":
                child = Helper(name)
                await parent.add_workers(child, wait=True)
                await child.stop()
            else:
                with pytest.raises(ValueError, match="not today"):
                    await parent.add_workers(Unattachable(name))
        await settle()
        left = left_in(runner.registry)
        assert {name for table in left.values() for name in table} - {"curious"} == {"known"}
        assert core_of(parent).presence._watched == {"known": True}


async def test_a_child_hears_of_no_root_that_it_does_not_watch() -> None:
    """N3, W5: wherever its handler was added."""
    told: list[str] = []
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        child.add_event_handler("on_worker_ready", lambda _, data: told.append(data.worker_name))
        await runner.add_workers(Helper("root"))
        await runner.registry.wait_for("root")
        await child.watch_workers("watched")
        await runner.add_workers(Helper("watched"))
        await runner.registry.wait_for("watched")
        await settle()
    assert told == ["watched"]


async def test_a_hook_for_a_worker_waits_for_the_hooks_before_it() -> None:
    """W8: one at a time per lane, and arrivals are data."""
    curious = Curious()
    async with running(curious, Helper("other")) as runner:
        await anyio.wait_all_tasks_blocked()
        curious.gate = anyio.Event()
        await curious.send_bus_message(BusActivateWorkerMessage(None, source="test", target="curious"))
        await runner.add_workers(Helper("newcomer"))
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["other"]
        curious.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["other", "newcomer"]
