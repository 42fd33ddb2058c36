"""What a program replaces or adds on one object, and not in its class: as stand-ins in tests do."""

from typing import Any

from support.messages import note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BaseWorker, BusMessage, MemoryBus, WorkerParams


async def test_a_subscriber_may_exchange_its_on_bus_message() -> None:
    """B6: what counts is the method at the time of the message, as for a worker's hooks."""
    subscriber, got = Plain("it"), Plain("other")
    async with MemoryBus() as bus:
        await bus.subscribe(subscriber)
        await bus.send(note(1, "it"))
        await subscriber.until(1)
        subscriber.on_bus_message = got.on_bus_message  # type: ignore[method-assign]  # on purpose
        await bus.send(note(2, "it"))
        assert await got.until(1) == [note(2, "it")]


async def test_a_worker_may_get_its_run_and_its_cleanup_on_the_object() -> None:
    """W6: the cleanup is called once, whoever has put it there."""
    worker, calls = Helper("it"), list[str]()

    async def run(params: WorkerParams) -> None:
        calls.append("run")
        await BaseWorker.run(worker, params)

    async def cleanup() -> None:
        calls.append("cleanup")

    worker.run, worker.cleanup = run, cleanup  # type: ignore[method-assign]  # on purpose
    async with running(worker):
        pass
    assert calls == ["run", "cleanup"]


async def test_an_event_handler_may_be_added_before_the_worker_is_built() -> None:
    """N3."""
    heard: list[BusMessage] = []

    class Eager(Helper):
        def __init__(self, name: str) -> None:
            self.add_event_handler("on_bus_message", self.hear)
            super().__init__(name)

        def hear(self, _: Any, message: BusMessage) -> None:
            heard.append(message)

    async with running(Eager("it")) as runner:
        await runner.bus.send(note(1, "it"))
    assert note(1, "it") in heard
