"""W8: handlers and hooks run with the context variables of their worker."""

from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.conditions import eventually
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import BusJobRequestMessage, BusMessage, WorkerParams, job
from workerbus.testing import settle

quickly = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


where: ContextVar[str] = ContextVar("where", default="nowhere")


left: ContextVar[str] = ContextVar("left", default="nothing")


class Placed(Helper):
    """Sets a context variable in `run`, and notes what its hooks and handlers find."""

    def __init__(self, name: str = "w", *, place: str = "run") -> None:
        super().__init__(name)
        self.place = place
        self.found: list[tuple[str, str]] = []

    async def run(self, params: WorkerParams) -> None:
        if self.place == "run":
            where.set("worker")
        await super().run(params)

    async def start(self) -> None:
        if self.place == "start":
            where.set("worker")
        await super().start()

    def look(self) -> dict[str, Any]:
        self.found.append((where.get(), left.get()))
        return {"where": where.get(), "left": left.get()}

    @job(name="look")
    async def look_around(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return self.look()

    @job(name="set")
    async def set_both(self, message: BusJobRequestMessage) -> dict[str, Any]:
        where.set("handler")
        left.set("something")
        return {}

    @job(name="change")
    async def change_one(self, message: BusJobRequestMessage) -> dict[str, Any]:
        where.set("handler")
        return {}

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            self.look()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.look()


@pytest.mark.parametrize("place", ["run", "start"])
async def test_a_handler_starts_with_the_worker_s_context_variables(place: str) -> None:
    """W8: not with those of the one who asks"""
    where.set("requester")
    async with running(Placed(place=place)) as runner:
        for _ in range(3):
            assert await runner.job("w", name="look") == {"where": "worker", "left": "nothing"}
    assert where.get() == "requester"


@pytest.mark.parametrize("name", ["set", "change"])
async def test_what_a_handler_sets_ends_with_it(name: str) -> None:
    """W8: though tasks are reused"""
    async with running(Placed()) as runner:
        for _ in range(3):
            await runner.job("w", name=name)
            assert await runner.job("w", name="look") == {"where": "worker", "left": "nothing"}


@quickly
@given(names=st.lists(st.sampled_from(["look", "set", "change"]), max_size=12), at_once=st.integers(1, 4))
def test_no_handler_sees_what_another_has_set(backend: str, names: list[str], at_once: int) -> None:
    """W8"""

    async def main() -> None:
        worker = Placed()
        async with running(worker) as runner:
            raw = await Raw.on(runner.bus)
            for n, name in enumerate(names):
                await raw.ask(str(n), "w", name)
                if not n % at_once:
                    await raw.answer(str(n))
            for n in range(len(names)):
                await raw.answer(str(n))
        assert set(worker.found) == {("worker", "nothing")}

    clock.run(main, backend=backend, limit=5)


async def test_hooks_run_with_the_worker_s_context_variables() -> None:
    """W8"""
    where.set("sender")
    worker = Placed()
    async with running(worker) as runner:
        await runner.bus.send(note(0, "w"))
        await runner.bus.send(alarm(0, "w"))
        await eventually(lambda: len(worker.found) == 3)
    assert worker.found == [("worker", "nothing")] * 3


async def test_all_variables_that_a_handler_has_changed_are_put_back() -> None:
    """W8: what it sets ends with it."""
    variables = [ContextVar(f"variable {n}", default="nobody's") for n in range(3)]
    seen: list[list[str]] = []

    class Careless(Helper):
        async def start(self) -> None:
            for variable in variables:
                variable.set("the worker's")
            await super().start()

        @job(name="set")
        async def set_all(self, message: BusJobRequestMessage) -> None:
            seen.append([variable.get() for variable in variables])
            for variable in variables:
                variable.set("a handler's")

    async with running(Careless("careless")) as runner:
        for _ in range(3):
            await runner.job("careless", name="set")
    assert seen == [["the worker's"] * 3] * 3


async def test_a_start_that_somebody_else_calls_lends_a_worker_no_context_variables() -> None:
    """W8: they would be those of its own task."""
    started = anyio.Event()

    class Started(Placed):
        async def run(self, params: WorkerParams) -> None:
            await started.wait()
            await super().run(params)

    async with quiet_runner() as runner:
        worker = Started(place="nowhere")
        await runner.add_workers(worker)
        await settle()
        where.set("somebody else")
        await worker.start()
        started.set()
        assert (await runner.job("w", name="look"))["where"] == "nowhere"


async def test_a_list_that_a_handler_has_put_in_the_place_of_an_equal_one_is_its_own() -> None:
    """W8: the next handler finds the worker's again, and not one that only looks like it."""
    lists: ContextVar[list[str]] = ContextVar("lists")
    workers_own: list[str] = []

    class Noting(Helper):
        async def start(self) -> None:
            lists.set(workers_own)
            await super().start()

        @job(name="note")
        async def note_it(self, message: BusJobRequestMessage) -> dict[str, Any]:
            found = lists.get()
            lists.set([])
            return {"the worker's": found is workers_own}

    async with running(Noting("noting")) as runner:
        for _ in range(3):
            assert await runner.job("noting", name="note") == {"the worker's": True}
