"""HTTP/1.1 with one client, over any stream of bytes, with h11: what a page needs of it, and no more (O4, O5).

Knows nothing of what is served: it is given a function from a request to an answer. What a client does wrong, or does
not do in time, ends its connection alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

import h11
from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    create_task_group,
    fail_after,
)
from anyio.abc import ByteStream

LARGEST_HEAD: Final = 16 * 1024
"""How many bytes a request may have before its body."""
IDLE: Final = 30.0
"""Seconds for which a connection may stay open without a whole request."""
STUCK: Final = 10.0
"""Seconds that a client may take to take what it is sent."""

Headers = Sequence[tuple[str, str]]
Send = Callable[[bytes], Awaitable[None]]


class Request(NamedTuple):
    """What a client asks for.

    Attributes:
        method: ``GET``, and so on.
        target: The path and the query.
        headers: Name in lower case to value; of several of one name the last one.
    """

    method: str
    target: str
    headers: dict[str, str]


class Answer(NamedTuple):
    """What it gets.

    Attributes:
        status: The status.
        headers: The headers.
        body: The body; empty where it is streamed.
        stream: What sends a body that does not end, until it is cancelled.
    """

    status: int
    headers: Headers
    body: bytes = b""
    stream: Callable[[Send], Awaitable[None]] | None = None


Respond = Callable[[Request], Awaitable[Answer]]

GONE: Final = (BrokenResourceError, ClosedResourceError, EndOfStream, OSError, TimeoutError)
"""What is raised where a client has gone, or takes or sends nothing in time."""


class _Connection:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)

    async def requests(self, respond: Respond) -> None:
        """Answer one request after the other."""
        while True:
            with fail_after(IDLE):
                event = await self._next()
                if not isinstance(event, h11.Request):
                    return
                request = _request(event)
            await self._answer(request, await respond(request))
            if self._http.their_state is not h11.DONE or self._http.our_state is not h11.DONE:
                return  # it has sent a body, which nothing here takes, or wants no more
            self._http.start_next_cycle()

    async def refuse(self, status: int) -> None:
        """Tell a client that what it has sent is no request."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(_head(status, [("Connection", "close"), ("Content-Length", "0")]))

    async def _answer(self, request: Request, answer: Answer) -> None:
        await self._read_end()
        length = [] if answer.stream is not None else [("Content-Length", str(len(answer.body)))]
        await self._send(_head(answer.status, [*answer.headers, *length]))
        if request.method == "HEAD":
            await self._send(h11.EndOfMessage())
        elif answer.stream is not None:
            await self._stream_to_client(answer.stream)
        else:
            await self._send(h11.Data(data=answer.body))
            await self._send(h11.EndOfMessage())

    async def _stream_to_client(self, stream: Callable[[Send], Awaitable[None]]) -> None:
        """Send what does not end until the client has gone, which is noticed though there is nothing to send."""
        failures: list[Exception] = []
        async with create_task_group() as tasks:
            tasks.start_soon(self._until_gone, tasks.cancel_scope)
            try:
                await stream(self._send_data)
            except Exception as error:  # noqa: BLE001 - raised below, and not in a group
                failures.append(error)
            tasks.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _until_gone(self, scope: CancelScope) -> None:
        with suppress(*GONE):
            while True:
                await self._stream.receive()  # whatever it still says is for nobody
        scope.cancel()

    async def _read_end(self) -> None:
        """Take the end of a request without a body, which has come with its head."""
        if self._http.their_state is h11.SEND_BODY:
            event = self._http.next_event()
            assert event is not h11.PAUSED

    async def _send_data(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                data = await self._stream.receive()
            except EndOfStream:
                data = b""
            self._http.receive_data(data)
        return event

    async def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        data = self._http.send(event)
        if data:
            with fail_after(STUCK):
                await self._stream.send(data)


async def serve_client(stream: ByteStream, respond: Respond) -> None:
    """Answer the requests of one client, until it leaves."""
    async with stream:
        connection = _Connection(stream)
        try:
            await connection.requests(respond)
        except h11.RemoteProtocolError as error:
            try:
                await connection.refuse(error.error_status_hint)
            except (*GONE, h11.LocalProtocolError):
                return
        except GONE:
            return


def _head(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode("ascii"))


def _request(event: h11.Request) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    return Request(event.method.decode("ascii"), event.target.decode("latin-1"), headers)
