"""R5, R10: examples/hosts/web.py under real servers, with real clients, and in a real browser."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after, sleep, to_thread

from support.browsers import CHROMIUM, WHY_NOT, chromium
from support.web_clients import Client, connected, fetch
from support.web_servers import Server, serving
from support.web_sockets import web_socket

pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install '.[hosts]'")

pytestmark = pytest.mark.slow

HOSTS = Path(__file__).parents[2] / "examples" / "hosts"
PICTURES = os.environ.get("WORKERBUS_PICTURES")
PATIENCE = 60.0

SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--port", "0", "web:app"],
    "hypercorn": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "web:app"],
    "hypercorn on trio": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "-k", "trio", "web:app"],
}


@pytest.fixture
def anyio_backend() -> str:
    """The clients are the same; the servers are on both."""
    return "asyncio"


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(SERVERS[request.param], HOSTS) as it:
        yield it


async def status(server: Server) -> dict[str, int]:
    counts: dict[str, int] = (await fetch(server.url, "/status")).json
    return counts


async def until(server: Server, expected: Callable[[dict[str, int]], bool]) -> None:
    """Wait until the server says of its jobs what is expected."""
    with fail_after(PATIENCE):
        while not expected(await status(server)):  # noqa: ASYNC110 - what it waits for is in another process
            await sleep(0.02)


async def events(client: Client) -> list[tuple[str, str]]:
    """Take server-sent events to their end."""
    body = (await client.ask("/print/events?pages=2")).body.decode()
    blocks = [block.split("\n") for block in body.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), data.removeprefix("data: ")) for kind, data in blocks]


async def test_a_request_is_a_job(server: Server) -> None:
    """R7: and so is one with events, and a websocket; each says how far it is, and answers."""
    with fail_after(PATIENCE):
        assert (await fetch(server.url, "/print?pages=1")).json == {"printed": 1}
        async with connected(server.url) as client:
            assert await events(client) == [
                ("progress", '{"page": 1, "of": 2}'),
                ("progress", '{"page": 2, "of": 2}'),
                ("answer", '{"printed": 2}'),
            ]
        async with web_socket(server.url, "/print/socket") as socket:
            await socket.say({"pages": 2})
            assert [await socket.hear() for _ in range(3)] == [
                {"progress": {"page": 1, "of": 2}},
                {"progress": {"page": 2, "of": 2}},
                {"answer": {"printed": 2}},
            ]
            assert await socket.closed() == 1000
        assert (await status(server))["printing"] == 0


async def by_get(url: str) -> None:
    async with connected(url) as client:
        await client.begin("/print?pages=900")  # there is no answer yet: it is cut short


async def by_events(url: str) -> None:
    async with connected(url) as client:
        reply = await client.begin("/print/events?pages=900")
        assert reply.headers["content-type"].startswith("text/event-stream")
        await client.next()


async def by_socket(url: str) -> None:
    async with web_socket(url, "/print/socket") as socket:
        await socket.say({"pages": 900})
        assert await socket.hear() == {"progress": {"page": 1, "of": 900}}


@pytest.mark.parametrize("way", [by_get, by_events, by_socket], ids=["plain GET", "events", "websocket"])
async def test_a_client_that_goes_away_cancels_its_job(server: Server, way: Callable[[str], Any]) -> None:
    """R10, J5: at once, and not when the server next wants to send it something."""
    before = await status(server)
    async with anyio.create_task_group() as group:
        group.start_soon(way, server.url)
        await until(server, lambda now: now["printing"] == 1)
        if way is by_get:
            group.cancel_scope.cancel()
    await until(server, lambda now: now["printing"] == 0)
    after = await status(server)
    assert (after["cancelled"], after["printed"]) == (before["cancelled"] + 1, before["printed"])


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_one_signal_ends_it_in_order(name: str, number: signal.Signals) -> None:
    """R5: a request under way gets its answer, and nothing has gone wrong at the end."""
    answers: list[Any] = []

    async def ask(url: str) -> None:
        answers.append((await fetch(url, "/print?pages=5")).json)

    with serving(SERVERS[name], HOSTS) as server:
        with fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(ask, server.url)
                await until(server, lambda now: now["printing"] == 1)
                if number is signal.SIGINT:
                    server.press_ctrl_c()
                else:
                    server.terminate()
        code = await to_thread.run_sync(server.end)
    assert answers == [{"printed": 5}]
    assert not any("Error" in line or "Traceback" in line for line in server.lines), server.lines
    assert code in ENDS[name][number]


ENDS: dict[str, dict[signal.Signals, tuple[int, ...]]] = {
    # uvicorn lets the signal end it when all is done, as one that nobody handles would; its command takes a Ctrl-C for
    # a success, where it did not before 0.35. Hypercorn ends as if by itself.
    "uvicorn": {signal.SIGINT: (0, 1), signal.SIGTERM: (-signal.SIGTERM,)},
    "hypercorn": {signal.SIGINT: (0,), signal.SIGTERM: (0,)},
    "hypercorn on trio": {signal.SIGINT: (0,), signal.SIGTERM: (0,)},
}


BARS = "document.querySelectorAll('progress')"


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_the_page_shows_jobs_and_cancels_those_that_are_left() -> None:
    """R10: each of the three ways, in a real Chromium."""
    with serving(SERVERS["uvicorn"], HOSTS) as server, chromium() as browser:
        page = browser.open(f"{server.url}/", width=820, height=560)
        page.until("document.querySelector('#printing').textContent.includes('0 printing')")
        page.value("document.querySelector('#pages').value = 3")
        for way in ("events", "socket", "get"):
            page.value(f"document.querySelector('[data-by={way}]').click()")
        page.until("document.querySelectorAll('li.printed').length === 3")
        page.value("document.querySelector('#pages').value = 12")
        for way in ("events", "socket", "get"):
            page.value(f"document.querySelector('[data-by={way}]').click()")
        page.until("document.querySelector('#printing').textContent === '3 printing'")
        page.until(f"[...{BARS}].filter((bar) => bar.value >= 2 && bar.max === 12).length === 2")
        if PICTURES:
            page.picture(Path(PICTURES) / "web-host.png")
        before = page.value("parseInt(document.querySelector('#cancelled').textContent)")
        page.value("document.querySelectorAll('li button').forEach((button) => button.click())")
        page.until("document.querySelector('#printing').textContent === '0 printing'")
        assert page.value("document.querySelectorAll('li.cancelled').length") == 3
        page.until(f"document.querySelector('#cancelled').textContent === '{before + 3} cancelled'")
        if PICTURES:
            page.dark(dark=True)
            page.picture(Path(PICTURES) / "web-host-after.png")
        assert page.faults == []
