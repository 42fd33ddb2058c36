"""O1, O3: ``workerbus record`` and ``workerbus draw``."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import workerbus
from support.recorded import recorded
from workerbus.cli import main
from workerbus.recording import Recording

PROGRAM = """
import sys
import anyio
from workerbus import WorkerRunner
from workerbus.testing import EchoWorker
import beside

async def main():
    async with WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo"))
        await runner.job("echo", payload={"secret": "hunter2"})

anyio.run(main)
print(sys.argv[1:], __name__)
"""
PICTURES = ["run.mmd", "run.sequence.svg", "run.timeline.svg", "run.trace.json"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "run.py"
    path.write_text(PROGRAM)
    (tmp_path / "beside.py").write_text("")
    return path


def ending(program: Path, end: str) -> Path:
    program.write_text(PROGRAM + end)
    return program


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_program_is_run_and_what_passed_is_written(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """O1, O3: it gets its own arguments, and finds the modules beside it; what was there before is there again."""
    before = sys.argv, sys.path[:]
    out = tmp_path / "out"
    assert main(["record", str(program), "--out", str(out), "--", "one", "--out", "two"]) == 0
    said = capsys.readouterr()
    assert said.out == "['one', '--out', 'two'] __main__\n"
    assert sorted(said.err.splitlines()) == sorted(f"workerbus: wrote {path}" for path in out.iterdir())
    assert names(out) == sorted(["run.jsonl", *PICTURES])
    assert [job.outcome for job in Recording.load(out / "run.jsonl").jobs] == ["completed"]
    assert not any("hunter2" in path.read_text() for path in out.iterdir())
    assert (sys.argv, sys.path) == before


def test_payloads_are_in_the_file_if_they_were_asked_for(program: Path, tmp_path: Path) -> None:
    """O3"""
    main(["record", str(program), "--out", str(tmp_path / "out"), "--payloads", "--limit", "100000"])
    assert [path.name for path in (tmp_path / "out").iterdir() if "hunter2" in path.read_text()] == ["run.jsonl"]


@pytest.mark.parametrize(
    ("end", "exit_code", "said"),
    [
        ("raise ValueError('it went wrong')", 1, "ValueError: it went wrong"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('enough')", 1, "enough"),
        ("raise BaseException('very odd')", 1, "BaseException: very odd"),
        ("this is no Python", 1, "SyntaxError"),
    ],
)
def test_the_exit_code_is_the_programs_and_what_passed_is_written_when_it_fails(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str, exit_code: int, said: str
) -> None:
    """O1"""
    out = tmp_path / "out"
    assert main(["record", str(ending(program, end)), "--out", str(out), "--format", "timeline"]) == exit_code
    error = capsys.readouterr().err
    assert said in error
    assert "runpy" not in error
    assert names(out) == ([] if "SyntaxError" in said else ["run.timeline.svg"])


def test_a_traceback_begins_in_the_program(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["record", str(ending(program, "1 / 0")), "--out", str(tmp_path / "out")])
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert "run.py" in second


def test_a_program_that_gets_a_signal_leaves_its_pictures(program: Path, tmp_path: Path) -> None:
    """R5: it is the program's own SIGINT."""
    end = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(60)"
    command = [sys.executable, "-m", "workerbus", "record", str(ending(program, end)), "--out", str(tmp_path / "out")]
    source = str(Path(workerbus.__file__).parents[1])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": source},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130
    assert "KeyboardInterrupt" in done.stderr
    assert names(tmp_path / "out") == sorted(["run.jsonl", *PICTURES])


def test_a_program_without_a_bus_leaves_nothing_and_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.py").write_text("print('done')")
    assert main(["record", str(tmp_path / "run.py"), "--out", str(tmp_path / "out")]) == 0
    assert "nothing was recorded" in capsys.readouterr().err
    assert names(tmp_path / "out") == []


def test_what_was_saved_is_drawn_later(tmp_path: Path) -> None:
    recording = recorded()
    recording.save(tmp_path / "run.jsonl")
    assert main(["draw", str(tmp_path / "run.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == PICTURES
    assert (tmp_path / "out" / "run.timeline.svg").read_text() == recording.timeline_svg()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "line"),
    [
        (["record", "nowhere.py"], 2, "workerbus: 'nowhere.py' is no file"),
        (["record", "{program}", "--out", "{program}/x"], 2, "cannot be made: Not a directory"),
        (["draw", "nowhere.jsonl"], 2, "workerbus: 'nowhere.jsonl' cannot be read: No such file or directory"),
        (["draw", "{program}"], 1, "run.py: this is no recording that can be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    program: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], exit_code: int, line: str
) -> None:
    assert main([each.replace("{program}", str(program)) for each in arguments]) == exit_code
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "workerbus: the following arguments are required: COMMAND"),
        (["record"], "workerbus record: the following arguments are required: PROGRAM.py"),
        (["record", "run.py", "--format", "png"], "invalid choice: 'png'"),
        (["record", "run.py", "--limit", "0"], "a whole number, at least 1, not '0'"),
        (["record", "run.py", "--limit", "many"], "a whole number, at least 1, not 'many'"),
        (["record", "run.py", "--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert "--help" in said


def test_the_version_is_that_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"workerbus {workerbus.__version__}\n"


def test_the_command_is_installed_with_the_library() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["workerbus"] == "workerbus.cli:main"


@pytest.mark.slow
def test_the_page_on_recordings_shows_what_the_command_says(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    shown = re.search(
        r"```text\n\$ workerbus (.*)\n((?:workerbus: .*\n)+)```", (root / "docs/recording.md").read_text()
    )
    assert shown is not None
    arguments = [str(root / each) if (root / each).exists() else each for each in shown[1].split()]
    source = str(Path(workerbus.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "workerbus", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 0
    assert done.stderr == shown[2]
