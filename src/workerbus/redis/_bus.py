"""A bus over Redis Streams, for the runners of many processes (X1-X10).

Each process has one `RedisBus`. In each of its lives (`_lives`) it is a member of the network under an incarnation,
with an inbox of its own, a stream, in which its peers leave messages and the server's scripts what becomes of its
peers. What is sent waits in the outbox (`_outbox`) until it is written; what arrives is taken by `_arrivals`.

A connection that is lost is none of anybody's business but the bus's own: it connects again, and what is sent waits.
"""

import math
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from anyio import current_time, move_on_after

from workerbus._concurrency.backend import running_backend
from workerbus._log import about
from workerbus._values import Peer, check_number
from workerbus.bus._peer_bus import PeerBus
from workerbus.bus._peers import Receipt
from workerbus.errors import BusUnavailable
from workerbus.messages import BusMessage
from workerbus.redis._arrivals import REFUSED_KEPT, Arrivals
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._life import LifeState, LifeTrigger
from workerbus.redis._lives import Lives, logger
from workerbus.redis._membership import Membership
from workerbus.redis._names import Names
from workerbus.redis._outbox import CUT_OFF, Outbox, SharedReceipt
from workerbus.redis._server_time import ServerTime
from workerbus.redis._settings import CredentialsSource, RedisSettings
from workerbus.redis._statistics import RedisBusStatistics, RedisState
from workerbus.redis._writer import Writer
from workerbus.wire import MAX_MESSAGE_SIZE, Wire


