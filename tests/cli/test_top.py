"""O3, O4, O8: ``workerbus top`` as text and as JSON, over a real view and in real time, on both backends."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support import commands
from support.redis_servers import RedisServer
from support.workers import Helper, running
from workerbus import JobError, WorkerPool, WorkerRunner
from workerbus.cli import _top, main
from workerbus.cli._address import Address, address_of
from workerbus.cli._cluster import ClusterWatch
from workerbus.cli._commands import BROKEN_PIPE, USAGE, CommandError
from workerbus.cli._lists import Rates
from workerbus.cli._rows import Choice
from workerbus.cli._sources import watch_of
from workerbus.cli._summary import plain
from workerbus.cli._top import tell
from workerbus.cli._view import ViewWatch
from workerbus.cli._watch import State, Watch, empty
from workerbus.redis import RedisBus
from workerbus.testing import PeerNetwork
from workerbus.view import serve_view
from workerbus.wire import Wire


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend


def at(url: str, token: str | None = None) -> Address:
    return Address(url, is_bus=False, token=token, prefix="")


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


@asynccontextmanager
async def watching(address: Address) -> AsyncIterator[ViewWatch]:
    """Look at a view for as long as a block runs."""
    watch = ViewWatch(address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        await watch.begun.wait()
        yield watch
        tasks.cancel_scope.cancel()


async def until(watch: Watch, expected: Callable[[State], Any]) -> None:
    while not expected(watch.state):
        await watch.changed()


async def refused(watch: ViewWatch) -> str:
    """What is said where there is nothing to see."""
    with pytest.raises(CommandError) as caught:
        await watch.run()
    assert caught.value.exit_code == 1
    return str(caught.value)


async def test_what_is_seen_is_what_the_statistics_say() -> None:
    """O2, O8: of every worker, as the page has it, and it is kept up."""
    helper = Helper("helper")
    async with (
        running(helper, Helper("idle", active=False), name="main") as runner,
        serve_view(runner, port=0) as view,
        watching(at(view.url)) as watch,
    ):
        await runner.job("helper", name="echo")
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        async with runner.job("helper", name="wait", timeout=10):
            await until(watch, lambda state: state["workers"]["helper"]["jobs"] == 1)
            seen = runner.statistics()
            for name, worker in seen.workers.items():
                row = watch.state["workers"][name]
                assert {status: row[status] for status in worker.jobs_answered} == worker.jobs_answered
                assert (row["jobs"], row["active"], row["phase"]) == (len(worker.jobs), worker.active, worker.phase)
            (asked,) = seen.workers["helper"].jobs
            story = await watch.story(asked.job_id)
            helper.release.set()
    assert story is not None
    assert (story["id"], story["name"]) == (asked.job_id, "wait")


@pytest.mark.slow
async def test_a_view_that_goes_is_found_again_and_tells_all_anew() -> None:
    """O8: meanwhile what was seen last stays, and its clock stands still."""
    async with anyio.create_task_group() as tasks:
        async with running(Helper("first")) as runner, serve_view(runner, port=0) as view:
            watch = ViewWatch(at(view.url))
            tasks.start_soon(watch.run)
            await watch.begun.wait()
        while not watch.why:
            await watch.changed()
        assert watch.link == "lost"
        assert set(watch.state["workers"]) == {"first"}
        stood = watch.now()
        version = watch.version
        while watch.version < version + 2:  # it has tried again, and found nobody
            await watch.changed()
        assert watch.now() == stood
        async with running(Helper("second")) as other, serve_view(other, port=port_of(view.url)):
            await until(watch, lambda state: set(state["workers"]) == {"second"})
            assert not watch.why
            tasks.cancel_scope.cancel()


async def test_a_token_is_shown_to_the_view_and_to_nobody_else() -> None:
    """O5, O8: without it, and with a wrong one, it is said what to do."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0, token="open sesame") as view:
        async with watching(at(view.url, "open sesame")) as watch:
            assert set(watch.state["workers"]) == {"helper"}
        for token in (None, "sesame"):
            assert "wants its token: --token, or $WORKERBUS_TOKEN" in await refused(ViewWatch(at(view.url, token)))


