"""N: names, parameters, both forms of a hook, and what was taken over from later versions."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

import anyio
import pytest

from support.conditions import eventually
from support.messages import Alarm, Note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusEndMessage,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerActivationArgs,
    WorkerParams,
    WorkerRunner,
    job,
)


def words(text: str) -> list[str]:
    return text.split()


HOOKS = words("""
    on_activated on_deactivated on_worker_ready on_worker_failed on_job_request on_job_response on_job_update
    on_job_update_requested on_job_completed on_job_error on_job_stream_start on_job_stream_data on_job_stream_end
    on_job_cancelled on_bus_message
""")


def test_activation_arguments_ignore_unknown_keys_and_leave_out_none() -> None:
    """N1: `from_dict` and `to_dict` as in the seeds, of subclasses too."""
    assert WorkerActivationArgs.from_dict({"metadata": {"a": 1}, "other": 2}).to_dict() == {"metadata": {"a": 1}}
    assert WorkerActivationArgs().to_dict() == {}


async def test_a_worker_runs_in_what_its_parameters_carry() -> None:
    """N2: `WorkerParams` carries what the runner gives a worker to run in."""
    ran = anyio.Event()

    class Starter(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(self.work)
            await super().run(params)

        async def work(self) -> None:
            ran.set()

    async with running(Starter("starter")):
        await ran.wait()


class Recorder(BaseWorker):
    """Keeps the calls of its hooks, by the form of the hook."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def note(self, form: str, hook: str, args: tuple[Any, ...]) -> None:
        self.calls.setdefault((form, hook), []).append(args)

    def listen(self) -> None:
        for hook in HOOKS:
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


Overridden = cast(type[Recorder], type("Overridden", (Recorder,), {hook: _override(hook) for hook in HOOKS}))


class Peer(Helper):
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

    peer, child = Peer("peer"), Helper("child")
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


async def test_every_hook_is_an_overridable_method() -> None:
    """N3: also with ``await super().on_…()`` in it, as the seeds want it."""
    hub = Overridden("hub")
    await run_every_hook(hub, "method")
    assert {hook for _, hook in hub.calls} == set(HOOKS)


async def test_every_hook_is_an_event_of_the_same_name() -> None:
    """N3: the handler, sync or async, is called with the emitter first."""
    hub = Recorder("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    assert {hook for form, hook in hub.calls if form == "async"} == set(HOOKS)


async def test_event_handlers_get_what_the_method_gets() -> None:
    """N3: both forms of a hook are called, with the same arguments."""
    hub = Overridden("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    await eventually(lambda: len(hub.calls) == 3 * len(HOOKS))
    for hook in HOOKS:
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


async def test_a_runner_has_its_two_events() -> None:
    """N3, seeds: ``on_ready``, and ``on_error`` with what went wrong."""
    calls: list[tuple[Any, ...]] = []
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda *args: calls.append(args))

    @runner.event_handler("on_error")
    async def failed(*args: Any) -> None:
        calls.append(args)

    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: calls)
        await worker.send_bus_error_message("broken")
        await eventually(lambda: len(calls) == 2)
    assert calls[0] == (runner,)
    assert calls[1][0] is runner
    assert (calls[1][1].worker_name, calls[1][1].error) == ("worker", "broken")


async def test_a_runner_finds_its_workers_by_name() -> None:
    """N4: `get_worker`, of roots and of children; None for a stranger and for one that has finished."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert runner.get_worker("parent") is parent
        assert runner.get_worker("child") is child
        assert runner.get_worker("stranger") is None
        await child.stop()
        await eventually(lambda: runner.get_worker("child") is None)


async def test_a_worker_knows_its_runner() -> None:
    """N4: `worker_runner`."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert parent.worker_runner is runner
        assert child.worker_runner is runner


def test_a_worker_without_a_runner_says_so() -> None:
    """N4, W1."""
    with pytest.raises(RuntimeError, match="runner"):
        _ = Helper("helper").worker_runner


class Picky(Plain):
    """Refuses the messages that are in ``refused``."""

    refused: tuple[int, ...] = ()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not (isinstance(message, Note | Alarm) and message.n in self.refused)


async def test_a_refusal_concerns_the_one_who_refuses() -> None:
    """N4: a subscriber refuses a message for itself alone."""
    picky, plain = Picky("picky"), Plain("plain")
    picky.refused = (1,)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await plain.until(3)
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


async def test_acceptance_is_asked_just_before_the_handling() -> None:
    """N4: what the subscriber says while a message waits counts, not what it said when it came."""
    entered, go_on = anyio.Event(), anyio.Event()

    async def on(message: BusMessage) -> None:
        if message == Note(0, source="me"):
            entered.set()
            await go_on.wait()

    picky = Picky("picky", on=on)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await entered.wait()
        picky.refused = (1,)
        go_on.set()
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


class Choosy(Helper):
    """A worker that accepts what ``accept`` says."""

    def __init__(self, name: str, accept: Callable[[BusMessage], bool]) -> None:
        super().__init__(name)
        self.accept = accept
        self.got: list[BusMessage] = []

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.accept(message)

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)


@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_a_worker_refuses_a_message_before_its_own_handling_and_its_hooks(kind: type[Note] | type[Alarm]) -> None:
    """N4: asked just before handling, for workers too."""
    worker = Choosy("worker", lambda message: message != kind(1, source="me", target="worker"))
    async with running(worker) as runner:
        for n in range(3):
            await runner.bus.send(kind(n, source="me", target="worker"))
        await eventually(lambda: len(worker.got) >= 2)
    assert [message.n for message in worker.got if isinstance(message, Note | Alarm)] == [0, 2]


async def test_a_worker_that_refuses_a_stranger_still_does_jobs_for_others() -> None:
    """N4: one message is refused, not the sender's lane."""
    worker = Choosy("worker", lambda message: message.source != "stranger")
    async with running(worker) as runner:
        await runner.bus.send(Note(1, source="stranger", target="worker"))
        response = await runner.job("worker", name="echo")
    assert response["worker"] == "worker"


async def test_a_worker_that_refuses_everything_still_ends() -> None:
    """N4, R2: a refusal does not keep a runner from ending; after the grace period the worker is cancelled."""
    worker = Choosy("worker", lambda message: False)
    async with running(worker, grace_period=0.05):
        pass
    assert worker.got == []


async def test_a_runner_can_refuse_a_message() -> None:
    """N4: a runner is a subscriber too."""

    class Stubborn(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return message.source != "stranger"

    async with Stubborn(handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.bus.send(BusEndMessage(source="stranger"))
        await anyio.wait_all_tasks_blocked()
        response = await runner.job("helper", name="echo", timeout=1)
    assert response["worker"] == "helper"


@pytest.mark.parametrize("thing", [BusMessage(source="me"), "text", None])
async def test_only_messages_with_a_lane_can_be_sent(thing: object) -> None:
    """N5: anything else is a `TypeError`."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusDataMessage"):
            await bus.send(cast(BusMessage, thing))
