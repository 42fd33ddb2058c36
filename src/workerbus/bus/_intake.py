"""Where messages wait to be accepted, in front of what handles them (B1, B2, J4, N4).

``accepts_bus_message`` is the user's code, which has no place in a sender's step. Where a worker or a runner overrides
it, all its messages go through two lanes of their own first. What is to come behind the answers that wait there stands
in line with them.

Who is asked, and what follows, is not known here.
"""

from collections.abc import Callable

from workerbus._concurrency.lane import Lane
from workerbus.messages import BusMessage

Waiting = BusMessage | Callable[[], None]


class Intake:
    """The two lanes in which the messages of one subscriber wait to be accepted.

    Args:
        name: The subscriber's name.
        ask: Called with each message when its turn has come.
        call: Called with each function when those before it have had theirs; by default, that just calls it.

    Attributes:
        system: The system messages.
        data: All others, and the functions that stand in line behind them.
        lanes: Both.
    """

    __slots__ = ("_ask", "_call", "data", "lanes", "system")

    def __init__(
        self, name: str, ask: Callable[[BusMessage], None], call: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._ask = ask
        self._call = call
        self.system: Lane[BusMessage] = Lane(f"{name} system intake", self._take_system)
        self.data: Lane[Waiting] = Lane(f"{name} data intake", self._take_data, first=(self.system,))
        self.lanes: tuple[Lane[BusMessage], Lane[Waiting]] = self.system, self.data

    def put(self, message: BusMessage, *, system: bool) -> None:
        """Let a message wait for its turn; one to a lane that is closed is dropped."""
        (self.system if system else self.data).put(message)

    def holds_back(self, function: Callable[[], None]) -> bool:
        """Let a function stand in line, if messages wait; returns False, and does nothing, where none does."""
        if self.data.closed or not (self.system.waiting or self.data.waiting):
            return False
        self.data.put(function)  # the system messages that wait go before it
        return True

    async def _take_system(self, message: BusMessage) -> None:
        self._ask(message)

    async def _take_data(self, item: Waiting) -> None:
        if isinstance(item, BusMessage):
            self._ask(item)
        elif self._call is None:
            item()
        else:
            self._call(item)