async def test_a_view_that_wants_a_token_when_it_comes_back_ends_the_command() -> None:
    """O8: it will not be better in a moment."""
    said: list[str] = []

    async def follow() -> None:
        said.append(await refused(watch))
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks, running(Helper("helper")) as runner:
        async with serve_view(runner, port=0) as view:
            watch = ViewWatch(at(view.url))
            tasks.start_soon(follow)
            await watch.begun.wait()
        async with serve_view(runner, port=port_of(view.url), token="open sesame"):
            await anyio.sleep_forever()
    assert "wants its token" in said[0]


async def test_what_is_no_view_is_told_of() -> None:
    """O8: nobody there, somebody else, and a view that is not asked for under that path."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def other(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"-ERR unknown command\r\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, other)
        assert "what it sends is not what a view sends" in await refused(ViewWatch(at(f"http://127.0.0.1:{port}")))
        tasks.cancel_scope.cancel()
    with anyio.CancelScope(shield=True):
        await listener.aclose()
    assert await refused(ViewWatch(at(f"http://127.0.0.1:{port}"))) == (
        f"there is no view at http://127.0.0.1:{port}: Connection refused"
    )
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        assert "answers 404: there is nothing here" in await refused(ViewWatch(at(f"{view.url}elsewhere")))


@pytest.mark.parametrize(
    "told",
    [
        '{"state": {}}',
        '{"now": 1, "state": {"workers": {"a": {}}}}',
        '{"now": 1, "state": {"workers": {"a": 7}, "curves": {"1": [1]}}}',
        '{"now": "late", "state": {}}',
        "[]",
        '{"now": 1',
    ],
)
async def test_a_view_that_tells_in_another_form_is_told_of_in_one_line(told: str) -> None:
    """O8: as one of another version may."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def other(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            await stream.send(f"{head}event: state\ndata: {told}\n\n".encode())

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, other)
        with anyio.fail_after(60), pytest.raises(CommandError) as caught:
            await tell(at(f"http://127.0.0.1:{port}"), Choice("name"), 0.1, True, False)
        tasks.cancel_scope.cancel()
    assert caught.value.exit_code == 1
    assert any(words in str(caught.value) for words in ("not known here", "is not what a view sends"))


async def test_a_story_that_comes_in_pieces_is_read_as_a_whole() -> None:
    """O8: and so are changes of which one takes several rows away."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    told = '{"id": "1", "name": "do"}'
    events = (
        'event: state\ndata: {"now": 1, "state": {"workers": {"a": {}, "b": {}, "c": {}}}}\n\n'
        'event: changes\ndata: {"now": 2, "changes": {"workers": {"gone": ["a", "b"], "set": {"d": {}}}}}\n\n'
    )

    async def other(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked = await stream.receive()
            if b"/api/jobs/" in asked:
                kind, pieces = "application/json", [told[:5], told[5:9], told[9:]]
            else:
                kind, pieces = "text/event-stream", [events]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces)
            await stream.send(f"{head}{body}{'0' * (len(pieces) > 1)}".encode())
            await stream.send(b"\r\n\r\n" if len(pieces) > 1 else b"")
            await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, other)
        with anyio.fail_after(20):
            async with watching(at(f"http://127.0.0.1:{port}")) as watch:
                await until(watch, lambda state: set(state["workers"]) == {"c", "d"})
                assert await watch.story("1") == {"id": "1", "name": "do"}
        tasks.cancel_scope.cancel()


async def test_one_picture_is_taken_when_it_is_known_how_fast_the_program_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """O8: a second after the first state, by the clock of what is looked at."""

    class Scripted(Watch):
        async def run(self) -> None:
            for number in range(5):
                self.at, self.state = number / 4, {**empty(), "about": {"number": number}, "curves": {"1": [1]}}
                self._found()
                self._tell()
                self.begun.set()
                await anyio.wait_all_tasks_blocked()

        async def story(self, job_id: str) -> None:
            return None

    monkeypatch.setattr(_top, "watch_of", lambda _: Scripted("a program"))
    await tell(at("http://127.0.0.1"), Choice("name"), 1.0, True, True)
    assert json.loads(capsys.readouterr().out)["about"] == {"number": 4}


async def test_one_picture_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: with the numbers of the program, and no control character."""
    pool = WorkerPool("pool", Helper, size=2)
    async with running(Helper("helper"), pool, name="main") as runner, serve_view(runner, port=0) as view:
        for _ in range(3):
            await runner.job("helper", name="echo")
        await runner.job("pool", name="echo")
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        await tell(at(view.url), Choice("name"), 1.0, True, False)
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == f"main at {view.url.rstrip('/')}"
    assert "workers 4" in second
    assert "done 4, failed 0, errors 1" in second
    (row,) = [line.split() for line in rest if line.startswith("    helper")]
    assert row[:4] == ["helper", "active", "0", "0"]
    assert row[-3:] == ["3", "1", "0"]
    assert any("ValueError: it went wrong" in line for line in rest)
    assert all(line.isprintable() for line in (first, second, *rest))


