"""Web servers that are started as programs, in real time."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

HANGS = 120.0
"""Seconds after which a server is killed, with all that was asked of it."""


class Server:
    """A server in a process group of its own, as in a terminal.

    Attributes:
        lines: What it has said so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self.url = self.until(r"running on (http://127\.0\.0\.1:\d+)")

    @property
    def written(self) -> str:
        return "\n".join(self.lines)

    def until(self, pattern: str) -> str:
        """Wait until it has said something; returns the first group of the pattern."""
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            assert line, f"it ended without {pattern!r}"
            self.lines.append(line.rstrip())
            found = re.search(pattern, line, re.IGNORECASE)
            if found is not None:
                return found.group(found.lastindex or 0)

    def get(self, path: str) -> Any:
        """Ask it for a page; raises what is no success."""
        with build_opener(ProxyHandler({})).open(f"{self.url}/{path}", timeout=HANGS) as answer:
            return json.load(answer)

    def press_ctrl_c(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM to the process that was started, as a supervisor does."""
        self._process.terminate()

    def end(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        return self._process.wait()


def kill_all(process: "subprocess.Popen[str]") -> None:
    """Kill a server and the processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[Server]:
    """Start a server, and kill it if it hangs.

    Args:
        command: The arguments of Python.
        folder: Where the modules are that it imports.
    """
    path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    watchdog = threading.Timer(HANGS, kill_all, [process])
    watchdog.start()
    try:
        yield Server(process)
    finally:
        watchdog.cancel()
        kill_all(process)
        process.communicate()
