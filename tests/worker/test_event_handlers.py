"""N3: both forms of a hook: the overridden method, and event handlers of the same name."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from support.conditions import eventually
from support.hooks import HOOKS, Peer, provoke, with_hook
from support.messages import Note, note
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    UnknownEventError,
    WorkerReadyData,
    WorkerRunner,
    job,
)


async def test_a_handler_may_return_any_awaitable() -> None:
    """N3: it is awaited, whatever its class."""
    calls: list[str] = []

    class Later:
        def __await__(self) -> Generator[Any, Any, None]:
            yield from anyio.lowlevel.checkpoint().__await__()
            calls.append("awaited")

    worker = Helper("w")
    worker.add_event_handler("on_activated", lambda *_: Later())
    async with running(worker):
        await eventually(lambda: calls == ["awaited"])


def test_a_handler_for_an_event_that_there_is_not_is_refused() -> None:
    """N3, N8: the error names the class, and what is near."""
    with pytest.raises(UnknownEventError, match=r"^Helper has no event 'on_activate'; .*'on_activated'"):
        Helper("w").add_event_handler("on_activate", lambda *_: None)


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


@pytest.mark.parametrize("event", ["on_worker_ready", "on_worker_gone"])
async def test_a_handler_that_is_added_while_the_worker_runs_hears_of_others_from_then_on(event: str) -> None:
    """N3, W9: of root workers that nobody watches."""
    told: list[str] = []
    worker, first, second = Helper("w"), Helper("first"), Helper("second")
    async with running(worker) as runner:
        await runner.add_workers(first, wait=True)
        await first.stop()
        worker.add_event_handler(event, lambda _, data: told.append(data.worker_name))
        await runner.add_workers(second, wait=True)
        await second.stop()
        await eventually(lambda: told == ["second"])


async def test_a_handler_is_that_of_one_worker() -> None:
    got: list[object] = []
    one, two = Helper("one"), Helper("two")
    one.add_event_handler("on_bus_message", lambda worker, _: got.append(worker))
    async with running(one, two) as runner:
        await runner.bus.send(note(0))
        await eventually(lambda: got)
        await anyio.wait_all_tasks_blocked()
        assert got == [one]


def words(text: str) -> list[str]:
    return text.split()


EVERY_HOOK = words("""
    on_activated on_deactivated on_worker_ready on_worker_failed on_job_request on_job_response on_job_update
    on_job_update_requested on_job_completed on_job_error on_job_stream_start on_job_stream_data on_job_stream_end
    on_job_cancelled on_bus_message
""")


class Recorder(BaseWorker):
    """Keeps the calls of its hooks, by the form of the hook."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def note(self, form: str, hook: str, args: tuple[Any, ...]) -> None:
        self.calls.setdefault((form, hook), []).append(args)

    def listen(self) -> None:
        for hook in EVERY_HOOK:
            self.add_event_handler(hook, self.sync_handler(hook))
            self.event_handler(hook)(self.async_handler(hook))

    def sync_handler(self, hook: str) -> Callable[..., None]:
        return lambda emitter, *args: emitter.note("sync", hook, args)

    def async_handler(self, hook: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def handler(emitter: Recorder, *args: Any) -> None:
            await anyio.lowlevel.checkpoint()
            emitter.note("async", hook, args)

        return handler


def _override(hook: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def method(self: Recorder, *args: Any) -> None:
        await getattr(super(cast(Any, Overridden), self), hook)(*args)
        self.note("method", hook, args)

    return method


Overridden = cast(type[Recorder], type("Overridden", (Recorder,), {hook: _override(hook) for hook in EVERY_HOOK}))


class Counterpart(Helper):
    """Does for the recorder what makes its hooks run."""

    @job(name="talk")
    async def talk(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, {"half": True})
        await self.send_job_stream_start(message.job_id, {"parts": 1})
        await self.send_job_stream_data(message.job_id, {"part": 1})
        await self.send_job_stream_end(message.job_id, {"end": True})


async def run_every_hook(hub: Recorder, form: str) -> None:
    """Do what makes each hook of the hub run, and wait until it has."""

    def seen(hook: str) -> Callable[[], object]:
        return lambda: (form, hook) in hub.calls

    peer, child = Counterpart("peer"), Helper("child")
    async with running(hub, peer):
        await eventually(seen("on_activated"))
        await eventually(seen("on_worker_ready"))
        await hub.add_workers(child)
        await child.send_bus_error_message("the child says so")
        await eventually(seen("on_worker_failed"))
        job_id = await peer.request_job("hub")
        await eventually(seen("on_job_request"))
        await peer.request_job_update(job_id, "hub")
        await eventually(seen("on_job_update_requested"))
        await peer.cancel_job_group(job_id)
        await eventually(seen("on_job_cancelled"))
        await hub.request_job("peer", name="talk")
        for hook in ("on_job_update", "on_job_stream_start", "on_job_stream_data", "on_job_stream_end"):
            await eventually(seen(hook))
        await hub.request_job("peer", name="echo")
        await eventually(seen("on_job_response"))
        await eventually(seen("on_job_completed"))
        await hub.request_job("peer", name="fail")
        await eventually(seen("on_job_error"))
        await peer.deactivate_worker("hub")
        await eventually(seen("on_deactivated"))


async def test_event_handlers_get_what_the_method_gets() -> None:
    """N3: both forms of a hook are called, with the same arguments."""
    hub = Overridden("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    await eventually(lambda: len(hub.calls) == 3 * len(EVERY_HOOK))
    for hook in EVERY_HOOK:
        method, sync, asynchronous = (sorted(map(repr, hub.calls[form, hook])) for form in ("method", "sync", "async"))
        assert method == sync == asynchronous, hook


async def test_an_event_handler_added_while_the_worker_runs_is_called() -> None:
    """N3: as in the seeds, at any time."""
    worker = Helper("worker")
    got: list[BusMessage] = []
    async with running(worker) as runner:
        worker.add_event_handler("on_bus_message", lambda _worker, message: got.append(message))
        await runner.bus.send(Note(1, source="me", target="worker"))
        await eventually(lambda: got)
    assert got[0] == Note(1, source="me", target="worker")


async def test_an_event_handler_that_raises_stops_neither_the_others_nor_the_worker() -> None:
    """N3, W7: each handler is called, whatever the others raise."""
    worker = Helper("worker")
    got: list[BusMessage] = []

    @worker.event_handler("on_bus_message")
    def bad(_: BaseWorker, message: BusMessage) -> None:
        raise ValueError("no")

    @worker.event_handler("on_bus_message")
    def good(_: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Note):
            got.append(message)

    async with running(worker) as runner:
        for n in range(2):
            await runner.bus.send(Note(n, source="me", target="worker"))
        await eventually(lambda: len(got) == 2)


async def test_every_hook_is_an_overridable_method() -> None:
    """N3: also with ``await super().on_…()`` in it, as the seeds want it."""
    hub = Overridden("hub")
    await run_every_hook(hub, "method")
    assert {hook for _, hook in hub.calls} == set(EVERY_HOOK)


async def test_every_hook_is_an_event_of_the_same_name() -> None:
    """N3: the handler, sync or async, is called with the emitter first."""
    hub = Recorder("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    assert {hook for form, hook in hub.calls if form == "async"} == set(EVERY_HOOK)