async def test_one_object_has_all_that_the_view_says(capsys: pytest.CaptureFixture[str]) -> None:
    """O2, O8: in one line."""
    async with running(Helper("helper"), name="main") as runner, serve_view(runner, port=0) as view:
        await runner.job("helper", name="echo")
        await tell(at(view.url), Choice("name"), 1.0, True, True)
        seen = runner.statistics()
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    answered = seen.workers["helper"].jobs_answered
    assert {status: told["workers"]["helper"][status] for status in answered} == answered
    assert told["about"]["runner"] == "main"
    assert told["link"] == "live"


async def test_what_is_told_again_and_again_goes_on_when_the_view_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """O8: one line of standard error says that it was lost."""
    said, lines = "", list[Any]()

    async def told(about: Callable[[Any], bool]) -> None:
        nonlocal said
        while not any(about(line) for line in lines):
            await anyio.sleep(0.02)
            out, err = capsys.readouterr()
            lines.extend(map(json.loads, out.splitlines()))
            said += err

    async with anyio.create_task_group() as tasks:
        async with running(Helper("first"), name="main") as runner, serve_view(runner, port=0) as view:
            port = port_of(view.url)
            tasks.start_soon(tell, at(view.url), Choice("name"), 0.05, False, True)
            await told(lambda line: "first" in line["workers"])
        async with running(Helper("second")) as other, serve_view(other, port=port):
            await told(lambda line: "second" in line["workers"])
            tasks.cancel_scope.cancel()
    assert said.count("\n") == 1
    assert said.startswith(f"workerbus: http://127.0.0.1:{port} is lost: ")


def test_an_address_is_that_which_was_given_or_else_in_the_environment() -> None:
    """O8: user, password and token are in none that is shown."""

    def found(given: str | None, **environment: str) -> Address:
        arguments = commands.parsed("top", *([] if given is None else [given]))
        return address_of(arguments, "http://127.0.0.1:8765/", environment)

    assert found(None).url == "http://127.0.0.1:8765/"
    assert found(None, WORKERBUS_URL="http://there:1/").url == "http://there:1/"
    assert (
        found("https://me:secret@here:2/path/?x=secret", WORKERBUS_URL="http://there:1/").shown == "https://here:2/path"
    )
    assert found(None, WORKERBUS_TOKEN="secret").token == "secret"
    assert found("redis://me:secret@here:1/3").shown == "redis://here:1/3"
    assert found("unix:///run/redis?x=secret").shown == "unix:///run/redis"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["ftp://here"], "an address begins with http://"),
        (["http://"], "the address has no host"),
        (["http://here:port"], "its port is no number"),
        (["--sort", "size"], "invalid choice: 'size'"),
        (["--delay", "soon"], "a number of seconds, not 'soon'"),
    ],
)
def test_what_was_called_wrongly_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    """O8"""
    try:
        exit_code: object = main(["top", *given])
    except SystemExit as ended:
        exit_code = ended.code
    assert exit_code == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("library", ["textual", "rich", "h11"])
