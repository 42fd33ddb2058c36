"""The benchmarks between processes run as they stand, on a server of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.network.__main__ import ROWS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("measures this machine")]

ROOT = Path(__file__).parents[2]


def benchmark(module: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_quick_run_measures_everything_on_both_backends(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    shown = benchmark("benchmarks.network", "--quick", "--json", str(file))
    results = json.loads(file.read_text())
    for name in ("workerbus asyncio", "workerbus trio"):
        assert name in shown
        (measured,) = results[name]
        assert set(measured) == set(ROWS)
        assert all(seconds > 0 for seconds in measured.values())


def test_what_a_network_costs_is_measured_by_its_size() -> None:
    shown = benchmark("benchmarks.network.many", "--quick")
    assert "targeted: send" in shown
    assert "beat" in shown
