"""A bridge that finds no place on the bus."""

import anyio
import pytest

from workerbus import BusSubscriber, MemoryBus, PipelineWorker, WorkerRunner
from workerbus.pipeline import BusBridgeProcessor, Pipeline


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
async def test_a_worker_whose_bridge_finds_no_place_on_the_bus_leaves_it(ends: str) -> None:
    """L1, W6: it had been subscribed itself; its name is free again."""

    class Slow(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "bridge" and ends == "fails":
                raise OSError("no room")
            if subscriber.name == "bridge":
                await anyio.sleep_forever()
            await super().subscribe(subscriber)

        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            await anyio.lowlevel.checkpoint()
            await super().unsubscribe(subscriber)

    bus = Slow()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    bridge = BusBridgeProcessor(bus=bus, worker_name="w", name="bridge")
    worker = PipelineWorker(Pipeline([bridge]), name="w")
    with anyio.CancelScope() as scope:
        scope.deadline = anyio.current_time() + 1
        with pytest.raises(OSError if ends == "fails" else anyio.get_cancelled_exc_class()):
            await runner.add_workers(worker)
    assert not bus.has_subscriber("w")
    assert runner.known_workers() == []