def test_without_the_extra_it_is_said_what_to_install(library: str) -> None:
    """O8: in one line, in a terminal; h11 is needed for text, too."""
    program = "import sys\nsys.modules[{!r}] = None\nfrom workerbus.cli import main\nsys.exit(main(['top']))"
    arguments = [sys.executable, "-c", program.format(library)]
    with commands.Terminal(arguments) as terminal:
        assert terminal.end() == 1
        (line,) = terminal.text.splitlines()
    assert line.startswith("workerbus: ")
    assert line.endswith(f" need {library}: pip install 'workerbus[cli]'")


async def test_an_output_that_nobody_reads_any_more_ends_the_command() -> None:
    """O8: quietly."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view:
        reading, writing = os.pipe()
        with commands.start("top", view.url, "--delay", "0.1", out=writing) as process:
            os.close(writing)
            await anyio.to_thread.run_sync(os.read, reading, 10)
            os.close(reading)
            _, said = await anyio.to_thread.run_sync(process.communicate)
    assert (process.returncode, said) == (BROKEN_PIPE, "")


def test_nobody_there_is_said_in_one_line() -> None:
    """O8"""
    done = commands.run("top", "http://127.0.0.1:1", "--once")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "workerbus: there is no view at http://127.0.0.1:1: Connection refused\n"


def test_importing_the_library_brings_none_of_it() -> None:
    """O8: neither textual nor h11, nor the commands."""
    names = ("textual", "h11", "rich", "workerbus.cli")
    program = f"import sys, workerbus; print([each for each in {names} if each in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=commands.environment()
    )
    assert done.stdout == "[]\n"


# --- of the programs on a bus


@pytest.mark.slow
async def test_a_bus_that_is_lost_is_told_of_and_found_again() -> None:
    """O8, X2: what was seen last stays, and time stands still."""
    with RedisServer() as server:
        async with running(Helper("helper"), name="main", bus=RedisBus(server.url)):
            address = Address(server.url, is_bus=True, token=None, prefix="workerbus")
            watch = watch_of(address)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                await watch.begun.wait()
                await until(watch, lambda state: "helper" in state["workers"])
                server.kill()
                while not watch.why:
                    await watch.changed()
                assert (watch.link, watch.now() == watch.now()) == ("lost", True)
                assert "helper" in watch.state["workers"]
                server.start()
                while watch.why:
                    await watch.changed()
                assert watch.now() != watch.now()
                tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_the_programs_on_a_bus_are_shown_together(capsys: pytest.CaptureFixture[str]) -> None:
    """O2, O7, O8: with the numbers that their statistics have; without an answer for long, nothing of them is new."""
    net = PeerNetwork(wire=Wire())
    async with (
        running(Helper("helper"), name="there", bus=net.end("there")) as there,
        running(Helper("idle"), name="here", bus=net.end("here")) as here,
    ):
        await here.registry.wait_for("helper")
        for _ in range(3):
            await here.job("helper", name="echo")
        watch = ClusterWatch(Address("redis://me:secret@net", is_bus=True, token=None, prefix=""), net.end("top"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            await watch.begun.wait()
            new = Helper("new")
            await here.add_workers(new)
            await until(watch, lambda state: "new" in state["workers"])
            await new.stop()
            await until(watch, lambda state: "new" not in state["workers"])
            while not watch.state["workers"]["helper"]["completed"]:
                await watch.changed()
            seen = there.statistics().workers["helper"].jobs_answered
            assert {status: watch.state["workers"]["helper"][status] for status in seen} == seen
            text = plain(watch, Rates(), Choice("name"))
            tasks.cancel_scope.cancel()
    lines = text.splitlines()
    assert lines[0] == "2 runners at redis://net"
    assert "done 3" in lines[1]
    names = [line.split()[:2] for line in lines if line.startswith(("  ", "▾"))]
    assert names == [["▾", "here"], ["idle", "active"], ["▾", "there"], ["helper", "active"]]
