"""X2, X10: what the pages on networks of processes show does what they say, with a server and processes of its own."""

import contextlib
import inspect
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from support.programs import PATIENCE, plain_environment
from support.redis_servers import RedisServer, redis_running
from support.workers import Helper
from workerbus import JobError, WorkerRunner
from workerbus.bus._sessions import PEER_EVENTS
from workerbus.redis import RedisBus, RedisBusStatistics
from workerbus.redis._scripts import FORGOTTEN, NO_INBOX, RESTARTED, SILENT

ROOT = Path(__file__).parents[2]
FIRST = "more-than-one-machine"
OPERATIONS = (ROOT / "docs/operations.md").read_text()


@pytest.fixture
def anyio_backend(backend: str) -> str:  # in real time, since sockets know no other
    return backend


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_running() as server:
        yield server


def programs(page: str) -> list[str]:
    return blocks(f"docs/{page}.md")


def blocks(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def at(server: RedisServer, program: str, backend: str) -> str:
    """A program of a page, on a backend, with the URL of a server of the test's."""
    assert "redis://localhost" in program
    program = program.replace("redis://localhost", server.url)
    return program.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")


def promised(program: str) -> list[str]:
    """What a program says that it prints, behind ``anyio.run(main)``."""
    _, said = program.split("anyio.run(main)")
    return [line.strip().removeprefix("# ") for line in said.strip().splitlines()]


def printed_by(program: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(program, {"__name__": "page"})
    return output.getvalue().splitlines()


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=plain_environment(),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("first", ["counter.py", "ask.py"])
def test_the_first_program_runs_in_two_terminals_whichever_is_started_first(
    server: RedisServer, backend: str, first: str
) -> None:
    """X2, X4: and when both have ended, nothing is left at the server."""
    counter, ask = programs(FIRST)[:2]
    assert (counter.splitlines()[0], ask.splitlines()[0]) == ("# counter.py", "# ask.py")
    running = {}
    for name in sorted(["counter.py", "ask.py"], key=lambda name: name != first):
        running[name] = start(at(server, counter if name == "counter.py" else ask, backend))
    try:
        assert running["ask.py"].communicate(timeout=PATIENCE) == ("\n".join([*promised(ask), ""]), "")
        running["counter.py"].send_signal(signal.SIGINT)
        assert running["counter.py"].communicate(timeout=PATIENCE) == ("", "")
        assert running["counter.py"].returncode == 0
    finally:
        for each in running.values():
            each.kill()
            each.wait()
    assert server.call("KEYS", "{workerbus}:inbox:*") == []


@pytest.mark.slow
def test_the_program_of_the_readme_asks_the_worker_of_the_page(server: RedisServer, backend: str) -> None:
    """X2"""
    (program,) = [block for block in blocks("README.md") if "redis://" in block]
    counter = start(at(server, programs(FIRST)[0], backend))
    try:
        assert printed_by(at(server, program, backend)) == promised(program)
    finally:
        counter.send_signal(signal.SIGINT)
        assert counter.communicate(timeout=PATIENCE) == ("", "")


@pytest.mark.parametrize("program", programs(FIRST)[2:])
def test_what_else_the_first_page_shows_can_be_done(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "REDIS_PASSWORD", "secret")
    exec(program, {"__name__": "page"})


@pytest.mark.parametrize("program", programs("operations"))
def test_the_program_on_watching_prints_what_it_says(server: RedisServer, backend: str, program: str) -> None:
    assert printed_by(at(server, program, backend)) == promised(program)


@pytest.mark.parametrize("name", sorted(inspect.signature(RedisBusStatistics).parameters))
def test_each_number_of_the_statistics_is_explained(name: str) -> None:
    """X10"""
    assert re.search(rf"^\| .*`{name}`.* \| .+ \| .*\|$", OPERATIONS, re.MULTILINE)


@pytest.mark.parametrize("event", sorted(PEER_EVENTS))
def test_each_event_is_explained(event: str) -> None:
    """X10"""
    assert re.search(rf"^\| `{event}\(.*\)` \| ", OPERATIONS, re.MULTILINE)


@pytest.mark.parametrize("reason", ["it has left", SILENT, RESTARTED, NO_INBOX, FORGOTTEN])
def test_each_reason_of_a_loss_is_explained(reason: str) -> None:
    """X4"""
    assert f"| `{reason}` |" in OPERATIONS


def test_the_log_lines_are_those_of_the_code() -> None:
    table = OPERATIONS.partition("### Log lines")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (INFO|WARNING|ERROR) \| (.+?) \| ", table, re.MULTILINE)
    assert len(rows) >= 12
    folders = [ROOT / "src/workerbus" / folder for folder in ("redis", "bus", "runner")]
    source = "\n".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    for _, lines in rows:
        for line in re.findall(r"`(.+?)`", lines):
            for part in line.split("…"):
                assert part.strip() in source, line


@pytest.mark.parametrize(
    "name", [name for name in inspect.signature(RedisBus).parameters if name not in ("url", "name")]
)
def test_each_argument_of_the_bus_is_on_one_of_the_pages(name: str) -> None:
    pages = (ROOT / f"docs/{FIRST}.md").read_text() + OPERATIONS
    assert re.search(rf"`{name}`|\b{name}=", pages)


async def test_the_ends_of_the_transport_hear_of_a_cut_and_find_each_other_again(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X4: the job that was under way is answered; the next one comes through the next connection."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(programs("transports")[0].partition("async def main")[0], names)
    cables: list[Any] = []
    connect = anyio.connect_unix

    async def connect_and_remember(path: str) -> Any:
        cables.append(await connect(path))
        return cables[-1]

    monkeypatch.setattr(anyio, "connect_unix", connect_and_remember)
    monkeypatch.chdir(tmp_path)
    north = WorkerRunner(bus=names["SocketBus"]("socket", listens=True), name="north")
    south = WorkerRunner(bus=names["SocketBus"]("socket", listens=False), name="south")
    helper = Helper("helper")
    async with north, south:
        await south.add_workers(helper, names["Greeter"]("greeter"))

        async def cut() -> None:
            await helper.begun.wait()
            cables[-1].extra(SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            with pytest.raises(JobError) as caught:
                await north.job("helper", name="wait", timeout=30)
        assert caught.value.responses["helper"]["type"] == "WorkerGone"
        await helper.unwound.wait()
        answer = await north.job("greeter", name="greet", payload={"whom": "you"}, timeout=30)
        assert answer == {"text": "hello you"}
