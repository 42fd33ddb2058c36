"""A connection for one purpose that is made anew whenever it is lost (X2, X10).

It has no task of its own: whoever needs the connection makes it, and others who need it meanwhile wait for that. It
never does a command again, since the first one may have been done: who has sent it knows whether that matters.

| state | what happens | next state |
|---|---|---|
| NEW | it is opened, or needed | CONNECTING |
| CONNECTING | the server greets | CONNECTED |
| CONNECTING | an attempt fails: it waits, longer each time, and tries again | CONNECTING |
| CONNECTED | the connection is found to be lost | LOST |
| LOST | it is needed | CONNECTING |
| any | it is closed | CLOSED |
"""

from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from typing import Final

from anyio import Lock, current_time, move_on_after, sleep
from attrs import field

from workerbus._backoff import Backoff
from workerbus._concurrency.failures import unwrap_group
from workerbus._values import Value, value
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._opening import CONNECT_SECONDS, connect
from workerbus.redis._settings import RedisSettings

AGAIN: Final = Backoff(initial=0.02, maximum=1.0)
"""How long to wait where the server has refused something before it is tried again."""
RECONNECT: Final = Backoff(initial=0.05, factor=2.0, maximum=1.0, jitter=0.5)
"""How long it waits before it tries again if nothing else is said: other processes have lost the server, too."""


