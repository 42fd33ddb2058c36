"""Every way to ask for a job, cut at each of its checkpoints: what was promised still holds, and the program goes on.

A case is a scenario of a few lines, in a program of its own. After each cut the program asks for the same again, under
the same names, and ends normally; somebody who watches the bus has then seen one answer to each request (J1).
"""

import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, sleep
from anyio.abc import TaskGroup
from attrs import define
from rich.console import Console

from support.cuts import Case, cuts_of
from support.leaks import nothing_left
from support.requesters import Raw
from support.workers import Helper
from workerbus import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusMessage,
    JobError,
    JobGroupError,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
    job,
)
from workerbus._slot import core_of
from workerbus.cli import rich_progress
from workerbus.testing.cancellation._cutting import How

pytestmark = pytest.mark.slow


ANSWERS = BusJobResponseMessage | BusJobResponseUrgentMessage | BusJobStreamEndMessage


class Slow(MemoryBus):
    """A bus on which sending takes time, before the message is out and after."""

    async def publish(self, message: BusMessage) -> None:
        await sleep(0.01)
        await super().publish(message)
        await sleep(0.01)


class Doer(Helper):
    """Does, for the job ``do``, what the payload says under its name."""

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        plan = (message.payload or {}).get(self.name, {})
        try:
            for n in range(plan.get("chunks", 0)):
                await self.send_job_stream_data(message.job_id, {"n": n})
                await sleep(0.1)
            if "after" in plan:
                await sleep(plan["after"])
        finally:
            if "clean_up" in plan:
                with CancelScope(shield=True):
                    await sleep(plan["clean_up"])
        if plan.get("fails"):
            raise ValueError("it went wrong")
        return {"done": self.name}

    @job(name="pass on")
    async def pass_on(self, message: BusJobRequestMessage) -> dict[str, Any]:
        names = (message.payload or {})["to"]
        if not names:
            return await self.do(message)
        payload = {**(message.payload or {}), "to": names[1:]}
        async with self.job(names[0], name="pass on", payload=payload) as asked:
            async for _ in asked:
                pass
        return asked.response

    @job(name="in turn", sequential=True)
    async def in_turn(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.do(message)

    @job(name="later", deferred=True)
    async def answer_later(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)

    async def answer_all(self) -> None:
        """Answer what was left open, and not cancelled meanwhile."""
        while self.calls:
            with suppress(RuntimeError):
                await self.send_job_response(self.calls.pop(), {})


@define
class Program:
    """A program that runs: one who asks, workers, one who watches the bus, and tasks of the program's own."""

    runner: WorkerRunner
    me: Doer
    watch: Raw
    background: TaskGroup
    names: tuple[str, ...]

    def later(self, seconds: float, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Do something in a while, in a task of the program's own."""

        async def wait_and_call() -> None:
            await sleep(seconds)
            await function(*args)

        self.background.start_soon(wait_and_call)

    def open_requests(self) -> Counter[tuple[str, str | None]]:
        """Requests without an answer, and, counted below zero, answers too many."""
        balance: Counter[tuple[str, str | None]] = Counter()
        for message in self.watch.got:
            if isinstance(message, BusJobRequestMessage):
                balance[message.job_id, message.target] += 1
            elif isinstance(message, ANSWERS):
                balance[message.job_id, message.source] -= 1
        return Counter({key: count for key, count in balance.items() if count})


@asynccontextmanager
async def program(*names: str, bus: Callable[[], WorkerBus] = MemoryBus, **options: Any) -> AsyncIterator[Program]:
    """Run ``me`` and workers of these names; it ends gracefully, and leaves nothing (L1)."""
    it = bus()
    runner = WorkerRunner(bus=it, handle_sigint=False, **options)
    async with nothing_left(runner, stays=["watch"]), it:
        watch = await Raw.on(it, "watch")
        failure: BaseException | None = None
        async with runner, create_task_group() as background:
            me = Doer("me")
            await runner.add_workers(me, *map(Doer, names))
            for name in ("me", *names):
                await runner.registry.wait_for(name)
            running = Program(runner, me, watch, background, names)
            try:
                yield running
            except Exception as exc:
                failure = exc  # out of here, it would be in an exception group
            background.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await watch.settle()
        assert running.open_requests() == {}


async def goes_on(it: Program) -> None:
    """All who were asked are told and have answered, the group is forgotten, and the same can be asked again (J5)."""
    assert core_of(it.me).job_client.groups == {}
    if isinstance(it.runner.bus, Slow):
        await sleep(10)  # of a request whose sending was cut nobody knows whether it got there: it is not waited for
    await it.watch.settle()
    assert it.open_requests() == {}
    for name in it.names:
        if it.runner.get_worker(name) is not None:
            assert await it.me.job(name, name="do") == {"done": name}
    assert it.me.job_groups == {}


async def goes_on_later(it: Program) -> None:
    """What is not waited for is told all the same, and forgotten when it has answered."""
    await sleep(10)
    await goes_on(it)


CASES: dict[str, Case[Program]] = {}


def case(
    *names: str, check: Callable[[Program], Awaitable[object]] = goes_on, **options: Any
) -> Callable[[Callable[[Program], Coroutine[Any, Any, object]]], None]:
    def add(scenario: Callable[[Program], Coroutine[Any, Any, object]]) -> None:
        CASES[scenario.__name__] = Case(scenario, lambda: program(*names, **options), check)
        slow = f"{scenario.__name__}_on_a_slow_bus"
        if "bus" not in options:
            CASES[slow] = Case(scenario, lambda: program(*names, **options, bus=Slow), check)

    return add


# --- jobs


@case("a")
async def awaiting_a_job(it: Program) -> None:
    await it.me.job("a", name="do", payload={"a": {"after": 1}})


@case("a")
async def awaiting_a_job_of_one_that_cleans_up(it: Program) -> None:
    await it.me.job("a", name="do", payload={"a": {"after": 1, "clean_up": 0.5}})


@case("a")
async def awaiting_a_job_that_only_a_cancel_ends(it: Program) -> None:
    with suppress(ZeroDivisionError):
        async with it.me.job("a", name="wait"):
            await sleep(1)
            raise ZeroDivisionError


@case("a")
async def iterating_over_a_stream(it: Program) -> None:
    async with it.me.job("a", name="do", payload={"a": {"chunks": 3}}) as asked:
        async for _ in asked:
            await sleep(0.05)


@case("a")
async def waiting_for_a_job_that_is_late(it: Program) -> None:
    with suppress(TimeoutError):
        await it.me.job("a", name="do", payload={"a": {"after": 3, "clean_up": 0.5}}, timeout=1)


@case("a")
async def waiting_for_a_worker_that_comes(it: Program) -> None:
    it.later(1, it.runner.add_workers, Doer("late"))
    await it.me.job("late", name="do", payload={"late": {"after": 1}}, timeout=7)


@case("a")
async def waiting_for_a_worker_that_never_comes(it: Program) -> None:
    with suppress(TimeoutError):
        await it.me.job("nobody", name="do", timeout=7)


@case("a")
async def a_body_that_is_busy_when_the_answer_comes(it: Program) -> None:
    async with it.me.job("a", name="do", payload={"a": {"after": 0.5}}):
        await sleep(1)


@case("a")
async def a_body_that_raises(it: Program) -> None:
    with suppress(ZeroDivisionError):
        async with it.me.job("a", name="do", payload={"a": {"after": 3, "clean_up": 0.5}}):
            await sleep(1)
            raise ZeroDivisionError


@case("a")
async def waiting_for_a_worker_that_stops(it: Program) -> None:
    it.later(0.5, it.runner.get_worker("a").stop)  # type: ignore[union-attr]  # it is there
    with suppress(JobError):
        await it.me.job("a", name="do", payload={"a": {"after": 1, "clean_up": 0.2}})


@case("a", "b")
async def a_job_within_a_job(it: Program) -> None:
    async with it.me.job("a", name="do", payload={"a": {"after": 2, "clean_up": 0.3}}, timeout=3):
        await it.me.job("b", name="do", payload={"b": {"after": 1, "clean_up": 0.3}})


@case("a", "b", "c")
async def a_job_that_is_passed_on(it: Program) -> None:
    payload = {"to": ["b", "c"], "c": {"after": 1, "clean_up": 0.3}}
    await it.me.job("a", name="pass on", payload=payload, timeout=5)


@case("a", check=goes_on_later)
async def waiting_for_a_turn(it: Program) -> None:
    it.later(0, until_cancelled, it.runner.job("a", name="in turn", payload={"a": {"after": 1}}))
    await sleep(0.1)
    await it.me.job("a", name="in turn", payload={"a": {"after": 1, "clean_up": 0.3}})


async def until_cancelled(asked: Awaitable[object]) -> None:
    await asked


@case("a")
async def waiting_for_an_answer_that_was_put_off(it: Program) -> None:
    it.later(1, it.runner.get_worker("a").answer_all)  # type: ignore[union-attr]  # a Doer, which is there
    await it.me.job("a", name="later")


@case("a")
async def a_job_of_the_runner(it: Program) -> None:
    await it.runner.job("a", name="do", payload={"a": {"after": 1}})


# --- groups

MIXED: dict[str, Any] = {"a": {}, "b": {"after": 0.5}, "c": {"after": 1, "clean_up": 0.5}, "d": {"chunks": 2}}


@case()
async def a_group_of_none(it: Program) -> None:
    async with it.me.job_group(name="do"):
        await sleep(0.1)


@case("a", "b", "c", "d")
async def a_group_of_mixed_speeds(it: Program) -> None:
    await it.me.job_group("a", "b", "c", "d", name="do", payload=MIXED)


@case("a", "b", "c", "d")
async def iterating_over_a_group(it: Program) -> None:
    async with it.me.job_group("a", "b", "c", "d", name="do", payload=MIXED, timeout=5) as group:
        async for _ in group:
            await sleep(0.05)


def shown(asked: Any, *, live: bool) -> Any:
    return rich_progress(asked, console=Console(file=io.StringIO(), force_terminal=live))


@case("a", "b", "c", "d")
async def a_group_whose_progress_is_shown(it: Program) -> None:
    await shown(it.me.job_group("a", "b", "c", "d", name="do", payload=MIXED), live=False)


@case("a", "b", "c")
async def a_group_that_fails_while_its_progress_is_shown(it: Program) -> None:
    plan = {**MIXED, "b": {"after": 0.5, "fails": True}}
    with suppress(JobGroupError):
        async with shown(it.me.job_group("a", "b", "c", name="do", payload=plan), live=True) as group:
            async for _ in group:
                await sleep(0.05)


@case("a", "b")
async def progress_that_is_shown_within_the_context_of_a_group(it: Program) -> None:
    async with it.me.job_group("a", "b", name="do", payload=MIXED) as group, shown(group, live=True):
        await sleep(0.7)


@case("a", "b", "c")
async def a_group_one_of_which_fails(it: Program) -> None:
    with suppress(JobGroupError):
        async with it.me.job_group("a", "b", "c", name="do", payload={**MIXED, "b": {"after": 0.5, "fails": True}}):
            await sleep(0.7)


@case("a", "b", "c")
async def a_group_whose_failures_are_kept(it: Program) -> None:
    plan = {**MIXED, "b": {"after": 0.5, "fails": True}}
    await it.me.job_group("a", "b", "c", name="do", payload=plan, cancel_on_error=False)


@case("a", "b")
async def a_group_that_is_late(it: Program) -> None:
    with suppress(TimeoutError):
        await it.me.job_group("a", "b", name="do", payload={"a": {}, "b": {"after": 3, "clean_up": 1}}, timeout=1)


@case("a", "b")
async def a_group_one_of_which_comes_later(it: Program) -> None:
    it.later(1, it.runner.add_workers, Doer("late"))
    await it.me.job_group("a", "late", "b", name="do", payload=MIXED)


@case("a", "b")
async def a_group_that_is_cancelled_by_another(it: Program) -> None:
    with suppress(JobGroupError):
        async with it.me.job_group("a", "b", name="do", payload={"a": {"after": 3}, "b": {"clean_up": 0.5}}) as group:
            it.later(0.5, it.me.cancel_job_group, group.job_id)
            await sleep(1)


# --- without a context


@case("a", check=goes_on_later)
async def requesting_a_job(it: Program) -> None:
    await it.me.request_job("a", name="do", payload={"a": {"after": 1}}, timeout=3)
    await sleep(0.1)


@case("a", "b", check=goes_on_later)
async def requesting_a_group_one_of_which_comes_later(it: Program) -> None:
    it.later(1, it.runner.add_workers, Doer("late"))
    await it.me.request_job_group("a", "late", "b", name="do", payload={"a": {"after": 2, "clean_up": 0.3}}, timeout=6)


@case("a", "b", check=goes_on_later)
async def waiting_for_a_group_without_a_context(it: Program) -> None:
    group = await it.me.create_job_group_and_request_job(["a", "b"], name="do", payload=MIXED)
    await group.wait()


@case("a", check=goes_on_later)
async def requesting_a_job_of_nobody(it: Program) -> None:
    with suppress(TimeoutError):
        await it.me.request_job("nobody", name="do", timeout=3)


@pytest.mark.parametrize(("name", "backend", "how"), list(cuts_of(CASES)))
def test_what_was_promised_holds_wherever_an_operation_is_cut(name: str, backend: str, how: How) -> None:
    check = goes_on_later if how == "raise" else None  # an interrupt waits for nobody
    report = CASES[name].cut(backend, how, check=check)
    assert report.checkpoints, "nothing was cut"
