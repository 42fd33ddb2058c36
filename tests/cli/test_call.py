"""O8: ``workerbus call``: what it prints, its exit codes, and what becomes of the job."""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support import commands
from support.clerk import Clerk, hosted
from support.redis_servers import RedisServer
from support.workers import running
from workerbus import MemoryBus, WorkerRunner
from workerbus.cli import main
from workerbus.cli._call import CANCELLED, ERROR, FAILED, TIMEOUT, UNKNOWN_WORKER, ask
from workerbus.cli._commands import BROKEN_PIPE, INTERRUPTED, USAGE, CommandError


def arguments(worker: str, job: str, **more: Any) -> argparse.Namespace:
    return argparse.Namespace(worker=worker, job=job, **{"timeout": None, "wait": 5.0, "stream": False, **more})


@asynccontextmanager
async def clerk() -> AsyncIterator[tuple[MemoryBus, Clerk]]:
    worker = Clerk("clerk")
    async with MemoryBus() as bus, running(worker, bus=bus):
        yield bus, worker


async def test_the_answer_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """O8"""
    async with clerk() as (bus, _):
        await ask(bus, arguments("clerk", "add"), {"numbers": [1, 2]})
    assert capsys.readouterr().out == '{"sum": 3}\n'


async def test_updates_and_chunks_are_printed_one_a_line_if_they_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """O8: the answer comes last."""
    async with clerk() as (bus, _):
        await ask(bus, arguments("clerk", "count", stream=True), None)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        await ask(bus, arguments("clerk", "count"), None)
    assert lines == [{"update": {"half": "way"}}, {"chunk": {"number": 0}}, {"chunk": {"number": 1}}, {"answer": {}}]
    assert capsys.readouterr().out == "{}\n"


@pytest.mark.parametrize(
    ("given", "exit_code", "said"),
    [
        (arguments("clerk", "add"), ERROR, "job 'add' at 'clerk' raised KeyError: 'numbers'"),
        (arguments("clerk", "nothing"), ERROR, "the jobs that it has: 'add'"),
        (arguments("clerk", "refuse"), FAILED, "job 'refuse' at 'clerk' failed: not"),
        (arguments("clerk", "stop"), CANCELLED, "job 'stop' at 'clerk'"),
        (arguments("clark", "add"), UNKNOWN_WORKER, "there is no worker 'clark'; did you mean 'clerk'?"),
        (arguments("clerk", "wait", timeout=3), TIMEOUT, "timeout after 3 seconds"),
    ],
    ids=lambda value: value.job if isinstance(value, argparse.Namespace) else None,
)
async def test_a_job_that_does_not_complete_has_an_exit_code_and_says_why(
    given: argparse.Namespace, exit_code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """O8: and prints no answer."""
    async with clerk() as (bus, _):
        with pytest.raises(CommandError) as caught:
            await ask(bus, given, {"numbers": ["one"][:0]} if given.job != "add" else {})
    assert caught.value.exit_code == exit_code
    assert said in str(caught.value)
    assert capsys.readouterr().out == ""


async def test_a_worker_that_comes_soon_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: `wait` seconds."""
    async with MemoryBus() as bus, WorkerRunner(bus=bus) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, bus, arguments("clerk", "add"), {"numbers": [4]})
        await anyio.sleep(4)
        await runner.add_workers(Clerk("clerk"))
    assert capsys.readouterr().out == '{"sum": 4}\n'


async def test_time_that_is_up_cancels_the_job() -> None:
    """O8, J6"""
    async with clerk() as (bus, worker):
        with pytest.raises(CommandError):
            await ask(bus, arguments("clerk", "wait", timeout=1), None)
        assert worker.cancelled.is_set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--url", "http://127.0.0.1:8765"], "a view can only be read"),
        (["--url", "localhost"], "an address begins with http:// (the page of a view) or redis:// (a bus)"),
        (["--url", "redis://localhost:many"], "its port is no number"),
        (["--url", "redis://localhost/0?secret=1"], "redis://"),
        (["[1]"], "the payload is a JSON object, as in '{\"text\": \"…\"}', and not '[1]'"),
        (["{"], "the payload is no JSON: "),
        (["--timeout", "soon"], "a number of seconds, not 'soon'"),
        (["--wait", "-1"], "a number of seconds, not '-1'"),
    ],
)
def test_what_was_called_wrongly_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    """O8"""
    try:
        exit_code: object = main(["call", "clerk", "add", *given])
    except SystemExit as ended:
        exit_code = ended.code
    assert exit_code == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("workerbus")
    assert said in line


# --- with a server, and processes


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.forget()
    return shared_server


@pytest.mark.slow
def test_a_command_asks_over_the_server(server: RedisServer) -> None:
    """O8: with the address from the environment, and the payload from standard input."""
    with hosted(server.url):
        done = commands.run("call", "clerk", "add", "-", given='{"numbers": [1, 2]}', WORKERBUS_URL=server.url)
        failed = commands.run("call", "clerk", "refuse", "--url", server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"sum": 3}\n', "")
    assert (failed.returncode, failed.stdout) == (FAILED, "")
    assert failed.stderr == "workerbus: job 'refuse' at 'clerk' failed: not\\ntoday\n"


@pytest.mark.slow
def test_ctrl_c_cancels_the_job(server: RedisServer) -> None:
    """O8, R5: nothing is left at the worker, and nothing is said."""
    with hosted(server.url) as process, commands.start("call", "clerk", "wait", "--url", server.url) as asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        asking.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cancelled\n"
        said = asking.communicate(timeout=commands.PATIENCE)
    assert (asking.returncode, said) == (INTERRUPTED, ("", ""))


@pytest.mark.slow
def test_an_output_that_nobody_reads_any_more_ends_the_command(server: RedisServer) -> None:
    """O8: quietly, and the job with it."""
    with hosted(server.url), commands.start("call", "clerk", "count", "--stream", "--url", server.url) as asking:
        assert asking.stdout is not None
        asking.stdout.close()
        assert asking.wait(commands.PATIENCE) == BROKEN_PIPE
        assert asking.stderr is not None
        assert asking.stderr.read() == ""


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_told_of_in_one_line() -> None:
    """O8: soon, and without the password."""
    done = commands.run("call", "clerk", "add", "--url", "redis://me:hunter2@127.0.0.1:1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("workerbus: bus 'RedisBus-")
    assert "could not be opened: no connection to the Redis server at 127.0.0.1:1: Connection refused" in line
    assert "hunter2" not in line


WITHOUT = """
import sys
sys.modules[{library!r}] = None
from workerbus.cli import main
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize("library", ["hiredis", "msgspec"])
def test_without_the_extra_it_is_said_what_to_install(library: str) -> None:
    """O8"""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(library=library, arguments=["call", "clerk", "add"])],
        capture_output=True,
        text=True,
        check=False,
        env=commands.environment(),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith(f" need {library}: pip install 'workerbus[redis]'")
