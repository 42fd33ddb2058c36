"""What arrives at an end of a faulty network (B2, B8, B9).

All messages go through one lane and are handed on by one task, in the order of arrival: a system message overtakes at
its subscriber, as everywhere, and not on the way. Where lanes are bounded, a message that finds one full waits in line,
in a task of its own, so that answers behind it are not held up.

What a split keeps from arriving is held here, by the end at which it was sent. When the split is over it goes into the
lane, before all that arrives later.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from anyio import Event

from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, Inbox, InboxHost, make_inbox
from workerbus.messages import BusMessage
from workerbus.testing.buses._network import Network


class Arrivals(BusSubscriber):
    """The subscriber of the wrapped bus that takes what is for an end.

    Args:
        end: The end, where messages are delivered.
        network: Knows which ends are cut off from each other.
        concerns_somebody: Returns whether a message is for somebody at the end.
    """

    def __init__(self, end: WorkerBus, network: Network, concerns_somebody: Callable[[BusMessage], bool]) -> None:
        self._end = end
        self._network = network
        self._concerns_somebody = concerns_somebody
        self._lane: Lane[BusMessage] | None = None
        self._held: dict[str, deque[BusMessage]] = {}

    @property
    def name(self) -> str:
        """The subscriber's name on the wrapped bus."""
        return f"faulty end {self._end.name}"

    async def open(self) -> None:
        """Let messages arrive."""
        lane = self._lane = Lane(f"{self._end.name} arrivals", self._deliver)
        lane.open(self._end.tasks)
        await self._network.bus.subscribe(self)

    async def close(self) -> int:
        """Let nothing arrive any more; returns how many messages were still held back."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()  # first: what comes next may be cancelled
        await self._network.bus.unsubscribe(self)
        held = sum(map(len, self._held.values()))
        self._held.clear()
        return held

    def take(self, message: BusMessage) -> None:
        """Take a message from the wrapped bus, unless it is a local one, or a split is in its way."""
        if message.local or self._lane is None:
            return
        end, network = self._end.name, self._network
        home = network.home(message)
        split = None if home is None else network.cut(home, end)
        if home is None or split is None:
            self._lane.put(message)
        elif self._concerns_somebody(message):
            if split.loses:
                network.lost_in(split, message, end)
            else:
                self._held.setdefault(home, deque()).append(message)
                network.befalls("held back", message, f"is held back from {end}: {split} are split")

    async def _deliver(self, message: BusMessage) -> None:
        if self._end.max_buffer_size == math.inf:
            await self._end.deliver(message)
            return
        in_line = Event()
        self._end.tasks.start(self._wait_for_room, message, in_line, name=f"{self._end.name} arrival")
        await in_line.wait()

    async def _wait_for_room(self, message: BusMessage, in_line: Event) -> None:
        in_line.set()  # nobody else runs before deliver() waits
        await self._end.deliver(message)

    def release(self) -> int:
        """Let in what no split holds back any more; returns how many messages that were."""
        released = 0
        for home in [home for home in self._held if self._network.cut(home, self._end.name) is None]:
            for message in self._held.pop(home):
                released += 1
                if self._lane is not None:
                    self._lane.put(message)
        return released

    @property
    def depth(self) -> int:
        """How many messages have come, and wait to be handed on."""
        return (self._lane.waiting if self._lane is not None else 0) + sum(map(len, self._held.values()))


class _ArrivalsInbox(Inbox):
    """Takes everything, and has no bound of its own."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__(arrivals.name, receives="all")
        self._arrivals = arrivals

    def take(self, message: BusMessage) -> None:
        self.delivered += 1
        self._arrivals.take(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        return None

    def open(self, host: TaskHost) -> None:
        """Do nothing: the lane runs in the tasks of the end."""

    def close(self) -> None:
        """Do nothing: the end closes the lane."""

    @property
    def depth(self) -> int:
        return self._arrivals.depth


@make_inbox.register
def _(arrivals: Arrivals, _bus: InboxHost) -> Inbox:
    return _ArrivalsInbox(arrivals)
