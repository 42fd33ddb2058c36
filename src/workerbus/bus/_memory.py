"""The bus of one process (N2)."""

from typing import Any, ClassVar

from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusMessage


class MemoryBus(WorkerBus):
    """A bus within one process: what is sent is delivered in the sender's step, by reference.

    The parameters are those of `WorkerBus`.

    Guarantees: N2.
    """

    _in_process: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note whether a subclass overrides a step between sender and subscriber: if so, no message may go past it."""
        super().__init_subclass__(**kwargs)
        doors = "send", "publish", "deliver"
        cls._in_process = all(getattr(cls, door) is getattr(MemoryBus, door) for door in doors)

    async def publish(self, message: BusMessage) -> None:
        """Deliver the message to the subscribers of this bus."""
        await self.deliver(message)
