"""L7: what was left in another task stays open in the one that has entered it, until the library can close it there."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from support.leaks import nothing_left, task_ids
from support.messages import Note, note
from support.pipelines import Spy, texts, worker_of
from support.requesters import outcome_of
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    RunOutcome,
    WorkerParams,
    WorkerRunner,
    WrongTaskError,
    job,
)
from workerbus._concurrency.left_open import LEFT_OPEN, close_left_open, entered_here, leave_open
from workerbus.pipeline import Frame


async def left_elsewhere(context: AbstractAsyncContextManager[Any]) -> None:
    """Leave, in another task, what was entered; that is refused."""

    async def leave() -> None:
        with pytest.raises(WrongTaskError):
            await context.__aexit__(None, None, None)

    async with anyio.create_task_group() as others:
        others.start_soon(leave)


async def enter_and_leave_elsewhere(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aenter__()
    await left_elsewhere(context)


def context(what: str, runner: WorkerRunner) -> AbstractAsyncContextManager[Any]:
    if what == "job":
        return runner.job("one", name="wait")
    if what == "group":
        return runner.job_group("one", "two", name="wait", timeout=100)
    return MemoryBus() if what == "bus" else WorkerRunner(handle_sigint=False)


async def in_a_task_of_its_own(function: Callable[[], Awaitable[None]]) -> None:
    """Await a function in a task of the backend's own, whose scopes may be out of order at its end."""
    if "trio" not in type(anyio.Event()).__module__:
        await asyncio.create_task(function())  # type: ignore[arg-type]  # a coroutine it is
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function)


@pytest.mark.parametrize("what", ["job", "group", "bus", "runner"])
@pytest.mark.parametrize("around", ["runner", "bus", "job"])
async def test_what_another_task_has_left_does_not_keep_what_is_around_it_from_being_left(
    what: str, around: str
) -> None:
    """L7: in the task that has entered both; nothing stays behind."""
    before = task_ids()
    async with running(Helper("one"), Helper("two"), Helper("three")) as runner:
        if around == "runner":
            await enter_and_leave_elsewhere(context(what, runner))
        elif around == "bus":
            async with MemoryBus():
                await enter_and_leave_elsewhere(context(what, runner))
        else:
            async with runner.job("three", name="echo") as asked:
                await enter_and_leave_elsewhere(context(what, runner))
            assert asked.response["worker"] == "three"
        if around != "runner":
            assert not LEFT_OPEN
    assert runner.outcome == RunOutcome("finished", None, None)
    assert not LEFT_OPEN
    assert task_ids() == before
    with anyio.CancelScope() as after:  # the task's own scopes are in order
        after.cancel()
        await anyio.sleep_forever()
    assert after.cancelled_caught


async def test_of_several_that_another_task_has_left_the_last_is_closed_first() -> None:
    """L7: and what was entered later, and is left as it should be, is in nobody's way."""
    async with running(Helper("one"), Helper("two")) as runner:
        first, second, third = (runner.job("one", name="wait") for _ in range(3))
        for each in first, second, third:
            await each.__aenter__()
        for each in second, first:
            await left_elsewhere(each)
        async with runner.job("two", name="echo") as asked:
            pass
        assert asked.response["worker"] == "two"
        assert len(LEFT_OPEN) == 2
        await left_elsewhere(third)
        with anyio.move_on_after(1) as limit:
            await anyio.sleep(2)
        assert limit.cancelled_caught
    assert not LEFT_OPEN


@pytest.mark.parametrize("what", ["job", "bus", "runner"])
async def test_a_scope_of_the_programs_own_around_it_fails_and_all_the_rest_ends(what: str) -> None:
    """L7: the backend refuses to leave that scope, in its words; it goes through the runner, which is over."""
    runner, helpers = WorkerRunner(handle_sigint=False), [Helper("one"), Helper("two")]

    async def program() -> None:
        async def body() -> None:
            async with runner:
                await runner.add_workers(*helpers, wait=True)
                with anyio.CancelScope():
                    await enter_and_leave_elsewhere(context(what, runner))

        with pytest.raises(RuntimeError, match=r"exit .*cancel scope|Cancel scope stack corrupted") as caught:
            await body()
        assert not isinstance(caught.value, WrongTaskError)
        assert runner.outcome is not None
        assert runner.outcome.how == "failed"

    async with nothing_left(runner):
        await in_a_task_of_its_own(program)
    for helper in helpers:
        await helper.wait()


