"""A client of a websocket, in the test's own event loop, with wsproto."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage


class WebSocket:
    """A websocket."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)

    async def send(self, event: Event) -> None:
        await self._stream.send(self._protocol.send(event))

    async def say(self, data: Any) -> None:
        await self.send(TextMessage(data=json.dumps(data)))

    async def next(self) -> Event:
        """Wait for what comes next."""
        while True:
            for event in self._protocol.events():
                if not isinstance(event, Ping):
                    return event
                await self.send(event.response())
            self._protocol.receive_data(await self._stream.receive())

    async def hear(self) -> Any:
        """Wait for a message; returns its data."""
        event = await self.next()
        assert isinstance(event, TextMessage), event
        assert event.message_finished
        return json.loads(event.data)

    async def closed(self) -> int:
        """Wait until the server closes it; returns the code."""
        event = await self.next()
        assert isinstance(event, CloseConnection), event
        return event.code


@asynccontextmanager
async def web_socket(url: str, path: str) -> AsyncIterator[WebSocket]:
    """Open a websocket; leaving the block drops the connection without a word."""
    at = urlsplit(url)
    async with await anyio.connect_tcp(at.hostname or "", at.port or 80) as stream:
        socket = WebSocket(stream)
        await socket.send(Request(host=at.netloc, target=path))
        accepted = await socket.next()
        assert isinstance(accepted, AcceptConnection), accepted
        yield socket