class RedisBus(PeerBus):
    """A bus over a Redis server, which connects the runners of many processes.

    Give one to a runner, in each process, with the same URL and prefix::

        runner = WorkerRunner(bus=RedisBus("redis://localhost"), name="billing")

    Workers of all processes then see, ask and cancel each other as in one process. A runner's name identifies its
    process in the network: a second process with this name replaces the first one, as after a restart.

    Args:
        url: Where the server is: ``redis://[user[:password]@]host[:port][/db]``, ``rediss://`` for TLS,
            ``unix:///path``, or ``redis+sentinel://host:port,host:port/service``.
        prefix: The prefix of all keys, in braces. Networks with different prefixes do not see each other.
        lease: For how many seconds a process may be silent before it is declared lost. The same in all processes.
        send_timeout: How many seconds a `send` waits until its message is stored, before it raises `BusUnavailable`.
        max_message_size: The size limit of a message, in bytes. The same in all processes.
        inbox_size: About how many entries may wait at the server for one process; beyond that it is fenced. An entry is
            a message or, from 2,000 on, up to 25 small ones that were sent at the same time.
        max_buffer_size: How many messages may wait in each subscriber's data lane before `send` waits.
        max_arrivals: How many messages of one peer may wait here for room in such lanes. With one more, the session
            with that peer is over.
        credentials: A password, ``(user, password)``, or a function, sync or async, that returns one of the two and is
            called at each connect. Not together with a password in the URL.
        sentinel_credentials: The same for the sentinels themselves.
        ssl_context: For ``rediss://``; by default one that checks the server's certificate and name.
        name: The name of the bus in logs, and in the network if no runner has opened it; made up by default.

    Raises:
        RedisURLError: The URL, or an argument given with it, is invalid; a `ValueError`.
        ValueError: A number is out of range, or the prefix is empty or has characters other than letters, digits and
            ``-_.:/``.

    Guarantees: X1, X2, X3, X4, X5, X6, X7, X9, X10.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "workerbus",
        lease: float = 10.0,
        send_timeout: float = 10.0,
        max_message_size: int = MAX_MESSAGE_SIZE,
        inbox_size: int = 100_000,
        max_buffer_size: float = math.inf,
        max_arrivals: int = 10_000,
        credentials: CredentialsSource | None = None,
        sentinel_credentials: CredentialsSource | None = None,
        ssl_context: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        for what, seconds in (("lease", lease), ("send_timeout", send_timeout)):
            check_number(what, seconds)
        super().__init__(
            max_buffer_size=max_buffer_size, max_arrivals=max_arrivals, send_timeout=send_timeout, name=name
        )
        if not (0.05 <= lease < math.inf):
            raise ValueError(f"lease is a finite number of seconds, at least 0.05, not {lease!r}")
        if inbox_size < 1:
            raise ValueError(f"inbox_size must be at least 1, not {inbox_size!r}")
        self._redis = _Parts(
            self,
            RedisSettings.parse(
                url, credentials=credentials, sentinel_credentials=sentinel_credentials, ssl_context=ssl_context
            ),
            Wire(max_message_size),
            Membership(prefix, lease, inbox_entries=inbox_size),
            lease,
            inbox_size,
        )

    def __repr__(self) -> str:
        return f"<RedisBus {self.name!r} at {self._redis.settings}, {self.state}>"

    # --- what it tells

    @property
    def state(self) -> RedisState:
        """The state of the bus; see `RedisState`.

        Guarantees: X10.
        """
        lives = self._redis.lives
        if not self.is_open or lives.state is LifeState.LEFT:
            return "closed"
        if lives.state is LifeState.JOINED:
            return "connected" if lives.is_connected else "disconnected"
        return "fenced" if lives.count else "connecting"

    @property
    def connection(self) -> str:
        """The same, for `WorkerRunner.health`."""
        return self.state

    @property
    def max_message_size(self) -> float:
        """How many bytes a message may have."""
        return self._redis.wire.max_message_size

    def statistics(self) -> RedisBusStatistics:
        """Return a snapshot of the state and the counts of the bus."""
        seen: Any = super().statistics()
        redis = self._redis
        return RedisBusStatistics(
            **{each.name: getattr(seen, each.name) for each in seen.__attrs_attrs__},
            state=self.state,
            unsent=redis.outbox.entries,
            unsent_bytes=redis.outbox.size,
            retries=redis.writer.retries,
            connections_lost=redis.lives.connections_lost,
            lives=redis.lives.count,
            malformed=redis.arrivals.malformed,
            unknown=redis.arrivals.unknown,
            lag=redis.lives.lag,
            round_trip=redis.lives.round_trip,
        )

    # --- lifetime

    async def start(self) -> None:
        """Connect, join the network, and claim the names of this process's workers.

        Raises:
            RedisSetupError: The server cannot be used, and trying again would not help; a `ConnectionError`.
            BusUnavailable: There was no server within ``send_timeout`` seconds; a `ConnectionError`.
            NameTakenError: Another process has a worker of such a name; a `ValueError`.

        Guarantees: X4, X5, X10.
        """
        await super().start()
        self._redis.now = running_backend().current_time  # anyio's looks the backend up in each call
        await self._redis.lives.begin(self.send_timeout)

    async def stop(self) -> None:
        """Send waiting messages, leave the network, and disconnect."""
        try:
            await self._redis.lives.end()
        finally:
            await super().stop()

    # --- names

    async def claim(self, name: str) -> None:
        """Claim the name of a worker for this process; called before the worker is subscribed.

        Args:
            name: The name.

        Raises:
            NameTakenError: Another process has a worker of that name; a `ValueError`.
            BusUnavailable: The server was not there within ``send_timeout`` seconds, or has refused; a
                `ConnectionError`.

        Guarantees: X5.
        """
        why = f"no answer within {self.send_timeout:g} s"
        cause: RedisReplyError | None = None
        with move_on_after(self.send_timeout):
            try:
                owner = await self._redis.names.claim(name)
            except ConnectionLost:
                owner, why = None, "it is closing"
            except RedisReplyError as exc:
                why, cause = f"the server says {exc}", exc
            else:
                if owner is not None:
                    raise self._redis.lives.taken(name, owner)
                return
        raise BusUnavailable(self.name, why, maybe_stored=False, doing=f"claim the name {name!r}") from cause

    def release(self, name: str) -> None:
        """Give a name back, without waiting.

        Args:
            name: The name.
        """
        self._redis.names.release(name, self.tasks, f"{self.name} names")

    # --- sending

    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt:
        """Accept a message for some peers: encode it and give it its place in line.

        Args:
            message: The message.
            peers: For whom it is.

        Raises:
            WireError: It cannot travel; a `ValueError`.

        Guarantees: X1, X2.
        """
        data = self._redis.wire.encode(message)
        receipt = SharedReceipt(len(peers), target=message.target is not None)
        self._redis.outbox.put(data, peers, receipt, self._redis.now())
        return receipt

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` if a message cannot travel.

        Args:
            message: The message, which is not sent.
        """
        self._redis.wire.encode(message)

    def in_words(self) -> str:
        """Describe the bus in one line, as `PeerBus.in_words` does, and how many messages are not stored yet."""
        unsent = self._redis.outbox.entries
        return super().in_words() + (f", messages that are not stored yet: {unsent}" if unsent else "")

    async def room(self) -> None:
        """Wait while too much is unsent."""
        if self._redis.outbox.crowded:
            await self._redis.outbox.room()

    def lost(self, peer: Peer) -> None:
        """Drop messages that were not sent yet to a peer that has gone.

        Args:
            peer: The peer.
        """
        self._redis.outbox.drop(peer, "" if self.is_alive else CUT_OFF)


