"""The base of buses with peers: where each message goes, and what is done when one arrives (X2-X7, X9).

A transport subclasses `PeerBus`. It implements `transmit`, which takes a message without waiting, and `claim`; it tells
who is there (`begin_life`, `meet`, `lose`, `end_life`, in `_sessions`) and what has come (`arrive`). It knows its
network. It does not know who is subscribed, which runners there are, or what jobs are. This module knows no network.

Where a message goes is decided here:

1. One for a subscriber of this process never leaves it.
2. One for a name that is known to be with a peer goes to that one.
3. What a job tells a requester that was with a peer which is gone goes nowhere, and is counted.
4. One for a name that nobody knows goes to all; those who have no such subscriber drop it.
5. One without a target goes to all, and is handed out here; ends and cancels stay here, unless they say otherwise.

Accepting is not confirming. A transport accepts a message in the step in which it is sent, so that its place in line is
that of its sending; when it is stored, the message's receipt says so, and only a `send` of the program's own awaits it.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Self

import attrs
from anyio import current_time, get_cancelled_exc_class, move_on_after

from workerbus._concurrency.waiting import Wait, waits
from workerbus._log import about
from workerbus._message_base import peer_of, set_peer
from workerbus._values import Peer
from workerbus.bus._held import Held, HeldMessages
from workerbus.bus._inbox import Inbox
from workerbus.bus._peers import Arrival, Receipt, Session
from workerbus.bus._sessions import PeerBusStatistics, PeerSessions, Traffic
from workerbus.errors import BusUnavailable, WireError
from workerbus.messages import (
    FROM_JOBS,
    Answer,
    BusCancelMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusMessage,
    error_instead_of,
)

logger = logging.getLogger("workerbus.bus")
_NOT_SENT: Final = "bus %r could not send %s"


class PeerBus(PeerSessions):
    """The base of buses whose peers are other processes.

    The events are ``on_connected()``, ``on_disconnected(reason)``, ``on_peer_joined(peer)``, ``on_peer_gone(peer,
    reason)``, ``on_gap(text)`` and ``on_fenced(reason)``. Handlers get the bus first; they are called one at a time.

    Args:
        max_buffer_size: How many messages may wait in each subscriber's data lane before `send` waits.
        max_arrivals: How many messages of one peer may wait here for room in such lanes. With one more, the session
            with that peer is over.
        send_timeout: How many seconds a `send` waits until its message is stored.
        name: The name of the bus in logs; made up by default.

    Attributes:
        send_timeout: As given.

    Guarantees: X2, X3, X4, X6, X7, X9.
    """

    def __init__(
        self,
        *,
        max_buffer_size: float = math.inf,
        max_arrivals: int = 10_000,
        send_timeout: float = 10.0,
        name: str | None = None,
    ) -> None:
        super().__init__(max_buffer_size=max_buffer_size, name=name)
        if not (0 < send_timeout < math.inf):
            raise ValueError(f"send_timeout is a finite number of seconds, more than 0, not {send_timeout!r}")
        if max_arrivals < 1:
            raise ValueError(f"max_arrivals must be at least 1, not {max_arrivals!r}")
        self.send_timeout: float = send_timeout
        self._max_arrivals = max_arrivals
        self._traffic = Traffic()
        self._stopped = False
        # What was sent before the first life, and what the program has sent between two: it goes out with the next one.
        self._held = HeldMessages()

    @property
    def accepts_at_once(self) -> bool:
        """Whether a job's messages are accepted in the step in which they are sent."""
        return self.max_buffer_size == math.inf

    # --- what a transport implements

    @abstractmethod
    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
        """Accept a message for some peers: encode it and give it its place in line, without waiting.

        Args:
            message: The message.
            peers: For whom it is; never empty.

        Returns:
            A receipt that is settled when the message is stored; None if there is nothing to wait for.

        Raises:
            WireError: It cannot travel; a `ValueError`.
        """

    async def room(self) -> None:
        """Wait while too much is unsent; called when unconfirmed messages are sent."""

    async def claim(self, name: str) -> None:
        """Claim the name of a worker for this process; called before the worker is subscribed.

        Raises:
            NameTakenError: Another process has a worker of that name; a `ValueError`.
            BusUnavailable: The network is not there; a `ConnectionError`.
        """

    def release(self, name: str) -> None:
        """Give a name back, without waiting."""

    # --- names

    async def _admit(self, name: str) -> None:
        # What is subscribed before the bus opens is claimed by the transport when it joins. From then on a claim that
        # was made in a life that is over counts no more, and is made again.
        claimed: str | None = None
        while self._tasks is not None and claimed != self.incarnation:
            with move_on_after(self.send_timeout):
                await self._wait_for_life()
            if not self._alive:
                why, doing = "there is no connection", f"claim the name {name!r}"
                raise BusUnavailable(self.name, why, maybe_stored=False, doing=doing)
            claimed = self.incarnation
            try:
                await self.claim(name)
            except (get_cancelled_exc_class(), BusUnavailable):
                self._leaves(name)  # it may have been claimed
                raise
        self._names_kept.discard(name)

    waits(
        _admit, lambda its: Wait(1, f"for the network of bus {its['self'].name!r}, to claim the name {its['name']!r}")
    )

    def _leaves(self, name: str) -> None:
        self._names_lost.pop(name, None)
        if self._alive and name not in self._subscribers and name not in self._names_kept:
            self.release(name)

    def keep_name(self, name: str) -> None:
        """Reserve the name of a worker that is about to leave and will be back, until `free_name`."""
        self._names_kept.add(name)

    def free_name(self, name: str) -> None:
        """Give a reserved name back, unless a worker here has it, or is about to."""
        if name in self._names_kept:
            self._names_kept.discard(name)
            if name not in self._coming:  # else it is needed, or given back there
                self._leaves(name)

    # --- sending

    @property
    def delivers_at_once(self) -> bool:
        """Whether what was posted for somebody of this process has arrived: it does not wait for a connection."""
        return self._joined

    async def _publish_in_turn(self, message: BusMessage) -> None:
        if message.target in self._inboxes and self._joined and self.max_buffer_size == math.inf:
            self._hand_out(message)  # all that `publish` would do: a message is 1.1 times as fast
        elif self._tasks is None:
            self.check_loop()
            self._held.add(message)
        else:
            await self.publish(message)

    async def publish(self, message: BusMessage) -> None:
        """Bring a message to its receivers, here and on peers; for the program's own, wait until it is stored.

        Raises:
            WireError: It cannot travel; a `ValueError`.
            BusUnavailable: It could not be stored in time; a `ConnectionError`.
            anyio.WouldBlock: A subscriber's own code sends to its own full lane; then nobody got the message.

        Guarantees: B9, X2, X6.
        """
        if not self._joined:
            if self._closing:
                raise BusUnavailable(self.name, "it is closing", maybe_stored=False)
            await self._stored(self._held.add(message), current_time() + self.send_timeout)
            return
        if message.target in self._inboxes:
            if self.max_buffer_size == math.inf:
                self._hand_out(message)
            else:
                await self._hand_out_in_line(message)
            return
        self.check_thread()
        deadline = current_time() + self.send_timeout if message.confirmed else math.inf
        recipients = self._recipients_here(message)
        if self.max_buffer_size != math.inf:
            for inbox in recipients:
                inbox.full_lane(message)  # raises where its own code sends it; before anybody has got it
        holds = not self._alive and message.confirmed and not _stays(message)
        receipt = self._held.add(message, handed_out=True) if holds else self._transmit(message)
        if self.max_buffer_size == math.inf:
            self._hand_out(message, recipients)
        else:
            await self._hand_out_in_line(message, recipients)
        if not message.confirmed:
            await self.room()
        elif receipt is not None:
            await self._stored(receipt, deadline)

    waits(publish, lambda its: its["self"].sending_in_words(its["message"]))

    async def _stored(self, first: Receipt, deadline: float) -> None:
        receipt: Receipt | None = first
        while receipt is not None:
            if not receipt.settled:
                await self._settled(receipt, deadline)
            if receipt.error is not None:
                raise receipt.error
            receipt = receipt.next

    async def _settled(self, receipt: Receipt, deadline: float) -> None:
        try:
            with move_on_after(deadline - current_time()):
                await receipt.wait()
                return
        except get_cancelled_exc_class():
            receipt.withdrawn = True
            raise
        receipt.withdrawn = True
        why = f"its send_timeout of {self.send_timeout:g} s was over"
        raise BusUnavailable(self.name, why, maybe_stored=receipt.written)

    # --- without a connection

    @property
    def _closing(self) -> bool:
        return self._stopped and self._tasks is not None

    def _send_held(self) -> None:
        for each in self._held.take_all():
            if not each.receipt.withdrawn:
                try:
                    each.receipt.next = self._send_late(each)
                except Exception as error:
                    each.receipt.settle(error)
                    text = "bus %r could not send %s, which had waited for a connection"
                    logger.exception(text, self.name, type(each.message).__name__, extra=self._about(each.message))
                    if isinstance(error, WireError) and isinstance(each.message, Answer):
                        self._post_now(error_instead_of(each.message, error))
                else:
                    each.receipt.settle()

    def _send_late(self, held: Held) -> Receipt | None:
        message, receipt = held.message, None
        here = message.target in self._inboxes
        if not here:
            receipt = self._transmit(message)
        if held.handed_out:
            return receipt
        recipients = self._recipients(message) if here else self._recipients_here(message)
        if held.posted:
            self._hand_out(message, recipients)
        else:
            self._hand_out_to_line(message, recipients, None)
        return receipt

    def post(self, message: BusMessage) -> None:
        """Send a message of the library's own without waiting, past every bound.

        A message that cannot travel is logged, since no caller could handle that; only an answer raises.

        Raises:
            WireError: It is an answer to a job, and cannot travel; a `ValueError`.
        """
        if self._joined or message.local or self._closing:
            self._post_now(message)
        else:
            self.check_loop()
            self._counts.posted += 1
            self._held.add(message, posted=True)

    def _post_now(self, message: BusMessage) -> None:
        self._counts.posted += 1
        if message.local or message.target in self._inboxes:
            self._hand_out(message)
        else:
            self.check_loop()
            try:
                self._transmit(message)
            except Exception:
                if isinstance(message, Answer):
                    raise
                logger.exception(_NOT_SENT, self.name, type(message).__name__, extra=self._about(message))
            self._hand_out(message, self._recipients_here(message))

    def post_to(self, message: BusMessage, peer: Peer) -> None:
        """Send a message to one peer, whatever its target, without waiting.

        Args:
            message: The message.
            peer: The peer; where there is no session with it, the message is dropped.
        """
        if peer.incarnation not in self._sessions:
            return
        self._counts.posted += 1
        self._traffic.transmitted += 1
        try:
            self.transmit(message, (peer,))
        except Exception:
            logger.exception(_NOT_SENT, self.name, type(message).__name__, extra=self._about(message))

    def _transmit(self, message: BusMessage) -> Receipt | None:
        """Give a message to the network, where it is for anybody there. It has no subscriber here by name."""
        peers: Sequence[Peer] = self.peers
        target = message.target
        if target is None:
            if _stays(message):
                return None
        else:
            peer = self._routes.get(target)
            if peer is not None:
                peers = (peer,)
            elif not peers or (type(message) in FROM_JOBS and self._routes.is_gone(target)):
                self._counts.undelivered += 1
                return None
        if not peers:
            return None
        receipt = self.transmit(message, peers)
        self._traffic.transmitted += len(peers)
        return receipt

    def _recipients_here(self, message: BusMessage) -> Sequence[Inbox]:
        """Return who gets a message here that has no subscriber here by name."""
        if message.target is None:
            return self._recipients(message)
        return tuple(self._everything.values()) if self._everything else ()

    # --- arrivals

    def arrive(self, message: BusMessage, peer: Peer, *, number: int | None = None, delay: float = 0.0) -> Arrival:
        """Take a message from a peer. Never waits: if there is no room, the message waits in line.

        Args:
            message: The message.
            peer: Its sender.
            number: Its number in the session; None if the network loses and duplicates nothing.
            delay: How many seconds it was on its way; they are subtracted from a job's time left.

        Returns:
            What has become of it.

        Guarantees: B8, X3, X7, X9.
        """
        session = self._sessions.get(peer.incarnation)
        traffic = self._traffic
        if session is None:
            traffic.late += 1
            return Arrival.LATE
        if number is not None:
            verdict = session.take(number)
            if verdict is not Arrival.DELIVERED:
                traffic.repeated += verdict is Arrival.REPEATED
                traffic.gaps += verdict is Arrival.GAP
                return verdict
        if not self._arrives(message):
            return Arrival.REFUSED
        if message.target is None and _stays(message):
            self._counts.refused += 1
            text = "bus %r refused a %s without a target from peer %r: it concerns the runners of its own process"
            name = type(message).__name__
            logger.warning(text, self.name, name, peer.name, extra=about(runner=self.opened_by))
            return Arrival.REFUSED
        if delay > 0 and isinstance(message, BusJobRequestMessage) and message.seconds_left is not None:
            left = max(0.0, message.seconds_left - delay)
            message = attrs.evolve(message, seconds_left=left)  # type: ignore[misc]  # a decorated base class
        set_peer(message, peer)
        if message.target is not None and message.target not in self._inboxes:
            self._counts.undelivered += 1  # for a subscriber of its name, wherever that is: not here
            return Arrival.DELIVERED
        traffic.arrived += 1
        if self.max_buffer_size == math.inf:
            self._hand_out(message)
            return Arrival.DELIVERED
        self._hand_out_to_line(message, self._recipients(message), session)
        if not session.has_more_waiting_than(self._max_arrivals):
            return Arrival.DELIVERED
        text = f"more than {self._max_arrivals} of its messages wait here for subscribers that have no room"
        self.report(f"the session with peer {session.peer.name!r} is over: {text}")
        self.lose(session.peer, text)
        return Arrival.OVERFLOW

    def pass_over(self, session: Session, number: int) -> Arrival:
        """Count a numbered message of which only the number matters; for transports.

        Args:
            session: The session with its sender.
            number: Its number.

        Returns:
            What is to be done: nothing, or to end this life.

        Guarantees: X3.
        """
        verdict = session.take(number)
        self._traffic.repeated += verdict is Arrival.REPEATED
        self._traffic.gaps += verdict is Arrival.GAP
        return verdict

    def note_late(self) -> None:
        """Count a message that has come from a life that is over; for transports that need not decode it."""
        self._traffic.late += 1

    def is_late(self, message: BusMessage) -> bool:
        """Whether a message has come from a peer that is gone since."""
        peer = peer_of(message)
        return peer is not None and peer.incarnation not in self._sessions

    def _hand_out_to_line(self, message: BusMessage, recipients: Sequence[Inbox], session: Session | None) -> None:
        # Never waits: what finds no room waits by itself.
        ready: list[Inbox] = []
        for inbox in recipients:
            lane = inbox.full_lane(message)
            if lane is None or lane.room is None:
                ready.append(inbox)
            else:
                waiter = lane.room.stand(message, inbox.take)
                if session is not None:
                    session.stand(waiter)
        self._hand_out(message, ready)

    def in_words(self) -> str:
        """Describe the bus in one line, for `workerbus.dump`.

        The line has the bus's name, its connection where that is not up, the names of its peers, and how many messages
        wait: those that have arrived for a full lane, and those that are held until there is a connection.
        """
        return super().in_words() + (
            f", messages that wait for a connection: {len(self._held)}" if len(self._held) else ""
        )

    # --- lifetime

    async def __aenter__(self) -> Self:
        """Open the bus: connect, and join."""
        try:
            return await super().__aenter__()
        except BaseException:
            if not self.is_open:  # it was not opened by anybody else either
                self._leave("this bus could not be opened")
            raise

    async def start(self) -> None:
        """Connect, and join; override it and call ``super()`` first."""
        await super().start()
        self._stopped = False
        self._news.open(self.tasks)

    async def stop(self) -> None:
        """Leave; override it and call ``super()`` last."""
        self._stopped = True
        self.end_life("this bus has closed")
        for each in self._held.take_all():
            each.receipt.settle(BusUnavailable(self.name, "it was closed", maybe_stored=False))
        try:
            await self._news.quiet()
        finally:
            self._leave("this bus has closed")
        await super().stop()

    def statistics(self) -> PeerBusStatistics:
        """Return a snapshot of what the bus, its subscribers and its sessions have seen."""
        seen, traffic = super().statistics(), self._traffic
        return PeerBusStatistics(
            sent=seen.sent,
            undelivered=seen.undelivered,
            refused=seen.refused,
            subscribers=seen.subscribers,
            peers=len(self._sessions),
            transmitted=traffic.transmitted,
            arrived=traffic.arrived,
            repeated=traffic.repeated,
            late=traffic.late,
            gaps=traffic.gaps,
            waiting=sum(session.waiting for session in self._sessions.values()),
        )


def _stays(message: BusMessage) -> bool:
    """Whether a message without a target is for this process alone."""
    return isinstance(message, BusEndMessage | BusCancelMessage) and not message.everywhere
