"""L7, R5, J5, J6: examples/hosts/flask_app.py, whose views ask for jobs in the threads of a real server."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after, sleep

from support.web_clients import connected, fetch
from support.web_servers import Server, serving

pytest.importorskip("flask", reason="Flask is not installed: pip install '.[hosts]'")

pytestmark = pytest.mark.slow

HOSTS = Path(__file__).parents[2] / "examples" / "hosts"
PATIENCE = 60.0


def command(backend: str) -> list[str]:
    return [str(HOSTS / "flask_app.py"), "--port", "0", "--backend", backend]


@pytest.fixture
def anyio_backend() -> str:
    """The clients are the same; the workers are on both."""
    return "asyncio"


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(command(request.param), HOSTS) as it:
        yield it


async def status(server: Server) -> dict[str, int]:
    counts: dict[str, int] = (await fetch(server.url, "/status")).json
    return counts


async def test_views_in_several_threads_ask_for_jobs_at_once(server: Server) -> None:
    """L7, R7"""
    answers: list[Any] = []

    async def ask(to: int) -> None:
        answers.append((await fetch(server.url, f"/count/{to}")).json["counted"])

    with fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for to in (3, 1, 2):
                group.start_soon(ask, to)
    assert sorted(answers) == [1, 2, 3]


async def test_a_job_that_takes_too_long_is_an_error_of_the_view(server: Server) -> None:
    """J6, J8: it is raised in the thread, as it is, and the job has ended."""
    with fail_after(PATIENCE):
        reply = await fetch(server.url, "/count/900?timeout=0.2")
    assert reply.status == 504
    assert b"job 'count' at 'counter': timeout after 0.2 seconds" in reply.body


async def test_a_stream_is_read_in_a_thread(server: Server) -> None:
    """L7, J7"""
    with fail_after(PATIENCE):
        reply = await fetch(server.url, "/count/3/lines")
    assert reply.body == b'{"counted": 1}\n{"counted": 2}\n{"counted": 3}\n'


async def test_whoever_leaves_a_stream_cancels_its_job(server: Server) -> None:
    """J5, L7: the server closes the generator, and that leaves the job's block in the loop's thread."""
    before = await status(server)
    async with connected(server.url) as client:
        await client.begin("/count/900/lines")
        await client.next()
    with fail_after(PATIENCE):
        while (await status(server))["cancelled"] == before["cancelled"]:  # noqa: ASYNC110 - in another process
            await sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_one_signal_ends_it_in_order(number: signal.Signals, backend: str) -> None:
    """R5: a request under way gets its answer."""
    with serving(command(backend), HOSTS) as server, ThreadPoolExecutor() as threads:
        streaming = threads.submit(server.get, "count/8")
        while not server.get("status")["requested"]:
            pass
        if number is signal.SIGINT:
            server.press_ctrl_c()
        else:
            server.terminate()
        assert streaming.result() == {"counted": 8}
        assert server.end() == 0
    assert not any("Error" in line or "Traceback" in line for line in server.lines), server.lines
