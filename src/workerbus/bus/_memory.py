"""The bus of one process."""

from workerbus.bus._core import WorkerBus
from workerbus.messages import BusMessage


class MemoryBus(WorkerBus):
    """A bus within one process: what is sent is delivered in the sender's step, by reference (N2).

    See `WorkerBus` for the parameters.
    """

    async def publish(self, message: BusMessage) -> None:
        """Deliver the message to the subscribers of this bus."""
        await self.deliver(message)

    @property
    def publishes_at_once(self) -> bool:
        """True, unless a subclass has put something of its own in between."""
        return type(self).publish is MemoryBus.publish
