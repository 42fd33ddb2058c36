"""Jobs that wait until their time is up."""

import anyio

from support.requesters import Listener
from workerbus import BusJobRequestMessage, BusMessage, MemoryBus, job

NEAR = 0.9
"""Seconds: how much real time may pass in a test that takes none of it."""


class Waiting(Listener):
    """Has handlers of every kind that go on until they are cancelled."""

    def __init__(self, name: str = "waiting") -> None:
        super().__init__(name)
        self.cancellations = 0

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="queued", sequential=True)
    async def queued(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="left open", deferred=True)
    async def left_open(self, message: BusJobRequestMessage) -> None:
        self.begun.set()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        if message.job_name == "request":
            await self._wait_on(message)

    async def _wait_on(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        self.begun.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancellations += 1
            raise


class EarlyBus(MemoryBus):
    """A bus under which workers see the time run out a moment before their requesters do."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.seconds_left is not None:
            message = BusJobRequestMessage(
                message.job_id,
                message.job_name,
                message.payload,
                message.seconds_left - 0.0005,
                source=message.source,
                target=message.target,
            )
        await super().publish(message)
