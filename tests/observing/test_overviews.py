"""O2, O7: what is seen of several runners, together."""

from typing import Any

import pytest

from workerbus.observing._clocks import WINDOW, ClockOffset
from workerbus.observing._overview import POINTS, Overview
from workerbus.observing._runners import SeenRunner


def runner(name: str, *workers: str, peer: str | None = None, **counts: Any) -> SeenRunner:
    """A runner that has told of itself."""
    seen = SeenRunner(name, peer or name)
    row = {
        **dict.fromkeys(("workers", "jobs", "requested", "hooks_failed", "restarts", "sent", "undelivered"), 0),
        "host": "h",
        "pid": 1,
        "process": "h:1",
        "not_ready": [],
        "answered_completed": 0,
        **counts,
    }
    rows = {
        each: {"name": each, "parent": None if each == workers[0] else workers[0], "restarts": 0} for each in workers
    }
    seen.take({"runner": {"set": {name: row}, "gone": []}, "workers": {"set": rows, "gone": []}})
    return seen


def test_counts_are_added_up() -> None:
    """O7: and reasons say whose they are."""
    overview = Overview("all", cluster=True)
    overview.add(runner("b", requested=2, answered_completed=3, not_ready=["it is ending"]))
    overview.add(runner("a", requested=5, answered_completed=4, process="h:2", pid=2))
    overview.add(runner("c"))
    state = overview.state()
    about = state["about"]
    assert (about["requested"], about["answered_completed"], about["runners"], about["processes"]) == (7, 7, 3, 2)
    assert (about["runner"], about["cluster"], about["not_ready"]) == ("all", True, ["b: it is ending"])
    assert list(state["runners"]) == ["a", "b", "c"]
    assert state["processes"]["h:1"]["runners"] == ["b", "c"]
    assert state["processes"]["h:2"] == {"host": "h", "pid": 2, "runners": ["a"]}


def test_two_workers_of_one_name_are_two() -> None:
    """O7, G4: on a network that does not claim names; each with its own children."""
    overview = Overview("all", cluster=True)
    overview.add(runner("b", "w", "child"))
    overview.add(runner("a", "w", "child"))
    workers = overview.state()["workers"]
    assert {key: (row["runner"], row["parent"]) for key, row in workers.items()} == {
        "w": ("a", None),
        "child": ("a", "w"),
        "w@b": ("b", None),
        "child@b": ("b", "w@b"),
    }


def test_errors_of_two_runners_are_two_though_they_have_one_number() -> None:
    """O7: and each says whose it is."""
    overview = Overview("all", cluster=True)
    for name in ("a", "b"):
        seen = runner(name)
        seen.take({"errors": {"set": {"1": [1.0, f"of {name}"]}, "gone": []}})
        overview.add(seen)
    assert sorted(row[1:] for row in overview.state()["errors"].values()) == [["of a", "a"], ["of b", "b"]]


def test_a_row_that_has_not_changed_is_the_same_object() -> None:
    """O7: so that a difference between large states is found quickly."""
    overview = Overview("all", cluster=True)
    overview.add(runner("a", "w"))
    assert overview.state()["workers"]["w"] is overview.state()["workers"]["w"]


def test_curves_have_the_rates_of_all_runners() -> None:
    """O7: a point each second, and no more than fit."""
    overview, first, second = Overview("all", cluster=True), runner("a"), runner("b")
    overview.add(first)
    overview.add(second)
    for now in range(POINTS + 10):
        for seen, each in ((first, 10), (second, 30)):
            row = {**seen.row, "sent": each * now, "answered_completed": now}
            seen.take({"runner": {"set": {seen.name: row}, "gone": []}})
            seen.measure(100.0 + now)
        overview.measure(now)
    curves = overview.state()["curves"]
    assert len(curves) == POINTS
    assert {tuple(point[1:]) for point in curves.values()} == {(40.0, 2.0, None, None, 0)}


