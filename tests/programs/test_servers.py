"""R5: a runner in the lifespan of a web application, under real servers: one Ctrl-C ends both."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import anyio
import pytest

from workerbus import WorkerRunner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("web_programs.py")
HANGS = 60.0

COMMANDS = {
    "uvicorn, command": ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0", "web_programs:app"],
    "hypercorn, command": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "web_programs:app"],
    "hypercorn, in one process": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "--workers", "0", "web_programs:app"],
    "hypercorn, command, trio": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "-k", "trio", "web_programs:app"],
    "uvicorn": [str(PROGRAMS), "uvicorn"],
    "hypercorn": [str(PROGRAMS), "hypercorn"],
    "uvicorn in a body": [str(PROGRAMS), "uvicorn in a body"],
    "hypercorn in a body": [str(PROGRAMS), "hypercorn in a body"],
}
WITHOUT_SIGNALS = {"hypercorn, trio": [str(PROGRAMS), "hypercorn, trio"]}


class Server:
    """A server in a process group of its own, as in a terminal.

    Attributes:
        lines: What it has said so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self.url = self.until(r"running on (http://127\.0\.0\.1:\d+)")

    def until(self, pattern: str) -> str:
        """Wait until it has said something; returns the first group of the pattern."""
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            assert line, f"it ended after {self.lines}, without {pattern!r}"
            self.lines.append(line.rstrip())
            found = re.search(pattern, line, re.IGNORECASE)
            if found is not None:
                return found.group(found.lastindex or 0)

    def get(self, path: str) -> object:
        """Ask it for a page; raises what is no success."""
        with build_opener(ProxyHandler({})).open(f"{self.url}/{path}", timeout=HANGS) as answer:
            return json.load(answer)

    def press_ctrl_c(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        return self._process.wait()


@contextmanager
def serving(command: list[str], folder: Path = PROGRAMS.parent) -> Iterator[Server]:
    """Start a server, and kill it if it hangs."""
    path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    watchdog = threading.Timer(HANGS, process.kill)
    watchdog.start()
    try:
        yield Server(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", COMMANDS)
def test_one_ctrl_c_ends_a_server_and_the_runner_in_its_application(command: str) -> None:
    """R5: the request that is under way gets its answer, and none is refused by a runner that has gone."""
    with serving(COMMANDS[command]) as server, ThreadPoolExecutor() as threads:
        assert server.get("now") == {"answer": "now"}
        later = threads.submit(server.get, "later")
        server.until("at work")
        server.press_ctrl_c()
        assert later.result() == {"answer": "later"}
        server.end()
    assert "finished by None" in server.lines
    assert not any(" 500" in line or "NotRunningError" in line for line in server.lines), server.lines


@pytest.mark.parametrize("command", WITHOUT_SIGNALS)
def test_one_ctrl_c_ends_a_server_too_that_handles_no_signals(command: str) -> None:
    """R5: the runner takes it, and the lifespan that is cut short ends the server."""
    with serving(WITHOUT_SIGNALS[command]) as server:
        assert server.get("now") == {"answer": "now"}
        server.press_ctrl_c()
        assert server.end() != 0
    assert "cancelled by SIGINT" in server.lines


def snippets() -> str:
    page = (ROOT / "docs/signals.md").read_text()
    return "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))


def test_the_snippets_of_the_page_on_signals_do_what_they_say(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """L7, R5: a job from a thread, and what is said of a run that has ended."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(snippets(), names)
    assert anyio.run(names["greet_from_a_thread"], backend=backend) == "hello, thread"

    async def serve() -> None:
        runner = WorkerRunner()
        runner.add_event_handler("on_ready", lambda _: signal.raise_signal(signal.SIGINT))
        await names["serve"](runner)

    anyio.run(serve, backend=backend)
    assert capsys.readouterr().out == "cancelled by SIGINT\n"


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_the_application_of_the_page_on_signals_is_served(server: str, tmp_path: Path) -> None:
    """R5: as the page says."""
    (tmp_path / "page.py").write_text(snippets())
    place = ["--port", "0"] if server == "uvicorn" else ["--bind", "127.0.0.1:0"]
    with serving(["-m", server, *place, "page:app"], tmp_path) as it:
        assert it.get("world") == {"text": "hello, world"}
        it.press_ctrl_c()
        it.end()
    assert not any("Error" in line for line in it.lines), it.lines
