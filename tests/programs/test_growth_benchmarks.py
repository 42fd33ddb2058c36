"""Growth, lag, memory, rest and what a change costs: the benchmarks measure them, and their sums are right."""

import gc
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from benchmarks import beside
from benchmarks._child import measure
from benchmarks._contenders import CONTENDERS, Contender
from benchmarks._goals import GOALS, markdown, outcomes
from benchmarks._growth import exponent, exponents
from benchmarks._lag import lag_of, percentile
from benchmarks._late import LateJobs
from benchmarks._measure import Plan, choose
from benchmarks._measure import measure as run_plan
from benchmarks._memory import allocating
from benchmarks._passes import counting, rest
from benchmarks._results import Cell, Results, Spread
from benchmarks._run import Run
from benchmarks._subject import GROWTH
from benchmarks._subjects import SUBJECTS
from benchmarks.contenders.anyio_ import Contender as Bare
from benchmarks.contenders.workerbus_ import Contender as Ours

ROOT = Path(__file__).parent.parent.parent
GROWING = [each for each in SUBJECTS.values() if each.group == GROWTH]
BACKENDS = ("asyncio", "trio")


def ask(contender: Any, subject: str, size: int, count: int) -> dict[str, float]:
    """Measure in this process."""
    answer = measure(contender, {"subject": subject, "size": size, "count": count})
    assert "error" not in answer, answer
    values: dict[str, float] = answer["values"]
    return values


def grown(power: float, *, missing: int | None = None) -> Results:
    """Results in which one contender's groups take ``size ** power`` in all, in two rounds; the second is slower."""
    results, subject = Results(rounds=2, took_part=["workerbus-asyncio"]), SUBJECTS["many_members"]
    for size in subject.full:
        for number in (0, 1):
            if (size, number) != (missing, 1):
                each = 1e-6 * (number + 1) * size ** (power - 1)
                results.add(Cell(subject.name, size, "workerbus-asyncio"), number, {"cpu": each})
    return results


@pytest.mark.parametrize("power", [0.5, 1, 1.1, 2, 3])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    assert exponent([(size, 7 * size**power) for size in (250, 500, 1_000, 2_000)]) == pytest.approx(power)


def test_a_logarithm_is_still_linear_and_a_hidden_square_is_not() -> None:
    sizes = (250, 500, 1_000, 2_000)
    assert 1 < exponent([(size, size * math.log2(size)) for size in sizes]) < 1.2
    assert exponent([(size, size + size**2 / 1_000) for size in sizes]) > 1.3


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_growth_is_fitted_within_each_round(power: float) -> None:
    spread = exponents(grown(power), SUBJECTS["many_members"], "workerbus-asyncio")
    assert spread is not None
    assert spread.values == pytest.approx((power, power))
    last = exponents(grown(power), SUBJECTS["many_members"], "workerbus-asyncio", last=2)
    assert last is not None
    assert last.values == pytest.approx((power, power))


def test_a_round_without_all_sizes_has_no_exponent() -> None:
    spread = exponents(grown(1, missing=2_000), SUBJECTS["many_members"], "workerbus-asyncio")
    assert spread is not None
    assert len(spread.values) == 1
    assert exponents(grown(1), SUBJECTS["many_members"], "workerbus-trio") is None


