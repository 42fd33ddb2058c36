"""Clients of a web server, in the test's own event loop: a request, a stream of events, or whatever bytes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import h11
from anyio.abc import SocketStream


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.status == 200, self
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, stream: SocketStream, host: str) -> None:
        self.stream = stream
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
        """Send a request and take the whole reply."""
        head = await self.begin(path, method, headers)
        body = b""
        while not isinstance(event := await self.next(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            body += event.data
        if self._http.their_state is h11.DONE and self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        return head._replace(body=body)

    async def begin(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
        """Send a request and take the head of the reply."""
        given = {"Host": self._host, **(headers or {})}
        request = h11.Request(method=method, target=path, headers=list(given.items()))
        await self.stream.send((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        head = await self.next()
        assert isinstance(head, h11.Response), head
        return Reply(head.status_code, {name.decode(): value.decode() for name, value in head.headers}, b"")

    async def next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(await self.stream.receive())
            except anyio.EndOfStream:
                self._http.receive_data(b"")
        return event


class Events:
    """Server-sent events, and the state that they tell of.

    Attributes:
        kinds: What has come, by its event's name; a heartbeat has none.
        state: The state, kept up as a page does.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rest = b""
        self.kinds: list[str] = []
        self.state: dict[str, dict[str, Any]] = {}

    async def next(self) -> tuple[str, Any]:
        """Wait for the next event; returns its name and its data."""
        while b"\n\n" not in self._rest:
            event = await self._client.next()
            assert isinstance(event, h11.Data), event
            self._rest += event.data
        text, _, self._rest = self._rest.partition(b"\n\n")
        fields = dict(line.split(b": ", 1) for line in text.split(b"\n"))
        kind, data = fields.get(b"event", b"").decode(), json.loads(fields.get(b"data", b"null"))
        self.kinds.append(kind)
        if kind == "state":
            self.state = data["state"]
        elif kind == "changes":
            for section, change in data["changes"].items():
                for key in change["gone"]:
                    del self.state[section][key]
                self.state[section].update(change["set"])
        return kind, data

    async def until(self, expected: Any) -> None:
        """Wait until the state is as a function of it says."""
        while not (self.state and expected(self.state)):
            await self.next()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Connect to the server at an address."""
    at = urlsplit(url)
    async with await anyio.connect_tcp(at.hostname or "", at.port or 80) as stream:
        yield Client(stream, at.netloc)


async def fetch(url: str, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    """Ask for one thing, by a connection of its own."""
    async with connected(url) as client:
        return await client.ask(path, method, headers)


@asynccontextmanager
async def watching(url: str, headers: dict[str, str] | None = None) -> AsyncIterator[Events]:
    """Look at a view as a page does."""
    async with connected(url) as client:
        reply = await client.begin("/api/events", headers=headers)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        yield Events(client)
