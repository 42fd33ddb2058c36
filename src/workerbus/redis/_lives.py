"""The lives of a bus in the network, one after the other (L4, X3, X4, X5, X10).

Three connections serve them, each made anew whenever it is lost: one writes what is sent, and gives names back with it,
one reads the inbox, one renews the lease and does all else. What comes next is decided by the table of `_life`:

1. Joining: a new incarnation, its inbox, and the members that are there; then the claims of the names of workers here.
2. Joined: writer, reader and lease run until the server says that this is no member any more, or the inbox has a gap.
3. Fenced: the sessions with all peers end, what is unsent is dropped, the old incarnation leaves, a new one joins.
4. Left: after all that was sent is stored, within the bound of the wind-down.

Knows nothing of messages.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from anyio import CancelScope, Event, create_task_group, current_time, move_on_after, sleep
from attrs import evolve

from workerbus._log import about
from workerbus._order import new_incarnation
from workerbus.bus._peer_bus import PeerBus
from workerbus.errors import BusUnavailable, NameTakenError
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._life import LifeState, LifeTrigger, next_life
from workerbus.redis._membership import Member, Membership, Refused
from workerbus.redis._outbox import Outbox
from workerbus.redis._reader import BLOCK_SECONDS, Reader
from workerbus.redis._reconnecting import (
    AGAIN,
    RECONNECT,
    ConnectionEvent,
    ConnectionState,
    ReconnectingConnection,
)
from workerbus.redis._server_check import check_rights, check_server
from workerbus.redis._server_time import ServerTime
from workerbus.redis._settings import RedisSettings
from workerbus.redis._writer import Writer
from workerbus.wire import VERSION

logger = logging.getLogger("workerbus.redis")
T = TypeVar("T")

_LEAVE_SECONDS: Final = 1.0


class Connections(NamedTuple):
    """The connections of a bus, by what they are for."""

    writer: ReconnectingConnection
    reader: ReconnectingConnection
    lease: ReconnectingConnection


class Lives:
    """What a bus is in the network.

    Args:
        bus: The bus.
        settings: Where the server is.
        membership: Asks the server who is a member.
        lease: In seconds.
        outbox: What is to be written.
        writer: What writes it.
        server_time: Is told the server's time.
        take: Takes an entry of the inbox; returns how many messages it had, or 0 where this life is over.
        gap: Is told that messages are missing, in words, and ends this life.

    Attributes:
        state: Where the bus is in its life.
        count: How many incarnations it has had.
        connections_lost: How many times a connection was lost.
        lag: How many entries waited in the inbox at the last beat.
        round_trip: How long the last beat took, in seconds; None before the first.
    """

    def __init__(
        self,
        bus: PeerBus,
        settings: RedisSettings,
        membership: Membership,
        lease: float,
        outbox: Outbox,
        writer: Writer,
        server_time: ServerTime,
        take: Callable[[int, Mapping[bytes, bytes]], int],
        gap: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._membership = membership
        self._lease = lease
        self._outbox = outbox
        self._writer = writer
        self._server_time = server_time
        self._take = take
        self._gap = gap
        self._connections = self._new_connections()
        self._id = new_incarnation()  # by which it knows its own former lives
        self._was_connected = False
        self._position = "0-0"
        self._attempted: str | None = None  # the incarnation that may have joined, though no answer says so
        self._checked = False
        self._warned: set[str] = set()
        self._scope: CancelScope | None = None
        self._reason = ""
        self._last_refusal = ""
        self._over = Event()
        self._served = Event()
        self.state: LifeState = LifeState.LEFT
        self.count: int = 0
        self.connections_lost: int = 0
        self.lag: int = 0
        self.round_trip: float | None = None

    def _new_connections(self) -> Connections:
        return Connections(self._new("writer"), self._new("reader"), self._new("lease"))

    def _new(self, purpose: str) -> ReconnectingConnection:
        name = f"{self._bus.name}:{purpose}"
        # After an outage, all have a lease from when the first one is back: time for several attempts of the others.
        longest = min(RECONNECT.maximum, self._lease / 4)
        backoff = evolve(RECONNECT, initial=min(RECONNECT.initial, longest), maximum=longest)
        return ReconnectingConnection(self._settings, name, backoff=backoff, on_event=self._connection_changed)

    @property
    def about(self) -> Mapping[str, Any]:
        """What a log record says that is about the bus."""
        return about(runner=self._bus.opened_by)

    @property
    def is_connected(self) -> bool:
        """Whether all connections are there."""
        return all(each.state is ConnectionState.CONNECTED for each in self._connections)

    def _move(self, trigger: LifeTrigger) -> None:
        self.state = next_life(self.state, trigger)

    # --- from the beginning to the end

    async def begin(self, within: float) -> None:
        """Connect, join the network, and claim the names of the workers that are here.

        Args:
            within: How long to try to connect, in seconds.

        Raises:
            RedisSetupError: The server cannot be used, and trying again would not help; a `ConnectionError`.
            BusUnavailable: There was no server in time; a `ConnectionError`.
            NameTakenError: Another process has a worker of such a name; a `ValueError`.
        """
        self.state, self.count, self._attempted, self._checked = LifeState.JOINING, 0, None, False
        self._last_refusal, self.lag, self.round_trip = "", 0, None
        self._warned.clear()
        self._writer.begin()
        self._connections = self._new_connections()
        try:
            await self._join_first(within)
        except BaseException:
            self.state = LifeState.LEFT
            self._bus.end_life("this bus could not be opened")
            if self._attempted is not None:
                await self._leave()
            await self._disconnect()
            raise
        self._served = Event()
        self._bus.tasks.start(self._serve, name=f"{self._bus.name} lives")

    async def end(self) -> None:
        """Leave the network, and disconnect, after what waits is stored."""
        try:
            if self.state is LifeState.JOINED:
                await self._outbox.empty()
        finally:
            self._move(LifeTrigger.LEAVE)
            if self._scope is not None:
                self._scope.cancel()
                await self._served.wait()

    async def _join_first(self, within: float) -> None:
        deadline, incarnation = current_time() + within, new_incarnation()
        cause: ConnectionLost | RedisReplyError | None = None
        reason = ""
        for seconds in AGAIN.delays():
            try:
                await self._try_to_join(deadline, incarnation)
            except ConnectionLost as exc:
                if cause is None or current_time() < deadline:  # else it is what came before that has taken the time
                    cause, reason = exc, str(exc)
            except RedisReplyError as exc:
                if not exc.temporary:
                    raise RedisSetupError(exc.code, self._settings.where, f"the server says {exc}") from exc
                cause, reason = exc, f"the server at {self._settings.where} says {exc}"
            else:
                return
            if current_time() + seconds >= deadline:
                raise BusUnavailable(self._bus.name, reason, maybe_stored=False, doing="be opened") from cause
            await sleep(seconds)

    async def _try_to_join(self, deadline: float, incarnation: str) -> None:
        connection = await self._connections.lease.open(max(0.0, deadline - current_time()))
        with move_on_after(deadline - current_time()):
            await self._check_server(connection, incarnation)
            if self.state is LifeState.JOINING:  # and not because the answer to the claims was lost
                await self._join(connection, incarnation)
            for name, owner in (await self._claim_all(connection)).items():
                raise self.taken(name, owner)
            return
        raise ConnectionLost(self._settings.where, "it does not answer")

    async def _check_server(self, connection: Connection, incarnation: str) -> None:
        if self._checked:
            return
        found = await check_server(connection)
        told = [text for text in (*found.warnings, *found.notes) if text not in self._warned]  # at the last attempt
        self._warned.update(told)
        for text in told:
            logger.warning("bus %r: %s", self._bus.name, text, extra=self.about)
        await check_rights(connection, self._membership.inbox(incarnation))
        self._checked = True

    def taken(self, name: str, owner: Member) -> NameTakenError:
        """Return the error for a name that another member has claimed."""
        return NameTakenError(name, f"the network at {self._settings}, by the process of runner {owner.peer.name!r}")

    async def _serve(self) -> None:
        try:
            with CancelScope() as self._scope:
                while self.state is LifeState.JOINED:
                    await self._live()
                    self._fenced()
                    await self._join_until_it_works()
        finally:
            self._scope = None
            await self._leave()
            await self._disconnect()
            self._outbox.drop_all()  # also what was being written, which would go out when the bus is opened again
            self._served.set()

    async def _live(self) -> None:
        """Serve this life until it is over."""
        self._over = Event()
        inbox = self._membership.inbox(self._bus.incarnation)
        reader = Reader(
            inbox,
            self._position,
            self._take,
            inbox_size=self._membership.inbox_entries,
            overflowed=self._overflowed,
            refused=self.refused,
        )
        name = self._bus.name

        async def read(connection: Connection) -> None:
            # It hears at once that the server is gone, and the writer only when it writes: see rule 5 of the outbox.
            self._outbox.mark(self._bus.peers, current_time())
            await reader.run(connection)

        async with create_task_group() as group:
            group.start_soon(self._connections.writer.run, self._writer.run, name=f"{name} writer")
            group.start_soon(self._connections.reader.run, read, name=f"{name} reader")
            group.start_soon(self._connections.lease.run, self._renew, name=f"{name} lease")
            await self._over.wait()
            group.cancel_scope.cancel()
        # Their calls were cut short, so that nobody can use them any more.
        writer, reading, lease = self._connections
        await writer.aclose()
        await reading.aclose()
        self._connections = Connections(self._new("writer"), self._new("reader"), lease)

    def _overflowed(self) -> None:
        most = self._membership.inbox_entries
        self._gap(f"{most} messages or more waited to be read, and the server keeps no more: some may be missing")

    def over(self, trigger: LifeTrigger, reason: str) -> None:
        """End this life; another one begins."""
        if self.state is LifeState.JOINED:
            self._move(trigger)
            self._reason = reason
            self._over.set()

    def _fenced(self) -> None:
        name, reason = self._bus.name, self._reason
        self._bus.end_life(reason)
        self._outbox.drop_all()
        logger.warning("bus %r is fenced, and joins again: %s", name, reason, extra=self.about)
        self._bus.tell("on_fenced", reason)
        self._bus.report(f"this process was cut off from all others, and joins again: {reason}")
        self._move(LifeTrigger.UNWOUND)

    async def _leave(self) -> None:
        try:
            clean_up = self._bus.clean_up
            with clean_up.shield(min(clean_up.deadline(), current_time() + _LEAVE_SECONDS)) as shield:
                await self.on_server(self._leave_with)
            if not shield.cancelled_caught:
                return
        except RedisReplyError:
            pass
        text = "bus %r could not leave the network: its lease will run out"
        logger.warning(text, self._bus.name, extra=self.about)

    async def _leave_with(self, connection: Connection) -> None:
        await self._membership.leave(connection, self._bus.incarnation)
        if self._attempted not in (None, self._bus.incarnation):
            await self._membership.leave(connection, self._attempted)

    async def _disconnect(self) -> None:
        for each in self._connections:
            await each.aclose()

    # --- joining, and the lease

    async def _join(self, connection: Connection, incarnation: str, *, supersede: bool = True) -> None:
        info = {
            "host": socket.gethostname(), "pid": os.getpid(), "wire": VERSION, "lease": self._lease, "bus": self._id
        }  # fmt: skip
        name = self._bus.opened_by or self._bus.name
        self._attempted = incarnation
        while True:
            began = current_time()
            answer = await self._membership.join(connection, incarnation, name, info, supersede=supersede)
            self._server_time.told(answer.now, began, current_time())
            if not isinstance(answer, Refused) or answer.owner.info.get("bus") != self._id:
                break
            # A former life of this bus: the server has come back with old data, and does not know that it has left.
            await self._membership.leave(connection, answer.owner.peer.incarnation)
        if isinstance(answer, Refused):
            self._move(LifeTrigger.REFUSE)
            about_it = answer.owner.info
            owner = f"process {about_it.get('pid')} at {about_it.get('host')}"
            text = f"{owner} has joined under the name {name!r}, and this process is out of the network"
            logger.error("bus %r: %s", self._bus.name, text, extra=self.about)
            if self._bus.opened_by is None:  # else it is a runner's name, who is told of it below
                self._bus.report(text)
            self._bus.name_lost(name, owner)
            return
        self._warn_of_other_leases(answer.members)
        self.count += 1
        self._position = answer.position
        self._move(LifeTrigger.ADMIT)
        self._bus.begin_life(incarnation, [member.peer for member in answer.members])

    def _warn_of_other_leases(self, members: Iterable[Member]) -> None:
        # Each declares others lost by its own lease: the shortest one counts for all.
        other = {m.peer.name: m.info["lease"] for m in members if m.info.get("lease", self._lease) != self._lease}
        if other:
            text = (
                "bus %r has a lease of %g s, and others have another one; the shortest counts, so give all the same: %s"
            )
            logger.warning(text, self._bus.name, self._lease, other, extra=self.about)

    async def _join_until_it_works(self) -> None:
        # The same for all attempts: one whose answer was lost may have come through, and has the name.
        incarnation = new_incarnation()
        for seconds in AGAIN.delays():
            try:
                await self.on_server(lambda connection: self._join_again(connection, incarnation))
            except RedisReplyError as exc:
                self.refused(str(exc))
                await sleep(seconds)
            else:
                return

    async def _join_again(self, connection: Connection, incarnation: str) -> None:
        if self.state is LifeState.JOINING:  # and not because the answer to the claims was lost
            await self._membership.leave(connection, self._bus.incarnation)  # a member still, where the inbox had a gap
            await self._join(connection, incarnation, supersede=False)
        if self.state is LifeState.JOINED:
            for name, owner in (await self._claim_all(connection)).items():
                self._bus.name_lost(name, owner.peer.name)

    async def _claim_all(self, connection: Connection) -> Mapping[str, Member]:
        names = self._bus.claimed_names
        if not names:
            return {}
        return await self._membership.claim(connection, self._bus.incarnation, names) or {}

    async def _renew(self, connection: Connection) -> None:
        while True:
            await self._close_if_stuck()
            began = current_time()
            try:
                beat = await self._membership.beat(connection, self._bus.incarnation)
                ended = current_time()
                if beat.alive and beat.members != len(self._bus.peers) + 1:
                    # It has yet to read of those that come and go; or the server has lost what it had stored.
                    await self._membership.roll_call(connection, self._bus.incarnation)
            except RedisReplyError as exc:
                if exc.reconnect:
                    raise
                self.refused(str(exc))
                await sleep(self._membership.interval)
                continue
            self.round_trip, self.lag, self._last_refusal = ended - began, beat.inbox, ""
            self._server_time.told(beat.now, began, ended)
            if not beat.alive:
                self.over(LifeTrigger.FENCE, "the server has declared it lost")
                return
            await sleep(max(0.0, began + self._membership.interval - ended))

    async def _close_if_stuck(self) -> None:
        limit = max(self._lease / 2, 1.0)
        await self._connections.writer.close_if_stuck(limit)
        await self._connections.reader.close_if_stuck(limit + BLOCK_SECONDS)

    async def on_server(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something on the connection that renews the lease, and again on the next one where that is lost.

        Raises:
            ConnectionLost: The bus is closed.
        """
        while True:
            connection = await self._connections.lease.get()
            try:
                return await call(connection)
            except ConnectionLost:
                if not connection.closed:
                    raise
            except RedisReplyError as exc:
                if not exc.reconnect:
                    raise
                await self._connections.lease.lose(connection, f"the server says {exc}")

    def refused(self, text: str) -> None:
        """Note that the server has refused something, which is tried again, in its words; once until a beat works."""
        if self._is_news(text):
            logger.error("the server refuses what bus %r needs: %s", self._bus.name, text, extra=self.about)
            self._bus.report(f"the server refuses what the bus needs, which tries again: {text}")

    def _is_news(self, text: str) -> bool:
        """Whether what keeps the bus from working is something else than was told last, since it has worked."""
        news, self._last_refusal = text != self._last_refusal, text
        return news

    def _connection_changed(self, event: ConnectionEvent) -> None:
        if self.state is not LifeState.JOINED:
            return  # it is closing, or between two lives, and has cut its own calls short
        if event.state is ConnectionState.LOST:
            self.connections_lost += 1
        name, connected = self._bus.name, self.is_connected
        if connected and not self._was_connected:
            logger.info("bus %r is connected", name, extra=self.about)
            self._bus.tell("on_connected")
        elif self._was_connected and event.state is ConnectionState.LOST:
            text = "bus %r has lost a connection, and connects again: %s"
            logger.warning(text, name, event.reason, extra=self.about)
            self._bus.tell("on_disconnected", event.reason)
        elif isinstance(event.error, RedisSetupError) and self._is_news(str(event.error)):
            logger.error("bus %r cannot connect, and tries again: %s", name, event.error, extra=self.about)
            self._bus.report(str(event.error))
        self._was_connected = connected
