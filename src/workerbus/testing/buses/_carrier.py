"""What is under way from an end of a faulty network, and the task that sends it when it is due.

Messages leave in the order of the moments at which they are due. Of one sender's messages none is due before an earlier
one, so that they keep their order. The task exists only while something waits.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Callable
from itertools import count

from anyio import Event, current_time, move_on_at

from workerbus._concurrency.lifetime import TaskHost
from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusMessage

logger = logging.getLogger("workerbus.testing")


class Carrier:
    """The messages that are under way from an end.

    Args:
        name: The name of the end, for that of the task.
        bus: The bus over which they are sent.
        tasks: Returns where the task runs.
    """

    def __init__(self, name: str, bus: WorkerBus, tasks: Callable[[], TaskHost]) -> None:
        self._name = name
        self._bus = bus
        self._tasks = tasks
        self._waiting: list[tuple[float, int, BusMessage]] = []
        self._numbers = count()
        self._pending: Counter[str] = Counter()
        self._last_due: dict[str, float] = {}
        self._sooner = Event()
        self._carried: Event | None = None
        self._hurry = False

    def open(self) -> None:
        """Let messages wait until they are due."""
        self._hurry = False

    def due(self, source: str, delay: float) -> float:
        """Return when a sender's next message is due.

        Args:
            source: The sender.
            delay: How many seconds the message is to wait.
        """
        now = current_time()
        return now if self._hurry else max(now + delay, self._last_due.get(source, now))

    async def send(self, message: BusMessage, due: float) -> None:
        """Send a message when it is due; at once, if that is now and no other message of its sender waits."""
        if due <= current_time() and not self._pending[message.source]:
            await self._bus.send(message)
            return
        self._last_due[message.source] = due
        self._pending[message.source] += 1
        heapq.heappush(self._waiting, (due, next(self._numbers), message))
        self._sooner.set()
        if self._carried is None and not self._hurry:
            self._carried = Event()
            self._tasks().start(self._carry, self._carried, name=f"{self._name} carrier")

    async def _carry(self, carried: Event) -> None:
        try:
            while self._waiting and not self._hurry:
                due = self._waiting[0][0]
                if due <= current_time():
                    await self._send_next()
                else:
                    self._sooner = Event()
                    with move_on_at(due):
                        await self._sooner.wait()
        finally:
            self._carried = None
            carried.set()

    async def _send_next(self) -> None:
        message = heapq.heappop(self._waiting)[2]
        try:
            await self._bus.send(message)
        except Exception:
            logger.exception("bus %r could not send %s", self._bus.name, type(message).__name__)
        finally:
            self._pending[message.source] -= 1

    async def hurry(self) -> int:
        """Stop the task, and let no further message wait; returns how many messages wait now."""
        self._hurry = True
        if self._carried is not None:
            self._sooner.set()
            await self._carried.wait()
        return len(self._waiting)

    async def send_the_rest(self) -> None:
        """Send the messages that wait, in order, without waiting until they are due."""
        while self._waiting:
            await self._send_next()

    def drop(self) -> int:
        """Drop the messages that wait; returns how many that were."""
        dropped = len(self._waiting)
        self._waiting.clear()
        self._pending.clear()
        self._last_due.clear()
        return dropped