class _Parts:
    """What a bus is made of, behind one name."""

    lives: Lives

    def __init__(
        self,
        bus: RedisBus,
        settings: RedisSettings,
        wire: Wire,
        membership: Membership,
        lease: float,
        inbox_size: int,
    ) -> None:
        self._bus = bus
        self._refused = membership.base + "refused"
        self.settings = settings
        self.wire = wire
        self.now: Callable[[], float] = current_time
        self.outbox = Outbox(bus.name, bus.session)
        self.names = Names(
            membership,
            lambda: bus.incarnation,
            lambda call: self.lives.on_server(call),
            lambda text: self.lives.refused(text),
            self.outbox.wake,
        )
        self.writer = Writer(
            self.outbox,
            membership.inbox,
            lambda: bus.incarnation,
            inbox_size=inbox_size,
            refused=self._batch_refused,
            peers=lambda: bus.peers,
            released=self.names,
        )
        clock = ServerTime()
        self.arrivals = Arrivals(bus, wire, clock, keep=self._keep, gap=self._gap)
        self.lives = Lives(
            bus, settings, membership, lease, self.outbox, self.writer, clock, self.arrivals.take, self._gap
        )

    def _batch_refused(self, text: str) -> None:
        bus = self._bus
        logger.error("bus %r cannot store messages: %s", bus.name, text, extra=about(runner=bus.opened_by))
        bus.report(f"the server stores no messages, which wait: {text}")

    def _gap(self, text: str) -> None:
        bus = self._bus
        logger.error("bus %r: %s", bus.name, text, extra=about(runner=bus.opened_by))
        bus.tell("on_gap", text)
        self.lives.over(LifeTrigger.GAP, text)

    def _keep(self, fields: tuple[Any, ...]) -> None:
        self._bus.tasks.start(self._add_refused, fields, name=f"{self._bus.name} refused")

    async def _add_refused(self, fields: tuple[Any, ...]) -> None:
        command = ("XADD", self._refused, "MAXLEN", "~", REFUSED_KEPT, "*", *fields)
        try:
            await self.lives.on_server(lambda connection: connection.execute(*command))
        except (RedisReplyError, ConnectionLost) as exc:  # the second where the bus is closed
            bus = self._bus
            text = "bus %r could not keep a message for the operator: %s"
            logger.warning(text, bus.name, exc, extra=about(runner=bus.opened_by))
