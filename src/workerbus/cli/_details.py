"""What `workerbus top` tells of one worker, one job or one error: lines of cells (O3, O8)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from workerbus.cli._rows import Cell
from workerbus.cli._watch import State
from workerbus.cli._words import duration, fitted, one_line, plural

Lines = list[list[Cell]]
FACTS: Final = 20
"""How wide the names of facts are."""
_CARETS: Final = re.compile(r"[\s^~]+")

KEYS: Final = (
    ("/", "filter; Enter keeps it, Esc clears it"),
    ("1 2 3, Tab", "workers, jobs in flight, errors"),
    ("Enter", "tell more of what is chosen"),
    ("↑ ↓, k j", "choose"),
    ("← →, Space", "fold and unfold what is below; ← also goes up"),
    ("+ -", "unfold everything, fold everything"),
    ("< >", "sort by the column to the left, to the right"),
    ("N J W S D B R", "sort by worker, jobs, wait, done/s, done, bad, restarts"),
    ("I", "sort the other way round"),
    ("t", "a tree, or one list"),
    ("p", "pause; the program goes on"),
    ("?", "this"),
    ("q", "quit"),
)
COLUMNS: Final = (
    ("JOBS", "in flight at the worker"),
    ("WAIT", "messages in its lanes, jobs that wait for a member"),
    ("DONE/S", "jobs answered in a second, over the last five"),
    ("DONE, BAD", "jobs that completed; failed, errors, cancelled"),
    ("LAST MINUTE", "jobs at work on: the longest ones, and what failed"),
)


def help_lines() -> Lines:
    """Return which keys there are, and what the columns mean."""
    return [*_facts(KEYS), [], *_facts(COLUMNS)]


def _facts(facts: Iterable[tuple[str, Any]]) -> Lines:
    return [[(fitted(what, FACTS), "strong"), (one_line(str(value)), "")] for what, value in facts]


def worker_lines(state: State, key: str, now: float) -> Lines:
    """Return what there is to say of a worker or a runner."""
    if key.startswith("runner ") and key not in state["workers"]:
        return _runner_lines(state, key.removeprefix("runner "))
    it = state["workers"].get(key)
    if it is None:
        return [[("It is not here: it has gone, or its runner does not answer.", "dim")]]
    size, waiting = it.get("pool") or (None, 0)
    told = _facts(
        [
            ("Class", it["kind"]),
            ("Runner", it.get("runner", state["about"].get("runner", ""))),
            ("Parent", it["parent"] or "none: a root worker"),
            ("Phase", it["phase"]),
            ("Active", "yes" if it["active"] else "no"),
            *([("Members", size), ("Jobs that wait", waiting)] if size is not None else []),
            ("Waiting", f"{it['system']} system, {it['data']} data"),
            ("Completed", it["completed"]),
            ("Failed", it["failed"]),
            ("Errors", it["error"]),
            ("Cancelled", it["cancelled"]),
            ("Has asked for", plural(it["requested"], "job")),
            ("Hooks raised", it["hooks_failed"]),
            ("Restarts", it["restarts"]),
            ("In flight", it["jobs"]),
        ]
    )
    mine = sorted((job for job in state["jobs"].values() if job["worker"] == key), key=lambda job: float(job["begun"]))
    for job in mine[:100]:
        text = f"{job['name'] or 'job'} for {job['requester']}, {job['state']} for {duration(now - job['begun'])}"
        told.append([(" " * FACTS, ""), (one_line(text), "dim")])
    return told


def _runner_lines(state: State, name: str) -> Lines:
    it: Mapping[str, Any] = state["runners"].get(name) or (
        state["about"] if name == state["about"].get("runner") else {}
    )
    if not it:
        return [[("A runner that does not answer: only the names of its workers are known.", "dim")]]
    known = {"name": name, **it}
    return _facts(
        (key.replace("_", " ").capitalize(), _told(value)) for key, value in known.items() if value is not None
    )


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def job_lines(told: Mapping[str, Any] | None) -> tuple[Lines, bool]:
    """Return the story of a job, and whether it goes on."""
    if told is None:
        return [
            [("Nothing is remembered of this job: it began before anybody looked, or is over for long.", "dim")]
        ], False
    head = _facts(
        [
            ("Job", told["name"] or "job"),
            ("Id", told["id"]),
            ("Asked by", told["requester"]),
            *([("In job", told["parent"])] if told["parent"] else []),
        ]
    )
    for worker, (begun, ended, status, updates) in list(told["legs"].items())[:20]:
        text = "in flight" if ended is None else f"{status} after {duration(ended - begun)}"
        head += _facts([(worker, f"{text}, {plural(updates, 'update')}" if updates else text)])
    steps = told["steps"]
    first = steps[0][0] if steps else 0.0
    names = [f"{source} → {target or 'all'}" for _, _, source, target, _, _ in steps]
    wide = min(40, max(map(len, names), default=0))
    body: Lines = []
    for (at, kind, _, _, text, job), who in zip(steps, names, strict=True):
        look = "bad" if text == "error" else "warn" if text == "failed" or kind == "cancel" else ""
        which = "" if job == told["id"] else f"  {job}"
        body.append(
            [
                (fitted(duration(at - first), 8, right=True), "dim"),
                (f"  {fitted(who, wide)}  ", ""),
                (one_line(f"{kind} {text or ''}".rstrip()), look),
                (one_line(which), "dim"),
            ]
        )
    if told["left_out"]:
        body.append([(f"{plural(told['left_out'], 'message')} in the middle left out", "dim")])
    return [*head, [], *body], bool(told["open"])


def error_lines(state: State, key: str, now: float) -> Lines:
    """Return an error with its traceback."""
    it = state["errors"].get(key)
    if it is None:
        return [[("This error is not kept any more.", "dim")]]
    at, text, worker, job_id, traceback, *_ = it
    told = [[(one_line(text), "bad")], []]
    told += _facts([("Ago", duration(now - at)), ("Worker", worker or "none"), ("Job", job_id or "none")])
    lines = (each for each in traceback.splitlines() if not _CARETS.fullmatch(each))
    return [*told, [], *([(one_line(each), "")] for each in lines)]
