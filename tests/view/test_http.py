"""O4: what a client may do, and what it cannot do to others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import h11
import pytest

from support.web_clients import Client, Events, connected, fetch, watching
from support.workers import Helper, running
from workerbus.view import View, _http, serve_view


@asynccontextmanager
async def a_view() -> AsyncIterator[View]:
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view:
        yield view


async def to_its_end(client: Client) -> bytes:
    """All that comes until the connection is closed."""
    answer = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            answer += await client.stream.receive()
    return answer


async def send_for_ever(client: Client, data: bytes) -> None:
    while True:
        await client.stream.send(data)


async def test_one_connection_serves_several_requests() -> None:
    """O4"""
    async with a_view() as view, connected(view.url) as client:
        for path in ("/", "/view.css", "/api/state"):
            assert (await client.ask(path)).status == 200


async def test_a_head_is_an_answer_without_its_body() -> None:
    """O4: also of the stream of events, which it does not begin."""
    async with a_view() as view, connected(view.url) as client:
        reply = await client.begin("/view.css", "HEAD")
        assert (reply.status, int(reply.headers["content-length"]) > 1000) == (200, True)
        assert (await fetch(view.url, "/api/events", "HEAD")).status == 200


@pytest.mark.parametrize("path", ["/..", "/../view.css", "/%2e%2e/_serve.py", "/page/view.css", "//", "/API/state"])
async def test_there_is_nothing_else(path: str) -> None:
    """O4"""
    async with a_view() as view:
        assert (await fetch(view.url, path)).status == 404


async def test_a_request_may_come_in_many_pieces_and_so_may_an_answer() -> None:
    """O4, O8: byte by byte, and one request behind the other."""
    async with a_view() as view, connected(view.url) as client:
        for _ in range(2):
            for byte in b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n":
                await client.stream.send(bytes([byte]))
                await anyio.lowlevel.checkpoint()
            answer = b""
            while not answer.endswith(b"</svg>\n"):
                answer += await client.stream.receive(7)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_is_told_of_events_may_say_something_meanwhile() -> None:
    """O4: it is for nobody, and ends nothing, however often it comes."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view, connected(view.url) as client:
        await client.begin("/api/events")
        events = Events(client)
        for number in range(3):
            await client.stream.send(b"?")
            await runner.add_workers(Helper(f"more {number}"))
            await events.until(lambda state, name=f"more {number}": name in state["workers"])


GARBAGE = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
    "a head without end": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
}


@pytest.mark.parametrize("sent", GARBAGE)
async def test_what_is_no_request_ends_its_connection_alone(sent: str) -> None:
    """O4"""
    data, expected = GARBAGE[sent]
    async with a_view() as view, watching(view.url) as page:
        async with connected(view.url) as client:
            await client.stream.send(data)
            answer = await to_its_end(client)
        assert answer.startswith(b"HTTP/1.1 %d " % expected)
        assert (await page.next())[0] == "state"


async def test_a_body_is_not_taken() -> None:
    """O4: the answer comes, and the connection ends."""
    async with a_view() as view, connected(view.url) as client:
        head = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        await client.stream.send(head)
        answer = await to_its_end(client)
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """O4: a connection without a request is not kept."""
    monkeypatch.setattr(_http, "IDLE", 0.05)
    async with a_view() as view, connected(view.url) as client:
        await client.stream.send(b"GET / HT")
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await client.stream.receive()


async def test_who_takes_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """O4: and holds up nobody else."""
    monkeypatch.setattr(_http, "STUCK", 0.05)
    async with a_view() as view, connected(view.url) as client:
        request = h11.Request(method="GET", target="/view.js", headers=[("Host", "localhost")])
        ask = h11.Connection(h11.CLIENT).send(request)
        assert ask is not None
        with pytest.raises(anyio.BrokenResourceError):
            await send_for_ever(client, ask * 100)
        assert (await fetch(view.url)).status == 200


async def test_two_requests_at_once_are_answered_in_their_order() -> None:
    """O4"""
    async with a_view() as view, connected(view.url) as client:
        one = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await client.stream.send(one % b"/view.css" + one % b"/icon.svg")
        answer = b""
        while b"</svg>" not in answer:
            answer += await client.stream.receive()
    assert answer.index(b"text/css") < answer.index(b"image/svg+xml")
