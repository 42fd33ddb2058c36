"""A worker's own code, cut at each checkpoint from within: it concerns that piece of code alone (J1, J5, W7).

Job handlers, hooks, ``run()`` and its tasks each ask others for jobs, and are cut by ``Task.cancel()``, by that at the
worst moment, or by an exception.
"""

from itertools import count
from typing import Any

import pytest
from anyio import CancelScope, sleep

from support.leaks import nothing_left
from support.workers import Helper
from workerbus import (
    BusActivateWorkerMessage,
    BusJobRequestMessage,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus._slot import core_of
from workerbus.testing import run
from workerbus.testing.cancellation._cutting import Driven, How, make_cut

WAYS: list[tuple[str, How]] = [("asyncio", "native"), ("asyncio", "race"), ("asyncio", "raise"), ("trio", "raise")]


class Busy(Helper):
    """Does a job for a while, and takes its time to stop."""

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        try:
            for n in range(3):
                await self.send_job_update(message.job_id, {"n": n})
                await sleep(0.1)
        finally:
            with CancelScope(shield=True):
                await sleep(0.3)


class Host(Helper):
    """Asks others for jobs, in one of its ``places``, and is cut there once."""

    def __init__(self, place: str, number: int, how: How) -> None:
        super().__init__("host")
        self.place = place
        self.number = number
        self.how = how
        self.driven: Driven | None = None

    async def ask(self) -> dict[str, Any]:
        async with self.job_group("a", "b", name="work", timeout=5) as group:
            async for _ in group:
                await sleep(0.05)
        return {"asked": True}

    async def ask_and_be_cut(self) -> Any:
        if self.driven is not None:
            return await self.ask()
        self.driven = Driven(self.ask(), self.number, make_cut(self.how, ZeroDivisionError))
        return await self.driven.drive()

    @job(name="host")
    async def host(self, message: BusJobRequestMessage) -> Any:
        return await self.ask_and_be_cut()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        if args is not None:
            await self.ask_and_be_cut()

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.registry.wait_for("a")
        await self.registry.wait_for("b")
        if self.place == "run":
            await self.ask_and_be_cut()
        elif self.place == "task":
            params.task_group.start_soon(self.ask_and_be_cut)
        await self.release.wait()


async def play(place: str, number: int, how: How) -> bool:
    """Cut the host's code at one checkpoint; returns whether there was one of that number."""
    bus: WorkerBus = MemoryBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    errors: list[WorkerErrorData] = []
    runner.add_event_handler("on_error", lambda _, data: errors.append(data))
    async with nothing_left(runner), runner:
        host, helpers = Host(place, number, how), [Busy("a"), Busy("b")]
        await runner.add_workers(host, *helpers)
        await runner.registry.wait_for("host")
        status = None
        if place == "job":
            async with runner.job_group("host", name="host", cancel_on_error=False) as group:
                pass
            status = group.statuses["host"]
        elif place == "hook":
            await bus.send(BusActivateWorkerMessage({}, source="test", target="host"))
        await sleep(3)
        assert host.driven is not None
        cut = host.driven.place is not None
        if status is not None:
            assert status is (JobStatus.ERROR if cut else JobStatus.COMPLETED)
        assert core_of(host).job_client.groups == {}
        assert [len(core_of(helper).job_server.jobs) for helper in helpers] == [0, 0]
        assert [data.worker_name for data in errors] in ([], ["host"])
        if cut and how == "raise" and place != "job":
            assert "ZeroDivisionError" in errors[0].error
        if runner.get_worker("host") is host:
            assert await runner.job("host", name="host") == {"asked": True}
            host.release.set()
        else:
            assert place in ("run", "task")
            assert [data.worker_name for data in errors] == ["host"]
            await runner.add_workers(Helper("host"))
            assert (await runner.job("host", name="echo"))["worker"] == "host"
        return cut


@pytest.mark.parametrize("place", ["job", "hook", "run", "task"])
@pytest.mark.parametrize(("backend", "how"), WAYS)
def test_a_cut_of_a_workers_own_code_concerns_nothing_else(place: str, backend: str, how: How) -> None:
    for number in count(1):
        if not run(play, place, number, how, backend=backend, seed=number):
            break
    assert number > 3
