"""L5: a bus that gets nothing out is stopped like others."""

from anyio import sleep_forever

from support.messages import note
from workerbus import BusMessage, WorkerBus
from workerbus.testing import run


class StuckBus(WorkerBus):
    """A bus that never gets rid of what it is to publish."""

    stopped = False

    async def publish(self, message: BusMessage) -> None:
        await sleep_forever()

    async def stop(self) -> None:
        self.stopped = True
        await super().stop()


def test_a_bus_whose_messages_do_not_go_out_is_stopped_all_the_same(backend: str) -> None:
    """L5, L1: `stop()` is called, whether or not the bound of the wind-down is over; a transport closes its streams."""

    async def program() -> None:
        bus = StuckBus()
        async with bus:
            bus.post(note(1))
        assert bus.stopped

    run(program, backend=backend)
