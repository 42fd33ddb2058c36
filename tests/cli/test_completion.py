"""O8: shells complete the commands of ``workerbus``, their options and values."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support import commands
from workerbus.cli import main
from workerbus.cli._commands import BROKEN_PIPE


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Path:
    assert main(["completion", request.param]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    return path


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here")
    return found


BASH = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_workerbus
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
source $argv[1]
complete -C $argv[2]
"""
LINES = [
    (["workerbus", "ca"], {"call"}),
    (["workerbus", "completion", ""], {"bash", "zsh", "fish"}),
    (["workerbus", "record", "--format", "se"], {"sequence"}),
    (["workerbus", "call", "--t"], {"--timeout"}),
    (["workerbus", "draw", "./ru"], {"./run.jsonl"}),
]


def in_words(value: list[str] | set[str]) -> str:
    return " ".join(value if isinstance(value, list) else sorted(value))


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(("line", "expected"), LINES, ids=in_words)
def test_bash_completes(script: Path, tmp_path: Path, line: list[str], expected: set[str]) -> None:
    """O8"""
    (tmp_path / "run.jsonl").touch()
    done = subprocess.run(
        [shell("bash"), "-c", BASH, "bash", str(script), *line],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert expected <= set(done.stdout.split())
    if line[-1]:
        assert set(done.stdout.split()) == expected
    assert done.stderr == ""


@pytest.mark.parametrize("script", ["fish"], indirect=True)
@pytest.mark.parametrize(("line", "expected"), LINES, ids=in_words)
def test_fish_completes(script: Path, tmp_path: Path, line: list[str], expected: set[str]) -> None:
    """O8: where there is a fish."""
    (tmp_path / "run.jsonl").touch()
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", FISH, str(script), " ".join(line)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert expected == {each.split("\t")[0] for each in done.stdout.splitlines()}


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_can_read_its_script(script: Path) -> None:
    """O8: where there is a zsh."""
    checked = subprocess.run([shell("zsh"), "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "'--format[may be given several times]:formats:(records mermaid" in script.read_text()


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_every_command_is_in_the_script(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O8: that the help names."""
    with pytest.raises(SystemExit):
        main(["--help"])
    named = re.findall(r"^    ([a-z]+)\b", capsys.readouterr().out.partition("COMMAND\n")[2], re.MULTILINE)
    assert {"call", "record", "draw", "completion", "top", "tail"} <= set(named)
    assert all(each in script.read_text() for each in named)


def test_a_script_that_nobody_reads_ends_the_command_quietly() -> None:
    """O8: what could not be written is forgotten."""
    reading, writing = os.pipe()
    os.close(reading)
    with commands.start("completion", "bash", out=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=commands.PATIENCE)
    assert (process.returncode, said) == (BROKEN_PIPE, "")
