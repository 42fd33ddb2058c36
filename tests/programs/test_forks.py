"""L7: processes that are forked while a runner listens to signals."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).with_name("fork_programs.py")
GOES_ON = ["answer: {'alive': True}", "goes on", "signal: None"]


def said_by(*arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", str(PROGRAMS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_forked_child_that_gets_a_signal_does_not_touch_its_parent(number: str, backend: str) -> None:
    """L7: it has the default handlers."""
    code = -signal.SIGTERM if number == "SIGTERM" else 3
    assert said_by(backend, "fork", "idle", number) == [f"code {code}", *GOES_ON]


@pytest.mark.parametrize("where", ["handlers", "in the loop"])
def test_a_forked_child_has_the_default_handlers(where: str, backend: str) -> None:
    """L7: forked in a thread, or in the event loop's own."""
    assert said_by(backend, "fork", where, "SIGTERM") == ["defaults: True", f"code {-signal.SIGTERM}", *GOES_ON]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_runner_in_a_forked_child_takes_signals_as_any_other(number: str, backend: str) -> None:
    """L7, R5"""
    assert said_by(backend, "fork", "runner", number) == [f"child: {number}", "code 7", *GOES_ON]


def test_a_forked_child_keeps_the_programs_own_handler(backend: str) -> None:
    """L7: the one that the runner has taken the place of."""
    assert said_by(backend, "own", "SIGTERM") == ["code 5", "signal: None"]


def test_a_forked_child_tells_of_no_runner_of_its_parent(backend: str) -> None:
    """L7, O6: and has no handler of the signal for that."""
    assert said_by(backend, "dump") == ["with 0 runners, default: True", f"code {-signal.SIGUSR1}"]
