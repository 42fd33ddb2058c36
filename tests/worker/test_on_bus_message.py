"""B6, W8: what `on_bus_message` hears, and when."""

from collections.abc import Callable
from contextlib import nullcontext

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import Note, alarm, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobStatus,
    WorkerParams,
    WorkerRunner,
)
from workerbus.testing import settle


class Hearing(Helper):
    """Keeps what its `on_bus_message` gets, with what ``look`` finds at that moment."""

    def __init__(self, name: str = "w", *, look: Callable[["Hearing"], object] = lambda _: None) -> None:
        super().__init__(name)
        self.look = look
        self.got: list[tuple[BusMessage, object]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append((message, self.look(self)))

    def found(self, kind: type[BusMessage]) -> list[object]:
        return [found for message, found in self.got if isinstance(message, kind)]


async def test_on_bus_message_comes_after_the_built_in_handling() -> None:
    """B6: which needs no call of super"""
    worker = Hearing(look=lambda worker: (worker.active, list(worker.active_jobs)))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await eventually(lambda: worker.found(BusJobRequestMessage))
        await runner.bus.send(BusDeactivateWorkerMessage(source="test", target="w"))
        await eventually(lambda: worker.found(BusDeactivateWorkerMessage))
        await runner.bus.send(BusActivateWorkerMessage(source="test", target="w"))
        await eventually(lambda: worker.found(BusActivateWorkerMessage))
        worker.release.set()
        assert (await raw.answer("1"))[0] is JobStatus.COMPLETED
    assert worker.found(BusJobRequestMessage) == [(True, ["1"])]
    assert worker.found(BusDeactivateWorkerMessage) == [(False, ["1"])]
    assert worker.found(BusActivateWorkerMessage) == [(True, ["1"])]


@pytest.mark.parametrize("kind", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_on_bus_message_hears_of_the_end_before_the_worker_stops(
    kind: type[BusEndWorkerMessage | BusCancelWorkerMessage],
) -> None:
    """B6: it may still ask for a job"""

    class Last(Hearing):
        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            if isinstance(message, kind):
                self.calls.append((await self.job("peer", name="echo"))["worker"])

    worker = Last(look=lambda worker: worker.registry.get("w") is not None)
    async with running(worker, Helper("peer")) as runner:
        await runner.bus.send(kind("enough", source="test", target="w"))
        await worker.wait()
    assert worker.found(kind) == [True]
    assert [message.reason for message, _ in worker.got if isinstance(message, kind)] == ["enough"]
    assert worker.calls == ["peer"]


async def test_on_bus_message_hears_of_an_end_behind_what_came_before_it() -> None:
    """B6, R2"""
    worker = Hearing()
    async with running(worker) as runner:
        for n in range(3):
            await runner.bus.send(note(n, "w"))
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        await runner.bus.send(note(3, "w"))
        await worker.wait()
    assert [type(message) for message, _ in worker.got] == [Note, Note, Note, BusEndWorkerMessage]


async def test_a_worker_hears_broadcasts_and_its_own() -> None:
    """B6"""
    worker, peer = Hearing(), Hearing("peer")
    async with running(worker, peer) as runner:
        for target in ("w", "peer", None):
            await runner.bus.send(note(0, target))
            await runner.bus.send(alarm(0, target))
        await eventually(lambda: len(worker.got) == len(peer.got) == 4)
        await anyio.wait_all_tasks_blocked()
        assert {message.target for message, _ in worker.got} == {"w", None}
        assert {message.target for message, _ in peer.got} == {"peer", None}


async def test_a_worker_that_receives_all_obeys_only_its_own() -> None:
    """B6"""

    class Observing(Hearing):
        receives = "all"

    worker, peer = Observing(), Helper("peer")
    async with running(worker, peer) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "peer", "echo")
        assert (await raw.answer("1"))[0] is JobStatus.COMPLETED
        await runner.bus.send(BusDeactivateWorkerMessage(source="test", target="peer"))
        await runner.bus.send(BusCancelWorkerMessage(source="test", target="peer"))
        await peer.wait()
        await eventually(lambda: worker.found(BusCancelWorkerMessage))
        assert worker.active
        assert worker.statistics().ignored == 0
        assert (await runner.job("w", name="echo"))["worker"] == "w"
    assert raw.answers("1") == [(JobStatus.COMPLETED, {"worker": "peer", "payload": None})]
    assert worker.found(BusDeactivateWorkerMessage)


@pytest.mark.parametrize("send", [note, alarm])
async def test_what_was_sent_before_the_run_is_heard_after_the_start(send: Callable[..., BusMessage]) -> None:
    """B4, B6: a worker that starts active loses neither data nor system messages"""
    worker, runner = Hearing(look=lambda worker: worker.started_at is not None), WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.bus.send(send(0, "w"))
    async with runner:
        await runner.registry.wait_for("w")
        await anyio.wait_all_tasks_blocked()
        assert len(worker.got) == 1


async def test_a_worker_can_receive_everything() -> None:
    """B6: with ``receives = "all"``, the announcements included; what is another's it does not do."""

    class Observer(Helper):
        receives = "all"

        def __init__(self) -> None:
            super().__init__("observer")
            self.got: list[BusMessage] = []

        async def on_bus_message(self, message: BusMessage) -> None:
            self.got.append(message)

    observer, helper = Observer(), Helper("helper")
    async with running(observer) as runner:
        await runner.add_workers(helper)
        await runner.registry.wait_for("helper")
        await runner.job("helper", name="echo")
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="helper"))
        await helper.stop()
        await eventually(lambda: any(isinstance(each, BusDeactivateWorkerMessage) for each in observer.got))
        assert observer.active
        assert observer.calls == []
    kinds = {type(message) for message in observer.got}
    assert {BusJobRequestMessage, BusDeactivateWorkerMessage} <= kinds
    assert {BusWorkerReadyMessage, BusWorkerGoneMessage} <= kinds


