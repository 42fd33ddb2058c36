"""The bus of one process (N2)."""

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workerbus._methods import is_default
from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusMessage


class MemoryBus(WorkerBus):
    """A bus within one process: what is sent is delivered in the sender's step, by reference.

    A ``send``, ``publish`` or ``deliver`` that replaces its own, in a subclass or on the object, is called with
    everything that is sent, by the library as well.

    The parameters are those of `WorkerBus`.

    Guarantees: N2, N7.
    """

    _in_process: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note whether a subclass overrides a step between sender and subscriber: if so, no message may go past it."""
        super().__init_subclass__(**kwargs)
        cls._in_process = all(getattr(cls, door) is getattr(MemoryBus, door) for door in _DOORS)

    if not TYPE_CHECKING:  # a type checker would take any attribute

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name in _DOORS:
                self._look_at_doors()

        def __delattr__(self, name: str) -> None:
            super().__delattr__(name)
            if name in _DOORS:
                self._look_at_doors()

    def _look_at_doors(self) -> None:
        direct = self._in_process and all(is_default(self, name, door) for name, door in _DOORS.items())
        if direct == self._direct:
            return
        if direct and (self._outbox.waiting or self._outbox.busy):
            return  # what comes now is not to overtake what waits there
        self._direct, self._replaced = direct, self._in_process and not direct
        self.never_waits: bool = direct and self.max_buffer_size == math.inf

    async def publish(self, message: BusMessage) -> None:
        """Deliver the message to the subscribers of this bus."""
        await self.deliver(message)


_DOORS: Final = {name: getattr(MemoryBus, name) for name in ("send", "publish", "deliver")}
