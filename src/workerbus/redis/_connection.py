"""One connection to a Redis server that somebody has opened: commands out, replies in, in step.

Knows nothing of how it was opened, and does not reconnect. The one rule: a call that ends before all its replies are
there leaves a connection on which the next call would read them as its own. So whatever ends a call early, a lost
server, the time or a cancellation, closes the connection.
"""

import os
import ssl
from collections.abc import Iterable
from socket import gaierror
from typing import Any, Final

from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    Lock,
    current_time,
    move_on_after,
)
from anyio.abc import ByteStream

from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._protocol import Argument, Command, ProtocolError, ReplyParser, ServerInfo, pack

CALL_SECONDS: Final = 10.0
"""How long, in seconds, a call waits for its replies if nothing else is said."""

IO_ERRORS: Final = (OSError, EndOfStream, BrokenResourceError, ClosedResourceError, ProtocolError)
"""What a stream, or a server that talks nonsense, can raise."""

_CHUNK: Final = 65536


class Connection:
    """One connection. Several tasks may use it; one's call waits until another's has ended.

    Opened by `connect`. It starts no tasks, and does nothing between calls.

    Args:
        stream: The open stream.
        address: Of the server, for texts.

    Attributes:
        address: Of the server, as in ``localhost:6379``.
        server: What the server has said of itself.
    """

    def __init__(self, stream: ByteStream, address: str) -> None:
        self.address: str = address
        self.server: ServerInfo = ServerInfo("", "", "", 0)
        self._stream = stream
        self._parser = ReplyParser()
        self._turn = Lock(fast_acquire=True)
        self._closed_by: str | None = None
        self._busy_since: float | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.address}{', closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        """Whether it is closed. One that is not may be dead all the same: only a call finds out."""
        return self._closed_by is not None

    @property
    def closed_by(self) -> str | None:
        """What has closed it, in words; None as long as it is open."""
        return self._closed_by

    @property
    def busy_since(self) -> float | None:
        """Since when, on the event loop's clock, the call under way waits for its replies; None if there is none."""
        return self._busy_since

    async def execute(self, *command: Argument, timeout: float | None = CALL_SECONDS, blocks: float = 0.0) -> Any:
        """Do one command, and return the reply: bytes, int, None or a list of those.

        Args:
            *command: Its name and arguments, as in ``"XADD", "stream", "*", "field", b"value"``.
            timeout: How long it waits for the reply, in seconds, once it is its turn. None for ever, which is cheaper:
                somebody who looks now and then can close a connection that is `busy_since` too long.
            blocks: For how many seconds more the server may wait by itself, as an XREAD with BLOCK does.

        Raises:
            RedisReplyError: The reply is an error. The connection goes on.
            ConnectionLost: There is no reply, and there will be none: the connection is closed.
            TypeError: An argument is neither text, bytes nor a number; nothing was sent.
        """
        (reply,) = await self.pipeline((command,), timeout=timeout, blocks=blocks)
        if isinstance(reply, RedisReplyError):
            raise reply
        return reply

    async def pipeline(
        self, commands: Iterable[Command], *, timeout: float | None = CALL_SECONDS, blocks: float = 0.0
    ) -> list[Any]:
        """Do several commands in one go, and return a reply for each, in their order.

        It is no transaction, unless the first is MULTI and the last EXEC: others' commands may come in between, and
        one that fails does not keep the next from being done.

        Args:
            commands: Each a tuple of its name and arguments.
            timeout: How long it waits for all replies together, in seconds, once it is its turn; None for ever, as in
                `execute`.
            blocks: For how many seconds more the server may wait by itself, as an XREAD with BLOCK does.

        Returns:
            The replies. One that is an error stands there as a `RedisReplyError`, and is not raised.

        Raises:
            ConnectionLost: Replies are missing, and will not come: the connection is closed. The error has the
                replies that did come, and says whether the server may have got the commands.
            TypeError: An argument is neither text, bytes nor a number; nothing was sent.
        """
        commands = tuple(commands)
        data = pack(commands)
        replies: list[Any] = []
        if not commands:
            return replies
        async with self._turn:
            if self._closed_by is not None:
                raise ConnectionLost(self.address, self._closed_by)
            if timeout is None:  # a scope, even one without a deadline, costs a quarter of a call
                await self._exchange(data, replies, len(commands))
                return replies
            with move_on_after(timeout + blocks):
                await self._exchange(data, replies, len(commands))
                return replies
        self._closed_by = f"no answer within {timeout + blocks:g} seconds"
        raise ConnectionLost(self.address, self._closed_by, sent=True, replies=replies)

    async def _exchange(self, data: bytes, replies: list[Any], count: int) -> None:
        self._busy_since = current_time()
        try:
            await self._stream.send(data)
            while len(replies) < count:
                self._parser.feed(await self._stream.receive(_CHUNK), replies, count)
        except IO_ERRORS as exc:
            reason = self._closed_by or reason_of(exc)
            await self._close(reason)
            raise ConnectionLost(self.address, reason, sent=True, replies=replies) from exc
        except BaseException:
            await self._close("a call was cut short")
            raise
        finally:
            self._busy_since = None

    async def aclose(self, reason: str = "it was closed") -> None:
        """Close it at once, whatever is under way; a call that waits for replies ends with `ConnectionLost`.

        Args:
            reason: Why, in words, for that error.
        """
        await self._close(reason)

    async def _close(self, reason: str) -> None:
        if self._closed_by is None:
            self._closed_by = reason
            await close_now(self._stream)


async def close_now(stream: ByteStream) -> None:
    """Close a stream without waiting for anything, as cancelled tasks may, too."""
    # The socket is closed before the first checkpoint, and that is where the deadline, which is over, ends it.
    with CancelScope(shield=True, deadline=current_time()):
        await stream.aclose()


def reason_of(exc: BaseException) -> str:
    """Return in words why a stream has failed."""
    if isinstance(exc, EndOfStream):
        return "the server has closed the connection"
    if isinstance(exc, ProtocolError):
        return f"this is not a Redis server, or it expects TLS: {exc}"
    cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    if isinstance(cause, OSError):
        if cause.errno and not isinstance(cause, gaierror):
            return os.strerror(cause.errno)  # asyncio has texts of its own
        return cause.strerror or str(cause) or type(cause).__name__
    return "the connection is broken"