def test_runners_are_judged_by_what_they_announce() -> None:
    subject, results = SUBJECTS["many_runners"], Results()
    assert subject.full == {size: size**2 for size in (50, 100, 200, 400)}
    for size in subject.full:
        results.add(Cell(subject.name, size, "linear"), 0, {"cpu": 1e-6})
        results.add(Cell(subject.name, size, "worse"), 0, {"cpu": 1e-6 * size})
    linear, worse = (exponents(results, subject, name) for name in ("linear", "worse"))
    assert linear is not None
    assert worse is not None
    assert linear.median == pytest.approx(1)
    assert worse.median == pytest.approx(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("subject", [each.name for each in GROWING])
def test_whatever_can_be_many_is_measured_with_the_collector_off(backend: str, subject: str) -> None:
    seen: list[bool] = []

    class Watched(Ours):
        pass

    async def watched(self: Ours, run: Run) -> None:
        await getattr(Ours, subject)(self, run)
        seen.append(gc.isenabled())

    setattr(Watched, subject, watched)
    values = ask(Watched(backend), subject, 8, 8 ** SUBJECTS[subject].power)
    assert values["cpu"] > 0
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("subject", [each.name for each in GROWING if Bare("asyncio").has(each.name)])
def test_bare_tasks_grow_beside_it(backend: str, subject: str) -> None:
    assert ask(Bare(backend), subject, 8, 8)["cpu"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("contender", [Ours, Bare])
def test_lag_memory_and_rest_are_measured(contender: type[Ours] | type[Bare], backend: str) -> None:
    lag = ask(contender(backend), "lag", 5, 200)
    assert 0 <= lag["p50"] <= lag["p99"] <= lag["most"]
    queued = ask(contender(backend), "queued", 300, 1)
    assert 40 < queued["message"] < queued["queued"] < 1_000
    assert ask(contender(backend), "idle", 5, 0)["passes"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequential_job_that_waits_is_weighed_at_its_worker_and_with_its_asker(backend: str) -> None:
    values = ask(Ours(backend), "queued_job", 50, 1)
    assert 100 < values["queued"] < values["asked"] < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_least_of_a_job_is_more_than_each_of_its_parts(backend: str) -> None:
    values = ask(Bare(backend), "job_least", 1, 50)
    assert all(0 <= values[part] < 1 for part in ("message", "scope", "deadline", "passes"))
    assert ask(Ours(backend), "job_least", 1, 20)["seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_task_that_wakes_up_is_seen(backend: str) -> None:
    async def tick() -> None:
        for _ in range(1_000):
            await anyio.sleep(0.001)

    async def main() -> tuple[float, float]:
        alone = await rest(0.02)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            found = await rest(0.02)
            tasks.cancel_scope.cancel()
        return alone["passes"], found["passes"]

    alone, found = anyio.run(main, backend=backend, backend_options=counting(backend))
    assert found > alone >= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_body_that_keeps_the_loop_for_itself_is_late_by_as_much(backend: str) -> None:
    run = Run(1, 1)

    async def main() -> None:
        async with lag_of(run):
            start = time.perf_counter()
            while time.perf_counter() - start < 0.02:
                pass

    anyio.run(main, backend=backend)
    assert run.values["most"] > 0.015


def test_percentiles_are_by_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([3.0], 99) == 3


def test_what_is_kept_is_counted_and_what_is_dropped_is_not() -> None:
    kept = [b""]
    with allocating() as more:
        kept.append(bytes(10_000))
        assert len(bytes(50_000)) == 50_000
        assert 10_000 <= more() < 12_000
        kept.clear()
        assert more() < 2_000


@pytest.mark.slow
@pytest.mark.parametrize("size", [800, 4_000])
def test_late_jobs_are_asked_for_to_the_last(size: int) -> None:
    run = Run(size, size)
    assert sum(len(window) for window in LateJobs(run)) == size
    assert run.values["jobs"] == size
    assert run.values["early"] >= 0 <= run.values["late"]


def test_goals_are_of_what_is_measured() -> None:
    for goal in GOALS:
        subject = SUBJECTS[goal.subject]
        assert goal.size in subject.full
        assert goal.key in {value.key for value in subject.values}


def test_a_goal_is_reached_or_missed_on_each_backend() -> None:
    results = grown(1.2)
    for backend, p99 in (("asyncio", 0.004), ("trio", 0.006)):
        results.add(Cell("lag", 100, f"workerbus-{backend}"), 0, {"p99": p99})
    results.add(Cell("flood", 1, "pipecat"), 0, {"seconds": 3.5})
    results.add(Cell("flood", 1, "workerbus-asyncio"), 0, {"seconds": 1.0})
    results.add(Cell("flood", 1, "workerbus-trio"), 0, {"seconds": 2.0})
    rows = dict(outcomes(results, CONTENDERS))
    assert {title: {backend: each.reached for backend, each in row.items()} for title, row in rows.items()} == {
        "flood": {"asyncio": True, "trio": False},
        "lag p99, fan-out 100": {"asyncio": True, "trio": False},
        "exponent of growth": {"asyncio": False},
    }
    assert rows["exponent of growth"]["asyncio"].measured == "1.20; 1 of 1 over"
    lines = markdown(list(rows.items())).splitlines()
    assert "| flood | at least 3x | 3.50x | at least 3x | 1.75x (missed) |" in lines


def test_a_group_of_subjects_can_be_chosen_by_its_name() -> None:
    assert choose([], ["growth"]) == GROWING
    assert {each.name for each in choose(["job"], ["growth"])} == {"job", *(each.name for each in GROWING)}
    assert choose([]) == list(SUBJECTS.values())
    with pytest.raises(LookupError, match="no group 'growing'; there are messages, jobs"):
        choose([], ["growing"])


PIDS = """\
import os

from benchmarks._run import Run
from benchmarks._subjects import Subjects


class Contender(Subjects):
    async def job(self, run: Run) -> None:
        run.values["seconds"] = os.getpid()
"""


@pytest.mark.parametrize(("renew", "processes"), [(0, 1), (1, 4), (2, 2)])
def test_processes_are_renewed(tmp_path: Path, renew: int, processes: int) -> None:
    (tmp_path / "pids.py").write_text(PIDS)
    contender = Contender("pids", "pids", "peer", "pids", path=f"{tmp_path}{os.pathsep}{ROOT}")
    results = Results()
    plan = Plan([contender], [SUBJECTS["job"]], rounds=4, quick=True, renew=renew)
    anyio.run(run_plan, plan, results, lambda _: None)
    spread = results.spread(Cell("job", 1, "pids"), "seconds")
    assert spread is not None
    assert (len(spread.values), len(set(spread.values))) == (4, processes)


def test_no_round_begins_that_would_not_be_over_in_time(tmp_path: Path) -> None:
    (tmp_path / "pids.py").write_text(PIDS)
    contender = Contender("pids", "pids", "peer", "pids", path=f"{tmp_path}{os.pathsep}{ROOT}")
    results = Results()
    anyio.run(run_plan, Plan([contender], [SUBJECTS["job"]], rounds=9, seconds=0), results, lambda _: None)
    assert results.rounds == 1


def run_beside(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.beside", *options],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_what_a_change_costs_is_said_line_by_line(tmp_path: Path) -> None:
    other, file = tmp_path / "before", tmp_path / "results.json"
    other.mkdir()
    (other / "src").symlink_to(ROOT / "src")
    options = ("--share", "0.01", "--rounds", "2", "--line", "flood", "--line", "streams", "--json", str(file))
    done = run_beside(str(other), *options)
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text())
    assert data["failed"] == []
    assert {each["subject"] for each in data["samples"]} == {"flood", "stream", "stream_paced"}
    sides = {"workerbus-asyncio", "workerbus-trio", "before-asyncio", "before-trio"}
    assert {each["contender"] for each in data["samples"]} == sides
    assert all(len(each["rounds"]) == 2 for each in data["samples"])
    assert "stream, paced" in done.stdout
    assert "1.25" in done.stdout
    assert "Medians over 2 rounds" in done.stdout
    assert "Both are the same!" in done.stdout


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for options in ((str(tmp_path), "--line", "floods"), (str(tmp_path / "nowhere"),)):
        done = run_beside(*options)
        assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_every_line_is_scaled_and_is_a_subject() -> None:
    lines = [line.scaled(0.001) for line in beside.LINES]
    subjects = {each.name: each for each in beside.subjects_of(lines)}
    assert subjects["group"].full == {10: 1, 100: 1}
    assert subjects["in_flight"].full == {100: 100}
    assert subjects["stream"].full == {10: 10}
    assert set(subjects) <= set(SUBJECTS)


def test_the_middle_half_leaves_out_the_extremes() -> None:
    assert beside.middle(Spread((1.0, 2.0, 3.0, 4.0, 100.0))) == (2.0, 4.0)
    assert beside.middle(Spread((7.0,))) == (7.0, 7.0)
    assert "over" in beside.verdict(Spread((1.3, 1.2, 1.4)), 1.25).plain
    assert "over" not in beside.verdict(Spread((1.3, 1.2, 1.2)), 1.25).plain