async def test_an_error_of_the_bodys_own_goes_through_where_scopes_are_out_of_order() -> None:
    """L7, J8: and not what the backend says of the scopes."""
    runner = WorkerRunner(handle_sigint=False)

    async def program() -> None:
        async def body() -> None:
            async with runner:
                await runner.add_workers(Helper("one"), wait=True)
                with suppress(RuntimeError), anyio.CancelScope():
                    await enter_and_leave_elsewhere(context("job", runner))
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await body()

    async with nothing_left(runner):
        await in_a_task_of_its_own(program)


async def test_what_is_open_in_another_thread_stays_until_it_is_closed_there(backend: str) -> None:
    """L7"""
    closed: list[str] = []

    async def close(where: str) -> None:
        closed.append(where)

    async def elsewhere() -> None:
        leave_open(entered_here(), partial(close, "elsewhere"))
        await close_left_open()

    leave_open(entered_here(), partial(close, "here"))
    await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=backend))
    assert closed == ["elsewhere"]
    await close_left_open()
    assert closed == ["elsewhere", "here"]


async def test_what_cannot_be_closed_where_it_was_entered_is_tried_once() -> None:
    """L7: what was entered before it is closed all the same."""
    closed: list[str] = []

    async def close(what: str) -> None:
        closed.append(what)
        if what == "second":
            raise RuntimeError("a scope of the program's own is in between")

    for what in ("first", "second"):
        leave_open(entered_here(), partial(close, what))
    await close_left_open()
    assert closed == ["second", "first"]
    assert not LEFT_OPEN


async def test_what_a_task_leaves_open_is_forgotten_when_it_has_ended() -> None:
    """L7: nothing of it stays behind; it is noticed when something is left open again."""
    async with running(Helper("one")) as runner:
        for _ in range(3):
            await in_a_task_of_its_own(partial(enter_and_leave_elsewhere, context("job", runner)))
        await enter_and_leave_elsewhere(context("job", runner))
        assert len(LEFT_OPEN) == 1
    assert not LEFT_OPEN


class Careless(Helper):
    """Enters jobs of ``other`` in its own code, and leaves them in another task."""

    def __init__(self, place: str) -> None:
        super().__init__("careless")
        self.place = place
        self.refused = anyio.Event()

    async def at(self, place: str) -> None:
        if place == self.place:
            await enter_and_leave_elsewhere(self.job("other", name="wait"))
            self.refused.set()

    @job(name="careless")
    async def handler(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await self.at("handler")
        return {"done": True}

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await self.at("hook")
            if self.place == "task":
                self.create_task(self.at, "task")


class CarelessRun(Careless):
    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.registry.wait_for("other")
        await self.at("run")
        await params.wait_for_end()


class CarelessStart(Careless):
    async def start(self) -> None:
        await super().start()
        await self.registry.wait_for("other")
        await self.at("start")


@pytest.mark.parametrize("place", ["handler", "hook", "task", "run", "start"])
async def test_code_of_a_worker_that_leaves_something_elsewhere_harms_nobody(place: str) -> None:
    """L7: the tasks that it runs in are the library's, which puts their scopes in order."""
    kinds: dict[str, type[Careless]] = {"run": CarelessRun, "start": CarelessStart}
    careless: BaseWorker = kinds.get(place, Careless)(place)
    assert isinstance(careless, Careless)
    async with running(Helper("other"), careless) as runner:
        await runner.bus.send(note(1))
        for _ in range(2):
            assert await outcome_of(runner, "careless", name="careless") == (JobStatus.COMPLETED, {"done": True})
        await careless.refused.wait()
        assert await outcome_of(runner, "careless", name="echo", timeout=1)
    assert runner.outcome == RunOutcome("finished", None, None)
    assert not LEFT_OPEN


@pytest.mark.parametrize("what", ["job", "bus"])
async def test_a_processor_that_leaves_something_elsewhere_harms_nobody(what: str) -> None:
    """L7"""

    async def careless(spy: Spy, frame: Frame) -> None:
        await enter_and_leave_elsewhere(context(what, runner))

    first, last = Spy(careless), Spy()
    worker = worker_of(first, last, name="w")
    async with running(Helper("one"), worker) as runner:
        await worker.queue_frames(texts("a", "b"))
        await last.until(2)
        await last.broadcast_interruption()
        await worker.queue_frames(texts("c"))
        await last.until(3)
    assert not LEFT_OPEN
