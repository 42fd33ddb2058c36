"""Hooks in their two forms: the overridden method, and event handlers of the same name (N3)."""

from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.hooks import HOOKS, Peer, provoke, with_hook
from support.messages import Note, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusMessage,
    JobStatus,
    WorkerReadyData,
    WorkerRunner,
)


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_handler_gets_the_worker_and_what_the_method_gets(hook: str) -> None:
    calls: list[tuple[object, ...]] = []

    async def keep(*args: object) -> None:
        calls.append(args)

    async def forward(_: object, *args: object) -> None:
        if hook != "on_bus_message" or isinstance(args[0], Note):
            calls.append((subject, *args))

    subject, peer = with_hook(hook, keep, active=hook != "on_activated"), Peer("peer")
    async with running(subject, peer) as runner:
        await anyio.wait_all_tasks_blocked()
        calls.clear()
        subject.add_event_handler(hook, forward)
        await provoke(hook, subject, peer, runner)
        await eventually(lambda: len(calls) == 2)
        subject.release.set()
    assert calls[0][0] is subject
    assert calls[0] == calls[1]


async def test_the_method_comes_first_and_the_handlers_in_the_order_of_adding() -> None:
    order: list[str] = []

    class Both(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await anyio.lowlevel.checkpoint()
            order.append("method")

    worker = Both("w")

    @worker.event_handler("on_activated")
    async def slow(_: object, args: object) -> None:
        await anyio.lowlevel.checkpoint()
        order.append("slow")

    @worker.event_handler("on_activated")
    def quick(_: object, args: object) -> None:
        order.append("quick")

    async with running(worker):
        await eventually(lambda: len(order) == 3)
    assert order == ["method", "slow", "quick"]


async def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def handler(*args: object) -> str:
        return "mine"

    assert BaseWorker("w").event_handler("on_activated")(handler) is handler


def test_an_unknown_event_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="'on_job_update'"):
        BaseWorker("w").add_event_handler("on_jobs_update", print)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(TypeError):
        BaseWorker("w").add_event_handler("on_activated", "print")  # type: ignore[arg-type]  # that is the point


async def test_a_handler_is_called_from_its_adding_on() -> None:
    got: list[int] = []
    worker = Helper("w")
    async with running(worker) as runner:
        await runner.bus.send(note(0, "w"))
        worker.add_event_handler("on_bus_message", lambda _, message: got.append(message.n))
        await runner.bus.send(note(1, "w"))
        await eventually(lambda: got)
    assert got[0] == 1


async def test_a_handler_for_ready_workers_counts_when_it_is_added_after_the_worker() -> None:
    """Of local root workers everybody hears."""
    got: list[WorkerReadyData] = []
    worker, runner = Helper("w"), WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    worker.add_event_handler("on_worker_ready", lambda _, data: got.append(data))
    async with runner:
        await runner.add_workers(Helper("peer"))
        await runner.registry.wait_for("peer")
        await anyio.wait_all_tasks_blocked()
        assert got == [WorkerReadyData("peer", runner.name)]


async def test_a_handler_is_that_of_one_worker() -> None:
    got: list[object] = []
    one, two = Helper("one"), Helper("two")
    one.add_event_handler("on_bus_message", lambda worker, _: got.append(worker))
    async with running(one, two) as runner:
        await runner.bus.send(note(0))
        await eventually(lambda: got)
        await anyio.wait_all_tasks_blocked()
        assert got == [one]


async def test_a_hook_may_come_from_a_mixin_or_from_further_up() -> None:
    got: list[str] = []

    class Mixin:
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(type(self).__name__)

    class Mixed(Mixin, BaseWorker):
        pass

    class Below(Mixed):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await super().on_activated(args)

    async with running(Mixed("one"), Below("two")) as runner:
        await runner.bus.send(note(0))
        await eventually(lambda: len(got) == 2)
    assert sorted(got) == ["Below", "Mixed"]


async def test_the_hooks_of_the_base_class_may_be_called() -> None:
    called: list[str] = []

    async def call_super(worker: Any, *args: Any) -> None:
        for hook in HOOKS:
            await getattr(BaseWorker, hook)(worker, *(args if hook != "on_deactivated" else ()))
            called.append(hook)

    subject, peer = with_hook("on_bus_message", call_super), Peer("peer")
    async with running(subject, peer) as runner:
        await provoke("on_bus_message", subject, peer, runner)
        await eventually(lambda: called == list(HOOKS))


async def test_a_handler_of_on_job_request_may_answer_later() -> None:
    worker, kept = Helper("w"), list[str]()
    worker.add_event_handler("on_job_request", lambda _, message: kept.append(message.job_id))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w")
        await eventually(lambda: kept)
        await anyio.wait_all_tasks_blocked()
        assert raw.answers("1") == []
        await worker.send_job_response("1", {"late": True})
        assert await raw.answer("1") == (JobStatus.COMPLETED, {"late": True})
