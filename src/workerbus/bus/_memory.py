"""The bus of one process."""

from typing import Any, ClassVar

from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusMessage


class MemoryBus(WorkerBus):
    """A bus within one process: what is sent is delivered in the sender's step, by reference (N2).

    See `WorkerBus` for the parameters.
    """

    _in_process: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See whether a subclass has put something of its own in between."""
        super().__init_subclass__(**kwargs)
        doors = "send", "publish", "deliver"
        cls._in_process = all(getattr(cls, door) is getattr(MemoryBus, door) for door in doors)

    async def publish(self, message: BusMessage) -> None:
        """Deliver the message to the subscribers of this bus."""
        await self.deliver(message)
