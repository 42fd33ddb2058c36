"""B1, B4-B8: lanes and their tasks, sending before the start, subscribing, routing, announcements, local messages."""

from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.listeners import listening
from support.messages import Alarm, Note, alarm, note
from support.workers import Helper, running
from workerbus import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
)


@pytest.mark.parametrize("make", [note, alarm])
async def test_an_active_worker_gets_what_was_sent_before_the_start(make: Callable[..., Note | Alarm]) -> None:
    """B4: data and system messages alike."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening("worker", code, before=[make(0, "it")]) as bus:
        await bus.send(make(1, "it"))
        await eventually(lambda: make(1, "it") in got)
    assert got == [make(0, "it"), make(1, "it")]


async def test_a_worker_gets_broadcasts_and_what_is_addressed_to_it() -> None:
    """B6: as `BaseWorker` has it."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening("worker", code) as bus:
        for message in (note(0), note(1, "other"), note(2, "it"), note(3)):
            await bus.send(message)
        await eventually(lambda: note(3) in got)
    assert got == [note(0), note(2, "it"), note(3)]


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


async def test_the_built_in_handling_needs_no_super() -> None:
    """B6: `on_bus_message` is a hook like the others."""
    worker = Deaf("it")
    async with running(worker) as runner:
        assert (await runner.job("it", name="echo"))["worker"] == "it"
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="it"))
        await eventually(lambda: not worker.active)


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


@pytest.mark.parametrize("make", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_the_hook_for_an_end_comes_before_the_worker_stops(
    make: type[BusEndWorkerMessage] | type[BusCancelWorkerMessage],
) -> None:
    """B6: it is run, to its end, while the worker has not finished."""
    worker = Deaf("it")
    finished = anyio.Event()

    async def note_finish() -> None:
        await worker.wait()
        assert make.__name__ in worker.names()
        finished.set()

    async with running(worker, Helper("other")) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(note_finish)
        await runner.bus.send(make("enough", source="me", target="it"))
        await finished.wait()
