"""HTTP/1.1 with a view, over anyio, with h11: one thing as JSON, or server-sent events (O8).

Knows nothing of what the view says. What can be better in a moment is `Lost`; what cannot, since the view has refused
or is none, is an error of the command.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import h11
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, connect_tcp, fail_after
from anyio.abc import ByteStream

from workerbus.cli._address import TOKEN, Address
from workerbus.cli._commands import CommandError

IN_TIME: Final = 10.0
"""Seconds in which a view has to be reached, and to answer."""
SILENCE: Final = 45.0
"""Seconds without a word after which a view is taken for lost; it sends something every 15 seconds."""
MOST: Final = 64 * 1024 * 1024
"""How many bytes an event may have."""


class Lost(Exception):  # noqa: N818 - what has happened
    """The view cannot be reached now; its text says why."""


class Client:
    """One connection to a view; made by `connected`."""

    def __init__(self, stream: ByteStream, address: Address) -> None:
        at = urlsplit(address.url)
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._shown = address.shown
        self._base = at.path if at.path.endswith("/") else f"{at.path}/"
        self._headers = [("Host", at.netloc.rpartition("@")[2]), ("User-Agent", "workerbus")]
        if address.token is not None:
            self._headers.append(("Authorization", f"Bearer {address.token}"))
        self._rest = bytearray()

    async def fetch(self, path: str) -> Any:
        """Return what is at a path, from JSON; None where there is nothing.

        Raises:
            Lost: The connection is.
            CommandError: The view has refused, or is none.
        """
        with _lost(), fail_after(IN_TIME):
            status = await self._ask(path, "application/json", may_miss=True)
            body = b""
            while (data := await self._data()) is not None:
                body += data
        return None if status == 404 else json.loads(body)

    async def follow(self, path: str) -> None:
        """Ask for the events at a path.

        Raises:
            Lost: The connection is.
            CommandError: The view has refused, or is none.
        """
        with _lost(), fail_after(IN_TIME):
            await self._ask(path, "text/event-stream")

    async def next_event(self) -> tuple[str, Any]:
        """Wait for the next event; returns its name, which is empty for a word that says nothing, and its data.

        Raises:
            Lost: The connection is.
        """
        with _lost():
            looked_at = 0
            while (end := self._rest.find(b"\n\n", looked_at)) < 0:
                looked_at = max(0, len(self._rest) - 1)
                with fail_after(SILENCE):
                    data = await self._data()
                if data is None or len(self._rest) > MOST:
                    raise EndOfStream
                self._rest += data
            event, self._rest = bytes(self._rest[:end]), self._rest[end + 2 :]
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            return fields.get(b"event", b"").decode(), json.loads(fields.get(b"data", b"null"))

    async def _ask(self, path: str, kind: str, *, may_miss: bool = False) -> int:
        headers = [*self._headers, ("Accept", kind)]
        request = h11.Request(method="GET", target=f"{self._base}{path}", headers=headers)
        await self._stream.send((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        answer = await self._next()
        if not isinstance(answer, h11.Response):
            raise EndOfStream
        given = dict(answer.headers).get(b"content-type", b"").decode("latin-1").partition(";")[0]
        if answer.status_code >= 500:
            raise Lost(f"it answers {answer.status_code}")
        if answer.status_code == 401:
            raise CommandError(f"the view at {self._shown} wants its token: --token, or ${TOKEN}")
        missed = may_miss and answer.status_code == 404
        if (answer.status_code != 200 or given != kind) and not missed:
            raise CommandError(await self._refusal(answer.status_code, given))
        return int(answer.status_code)

    async def _refusal(self, status: int, kind: str) -> str:
        """What a view says when it refuses; anybody else has nothing to say here."""
        said = await self._data() if kind == "text/plain" else None
        words = "" if said is None else said[:200].decode(errors="replace").strip()
        return f"the view at {self._shown} answers {status}{f': {words}' if words else ''}"

    async def _data(self) -> bytes | None:
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                data = await self._stream.receive()
            except EndOfStream:
                data = b""
            self._http.receive_data(data)
        return event


class _lost:  # noqa: N801 - a context manager
    """Turns what is raised where a connection is lost into `Lost`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TimeoutError):
            raise Lost("it does not answer") from error
        if isinstance(error, (EndOfStream, BrokenResourceError, ClosedResourceError)):
            raise Lost("the connection was closed") from error
        if isinstance(error, (h11.RemoteProtocolError, ValueError)):
            raise Lost("what it sends is not what a view sends") from error
        if isinstance(error, OSError):
            raise Lost(_why(error)) from error


def _why(error: OSError) -> str:
    """The reason why there was no connection, without the words of anyio about all that it has tried."""
    cause: BaseException = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Client]:
    """Connect to a view.

    Raises:
        Lost: It cannot be reached.
    """
    async with await _reach(address) as stream:
        yield Client(stream, address)


async def _reach(address: Address) -> ByteStream:
    at = urlsplit(address.url)
    host = at.hostname or ""
    with _lost(), fail_after(IN_TIME):
        if at.scheme.lower() == "https":
            return await connect_tcp(host, at.port or 443, tls=True, tls_standard_compatible=False)
        return await connect_tcp(host, at.port or 80)
