"""Running the examples as programs: with pipes, in a terminal, and patched."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0


def plain_environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")} | more


def run_example(
    name: str, *arguments: object, given: str | None = None, patch: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run an example to its end.

    Args:
        name: Of its file.
        *arguments: Of its command line.
        given: Its standard input.
        patch: Code to be executed before it.
    """
    source = f"import runpy, sys\nsys.argv = {[name, *map(str, arguments)]!r}\n"
    source += f"{patch}\nrunpy.run_path({str(EXAMPLES / name)!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", source],
        input=given or "",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=plain_environment(COLUMNS="120"),
    )


class Terminal:
    """An example in a terminal, and in a session of its own.

    Attributes:
        output: What it has written so far.
    """

    def __init__(self, name: str, *arguments: object) -> None:
        self.output = b""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLES / name, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=plain_environment(TERM="xterm-256color", COLUMNS="120"),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What it has written, without the codes for colours; of the last character, it may have written a part."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.output.decode(errors="replace")).replace("\r\n", "\n")

    @property
    def written(self) -> str:
        return self.text

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read(self, seconds: float) -> bool:
        assert select.select([self._master], [], [], max(0.0, seconds))[0], "it takes too long"
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # how Linux says that the other end is closed
            chunk = b""
        self.output += chunk
        return bool(chunk)

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert self._read(deadline - time.monotonic()), "it ended before"

    def read_to_the_end(self) -> int:
        """Read to its end; returns its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))
