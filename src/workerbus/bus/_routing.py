"""Who is subscribed to a bus under which name, and who gets a message (B2, B3, B5-B7, B9, L7, O1).

All messages pass `_hand_out`: one look-up by name for a targeted message, a walk over the subscribers for a broadcast.
An inbox has the message then, and nobody awaits a subscriber, except for room in a bounded lane. How messages come
here, and whether there is a network, is not known.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import get_ident
from typing import Any

from workerbus._concurrency.home import Home
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.room import RoomWaiter
from workerbus._concurrency.waiting import Wait, names_of, waits
from workerbus.bus._inbox import BusStatistics, BusSubscriber, Inbox, make_inbox
from workerbus.bus._taps import Tapped
from workerbus.errors import MessageTypeError, NameTakenError
from workerbus.messages import BusMessage


class _Counts:
    """What a bus counts; beside it, so that it may look at what is set on it."""

    __slots__ = ("handed_out", "paused", "posted", "refused", "sent", "undelivered")

    def __init__(self) -> None:
        self.sent = self.posted = self.undelivered = self.refused = self.handed_out = self.paused = 0


class Routing(Tapped, ABC):
    """The subscribers of a bus, and the one place where all its messages pass.

    Args:
        name: The name of the bus in logs.
        max_buffer_size: How many messages may wait in each subscriber's data lane.
    """

    def __init__(self, name: str, max_buffer_size: float) -> None:
        super().__init__(name)
        self.max_buffer_size: float = max_buffer_size
        self._subscribers: dict[str, BusSubscriber] = {}
        # Who waits for its name to be claimed among all processes: of two at once, the first one's cancellation would
        # give back what the second one has.
        self._coming: dict[str, BusSubscriber] = {}
        self._inboxes: dict[str, Inbox] = {}
        self._everything: dict[str, Inbox] = {}
        self._announced: dict[str, Inbox] = {}
        self._observing: dict[str, Inbox] = {}
        self._everybody: tuple[Inbox, ...] | None = None
        self._counts = _Counts()
        # Where it is open: what hosts its tasks, the loop, and for a look that takes no time, the thread.
        self._tasks: TaskHost | None = None
        self._home: Home | None = None
        self._thread: int | None = None

    def check_loop(self, what: str | None = None) -> None:
        """Raise `WrongLoopError` if the bus is open in another thread, or another event loop.

        Args:
            what: What is being used there; by default the bus.

        Guarantees: L7.
        """
        if self._home is not None:
            self._home.check(what if what is not None else f"bus {self.name!r}")

    def check_thread(self) -> None:
        """Raise `WrongLoopError` if the bus is open in another thread; `check_loop` sees more, in ten times as long."""
        if self._thread is not None and get_ident() != self._thread:
            self.check_loop()

    @abstractmethod
    def post(self, message: BusMessage) -> None:
        """Send a message of the library's own without waiting, past every bound."""

    def _look_at_doors(self) -> None:
        """See whether somebody has put something in the place of what messages pass, on the object or its class."""

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        """Let a subscriber receive all that is sent from now on; nothing happens where it is subscribed already.

        Raises:
            NameTakenError: Another subscriber has its name; a `ValueError`.
            TypeError: It is not a `BusSubscriber`.
            ValueError: Its ``receives`` is neither ``"all"`` nor ``"own"``.

        Guarantees: B4, B5.
        """
        self.check_loop()
        if not isinstance(subscriber, BusSubscriber):
            raise TypeError(f"only a BusSubscriber can subscribe, not {subscriber!r}")
        name = subscriber.name
        taken = self._subscribers.get(name, self._coming.get(name))
        if taken is subscriber:
            return
        if taken is not None:
            raise NameTakenError(name, f"bus {self.name!r}")
        if subscriber.receives not in ("all", "own"):
            raise ValueError(f"receives of {name!r} must be 'all' or 'own', not {subscriber.receives!r}")
        self._look_at_doors()
        inbox = make_inbox(subscriber, self)
        if inbox.claims:
            self._coming[name] = subscriber
            try:
                await self._admit(name)
            finally:
                del self._coming[name]
        self._subscribers[name] = subscriber
        self._inboxes[name] = inbox
        self._sort(name, inbox)
        self._everybody = None
        if self._tasks is not None:
            inbox.open(self._tasks)

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        """Deliver nothing more to a subscriber; a handler that is running is left to finish.

        Guarantees: B5.
        """
        self.check_loop()
        if not isinstance(subscriber, BusSubscriber):
            raise TypeError(f"only a BusSubscriber can unsubscribe, not {subscriber!r}")
        name = subscriber.name
        if self._subscribers.get(name) is subscriber:
            del self._subscribers[name]
            self._everything.pop(name, None)
            self._announced.pop(name, None)
            self._observing.pop(name, None)
            inbox = self._inboxes.pop(name)
            inbox.close()
            self._everybody = None
            if inbox.claims:
                self._leaves(name)

    async def _admit(self, name: str) -> None:
        """Claim a name that is unique among all processes, where there are others."""

    def _leaves(self, name: str) -> None:
        """Give such a name back."""

    def inboxes(self) -> list[tuple[str, Inbox]]:
        """Return who is subscribed here, by name, and the inbox of each."""
        return list(self._inboxes.items())

    def has_subscriber(self, name: str) -> bool:
        """Whether a subscriber of this name is on this bus."""
        return name in self._subscribers

    def _renew(self, name: str, closed: Inbox) -> None:
        # The counts go on where the bus is opened again.
        inbox = self._inboxes[name] = make_inbox(self._subscribers[name], self)
        counts = closed.statistics()
        inbox.delivered, inbox.failed = counts.delivered, counts.failed
        self._sort(name, inbox)
        self._everybody = None

    def _sort(self, name: str, inbox: Inbox) -> None:
        if inbox.receives == "all":
            self._everything[name] = inbox
        if inbox.announcements:
            self._announced[name] = inbox
            if not inbox.of_runner:
                self._observing[name] = inbox

    # --- messages

    def announce(self, message: BusMessage) -> None:
        """Post an announcement, on a bus of this process, which the runners need not be told of: to all others."""
        self._counts.posted += 1
        self._hand_out(message, tuple(self._observing.values()))

    def _hand_out(self, message: BusMessage, recipients: Sequence[Inbox] | None = None) -> None:
        """Put a message into the inbox of everybody whom it concerns, or of ``recipients``. All messages pass here."""
        # The thread is looked at where that is little beside the rest. A lane that is awake and has several items takes
        # another one without: there it would be a tenth. Whoever sends from another thread finds lanes asleep, too.
        if self._taps:
            self.check_thread()
            self._tell_taps(message)
        lane = message.system is True
        if recipients is None:
            target = message.target
            if target is not None:
                own = self._inboxes.get(target)
                if own is None:
                    self.check_thread()
                    self._has_no_receiver(message)
                elif (lanes := own.lanes) is not None and (put := lanes[lane].ready) is not None:
                    put(message)  # all that `take` would do: a targeted message is 1.09 times as fast
                else:
                    if get_ident() != self._thread:
                        self.check_thread()
                    own.take(message)
                if self._everything and len(self._everything) > (own is not None and own.receives == "all"):
                    self._hand_to_observers(message, own)
                return
            recipients = self._everybody
            if recipients is None or message.announcement:
                recipients = self._recipients(message)
        self._counts.handed_out += len(recipients)
        thread = self._thread
        for inbox in recipients:
            lanes = inbox.lanes
            if lanes is not None and (put := lanes[lane].ready) is not None:
                put(message)  # all that `take` would do: a flood is 1.1 times as fast
            else:
                if get_ident() != thread:
                    self.check_thread()
                inbox.take(message)

    async def _hand_out_in_line(self, message: BusMessage, recipients: Sequence[Inbox] | None = None) -> None:
        """Put a message into the inbox of everybody whom it concerns; those that have no room now are waited for."""
        self.check_loop()
        if recipients is None:
            recipients = self._recipients(message)
        ready: list[Inbox] = []
        full: list[Lane[Any]] = []
        waiters: list[RoomWaiter[BusMessage]] = []
        for inbox, lane in [(inbox, inbox.full_lane(message)) for inbox in recipients]:
            if lane is None or lane.room is None:
                ready.append(inbox)
            else:
                full.append(lane)
                waiters.append(lane.room.stand(message, inbox.take))
        try:
            self._hand_out(message, ready)
            for waiter in waiters:
                await waiter.wait()
        finally:
            for waiter in waiters:
                waiter.give_up()

    waits(_hand_out_in_line, lambda its: _full(its["full"]))

    def _has_no_receiver(self, message: BusMessage) -> None:
        if not isinstance(message.target, str):
            raise MessageTypeError(f"cannot send {message!r}: its target is the name of a worker, a str, or None")
        self._counts.undelivered += 1

    def _hand_to_observers(self, message: BusMessage, own: Inbox | None) -> None:
        self.check_thread()
        for inbox in self._everything.values():
            if inbox is not own:
                inbox.take(message)

    def _recipients(self, message: BusMessage) -> Sequence[Inbox]:
        if message.target is not None:
            own = self._inboxes.get(message.target)
            if own is None:
                self._has_no_receiver(message)
            others = [each for each in self._everything.values() if each is not own]
            return others if own is None else [own, *others]
        if message.announcement:
            return tuple(self._announced.values())
        # Kept until somebody subscribes or unsubscribes: a flood is 1.06 times as fast.
        if self._everybody is None:
            self._everybody = tuple(self._inboxes.values())
        return self._everybody

    def statistics(self) -> BusStatistics:
        """Return a snapshot of what the bus and its subscribers have seen."""
        return BusStatistics(
            sent=self._counts.sent + self._counts.posted,
            undelivered=self._counts.undelivered,
            refused=self._counts.refused,
            subscribers={name: inbox.statistics() for name, inbox in self._inboxes.items()},
        )


def _full(lanes: Sequence[Lane[Any]]) -> Wait:
    """Return what a sender waits for that has found lanes full."""
    whose = names_of(lane.name.removesuffix(" data") for lane in lanes)
    return Wait(1, f"for room in the data lane of {whose}, which is full", tuple(("lane", id(lane)) for lane in lanes))
