"""J6, R5, L3: examples/hosts/nursery.py, a plain trio program."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[2] / "examples" / "hosts" / "nursery.py"


def test_deadlines_of_trio_hold_for_jobs() -> None:
    """J6: two at a time and a second each; who has waited for two and a half seconds gives up."""
    done = subprocess.run([sys.executable, PROGRAM, *"abcdef"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    got = [line for line in done.stdout.splitlines() if not line.startswith("no ")]
    assert len(got) == 4
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_runner_and_the_nursery(number: signal.Signals) -> None:
    """R5, L3: with the exit code that shells expect, and no traceback."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, *"abcdef"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")
    assert "no " not in output
