"""A TCP proxy in front of a server, which does what networks do: delays, drops, and cut connections."""

import math
import ssl
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream
from anyio.lowlevel import cancel_shielded_checkpoint
from anyio.streams.tls import TLSListener

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class Proxy:
    """A proxy on a free port of 127.0.0.1, for as long as its ``async with`` lasts.

    Args:
        port: Of the server behind it, at 127.0.0.1.
        ssl_context: For TLS between the clients and the proxy.

    Attributes:
        port: Its own.
        delay: How long each piece waits before it is passed on, in seconds, both ways.
        accepted: How many connections there were so far.
    """

    def __init__(self, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._ssl_context = ssl_context
        self.port = 0
        self.delay = 0.0
        self.accepted = 0
        self._requests = True
        self._budget = math.inf
        self._open: list[ByteStream] = []
        self._mute: set[ByteStream] = set()

    async def __aenter__(self) -> Self:
        plain: Listener[SocketStream] = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = plain.extra(SocketAttribute.local_port)
        self._group = await anyio.create_task_group().__aenter__()
        if self._ssl_context is None:
            self._group.start_soon(self._listen, plain)
        else:
            self._group.start_soon(self._listen, TLSListener(plain, self._ssl_context, standard_compatible=False))
        self._listener = plain
        return self

    async def _listen(self, listener: Listener[Any]) -> None:
        try:
            await listener.serve(self._serve, self._group)
        except* anyio.ClosedResourceError:
            pass

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        await anyio.aclose_forcefully(self._listener)
        for _ in range(3):  # a task that is cancelled before it has begun would not close what it was given
            await cancel_shielded_checkpoint()
        self._group.cancel_scope.cancel()
        return await self._group.__aexit__(exc_type, exc, traceback)

    @property
    def url(self) -> str:
        return f"{'redis' if self._ssl_context is None else 'rediss'}://127.0.0.1:{self.port}"

    def drop_replies(self, after: int = 0) -> None:
        """Swallow what the server says from now on, after so many bytes: it has done it, and nobody hears of it."""
        self._budget = after

    def drop_replies_of_open_connections(self) -> None:
        """Swallow what the server says from now on in the connections that there are, and not in later ones."""
        self._mute |= set(self._open[1::2])

    def drop_requests(self) -> None:
        """Swallow what clients say from now on."""
        self._requests = False

    async def cut(self) -> None:
        """Close all connections; what was dropped is passed on again in new ones."""
        closing, self._open = self._open, []
        for stream in closing:
            await anyio.aclose_forcefully(stream)
        self._requests, self._budget = True, math.inf

    async def _serve(self, client: ByteStream) -> None:
        self.accepted += 1
        async with client:
            try:
                server = await anyio.connect_tcp("127.0.0.1", self._target)
            except OSError:
                return
            self._open += [client, server]  # in pairs
            async with server, anyio.create_task_group() as group:
                group.start_soon(self._pass_on, client, server, True, group.cancel_scope)
                group.start_soon(self._pass_on, server, client, False, group.cancel_scope)

    async def _pass_on(self, source: ByteStream, sink: ByteStream, requests: bool, scope: anyio.CancelScope) -> None:
        try:
            async for data in source:
                if self.delay:
                    await anyio.sleep(self.delay)
                if source in self._mute:
                    passed = b""
                elif requests:
                    passed = data if self._requests else b""
                else:
                    passed = data if len(data) <= self._budget else data[: int(self._budget)]
                    self._budget -= len(passed)
                if passed:
                    await sink.send(passed)
        except BROKEN:
            pass
        scope.cancel()