class ConnectionState(Enum):
    """How it is with a `ReconnectingConnection`."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    CLOSED = "closed"


@value
class ConnectionEvent(Value):
    """Something has happened to a connection.

    Args:
        name: What the connection is for.
        state: What it has come to: CONNECTED, LOST, or CONNECTING after an attempt that has failed.
        address: Of the server.
        attempt: The number of the attempt, from 1; 0 for LOST.
        reason: Why it was lost, or why the attempt has failed; empty for CONNECTED.
        retry_in: After how many seconds it tries again; None where it does not.
        error: What was raised; a `RedisSetupError` means that somebody has to mend something.
    """

    name: str
    state: ConnectionState
    address: str
    attempt: int = 0
    reason: str = ""
    retry_in: float | None = None
    error: Exception | None = field(default=None, eq=False, repr=False)


class ReconnectingConnection:
    """One connection at a time, which is made anew when it is needed and lost.

    Args:
        settings: Where the server is, and how to get in.
        name: What it is for, as in ``"workerbus:runner:writer"``: its name in CLIENT LIST, and in events.
        backoff: How long it waits before it tries again. A connection that has lasted for less than the longest wait
            does not begin anew with the shortest.
        connect_timeout: How long one attempt may take, in seconds.
        on_event: Called with a `ConnectionEvent`, synchronously, for each change and each attempt that has failed.

    Attributes:
        name: What it is for.
        state: How it is now.
        connects: How many times it was connected.
    """

    def __init__(
        self,
        settings: RedisSettings,
        name: str,
        *,
        backoff: Backoff = RECONNECT,
        connect_timeout: float = CONNECT_SECONDS,
        on_event: Callable[[ConnectionEvent], None] | None = None,
    ) -> None:
        self.name: str = name
        self.state: ConnectionState = ConnectionState.NEW
        self.connects: int = 0
        self._settings = settings
        self._backoff = backoff
        self._connect_timeout = connect_timeout
        self._on_event = on_event
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._last_reason = ""
        self._delay = 0.0
        self._delays: Iterator[float] | None = None
        self._turn = Lock(fast_acquire=True)

    def __repr__(self) -> str:
        return f"<ReconnectingConnection {self.name!r} to {self._settings.where}, {self.state.value}>"

    async def open(self, within: float) -> Connection:
        """Connect for the first time, and return the connection.

        Args:
            within: How long it tries, in seconds, while the server cannot be reached or is not ready.

        Raises:
            RedisSetupError: The server cannot be used; it is not tried again.
            ConnectionLost: The time is over; the reason is that of the last attempt.
        """
        with move_on_after(within):
            return await self._make(first=True)
        reason = self._last_reason or "it does not answer"
        raise ConnectionLost(self._settings.where, f"{reason} (tried for {within:.3g} seconds)")

    async def get(self) -> Connection:
        """Return the connection; if it is lost, make it anew, however long that takes.

        What a new server or a new set-up would mend is tried again, too: credentials may be renewed meanwhile.

        Raises:
            ConnectionLost: It was closed by `aclose`.
        """
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        return await self._make()

    async def run(self, use: Callable[[Connection], Awaitable[None]]) -> None:
        """Call a function with the connection, and again with a new one each time that it is lost.

        Args:
            use: Async. It returns when it is done. A `ConnectionLost` of its connection, or a `RedisReplyError` that
                says ``reconnect``, leads to the next call; of a group, that is its only exception.

        Raises:
            ConnectionLost: It was closed by `aclose`.
            Exception: What else the function has raised.
        """
        while True:
            connection = await self.get()
            try:
                return await use(connection)
            except Exception as exc:
                cause = unwrap_group(exc)
                if isinstance(cause, RedisReplyError) and cause.reconnect:
                    await self.lose(connection, f"the server says {cause}")
                elif not (isinstance(cause, ConnectionLost) and connection.closed):
                    raise

    async def lose(self, connection: Connection, reason: str) -> None:
        """Close a connection that is of no use any more, so that the next one is made; a stale one is ignored.

        Args:
            connection: The one that is meant.
            reason: Why, in words.
        """
        await connection.aclose(reason)
        self._note_loss()

    async def close_if_stuck(self, limit: float) -> None:
        """Close the connection if a call on it waits for too long: for a task that looks at it now and then.

        That costs calls nothing, where a ``timeout`` costs each a quarter of its time.

        Args:
            limit: For how long a call may wait, in seconds; of one that blocks, with the time that it blocks for.
        """
        connection = self._connection
        since = None if connection is None else connection.busy_since
        if connection is not None and since is not None and current_time() - since > limit:
            await self.lose(connection, f"no answer within {limit:g} seconds")

    async def aclose(self) -> None:
        """Close it for good, at once. Who waits for it gets `ConnectionLost`."""
        self.state = ConnectionState.CLOSED
        if self._connection is not None:
            await self._connection.aclose()

    async def _make(self, *, first: bool = False) -> Connection:
        async with self._turn:
            self._check_open()
            self._note_loss()
            if self._connection is not None:  # another task has made it
                return self._connection
            try:
                return await self._try_until_connected(first)
            finally:
                if self.state is ConnectionState.CONNECTING:
                    self.state = ConnectionState.LOST

    async def _try_until_connected(self, first: bool) -> Connection:
        attempt = 0
        while True:
            if self._delays is not None:  # but for the very first attempt
                await sleep(self._delay)
            self._check_open()
            self.state = ConnectionState.CONNECTING
            attempt += 1
            try:
                connection = await connect(self._settings, timeout=self._connect_timeout, name=self.name)
            except (ConnectionLost, RedisSetupError) as exc:
                if first and isinstance(exc, RedisSetupError):
                    raise
                self._note_failure(attempt, exc)
            else:
                await self._adopt(connection, attempt)
                return connection

    async def _adopt(self, connection: Connection, attempt: int) -> None:
        if self.state is ConnectionState.CLOSED:
            await connection.aclose()
            self._check_open()
        self._connection = connection
        self._connected_at = current_time()
        self.connects += 1
        self.state = ConnectionState.CONNECTED
        self._tell(ConnectionEvent(self.name, self.state, connection.address, attempt))

    def _note_failure(self, attempt: int, error: ConnectionLost | RedisSetupError) -> None:
        self._check_open()
        self._last_reason = error.reason
        self._next_delay()
        self._tell(ConnectionEvent(self.name, self.state, error.address, attempt, error.reason, self._delay, error))

    def _note_loss(self) -> None:
        connection = self._connection
        if connection is None or connection.closed_by is None or self.state is ConnectionState.CLOSED:
            return
        self._connection = None
        self.state = ConnectionState.LOST
        if current_time() - self._connected_at >= self._backoff.maximum:
            self._delays = None
        self._next_delay()
        self._tell(
            ConnectionEvent(
                self.name, self.state, connection.address, reason=connection.closed_by, retry_in=self._delay
            )
        )

    def _next_delay(self) -> None:
        if self._delays is None:
            self._delays = self._backoff.delays()
        self._delay = next(self._delays)

    def _check_open(self) -> None:
        if self.state is ConnectionState.CLOSED:
            raise ConnectionLost(self._settings.where, "it was closed")

    def _tell(self, event: ConnectionEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
