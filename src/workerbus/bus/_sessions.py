"""The lives of a bus with peers, its sessions with them, and who hears of that (X3, X4, X10).

A transport tells when a life begins and ends, and who comes and goes meanwhile. Each session is noted here, and told to
those who listen in the same step, and to handlers of events behind it. This module knows no messages.
"""

import logging
import math
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from anyio import Event

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.waiting import Wait, enumerated
from workerbus._events import EventEmitter, EventHandlers, call_handler
from workerbus._log import about
from workerbus._message_base import BusMessage
from workerbus._order import new_incarnation
from workerbus._slot import set_core
from workerbus._values import Peer, value
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusStatistics
from workerbus.bus._peers import PeerListener, Routes, Session

logger = logging.getLogger("workerbus.bus")

PEER_EVENTS: Final = frozenset(
    {"on_connected", "on_disconnected", "on_peer_joined", "on_peer_gone", "on_gap", "on_fenced"}
)
_ARGUMENTS: Final = {
    "on_connected": 0,
    "on_disconnected": 1,
    "on_peer_joined": 1,
    "on_peer_gone": 2,
    "on_gap": 1,
    "on_fenced": 1,
}


@value
class PeerBusStatistics(BusStatistics):
    """A snapshot of a bus with peers.

    Args:
        peers: How many peers there are.
        transmitted: How many messages were given to the network; one for several peers counts once for each.
        arrived: How many messages came from peers for somebody here.
        repeated: How many came a second time, and were dropped.
        late: How many came from a life that was over, and were dropped.
        gaps: How many times messages were lost on the way.
        waiting: How many incoming messages wait for room in a bounded lane.

    Guarantees: X10.
    """

    peers: int = 0
    transmitted: int = 0
    arrived: int = 0
    repeated: int = 0
    late: int = 0
    gaps: int = 0
    waiting: int = 0


class Traffic:
    """What a bus with peers counts."""

    __slots__ = ("arrived", "gaps", "late", "repeated", "transmitted")

    def __init__(self) -> None:
        self.transmitted = self.arrived = self.repeated = self.late = self.gaps = 0


class _Core(NamedTuple):
    """What `EventEmitter` needs."""

    events: EventHandlers


class _Event(NamedTuple):
    """An event that its handlers have yet to be told of."""

    name: str
    args: tuple[Any, ...]


