"""J17: what type checkers say of programs with typed jobs, in their strict modes."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "typed_programs"
LINES = (PROGRAMS / "wrong.py").read_text().splitlines()
WRONG = [number for number, line in enumerate(LINES, 1) if line.endswith("# wrong")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="the checkers come with the extra lint"),
]


def mypy(program: str) -> list[int]:
    """Return the lines with errors."""
    options = ("--strict", "--no-error-summary", "--config-file=")
    command = [sys.executable, "-m", "mypy", *options, str(PROGRAMS / program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode < 2, ended.stderr + ended.stdout
    return sorted({int(found) for found in re.findall(rf"{program}:(\d+): error", ended.stdout)})


def pyright(program: str, tmp_path: Path) -> list[int]:
    """Return the lines with errors."""
    shutil.copy(PROGRAMS / program, tmp_path)
    settings = {"typeCheckingMode": "strict", "include": [program], "extraPaths": [str(ROOT / "src")]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    options = ("--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path))
    command = [sys.executable, "-m", "pyright", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    told = json.loads(ended.stdout)
    assert told["summary"]["filesAnalyzed"] == 1
    return sorted({each["range"]["start"]["line"] + 1 for each in told["generalDiagnostics"]})


def test_mypy_accepts_what_is_right() -> None:
    """J17"""
    assert mypy("right.py") == []


def test_mypy_refuses_what_is_wrong_in_the_right_lines() -> None:
    """J17"""
    assert mypy("wrong.py") == WRONG


def test_pyright_accepts_what_is_right(tmp_path: Path) -> None:
    """J17"""
    assert pyright("right.py", tmp_path) == []


def test_pyright_refuses_what_is_wrong_in_the_right_lines(tmp_path: Path) -> None:
    """J17"""
    assert pyright("wrong.py", tmp_path) == WRONG
