"""Commands of ``workerbus``, as a test runs them: in processes of their own, with pipes or in a terminal."""

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import workerbus
from workerbus.cli._main import parser

PATIENCE = 60.0
SOURCE = os.pathsep.join([str(Path(workerbus.__file__).parents[1]), str(Path(__file__).parents[1])])


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: without what would tell it where to look, or not to keep what it writes."""
    foreign = ("WORKERBUS_", "PYTHONUNBUFFERED", "NO_COLOR")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**own, "PYTHONPATH": SOURCE, **more}


def run(*arguments: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "workerbus", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**more),
    )


def start(*arguments: str, out: IO[Any] | int = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
    """Start a command, which takes SIGINT as it would in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "workerbus", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def parsed(*arguments: str) -> argparse.Namespace:
    """The arguments of a command, as it gets them."""
    return parser().parse_args(list(arguments))


class Terminal:
    """A program in a terminal of a size, and in a session of its own.

    Attributes:
        output: What it has written so far.
    """

    def __init__(self, program: Sequence[str], columns: int = 80, lines: int = 24, **more: str) -> None:
        self.output = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            list(program),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(TERM="xterm-256color", **more),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    @property
    def text(self) -> str:
        """What it has written, without control sequences."""
        self.read()
        return self.written

    @property
    def written(self) -> str:
        """What of it has been read."""
        return re.sub(r"\x1b\[[\d;?<>=]*[a-zA-Z]|\x1b[P_].*?\x1b\\\\|\r", "", self.output.decode(errors="replace"))

    @property
    def modes_now(self) -> list[Any]:
        """How the terminal is set: the same as in `modes`, where a program has left it as it was."""
        return termios.tcgetattr(self._slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self, patience: float = 0.0) -> None:
        """Take what it has written."""
        while select.select([self._master], [], [], patience)[0]:
            self.output += os.read(self._master, 65536)

    def end(self) -> int:
        """Read to its end; returns its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it takes too long"
            self.read(0.02)
        self.read()
        return self.process.returncode

    def until(self, text: str) -> None:
        """Wait until it has written a text."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} has not come"
            assert self.process.poll() is None, "it ended before"
            self.read(0.05)
