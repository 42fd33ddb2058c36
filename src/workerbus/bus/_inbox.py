"""Who receives messages, and the inbox in which the bus leaves them (B2, B3, B5-B7, B9, N4).

All that the bus knows of a subscriber is its `Inbox`. That of a plain subscriber has two lanes, in which its
``on_bus_message`` is awaited. Workers and runners bring inboxes of their own, whose ``take`` does the library's own
handling at once, in the step of the sender.
"""

import inspect
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from functools import singledispatch
from typing import Any, ClassVar, Final, Literal, Protocol

from anyio import WouldBlock

from workerbus._concurrency.handling import Handling, holds_up
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.room import Room
from workerbus._log import about
from workerbus._methods import check_methods, is_default
from workerbus._values import Value, value
from workerbus.errors import HandlerTypeError, text_of
from workerbus.messages import BusMessage, BusWorkerErrorMessage

logger = logging.getLogger("workerbus.bus")

Receives = Literal["all", "own"]


@value
class SubscriberStatistics(Value):
    """A snapshot of the counts of a subscriber's inbox.

    Args:
        depth: How many messages wait, for the subscriber's code or for its start.
        delivered: How many messages were handled, the failed ones included.
        failed: How many times the subscriber's code has raised.

    Guarantees: B9.
    """

    depth: int
    delivered: int
    failed: int


@value
class BusStatistics(Value):
    """A snapshot of a bus.

    Args:
        sent: How many messages were sent, by users and by the library.
        undelivered: How many messages had a target that is not subscribed here.
        refused: How many local messages came from a network.
        subscribers: Name to the counts of that subscriber.

    Guarantees: B8, B9.
    """

    sent: int
    undelivered: int
    refused: int
    subscribers: dict[str, SubscriberStatistics]


class InboxHost(Protocol):
    """The part of a bus that an inbox needs."""

    @property
    def max_buffer_size(self) -> float:
        """How many messages may wait in each data lane."""

    def post(self, message: BusMessage) -> None:
        """Send a message without waiting."""


class Inbox(ABC):
    """Where a bus leaves a subscriber's messages, by lane.

    Args:
        name: The subscriber's name.
        receives: ``"all"`` messages, or only its ``"own"``: broadcasts and messages addressed to it.
        announcements: Whether it gets those broadcasts that are meant for runners and observers.

    Attributes:
        hosted_by_bus: Whether its tasks run in the bus, which then closes it and makes it anew.
        claims: Whether the name is unique among all processes on the bus: that of a worker.
        of_runner: Whether it is that of a runner, which knows what other runners on a bus of its process announce.
        lanes: Data and system lane, where all that `take` does is to put a message there: the bus then does so itself,
            which makes a broadcast to many a tenth faster. Else None.
        delivered: How many messages were handled, besides those that the lanes have counted.
        failed: How many times the subscriber's code has raised.
    """

    hosted_by_bus: ClassVar[bool] = False
    claims: ClassVar[bool] = False
    of_runner: bool = False

    def __init__(self, name: str, *, receives: Receives, announcements: bool = True) -> None:
        self.name: str = name
        self.receives: Receives = receives
        self.announcements: bool = announcements
        self.lanes: tuple[Lane[BusMessage], Lane[BusMessage]] | None = None
        self.delivered: int = 0
        self.failed: int = 0

    @abstractmethod
    def take(self, message: BusMessage) -> None:
        """Accept a message, room or not. Never raises, never waits, never runs the user's code."""

    @abstractmethod
    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return the lane that has no room for the message now; None where there is room, or the message needs none.

        Raises:
            anyio.WouldBlock: The running task is one of this subscriber's own, and would wait for itself.
        """

    @abstractmethod
    def open(self, host: TaskHost) -> None:
        """Begin to handle messages, since the bus has opened; plain subscribers do so in its tasks."""

    @abstractmethod
    def close(self) -> None:
        """Begin no further delivery, and drop what waits."""

    def cancel(self) -> None:
        """Cancel what runs in the tasks of the bus, after `close`."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many messages wait, for the subscriber's code or for its start."""

    @property
    def room(self) -> Room[BusMessage] | None:
        """The room in the data lane; None where that has no bound."""
        return None

    async def quiet(self) -> None:
        """Wait until none of the subscriber's code runs."""

    @property
    def busy(self) -> bool:
        """Whether some of the subscriber's code runs."""
        return False

    def statistics(self) -> SubscriberStatistics:
        """Return a snapshot of what the inbox has seen."""
        return SubscriberStatistics(self.depth, self.delivered, self.failed)


def refuse_own_lane(lane: Lane[Any]) -> None:
    """Raise `WouldBlock` if code that the running task belongs to holds the lane up: it would wait for itself."""
    if holds_up(lane.room):
        raise WouldBlock


def counts(message: BusMessage, name: str) -> bool:
    """Whether a message takes a place in the bounded data lane of the subscriber ``name``."""
    return message.bounded and not message.system and not (message.of_a_job and message.target == name)