class Deaf(Helper):
    """Overrides ``on_bus_message`` without ``super()``, and notes what the worker was like when it was called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[tuple[str, bool, object]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        await checkpoint()
        self.seen.append((type(message).__name__, self.active, self.activation_args))

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]


async def test_the_hook_comes_after_the_built_in_handling() -> None:
    """B6: it sees the worker as the message has made it."""
    worker = Deaf("it")
    async with running(worker) as runner:
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="it"))
        await eventually(lambda: len(worker.seen) == 1)
        await runner.bus.send(BusActivateWorkerMessage({"n": 1}, source="me", target="it"))
        await eventually(lambda: len(worker.seen) == 2)
        seen = list(worker.seen)
    assert seen == [("BusDeactivateWorkerMessage", False, None), ("BusActivateWorkerMessage", True, {"n": 1})]


async def test_the_hook_sees_every_message_of_the_workers() -> None:
    """B6: of the library too."""
    worker = Deaf("it")
    async with running(worker, Helper("peer")) as runner:
        await runner.job("it", name="echo")
        await worker.job("peer", name="echo")
        await runner.bus.send(note(0, "it"))
        await runner.bus.send(alarm(0))
        await eventually(lambda: len(worker.seen) >= 4)
    assert {"BusJobRequestMessage", "BusJobResponseMessage", "Note", "Alarm"} <= set(worker.names())


async def test_a_worker_may_receive_what_is_meant_for_others() -> None:
    """B6: with `receives = "all"`, as an observer."""
    got: list[BusMessage] = []

    class Nosy(Helper):
        receives = "all"

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(message)

    async with running(Nosy("nosy"), Helper("other")) as runner:
        await runner.bus.send(note(1, target="other"))
        await runner.bus.send(note(2, target="nobody"))
        await anyio.wait_all_tasks_blocked()
    assert got == [note(1, target="other"), note(2, target="nobody")]


async def test_a_worker_that_ends_in_the_middle_of_a_job_hears_of_messages_alone() -> None:
    """B6: there is no last one where nobody has cancelled it."""
    hearing = Hearing()
    async with running(hearing) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "w", "wait")
        await hearing.begun.wait()
        await runner.end()
        await hearing.wait()
        await raw.answer("job")
    assert all(isinstance(message, BusMessage) for message, _ in hearing.got)
    assert hearing.found(BusEndWorkerMessage) == [None]
    assert hearing.found(BusCancelWorkerMessage) == []


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "its parent stopped"), (OSError("down"), "its parent failed: down")]
)
async def test_a_child_hears_from_its_parent_why_it_is_cancelled(error: OSError | None, reason: str) -> None:
    """W5, B6: where nobody has given a reason."""
    child = Hearing("child")

    class Parent(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.add_workers(child)
            await eventually(lambda: self.registry.get("child") is not None)
            if error is not None:
                raise error

    with nullcontext() if error is None else pytest.raises(OSError, match="down"):
        async with running(parent := Parent("parent")):
            await parent.wait()
    cancels = [message for message, _ in child.got if isinstance(message, BusCancelWorkerMessage)]
    assert [(message.reason, message.source) for message in cancels] == [(reason, "parent")]


async def test_the_reason_for_which_a_worker_is_cancelled_reaches_the_children_of_its_children() -> None:
    """W5, B6: each hears it from its own parent."""
    first, second, third = family = [Hearing(name) for name in ("first", "second", "third")]
    async with running(first) as runner:
        await first.add_workers(second)
        await runner.registry.wait_for("second")
        await second.add_workers(third)
        await runner.registry.wait_for("third")
        await runner.bus.send(BusCancelWorkerMessage("no more money", source="test", target="first"))
        await first.wait()
    heard = [message for each in family for message, _ in each.got if isinstance(message, BusCancelWorkerMessage)]
    assert [(message.reason, message.source) for message in heard] == [
        ("no more money", "test"),
        ("no more money", "first"),
        ("no more money", "second"),
    ]


async def test_of_two_cancels_the_first_one_is_what_ends_a_worker() -> None:
    """R2: it is the last that the worker hears, and its reason is that of its jobs and of its children."""

    class Slow(Hearing):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    parent, child = Hearing("parent"), Slow("child")
    async with running(parent) as runner:
        await parent.add_workers(child, wait=True)
        for reason in ("first", "second"):
            await runner.bus.send(BusCancelWorkerMessage(reason, source="test", target="parent"))
            await settle()
        await parent.wait()
    for worker in (parent, child):
        cancels = [message for message, _ in worker.got if isinstance(message, BusCancelWorkerMessage)]
        assert [message.reason for message in cancels] == ["first"]
