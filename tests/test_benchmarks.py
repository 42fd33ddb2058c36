"""The benchmarks run as they stand."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_benchmarks_print_a_ratio_for_every_subject(backend: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--backend", backend]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for subject in ("job, there and back", "group of 100", "message to a subscriber", "start and end of 200 workers"):
        assert subject in done.stdout