class PeerSessions(WorkerBus, EventEmitter):
    """The part of a bus with peers that knows them.

    Args:
        max_buffer_size: How many messages may wait in each subscriber's data lane before `send` waits.
        name: The name of the bus in logs; made up by default.

    Attributes:
        incarnation: The id of this life of the bus.

    Guarantees: X3, X4, X10.
    """

    def __init__(self, *, max_buffer_size: float = math.inf, name: str | None = None) -> None:
        super().__init__(max_buffer_size=max_buffer_size, name=name)
        events = EventHandlers(type(self).__name__, PEER_EVENTS)
        events.arguments = _ARGUMENTS
        set_core(self, _Core(events))
        self.incarnation: str = new_incarnation()
        self._events = events
        self._news: Lane[_Event] = self._new_news()
        self._listeners: list[PeerListener] = []
        # Names of workers that have left and will be back, which stay claimed meanwhile.
        self._names_kept: set[str] = set()
        # Names of subscribers here that another process has: of a worker whose runner does not run yet, say.
        self._names_lost: dict[str, str] = {}
        self._sessions: dict[str, Session] = {}
        self._peers: tuple[Peer, ...] | None = ()
        self._routes = Routes()
        self._alive = False
        self._joined = False
        self._changed = Event()

    # --- lives and sessions

    def in_words(self) -> str:
        """Describe the bus in one line: its name, its connection, its peers, and what has arrived for full lanes."""
        peers = enumerated([repr(peer.name) for peer in self.peers])
        text = f"{super().in_words()}, {f'with the peers {peers}' if peers else 'without a peer'}"
        waiting = sum(session.waiting for session in self._sessions.values())
        return f"{text}, messages that have arrived and wait for room: {waiting}" if waiting else text

    def sending_in_words(self, message: BusMessage) -> Wait:
        """Return what a sender waits for, for who looks at its frames."""
        whom = "all" if message.target is None else repr(message.target)
        away = "" if self.connection == "connected" else f", which is {self.connection}"
        text = f"for a {type(message).__name__} to {whom} to be stored by the network of bus {self.name!r}{away}"
        return Wait(1, text)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The peers with whom there is a session.

        Guarantees: X4.
        """
        if self._peers is None:
            self._peers = tuple(session.peer for session in self._sessions.values())
        return self._peers

    @property
    def max_message_size(self) -> float:
        """How many bytes an encoded message may have, as far as that is known; 1 MiB unless a transport overrides it.

        What the library sends in parts has parts that are smaller.
        """
        return 2**20

    @property
    def is_alive(self) -> bool:
        """Whether the bus is in one of its lives: its peers can know of it."""
        return self._alive

    def session(self, incarnation: str) -> Session | None:
        """Return the session with the peer of that incarnation, if there is one."""
        return self._sessions.get(incarnation)

    def begin_life(self, incarnation: str, peers: Iterable[Peer]) -> None:
        """Begin a life, with the peers that are there.

        Args:
            incarnation: The id of the life; each has one of its own.
            peers: The peers, all those that have joined before and are not gone.
        """
        if self._alive:
            self.end_life("another life has begun")
        self.incarnation = incarnation
        self._names_lost.clear()
        self._alive = self._joined = True
        met = [peer for peer in peers if self._add(peer)]
        self._send_held()  # before anybody hears of the peers, and sends more
        self._tell_waiting()
        for peer in met:
            self._tell_met(peer)

    def meet(self, peer: Peer) -> None:
        """Begin a session with a peer that has joined; nothing happens where there is one, or between two lives.

        An earlier life of the same process has to be lost before.

        Args:
            peer: The peer.
        """
        if self._add(peer):
            self._tell_met(peer)

    def _add(self, peer: Peer) -> bool:
        if not self._alive or peer.incarnation in self._sessions or peer.incarnation == self.incarnation:
            return False
        self._sessions[peer.incarnation] = Session(peer)
        self._peers = None
        self._routes.welcome(peer)
        return True

    def _tell_met(self, peer: Peer) -> None:
        logger.info("bus %r has met peer %r", self.name, peer.name, extra=about(runner=self.opened_by))
        for listener in self._listeners:
            listener.met(peer)
        self.tell("on_peer_joined", peer)

    def lose(self, peer: Peer, reason: str) -> None:
        """End the session with a peer; nothing happens where there is none.

        All that the peer has sent has to have arrived before.

        Args:
            peer: The peer.
            reason: Why, in words.
        """
        if self._sessions.pop(peer.incarnation, None) is None:
            return
        self._peers = None
        self._routes.forget_all(peer)
        text = "the session of bus %r with peer %r is over: %s"
        logger.info(text, self.name, peer.name, reason, extra=about(runner=self.opened_by))
        self.lost(peer)
        for listener in self._listeners:
            listener.lost(peer, reason)
        self.tell("on_peer_gone", peer, reason)

    def lost(self, peer: Peer) -> None:
        """Drop what has not been sent to a peer that is gone; a hook for transports."""

    def end_life(self, reason: str) -> None:
        """End the sessions with all peers.

        Args:
            reason: Why, in words.
        """
        self._alive = False
        for peer in self.peers:
            self.lose(peer, reason)

    # --- who hears of them

    def name_lost(self, name: str, owner: str) -> None:
        """Tell whom it concerns that a name was taken by another peer while this bus was cut off.

        Args:
            name: The name.
            owner: The name of the peer that has it now.
        """
        self._names_kept.discard(name)
        if name in self._inboxes:
            self._names_lost[name] = owner
        for listener in self._listeners:
            listener.name_lost(name, owner)

    def report(self, text: str) -> None:
        """Report a fault of the network to the runners on this bus, which tell ``on_error``.

        Args:
            text: What has happened, in words.
        """
        for listener in self._listeners:
            listener.report(text)

    def add_listener(self, listener: PeerListener) -> None:
        """Tell a listener of peers that come and go from now on, and of names that are lost already."""
        self._listeners = [*self._listeners, listener]  # a new list: it may be added while others are told
        for name, owner in list(self._names_lost.items()):
            listener.name_lost(name, owner)

    def remove_listener(self, listener: PeerListener) -> None:
        """Tell a listener of peers no more."""
        self._listeners = [each for each in self._listeners if each is not listener]

    def tell(self, event: str, *args: object) -> None:
        """Have the handlers of an event called, behind those of earlier events."""
        if event in self._events:
            self._news.put(_Event(event, args))

    async def _tell_handlers(self, event: _Event) -> None:
        for handler in self._events.of(event.name):
            try:
                await call_handler(handler, self, *event.args)
            except BaseException as exc:
                error = await own_error(exc)
                text = "a handler of %s of bus %r failed"
                logger.error(text, event.name, self.name, exc_info=error, extra=about(runner=self.opened_by))

    # --- where names are

    @property
    def claimed_names(self) -> Collection[str]:
        """The names here that are unique among all processes: those of workers, also of those that are restarted."""
        return [*(name for name, inbox in self._inboxes.items() if inbox.claims), *self._names_kept]

    def locate(self, name: str, peer: Peer) -> None:
        """Note with which peer a worker or a runner is."""
        if peer.incarnation in self._sessions:
            self._routes.locate(name, peer)

    def unlocate(self, name: str, peer: Peer) -> None:
        """Note that a worker or a runner is not with a peer any more."""
        self._routes.forget(name, peer)

    # --- between two lives

    def _send_held(self) -> None:
        """Send what has waited for a life; a hook for what sends."""

    async def _wait_for_life(self) -> None:
        while not self._alive and self._tasks is not None:
            await self._changed.wait()

    def _tell_waiting(self) -> None:
        self._changed.set()
        self._changed = Event()

    def _leave(self, reason: str) -> None:
        self.end_life(reason)
        self._joined = False
        self._names_kept.clear()
        self._tell_waiting()
        self._news.close()
        self._news = self._new_news()

    def _new_news(self) -> Lane[_Event]:
        return Lane(f"{self.name} events", self._tell_handlers)
