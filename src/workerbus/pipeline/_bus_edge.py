"""What crosses between the ends of a pipeline and the bus (L8, P3, W3).

Frames come in while the worker is active, in the step of whoever sends them. Frames go out while it is active, and
after that until what it had taken has come through.

**A deactivation** sends a marker through the pipeline, behind everything that waits there: down, up, and down and up
again. So what was taken still goes out, and so does what processors make of it in their handlers, even where that goes
there and back; what comes later does not. An activation in between makes the marker void.

A frame that goes out after the deactivation is late: it says since when. It is not for the worker that has taken over,
which would take it for something to work on: whoever has become active since then leaves it alone. What was before what
is told by numbers. Those of one process are in the order of its events. Of another process a worker knows what the
message says that has activated it, which is enough for a hand-over, whose two steps one worker takes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from workerbus._concurrency.lifetime import LazyEvent
from workerbus._order import PROCESS
from workerbus.bus._bus import WorkerBus
from workerbus.messages import BusFrameMessage
from workerbus.pipeline._frames import BUS, Frame, FrameDirection, Marker, came_by, received
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, Waiting


class Sending:
    """Messages to be sent by the pusher, who waits for that.

    Args:
        bus: Where to send them.
        messages: The messages, one for each bridge.
        before: What is to be sent first: branches push from tasks of their own, and the bus may take its time.

    Attributes:
        sent: Set when the messages were sent, or never will be.
    """

    __slots__ = ("_before", "_bus", "_messages", "sent")

    def __init__(self, bus: WorkerBus, messages: list[BusFrameMessage], before: "Sending | None") -> None:
        self._bus = bus
        self._messages = messages
        self._before = None if before is None or before.sent.is_set() else before
        self.sent: LazyEvent = LazyEvent()

    async def wait(self) -> None:
        """Send the messages, behind those that go before."""
        try:
            if self._before is not None:
                await self._before.sent.wait()
                self._before = None  # else each would keep all those before it alive
            for message in self._messages:
                await self._bus.send(message)
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Let those behind go on; what was not sent by `wait` will not be."""
        self.sent.set()


SENDERS: Final = 256
"""How many senders a receiver remembers at most: workers may come and go for ever."""


