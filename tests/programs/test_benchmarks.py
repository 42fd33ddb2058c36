"""The benchmarks run as they stand, with and without peers, and hide no failure."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks._contenders import CONTENDERS
from benchmarks._results import Cell, Results
from benchmarks._subject import GROWTH
from benchmarks._subjects import SUBJECTS
from benchmarks._table import Tables

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("measures this machine")]


ROOT = Path(__file__).parents[2]
PEERS = {"pipecat": "loguru", "autogen": "autogen_core", "pykka": "pykka"}
OWN = """\
import os, threading

from benchmarks._run import Run
from benchmarks._subjects import Subjects


class Contender(Subjects):
    async def job(self, run: Run) -> None:
        {}

    async def job_timeout(self, run: Run) -> None:
        with run.clock():
            pass
"""


def benchmarks(*options: str, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the program in a wide terminal; modules in ``path`` come first."""
    environment = {**os.environ, "COLUMNS": "120"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=240, check=False
    )


@pytest.fixture
def no_peers(tmp_path: Path) -> Path:
    """A directory that makes the peers look not installed."""
    for module in PEERS.values():
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('not here', name={module!r})\n")
    return tmp_path


def measured(data: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Return the rounds of each subject and contender."""
    return {(each["subject"], each["contender"]): each["rounds"] for each in data["samples"]}


def test_a_quick_run_measures_both_backends_and_says_which_peers_it_left_out(no_peers: Path) -> None:
    file = no_peers / "results.json"
    only = ("--only", "job", "--only", "overtake", "--only", "importing")
    done = benchmarks("--quick", "--patience=60", *only, "--json", str(file), path=no_peers)
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    assert data["rounds"] == 2
    assert data["failed"] == []
    assert set(data["left_out"]) == set(PEERS)
    assert "Left out: pipecat: pipecat-ai is not installed" in done.stdout
    rounds = measured(data)
    floors = ("anyio-asyncio", "anyio-trio", "asyncio")
    assert set(rounds) == {
        *((subject, f"workerbus-{backend}") for subject in only[1::2] for backend in ("asyncio", "trio")),
        *((subject, floor) for subject in ("job", "importing") for floor in floors),
    }
    assert all([each["round"] for each in several] == [0, 1] for several in rounds.values())
    assert all(each["seconds"] > 0 for each in rounds["job", "anyio-trio"])
    assert all(each["ahead"] <= 1 for each in rounds["overtake", "workerbus-trio"]), "B2"
    assert not any(each["trio"] for each in rounds["importing", "workerbus-asyncio"])
    again = benchmarks("--from", str(file), *only)
    assert again.stdout == done.stdout


def test_a_contender_that_fails_hangs_or_dies_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    faults = {
        "fails": "raise ValueError('no such thing')",
        "hangs": "threading.Event().wait()",
        "dies": "os._exit(3)",
    }
    for name, body in faults.items():
        (tmp_path / f"{name}.py").write_text(OWN.format(body))
    file = tmp_path / "results.json"
    everybody = [*faults, "anyio-asyncio"]
    options = [f"--also={name}" for name in faults] + [f"--contender={name}" for name in everybody]
    options += ["--quick", "--patience=60", "--limit=6", "--only=job", "--only=job_timeout", f"--json={file}"]
    done = benchmarks(*options, path=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    assert {each["contender"]: each["reason"] for each in data["failed"]} == {
        "fails": "ValueError: no such thing",
        "hangs": "took longer than 6 s",
        "dies": "ended with status 3",
    }
    rounds = measured(data)
    assert set(rounds) == {("job", "anyio-asyncio"), *(("job_timeout", name) for name in everybody)}
    assert all(len(several) == 2 for several in rounds.values())
    assert "Failed: hangs, job of 1: took longer than 6 s" in done.stdout


@pytest.mark.parametrize("option", ["--only", "--contender"])
def test_an_unknown_name_is_refused_with_those_that_there_are(option: str) -> None:
    done = benchmarks(option, "jobs")
    assert done.returncode == 2
    assert ("job_timeout" if option == "--only" else "workerbus-trio") in done.stderr


def test_the_list_says_of_every_subject_what_every_side_does() -> None:
    listed = benchmarks("--list").stdout
    assert all(name in listed for name in SUBJECTS)
    assert all(subject.about for subject in SUBJECTS.values())


def two_rounds() -> Results:
    """Results in which the machine was twice as slow in the second round, and one contender has failed."""
    results = Results(rounds=2, took_part=[each.name for each in CONTENDERS])
    for subject in SUBJECTS.values():
        for size in subject.full:
            for contender in CONTENDERS:
                factor = 1e-5 * size * (1_000 if contender.name == "pipecat" else 1)
                values = {value.key: factor for value in subject.values}
                results.add(Cell(subject.name, size, contender.name), 0, values)
                results.add(Cell(subject.name, size, contender.name), 1, {key: 2 * values[key] for key in values})
    failed = Cell("job", 1, "pykka")
    del results.samples[failed]
    results.failed[failed] = "[it] broke"
    return results


def test_ratios_are_taken_within_each_round() -> None:
    results = two_rounds()
    ratio = results.ratio(Cell("job", 1, "pipecat"), Cell("job", 1, "workerbus-asyncio"), "seconds")
    assert ratio is not None
    assert ratio.values == pytest.approx((1_000, 1_000))
    assert results.ratio(Cell("job", 1, "pykka"), Cell("job", 1, "pipecat"), "seconds") is None


def test_the_tables_show_everything_in_120_columns() -> None:
    output = io.StringIO()
    Tables(Console(file=output, width=120), CONTENDERS, two_rounds()).show(list(SUBJECTS.values()))
    text = output.getvalue()
    assert "…" not in text
    assert text.count("failed") == 1
    assert "Failed: pykka, job of 1: [it] broke" in text
    for subject in SUBJECTS.values():
        assert all(value.title.format(f"{size:,}") in text for value in subject.values for size in subject.full)


def test_results_survive_being_written() -> None:
    results = two_rounds()
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


def test_one_picture_is_drawn_for_each_subject(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = pytest.importorskip("benchmarks._plot")
    drawn = plot.Pictures(CONTENDERS, two_rounds(), tmp_path).draw(list(SUBJECTS.values()))
    alone = {each.name for each in SUBJECTS.values() if each.group != GROWTH}
    assert {path.stem for path in drawn} == {*alone, "growth", "overview"}
    assert all(path.stat().st_size > 5_000 for path in drawn)
