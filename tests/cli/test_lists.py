"""O8: what `workerbus top` makes of a state: rows, in an order, in a tree, filtered, and as lines of a width."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.cli._details import Lines, job_lines, worker_lines
from workerbus.cli._lists import JOBS, SPAN, WORKERS, Rates, error_rows, job_rows, worker_rows
from workerbus.cli._rows import Choice, Placed, head, laid_out, line
from workerbus.cli._watch import State, empty
from workerbus.cli._words import bars, cells, duration, fitted, number

BY_NAME = Choice("name")


def worker(parent: str | None = None, **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("jobs", "system", "data", "requested", "hooks_failed", "restarts"), 0)
    answers = dict.fromkeys(("completed", "failed", "error", "cancelled"), 0)
    return {"kind": "Clerk", "parent": parent, "phase": "running", "active": True, **counts, **answers, **more}


def state(**workers: dict[str, Any]) -> State:
    return {**empty(), "about": {"runner": "main"}, "workers": dict(workers)}


def names(rows: list[Placed]) -> list[str]:
    return ["  " * each.level + each.row.texts["name"] for each in rows]


def test_workers_are_below_their_parents_and_these_below_their_runner() -> None:
    """O8: those whose parent is not known are roots; 10 comes after 9."""
    seen = state(w10=worker(), w9=worker(), child=worker("w9"), lost=worker("gone"))
    assert names(worker_rows(seen, Rates(), 0.0, BY_NAME)) == ["main", "  lost", "  w9", "    child", "  w10"]


def test_what_is_below_a_folded_row_is_hidden() -> None:
    """O8: unless somebody looks for something."""
    seen = state(parent=worker(), child=worker("parent"))
    folded = Choice("name", folded={"parent"})
    rows = worker_rows(seen, Rates(), 0.0, folded)
    assert names(rows) == ["main", "  parent"]
    assert (rows[1].below, rows[1].shut) == (True, True)
    assert names(worker_rows(seen, Rates(), 0.0, folded._replace(wanted="chi"))) == ["main", "  parent", "    child"]


def test_what_is_looked_for_is_shown_with_all_above_it() -> None:
    """O8: by name, class and runner."""
    seen = state(a=worker(), b=worker("a"), c=worker(kind="Cashier"))
    assert names(worker_rows(seen, Rates(), 0.0, Choice("name", wanted="cash"))) == ["main", "  c"]
    assert names(worker_rows(seen, Rates(), 0.0, Choice("name", wanted="cash", tree=False))) == ["c"]
    assert names(worker_rows(seen, Rates(), 0.0, Choice("name", wanted="nothing"))) == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice("done", tree=False), ["b", "c", "a"]),
        (Choice("done", tree=False, reverse=True), ["a", "c", "b"]),
        (Choice("bad", tree=False), ["a", "b", "c"]),
        (Choice("state", tree=False), ["b", "c", "a"]),
    ],
)
def test_numbers_are_sorted_from_the_largest_down_and_texts_up(choice: Choice, expected: list[str]) -> None:
    """O8: what is equal stays in the order of names."""
    seen = state(a=worker(completed=1, active=False), b=worker(completed=20), c=worker(completed=3))
    assert sorted(names(worker_rows(seen, Rates(), 0.0, BY_NAME))) != expected
    assert names(worker_rows(seen, Rates(), 0.0, choice)) == expected


def test_the_row_of_a_runner_has_the_sums_of_its_workers() -> None:
    """O8: what the members of a pool have answered is counted once."""
    seen = state(
        pool=worker(completed=7, error=1, pool=[2, 3]),
        one=worker("pool", completed=4, jobs=1),
        two=worker("pool", completed=3, jobs=1),
        other=worker(failed=2, data=5),
    )
    texts = worker_rows(seen, Rates(), 0.0, BY_NAME)[0].row.texts
    assert [texts[key] for key in ("jobs", "wait", "done", "bad")] == ["2", "8", "7", "3"]


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_each_of_several_runners_has_the_sums_of_its_own_workers(workers: list[tuple[str, int, int]]) -> None:
    """O8"""
    seen = state(
        **{f"w{n}": worker(runner=at, jobs=jobs, completed=done) for n, (at, jobs, done) in enumerate(workers)}
    )
    seen["runners"] = {"one": {"not_ready": []}, "two": {"not_ready": []}}
    rows = [each.row for each in worker_rows(seen, Rates(), 0.0, BY_NAME) if not each.level]
    told = {row.texts["name"]: (row.values["jobs"], row.values["done"]) for row in rows}
    known = {"one", "two", *(at for at, _, _ in workers)}
    assert told == {
        name: (sum(jobs for at, jobs, _ in workers if at == name), sum(done for at, _, done in workers if at == name))
        for name in known
    }


def test_a_worker_that_has_come_later_has_no_rate_before_it_was_seen_twice() -> None:
    """O8: however many jobs it had answered before; that of another one is not changed by it."""
    rates = Rates()
    rates.learn(0.0, state(a=worker(completed=1)))
    rates.learn(1.0, state(a=worker(completed=3), b=worker(completed=100)))
    assert (rates.get("a"), rates.get("b")) == (2.0, None)


def test_workers_of_several_runners_are_below_theirs() -> None:
    """O8: those of runners that do not answer are folded at first; one that tells nothing for long is silent."""
    seen = state(a=worker(runner="one"), b=worker(runner="two"))
    seen["runners"] = {"one": {"not_ready": []}, "two": {"not_ready": ["it is ending"]}, "zero": {"silent": True}}
    seen["others"] = {"far": "three", "off": "three"}
    rows = worker_rows(seen, Rates(), 0.0, BY_NAME)
    assert names(rows) == ["one", "  a", "three", "two", "  b", "zero"]
    assert [each.row.texts["state"] for each in rows if not each.level] == ["ready", "elsewhere", "not ready", "silent"]
    unfolded = worker_rows(seen, Rates(), 0.0, Choice("name", folded={"runner three"}))
    assert names(unfolded) == ["one", "  a", "three", "  far", "  off", "two", "  b", "zero"]


def test_a_rate_is_that_of_the_last_seconds() -> None:
    """O8: from what was answered, however; it begins anew where counts go down."""
    rates = Rates()
    for second, done in enumerate((0, 10, 20, 30, 40, 50, 150, 250, 350, 450, 550)):
        rates.learn(float(second), state(a=worker(completed=done - done // 10, failed=done // 10)))
    assert rates.get("a") == 100.0
    assert rates.get("b") is None
    rates.learn(11.0, state(a=worker(completed=1)))
    assert rates.get("a") is None


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.25, 1.0, 3.0, 5.0, 12.0]), st.integers(0, 9)), max_size=30))
def test_a_rate_is_of_the_last_seconds_however_seldom_and_often_a_state_comes(steps: list[tuple[float, int]]) -> None:
    """O8: from the last count that is old enough, or the first; states that come too close are passed over."""
    rates, told, now, done = Rates(), [(0.0, 0)], 0.0, 0
    rates.learn(now, state(a=worker()))
    for seconds, answered in steps:
        now, done = now + seconds, done + answered
        rates.learn(now, state(a=worker(completed=done)))
        if now - told[-1][0] >= 0.2:
            told.append((now, done))
        *earlier, (ended, last) = told
        old = [each for each in earlier if each[0] <= ended - SPAN]
        begun, first = old[-1] if old else told[0]
        assert rates.get("a") == (None if not earlier else (last - first) / (ended - begun))


def test_the_last_minute_shows_when_a_worker_was_busy() -> None:
    """O8: what goes on, too, and nothing from before; with several jobs at once it was busier."""
    seen = state(a=worker(), b=worker(), c=worker())
    seen["spans"] = {
        "1@a": ["a", 100.0, 104.0, "completed", "1", "do"],
        "0@a": ["a", 10.0, 20.0, "completed", "0", "do"],
    }
    seen["jobs"] = {"2@a": job("a", 158.0)}
    texts = {each.row.key: each.row.texts.get("minute", "") for each in worker_rows(seen, Rates(), 160.0, BY_NAME)}
    assert (texts["a"], texts["b"]) == ("█          █", "")
    seen["spans"] |= {f"{number}@c": ["c", 100.0, 104.0, "completed", str(number), "do"] for number in range(3)}
    seen["spans"]["9@c"] = ["c", 140.0, 144.0, "completed", "9", "do"]
    texts = {each.row.key: each.row.texts.get("minute", "") for each in worker_rows(seen, Rates(), 160.0, BY_NAME)}
    assert texts["c"][0] == "█" > texts["c"].strip()[-1] > " "
    seen["spans"] = {"1@b": ["b", 115.0, 144.0, "completed", "1", "do"]}
    texts = {each.row.key: each.row.texts.get("minute", "") for each in worker_rows(seen, Rates(), 160.0, BY_NAME)}
    assert texts["b"].rstrip() == "   ██████"


def job(at: str, begun: float, **more: Any) -> dict[str, Any]:
    it = {"id": "1", "worker": at, "name": "do", "requester": "main", "state": "running", "begun": begun}
    return {**it, "until": None, "updates": 0, "answered": None, **more}


def test_jobs_in_flight_are_the_oldest_first() -> None:
    """O8: with what is left of their time, and how far they are."""
    seen = empty()
    seen["jobs"] = {
        "1@a": job("a", 99.0, until=100.5, updates=1),
        "2@b": job("b", 40.0, answered=[2, 3]),
        "3@c": job("c", 90.0, state="queued"),
    }
    rows = [each.row for each in job_rows(seen, 100.0, Choice("age"))]
    assert [row.texts["worker"] for row in rows] == ["b", "c", "a"]
    assert [row.texts["progress"] for row in rows] == ["2 of 3", "queued", "1 update"]
    assert [row.texts["age"] for row in rows] == ["60 s", "10 s", "1.0 s"]
    assert rows[2].texts["left"] == "500 ms"
    assert rows[2].looks["left"] == "bad"


def texts_of(lines: Lines) -> list[str]:
    return ["".join(text for text, _ in line).strip() for line in lines]


def test_of_a_worker_all_its_jobs_are_told_the_oldest_first() -> None:
    """O8: and none of another one."""
    seen = state(a=worker(), b=worker())
    begins = {"1": 99.0, "2": 40.0, "3": 90.0}
    seen["jobs"] = {f"{number}@a": job("a", begun, name=f"do {number}") for number, begun in begins.items()}
    seen["jobs"]["4@b"] = job("b", 50.0, name="do 4")
    told = [text for text in texts_of(worker_lines(seen, "a", 100.0)) if text.startswith("do ")]
    assert told == [f"do {n} for main, running for {duration(100.0 - begins[n])}" for n in "231"]


def test_the_story_of_a_job_has_all_who_were_asked_and_all_that_was_said() -> None:
    """O8: each worker with what became of it, each message with its time."""
    steps = [
        (10.0, "asked", "main", "a", "do", "1"),
        (10.0, "asked", "main", "b", "do", "1"),
        (12.0, "update", "a", "main", None, "1"),
        (13.0, "answered", "a", "main", "failed", "1"),
    ]
    legs = {"a": (10.0, 13.0, "failed", 1), "b": (10.0, None, None, 0)}
    about = {"id": "1", "name": "do", "requester": "main", "parent": "", "left_out": 0, "open": True}
    lines, goes_on = job_lines({**about, "legs": legs, "steps": steps})
    told = [" ".join(text.split()) for text in texts_of(lines)]
    assert goes_on
    assert [text for text in told if text.startswith(("a ", "b "))] == ["a failed after 3.0 s, 1 update", "b in flight"]
    assert [text for text in told if "→" in text] == [
        "0.0 ms main → a asked do",
        "0.0 ms main → b asked do",
        "2.0 s a → main update",
        "3.0 s a → main answered failed",
    ]


def test_errors_are_the_latest_first_with_what_was_raised() -> None:
    """O8"""
    seen = empty()
    seen["errors"] = {
        "1": [90.0, "it failed", "a", None, "Traceback\n  File\nbuiltins.sub.OddError: at home: x\n"],
        "2": [95.0, "no traceback", None, None, ""],
    }
    rows = [each.row.texts for each in error_rows(seen, 100.0, Choice("name"))]
    assert [row["text"] for row in rows] == ["no traceback", "OddError: at home: x · it failed"]
    assert [row["name"] for row in rows] == ["5.0 s", "10 s"]


@pytest.mark.parametrize("width", [30, 60, 79, 80, 100, 120, 200])
def test_every_line_is_as_wide_as_there_is_room(width: int) -> None:
    """O8: whatever the names are; numbers are never cut."""
    seen = state(**{"x" * 70: worker(completed=123456), "短い名前": worker(data=3), "a\x1b[2Jb": worker()})
    rows = worker_rows(seen, Rates(), 0.0, BY_NAME)
    columns, widths = laid_out(WORKERS, rows, width, tree=True)
    drawn = [head(columns, widths, BY_NAME), *(line(columns, row, widths, tree=True) for row in rows)]
    for each in drawn:
        text = "".join(text for text, _ in each)
        assert cells(text) == width or width < 60
        assert text.isprintable()
    assert any("123k" in text for text, _ in drawn[-1] + drawn[-2] + drawn[-3])
    assert ("LAST MINUTE" in "".join(text for text, _ in drawn[0])) == (width >= 100)


def test_columns_are_left_out_where_there_is_no_room() -> None:
    """O8: never those that say most."""
    kept = [column.key for column in laid_out(JOBS, job_rows(empty(), 0.0, BY_NAME), 35, tree=False)[0]]
    assert kept == ["name", "worker", "age", "left", "progress"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0, "0"), (3.14, "3.1"), (42.5, "42"), (9999, "9999"), (12345, "12.3k"), (4.56e6, "4560k"),
     (4.56e7, "45.6M"), (2e11, "200G")],
)  # fmt: skip
def test_a_number_is_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "\N{EN DASH}"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (9.94, "9.9 s"), (9.96, "10 s"), (75, "75 s"),
     (125, "2m 05s"), (7260, "2h 01m"), (400000, "4 d")],
)  # fmt: skip
def test_a_time_is_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_text_is_cut_at_its_end_and_says_so() -> None:
    """O8: by the columns that it takes, of which some characters have two, or none."""
    assert fitted("abc", 5) == "abc  "
    assert fitted("abc", 5, right=True) == "  abc"
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("日本語です", 6) == "日本… "
    assert fitted("a\nb\x1b", 12) == "a\\nb\\x1b    "
    assert fitted("abc", -1) == ""
    assert cells("e\N{COMBINING ACUTE ACCENT}") == 1


def test_a_curve_is_as_high_as_its_highest_value() -> None:
    assert bars([0, None, 1, 4, 8], 6) == "   ▂▅█"
    assert bars([1, 2], 1) == "█"
    assert bars([1, 2], 0) == ""
