"""Commands of ``workerbus``, as a test runs them: in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import workerbus

PATIENCE = 60.0
SOURCE = os.pathsep.join([str(Path(workerbus.__file__).parents[1]), str(Path(__file__).parents[1])])


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: without what would tell it where to look."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WORKERBUS_")}
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
