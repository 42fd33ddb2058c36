"""``workerbus new``: a project that works as it is written, and what is refused."""

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import workerbus
from workerbus.cli import main
from workerbus.cli._new import FILES, package_of

SOURCE = Path(workerbus.__file__).parents[1]
ROOT = Path(__file__).parents[2]


def made(folder: Path, name: str = "word-count") -> Path:
    assert main(["new", name, "--in", str(folder)]) == 0
    return folder / name


def run_in(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python's in a project, with the library and the project at hand, and nothing installed."""
    path = os.pathsep.join([str(SOURCE), str(project / "src")])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_project_has_all_its_files_and_its_name_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = made(tmp_path)
    files = {path.relative_to(project).as_posix(): path.read_text() for path in project.rglob("*") if path.is_file()}
    assert set(files) == {path.replace("@package@", "word_count") for path in FILES}
    assert not any(mark in text for text in files.values() for mark in ("@project@", "@package@", "@version@"))
    assert {ast.parse(text) is None for path, text in files.items() if path.endswith(".py")} == {False}
    described = tomllib.loads(files["pyproject.toml"])["project"]
    assert (described["name"], described["scripts"]) == ("word-count", {"word-count": "word_count.__main__:main"})
    assert described["dependencies"] == [f"workerbus[typed]>={workerbus.__version__}"]
    assert f"wrote {len(FILES)} files to {project}; try it:\n" in capsys.readouterr().out


def test_every_template_is_written() -> None:
    """None is left behind that nobody uses."""
    templates = {path.name for path in (SOURCE / "workerbus/cli/template").iterdir()}
    assert templates == set(FILES.values())


def test_what_a_container_needs_is_let_in(tmp_path: Path) -> None:
    """What the Dockerfile copies is there, and is not ignored; SIGTERM reaches the program, and not a shell."""
    project = made(tmp_path)
    dockerfile = (project / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()]
    assert copied == ["pyproject.toml", "README.md", "src"]
    allowed = (project / ".dockerignore").read_text().splitlines()
    assert all((project / name).exists() and f"!{name}" in allowed for name in copied)
    assert 'ENTRYPOINT ["python", "-m", "word_count"]' in dockerfile


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Service!", "did you mean 'my-service'?"),
        ("MyHTTPServer", "did you mean 'my-http-server'?"),
        ("café", "did you mean 'cafe'?"),
        ("word--count", "did you mean 'word-count'?"),
        ("../elsewhere", "did you mean 'elsewhere'?"),
        ("3", "beginning with a letter"),
        ("", "beginning with a letter"),
        ("JSON", "beginning with a letter"),
        ("json", "Python has a module of that name; what about 'json-workers'?"),
        ("test", "Python has a module of that name"),
        ("match", "it is a word of Python's; what about 'match-workers'?"),
        ("workerbus", "uses another package of that name"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused_with_one_that_it_can(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name, "--in", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"workerbus: {name!r} is no name for a project: ")
    assert line.endswith(said) or said in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["words", "word-count", "word_count", "w3-words"])
def test_a_name_stands_for_its_package(name: str) -> None:
    assert package_of(name) == name.replace("-", "_")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_nothing_is_overwritten(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "words" / "mine.txt" if there == "folder" else tmp_path / "words"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    assert main(["new", "words", "--in", str(tmp_path)]) == 2
    assert "'words'" in capsys.readouterr().err.replace(f"{tmp_path}{os.sep}", "")
    assert mine.read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == (2 if there == "folder" else 1)


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    assert (made(tmp_path, "words") / "pyproject.toml").is_file()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["new", "words", "--in", str(tmp_path / "file")]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_the_page_on_projects_shows_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = re.search(r"```text\n\$ workerbus (.*)\n((?:.+\n)+)```", (ROOT / "docs/new-project.md").read_text())
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    assert main(shown[1].split()) == 0
    assert capsys.readouterr().out == shown[2]


@pytest.mark.slow
def test_the_tests_of_a_new_project_pass_and_its_program_runs(tmp_path: Path) -> None:
    project = made(tmp_path)
    tested = run_in(project, "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    assert "6 passed" in tested.stdout
    (project / "poem.txt").write_text("to be\nor not to be\n")
    done = run_in(project, "word_count", "poem.txt", "poem.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "6 words in 2 lines: poem.txt\n" * 2, "")
    missing = run_in(project, "word_count", "missing.txt")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("word-count: ")
    assert len(missing.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_program_of_a_new_project_ends_by_a_signal(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """R5: as a shell expects it, without a traceback."""
    project = made(tmp_path)
    (project / "poem.txt").write_text("to be\n")
    path = os.pathsep.join([str(SOURCE), str(project / "src")])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "word_count", *["poem.txt"] * 10_000],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")


@pytest.mark.slow
@pytest.mark.parametrize("tool", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join)
def test_a_new_project_passes_its_own_checks(tool: tuple[str, ...], tmp_path: Path) -> None:
    if importlib.util.find_spec(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed: pip install '.[lint]'")
    checked = run_in(made(tmp_path), *tool)
    assert checked.returncode == 0, checked.stdout + checked.stderr