class BusSubscriber:
    """Something that receives messages from a bus.

    Override `on_bus_message`, and give it a ``name`` that is unique on the bus.

    Attributes:
        receives: ``"all"`` messages, or only its ``"own"``: broadcasts and messages addressed to it.

    Raises:
        HandlerTypeError: A class is made whose `on_bus_message` is not async or does not take a message, or whose
            `accepts_bus_message` is async; a `TypeError`.

    Guarantees: B2, B3, B6, N4, N8.
    """

    receives: Receives = "all"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_methods(cls, {"on_bus_message": 1})
        if inspect.iscoroutinefunction(inspect.getattr_static(cls, "accepts_bus_message")):
            raise HandlerTypeError(f"{cls.__name__}.accepts_bus_message has to be a plain function: it is not awaited")

    @property
    def name(self) -> str:
        """The unique name of this subscriber on the bus."""
        raise NotImplementedError(f"{type(self).__name__} needs a 'name': the bus tells subscribers apart by it")

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Say whether to handle a message; called just before it would be handled.

        A refusal concerns this subscriber alone. By default everything is accepted.

        Args:
            message: The message.

        Returns:
            Whether to handle it.

        Guarantees: N4.
        """
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle a message; called for one message at a time per lane, in the order of sending.

        An exception is logged, counted and reported, and the next message is handled.

        Args:
            message: The message, which is shared with other subscribers: do not change its payload.

        Guarantees: B2, B3.
        """


ACCEPTS: Final = BusSubscriber.accepts_bus_message


def accepts_everything(subscriber: BusSubscriber) -> bool:
    """Whether a subscriber leaves ``accepts_bus_message`` as it is, so that it need not be asked."""
    return is_default(subscriber, "accepts_bus_message", ACCEPTS)


class PlainInbox(Inbox):
    """The inbox of a plain subscriber: two lanes, hosted by the bus."""

    hosted_by_bus = True

    def __init__(self, subscriber: BusSubscriber, bus: InboxHost) -> None:
        super().__init__(subscriber.name, receives=subscriber.receives)
        self._subscriber = subscriber
        self._bus = bus
        self._asks = asks = not accepts_everything(subscriber)
        handle = self._ask_and_handle if asks else self._handle
        if bus.max_buffer_size != math.inf:
            handle = self._handle_noted
        self._system: Lane[BusMessage] = Lane(f"{self.name} system", handle, failed=self._failed)
        self._bounded = bus.max_buffer_size != math.inf
        room: Room[BusMessage] | None = Room(bus.max_buffer_size) if self._bounded else None
        self._data: Lane[BusMessage] = Lane(
            f"{self.name} data", handle, failed=self._failed, first=(self._system,), room=room
        )
        if not self._bounded:
            self.lanes = self._data, self._system

    def take(self, message: BusMessage) -> None:
        """Put the message into its lane."""
        if message.system:
            self._system.put(message)
        elif self._bounded and counts(message, self.name):
            self._data.put_counted(message)
        else:
            self._data.put(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        """Return the data lane, if it is full and the message takes a place in it."""
        if not self._bounded or not self._data.full or not counts(message, self.name):
            return None
        refuse_own_lane(self._data)
        return self._data

    def open(self, host: TaskHost) -> None:
        """Run the lanes in the tasks of the bus."""
        self._system.open(host)
        self._data.open(host, host.turns)

    def close(self) -> None:
        """Close both lanes; a handler that runs is left to finish."""
        self._system.close()
        self._data.close()

    def cancel(self) -> None:
        """Cancel a handler that runs."""
        self._system.close(cancel=True)
        self._data.close(cancel=True)

    async def quiet(self) -> None:
        """Wait until no handler runs."""
        await self._system.quiet()
        await self._data.quiet()

    @property
    def busy(self) -> bool:
        """Whether a handler runs."""
        return self._system.busy or self._data.busy

    @property
    def room(self) -> Room[BusMessage] | None:
        """The room in the data lane."""
        return self._data.room

    @property
    def depth(self) -> int:
        """How many messages wait in the two lanes."""
        return self._system.waiting + self._data.waiting

    def statistics(self) -> SubscriberStatistics:
        """Return a snapshot of what the inbox has seen."""
        delivered = self.delivered + self._system.begun + self._data.begun
        return SubscriberStatistics(self.depth, delivered, self.failed)

    def _handle(self, message: BusMessage) -> Awaitable[None]:
        return self._subscriber.on_bus_message(message)

    async def _ask_and_handle(self, message: BusMessage) -> None:
        if self._subscriber.accepts_bus_message(message):
            await self._subscriber.on_bus_message(message)
        else:
            self.delivered -= 1  # it was taken, and not handled

    async def _handle_noted(self, message: BusMessage) -> None:
        handling = Handling(self._data.room)
        try:
            await (self._ask_and_handle(message) if self._asks else self._handle(message))
        finally:
            handling.leave()

    def _failed(self, message: BusMessage, exc: BaseException) -> None:
        self.failed += 1
        about_it = about(job=getattr(message, "job_id", None))
        text = "subscriber %r failed to handle %s"
        logger.error(text, self.name, type(message).__name__, exc_info=exc, extra=about_it)
        # An error that an error message has caused is not sent out: it would cause the next one, without an end.
        if not isinstance(message, BusWorkerErrorMessage):
            text = f"on_bus_message: {type(exc).__name__}: {text_of(exc)}"
            self._bus.post(BusWorkerErrorMessage(text, source=self.name))


@singledispatch
def make_inbox(subscriber: BusSubscriber, bus: InboxHost) -> Inbox:
    """Return a new inbox for a subscriber; the library's own kinds of subscribers register what makes theirs."""
    return PlainInbox(subscriber, bus)