class Deduplicator:
    """Recognises further copies of a frame whose sender belongs to several bridges: they come one after the other."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, FrameDirection], tuple[int, set[str | None]]] = {}

    def seen(self, message: BusFrameMessage) -> bool:
        """Whether the frame has just come from the same sender over another bridge."""
        key, number, bridge = (message.source, message.direction), message.frame.id, message.bridge
        if bridge is None:
            return False  # a sender that belongs to several bridges names one in each message
        last, bridges = self._last.get(key, (None, set()))
        if last == number and bridge not in bridges:
            bridges.add(bridge)
            return True
        if len(self._last) >= SENDERS and key not in self._last:
            del self._last[next(iter(self._last))]
        self._last[key] = number, {bridge}
        return False


def frame_of(message: BusFrameMessage) -> Frame | None:
    """Return the frame that a message carries; None if it carries something else, or has no direction."""
    if isinstance(message.frame, Frame) and isinstance(message.direction, FrameDirection):
        return message.frame
    return None


def checked_types(name: str, types: Any) -> tuple[type[Frame], ...]:
    """Return classes of frames as a tuple; one class alone and None are fine, too.

    Args:
        name: The name of the argument, for the error.
        types: The classes.

    Raises:
        TypeError: They are something else.
    """
    if isinstance(types, type):
        types = (types,)
    checked = tuple(types or ())
    if not all(isinstance(kind, type) and issubclass(kind, Frame) for kind in checked):
        raise TypeError(f"{name} is a tuple of classes of frames, not {types!r}")
    return checked


class BusEdge:
    """The bridge between the ends of one worker's pipeline and the bus.

    Args:
        name: The worker's name.
        bridges: The names of the bridges that the worker belongs to; none for all.
        excluded: Classes of frames that do not cross.
    """

    # `_open` says for each direction whether frames that leave go out. `_closing` is set while they do so although the
    # worker is inactive: those are late. `_since` is the number of the event by which the worker has become active, or
    # inactive; a marker of an earlier one is void. `_after` says how far other processes were before the activation.

    def __init__(self, name: str, bridges: tuple[str, ...], excluded: tuple[type[Frame], ...]) -> None:
        self._name = name
        self._bridges = bridges
        self._excluded = excluded
        self._tags: tuple[str | None, ...] = bridges or (None,)
        self._open = {DOWNSTREAM: False, UPSTREAM: False}
        self._closing = False
        self._since = 0
        self._after: Mapping[str, int] = {}
        self._deduplicator = Deduplicator()
        self._sendings: dict[FrameDirection, Sending] = {}

    def hears(self, *, bridge: str | None, source: str, target: str | None) -> bool:
        """Whether frames that somebody sends come in here, as far as names decide that."""
        return source != self._name and target in (None, self._name) and (not self._bridges or bridge in self._bridges)

    def incoming(self, message: BusFrameMessage) -> Frame | None:
        """Return this worker's copy of the frame that a message brings, if it may come in."""
        frame = frame_of(message)
        if frame is None or message.source == self._name or (self._bridges and message.bridge not in self._bridges):
            return None
        if frame.is_local or isinstance(frame, self._excluded):
            return None
        if message.late_since is not None and self._took_over_after(message.late_since, message.process):
            return None
        return None if self._deduplicator.seen(message) else received(frame, self)

    def _took_over_after(self, number: int, process: str | None) -> bool:
        """Whether the worker has become active after an event of some process."""
        here = process in (None, PROCESS.id)
        return number <= (self._since if here else self._after.get(process or "", 0))

    def outgoing(self, frame: Frame, direction: FrameDirection, bus: WorkerBus, may_wait: bool) -> Waiting | None:
        """Send a frame that leaves the pipeline, if it may go out.

        Returns:
            What the pusher has to wait for, where the bus may take its time; None if nothing.
        """
        if not self._open[direction] or frame.is_local or came_by(frame, BUS) or isinstance(frame, self._excluded):
            return None
        late = (self._since, PROCESS.id) if self._closing else (None, None)
        messages = [BusFrameMessage(frame, direction, tag, *late, source=self._name) for tag in self._tags]
        if may_wait and not bus.never_waits:
            sending = self._sendings[direction] = Sending(bus, messages, self._sendings.get(direction))
            return sending
        for message in messages:
            bus.post(message)
        return None

    def opened(self, after: Mapping[str, int]) -> None:
        """Let frames out: the worker has become active.

        Args:
            after: How far other processes were before that, as far as it is known.
        """
        self._since = PROCESS.next_number()
        self._after = after
        self._closing = False
        self._open = {DOWNSTREAM: True, UPSTREAM: True}

    def closing(self, put: Callable[[Marker, FrameDirection], None]) -> None:
        """Let out what is in the pipeline, and then nothing: the worker has become inactive.

        Args:
            put: Puts a marker in where frames that travel in a direction come in.
        """
        # A marker arrives when everything that was before it on its way has come out. There are four legs:
        #
        # 1. Down: all that was on its way down is out. Its handlers may have pushed something up.
        # 2. Up: all that was on its way up, and what leg 1 has caused, is out. Its handlers may have pushed down again.
        # 3. Down: what leg 2 has caused is out; nothing more goes out downstream.
        # 4. Up: what leg 3 has caused is out; nothing more goes out upstream, and the worker is no longer late.
        #
        # Four, because a frame that goes there and back is usual (a question and its answer), and one that goes to and
        # fro for ever must not keep the ends open. `arrived` gets the legs that are left, that of the marker first.
        since = self._since = PROCESS.next_number()
        self._closing = True

        def arrived(legs: tuple[FrameDirection, ...]) -> None:
            if since != self._since:
                return
            if len(legs) <= 2:
                self._open[legs[0]] = False
            if len(legs) > 1:
                put(Marker(partial(arrived, legs[1:])), legs[1])
            else:
                self._closing = False

        put(Marker(partial(arrived, (DOWNSTREAM, UPSTREAM) * 2)), DOWNSTREAM)
