"""J20: the progress of a group in a program: in a terminal, in pipes, and where Ctrl-C ends it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import PATIENCE, Terminal, plain_environment

PROGRAM = Path(__file__).with_name("progress_program.py")


def test_in_a_terminal_one_line_changes_and_what_is_printed_stands_above_it(backend: str) -> None:
    """J20"""
    with Terminal(str(PROGRAM), backend) as terminal:
        assert terminal.read_to_the_end() == 0
    shown, _, rest = terminal.text.rpartition("\x1b[?25h")
    assert re.search(r"scan .* 0/2 .* waits for a, b", shown)
    assert re.search(r"scan .* 2/2 .*1 failed.* \d\.\d s", shown)
    assert {"a has begun", "b has begun"} <= {line.strip() for line in re.split(r"\n|\x1b\[2K", shown)}
    assert rest.split() == ["statuses:", "completed", "error"]


@pytest.mark.parametrize("force", ["", "1"])
def test_in_a_pipe_there_are_lines_on_standard_error_whatever_colours_are_asked_for(backend: str, force: str) -> None:
    """J20: without a control character."""
    env = plain_environment(FORCE_COLOR=force)
    done = subprocess.run(
        [sys.executable, PROGRAM, backend], capture_output=True, text=True, timeout=PATIENCE, check=True, env=env
    )
    assert sorted(done.stdout.splitlines()) == ["a has begun", "b has begun", "statuses: completed error"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("scan ")]
    assert [line.partition(":")[0] for line in lines] == ["scan 1/2", "scan 2/2"]
    assert {line.partition(": ")[2] for line in lines} == {
        "worker 'a' completed",
        "worker 'b' raised OSError: no such tree",
    }
    assert "\x1b" not in done.stderr


def test_what_is_printed_goes_into_a_pipe_where_only_the_line_is_in_a_terminal(backend: str) -> None:
    """J20: the line takes nothing out of standard output."""
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, PROGRAM, backend],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            timeout=PATIENCE,
            check=True,
            env=plain_environment(TERM="xterm-256color"),
        )
        shown = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert sorted(done.stdout.decode().splitlines()) == ["a has begun", "b has begun", "statuses: completed error"]
    assert "0/2" in shown
    assert "has begun" not in shown


def test_ctrl_c_gives_the_terminal_back(backend: str) -> None:
    """J20, R5"""
    with Terminal(str(PROGRAM), backend, "hang") as terminal:
        terminal.read_until("files=1")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() != 0
    text = terminal.output.decode()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "ExceptionGroup" not in text