def test_all_rates_are_unknown_when_nobody_has_looked_for_a_while() -> None:
    """O4: those of before are of another time."""
    overview, seen = Overview("all", cluster=True), [runner(name) for name in "abc"]
    for each in seen:
        overview.add(each)
        for now in (100.0, 102.0):
            each.measure(now)
    assert [each.rates for each in seen] == [(0.0, 0.0)] * 3
    overview.rest()
    assert [each.rates for each in seen] == [None] * 3


def test_the_jobs_of_all_runners_are_there() -> None:
    """O7: of one worker several, and of workers of one name each under its own."""
    overview = Overview("all", cluster=True)
    for name in "ab":
        overview.add(seen := runner(name, "w"))
        rows = {f"{name}{n}@w": {"id": f"{name}{n}", "worker": "w", "begun": float(n), "until": None} for n in range(3)}
        seen.take({"jobs": {"set": rows, "gone": []}})
    jobs = overview.state()["jobs"]
    assert {key: row["worker"] for key, row in jobs.items()} == {
        **{f"a{n}@w": "w" for n in range(3)},
        **{f"b{n}@w@b": "w@b" for n in range(3)},
    }


def test_a_point_of_a_curve_has_the_latencies_of_its_own_second() -> None:
    """O7: and none of before somebody looked."""
    overview, seen = Overview("all", cluster=True), runner("a")
    overview.add(seen)
    overview.stories.latencies += [9.0]
    for now, latencies in enumerate([[], [1.0, 3.0], [], [2.0], [0.5, 0.5, 0.25]]):
        seen.measure(100.0 + now)
        overview.stories.latencies += latencies
        overview.measure(now)
    halves = [half for _, _, _, half, _, _ in overview.state()["curves"].values()]
    assert halves == [3000.0, None, 2000.0, 500.0]


def test_times_are_those_of_the_clock_here() -> None:
    """O7"""
    seen = runner("a")
    seen.offset = 100.0
    job = {"id": "1", "worker": "w", "begun": 103.0, "until": 110.0}
    seen.take({"jobs": {"set": {"1@w": job}, "gone": []}, "errors": {"set": {"1": [104.0, "no"]}, "gone": []}})
    row, error = seen.sections["jobs"]["1@w"], seen.sections["errors"]["1"]
    assert (row["begun"], row["until"], row["runner"]) == (3.0, 10.0, "a")
    assert error == [4.0, "no", "a"]


@pytest.mark.parametrize("there", [0.0, 0.25])
def test_a_clock_is_known_by_the_quickest_exchange(there: float) -> None:
    """O7: however long the other one has thought about its answer; a slow one changes nothing any more."""
    clock = ClockOffset()
    clock.learn(asked=10.0, taken=1010.9, told=1015.9 + there, read=16.0 + there)
    assert clock.seconds == pytest.approx(1000.4, abs=0.001)
    clock.learn(asked=20.0, taken=1020.01, told=1021.01, read=21.02)
    assert clock.seconds == pytest.approx(1000.0, abs=0.001)
    clock.learn(asked=30.0, taken=1030.9, told=1031.0, read=31.1)
    assert clock.seconds == pytest.approx(1000.0, abs=0.001)


def test_clocks_that_go_apart_are_noticed() -> None:
    """O7: after a while; what is within the doubt moves nothing."""
    clock = ClockOffset()
    clock.learn(asked=0.0, taken=100.01, told=100.01, read=0.02)
    later = WINDOW + 1
    clock.learn(asked=later, taken=later + 100.011, told=later + 100.011, read=later + 0.02)
    assert clock.seconds == pytest.approx(100.0, abs=0.0001)
    later += WINDOW + 1
    clock.learn(asked=later, taken=later + 100.51, told=later + 100.51, read=later + 0.02)
    assert clock.seconds == pytest.approx(100.5, abs=0.001)
