"""B1, B4-B8: lanes and their tasks, sending before the start, subscribing, routing, announcements, local messages."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.listeners import listening
from support.messages import note
from support.workers import Helper, running
from workerbus import (
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
)


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
