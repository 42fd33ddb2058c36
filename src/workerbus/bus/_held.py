"""Messages that wait for a connection, in the order of sending (X2, X6).

What was sent before the first life of a bus, and what the program has sent between two: it goes out with the next one.
How, and to whom, is not known here.
"""

from typing import NamedTuple

from workerbus._message_base import BusMessage
from workerbus.bus._peers import Receipt


class Held(NamedTuple):
    """A message that waits for a connection.

    Attributes:
        message: The message.
        receipt: What is settled when it is stored, or is not.
        posted: Whether it goes past every bound.
        handed_out: Whether the subscribers of this process have got it.
    """

    message: BusMessage
    receipt: Receipt
    posted: bool
    handed_out: bool


class HeldMessages:
    """The messages of one bus that wait."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, message: BusMessage, *, posted: bool = False, handed_out: bool = False) -> Receipt:
        """Keep a message behind those that wait; see `Held`."""
        receipt = Receipt()
        self._held.append(Held(message, receipt, posted, handed_out))
        return receipt

    def take_all(self) -> list[Held]:
        """Return what waits, which then waits no more."""
        held, self._held = self._held, []
        return held
