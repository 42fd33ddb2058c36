"""Protocols of the library where two things come in the same turn, under every order of tasks up to a bound."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobGroupError, JobStatus, WorkerRunner, job
from workerbus.testing import (
    Behaviour,
    EchoWorker,
    ScriptedWorker,
    exhaustive,
    explore,
    nothing_left,
    pct,
)

pytestmark = pytest.mark.slow

Scenario = Callable[[], Awaitable[None]]


async def an_answer_against_the_deadline() -> None:
    """J6: it is the answer or a TimeoutError, and nothing is left."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo", after=1.0))
        with suppress(TimeoutError):
            assert await runner.job("echo", payload={"n": 1}, timeout=1.0) == {"n": 1}
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}


async def a_cancel_against_the_answer() -> None:
    """J5: who leaves the block is not asked for anything more, and the worker answers others."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo", after=1.0))
        with anyio.move_on_after(1.0):
            assert await runner.job("echo", payload={"n": 1}) == {"n": 1}
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}


async def an_end_against_a_request() -> None:
    """J4, W6: a job of a worker that ends is answered, by it or for it."""
    async with nothing_left(), WorkerRunner() as runner, anyio.create_task_group() as group:
        echo = EchoWorker("echo")
        await runner.add_workers(echo)
        group.start_soon(echo.end)
        with suppress(JobError), anyio.fail_after(5):  # by whom it is answered, and how, is open; that it is, is not
            assert await runner.job("echo", payload={"n": 1}) == {"n": 1}


async def a_crash_in_a_group() -> None:
    """J4, J8: who crashes is ERROR, the others have answered or were cancelled."""
    quick, broken = ScriptedWorker("quick", Behaviour(after=1)), ScriptedWorker("broken", Behaviour("crash", after=1))
    runner = WorkerRunner()
    runner.add_event_handler("on_error", lambda runner, data: None)
    async with nothing_left(), runner:
        await runner.add_workers(quick, broken)
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("quick", "broken")
        assert caught.value.statuses["broken"] is JobStatus.ERROR
        assert caught.value.statuses["quick"] in (JobStatus.COMPLETED, JobStatus.CANCELLED)


async def a_sequential_handler() -> None:
    """J13: turns keep the order of arrival, and no two are taken at once."""

    class Account(BaseWorker):
        balance = 0

        @job(name="deposit", sequential=True)
        async def deposit(self, message: BusJobRequestMessage) -> None:
            before = self.balance
            await anyio.lowlevel.checkpoint()
            self.balance = before + 10

    account = Account("account")
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(account)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lambda: runner.job("account", name="deposit", timeout=5))
    assert account.balance == 20


async def a_worker_that_is_made_anew() -> None:
    """S1: a job that comes while it is made anew waits for the next one, or is answered for the last one."""
    made: list[ScriptedWorker] = []

    def factory() -> ScriptedWorker:
        made.append(ScriptedWorker("worker", Behaviour("crash" if not made else "answer")))
        return made[-1]

    async with nothing_left(), WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda runner, data: None)
        await runner.supervise(factory)
        with pytest.raises(JobError):
            await runner.job("worker", timeout=60)
        await runner.job("worker", timeout=60)
    assert len(made) == 2


SCENARIOS: tuple[Scenario, ...] = (
    an_answer_against_the_deadline,
    a_cancel_against_the_answer,
    an_end_against_a_request,
    a_crash_in_a_group,
    a_sequential_handler,
    a_worker_that_is_made_anew,
)


def name_of(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name_of)
def test_a_protocol_holds_with_any_two_switches(backend: str, scenario: Scenario) -> None:
    """T1: all of them, to the end."""
    assert explore(scenario, strategy=exhaustive(2), budget=5_000, backend=backend).exhausted


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name_of)
def test_a_protocol_holds_under_drawn_priorities(backend: str, scenario: Scenario) -> None:
    """T1."""
    explore(scenario, strategy=pct(3), budget=150, backend=backend)
