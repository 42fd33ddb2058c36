"""What `workerbus top` lists of a state: workers, jobs in flight, and errors (O3, O8)."""

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from workerbus.cli._rows import Choice, Column, Placed, Row, Tree, natural
from workerbus.cli._watch import State
from workerbus.cli._words import bars, duration, number

SPAN: Final = 5.0
"""Over how many seconds the rate of a worker is taken."""
MINUTE: Final = 60.0
STRIP: Final = 12
"""How many characters the last minute has."""

WORKERS: Final = (
    Column("WORKER", "name"),
    Column("CLASS", "class", spare=5),
    Column("STATE", "state"),
    Column("JOBS", "jobs", right=True),
    Column("WAIT", "wait", right=True, spare=2),
    Column("DONE/S", "rate", right=True, spare=1),
    Column("DONE", "done", right=True),
    Column("BAD", "bad", right=True),
    Column("RESTART", "restarts", right=True, spare=3),
    Column("LAST MINUTE", "minute", spare=4),
)
JOBS: Final = (
    Column("JOB", "name"),
    Column("WORKER", "worker"),
    Column("ASKED BY", "requester", spare=1),
    Column("AGE", "age", right=True),
    Column("LEFT", "left", right=True),
    Column("PROGRESS", "progress"),
)
ERRORS: Final = (
    Column("AGO", "name", right=True),
    Column("WORKER", "worker"),
    Column("ERROR", "text"),
)
_COUNTS: Final = ("jobs", "wait", "rate", "done", "bad", "restarts")
_OF_POOLS: Final = ("rate", "done", "bad")
_MODULE: Final = re.compile(r"^(\w+\.)+(?=\w+(:|$))")


class Rates:
    """How many jobs each worker has answered in a second, lately; from counts that only go up."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def learn(self, now: float, state: State) -> None:
        """Take the counts of a state, as they are at a time."""
        counts = {key: _answered(row) for key, row in state["workers"].items()}
        if self._seen:
            before, last = self._seen[-1]
            if now < before or any(counts.get(key, count) < count for key, count in last.items()):
                self._seen.clear()  # another program, or another life of a worker
            elif now - before < 0.2:
                return
        self._seen.append((now, counts))
        while len(self._seen) > 2 and self._seen[1][0] <= now - SPAN:
            self._seen.popleft()

    def get(self, key: str) -> float | None:
        """Return the rate of a worker; None where it is not known yet."""
        if len(self._seen) < 2:
            return None
        (begun, first), (ended, last) = self._seen[0], self._seen[-1]
        if key not in first or key not in last:
            return None
        return (last[key] - first[key]) / (ended - begun)


def _answered(it: Mapping[str, Any]) -> int:
    return int(it["completed"] + it["failed"] + it["error"] + it["cancelled"])


def worker_rows(state: State, rates: Rates, now: float, choice: Choice) -> list[Placed]:
    """Return the rows of the workers, below those of their runners."""
    tree = Tree(WORKERS, choice)
    strips = _strips(state, now)
    own = str(state["about"].get("runner", ""))
    sums: dict[str, dict[str, Any]] = {name: dict.fromkeys(_COUNTS, 0) for name in state["runners"] or [own]}
    for key, it in state["workers"].items():
        runner = it.get("runner", own)
        row = _worker_row(key, it, rates.get(key), strips.get(key, ""))
        above = it["parent"] if it["parent"] in state["workers"] else _key(runner)
        tree.add(row, above, f"{it['kind']} {runner}")
        totals = sums.setdefault(runner, dict.fromkeys(_COUNTS, 0))
        member = "pool" in state["workers"].get(it["parent"], ())  # what it has answered is in the counts of its pool
        for count in _COUNTS:
            totals[count] += 0 if member and count in _OF_POOLS else row.values[count]
    for name, runner in state["others"].items():
        if runner not in sums:
            sums[runner] = {}
        tree.add(
            _row(f"other {name}", {"name": name, "state": "elsewhere"}, {}, {"name": "dim", "state": "dim"}),
            _key(runner),
        )
    for name, totals in sums.items() if choice.tree else ():
        tree.add(_runner_row(name, state["runners"].get(name), totals), None)
    elsewhere = {_key(name) for name, totals in sums.items() if not totals}
    return tree.placed(elsewhere.__contains__)


def _key(runner: str) -> str:
    return f"runner {runner}"


def _row(key: str, texts: dict[str, str], counts: Mapping[str, Any], looks: Mapping[str, str]) -> Row:
    """Make a row of a worker or a runner; a count that is not known is less than any."""
    values: dict[str, Any] = {each.key: texts.get(each.key, "") for each in WORKERS}
    values |= {each: counts.get(each, -1) for each in _COUNTS}
    values["name"] = natural(texts["name"])
    return Row(key, values, texts | {each: number(count) for each, count in counts.items()}, looks)


def _worker_row(key: str, it: Mapping[str, Any], rate: float | None, strip: str) -> Row:
    bad = it["failed"] + it["error"] + it["cancelled"]
    state = it["phase"] if it["phase"] != "running" else "active" if it["active"] else "inactive"
    size, waiting = it.get("pool") or (None, 0)
    counts = {
        "jobs": it["jobs"],
        "wait": it["system"] + it["data"] + waiting,
        "rate": rate or 0,
        "done": it["completed"],
        "bad": bad,
        "restarts": it["restarts"],
    }
    texts = {
        "name": it.get("name", key),
        "class": it["kind"] if size is None else f"{it['kind']} of {size}",
        "state": state,
        "minute": strip,
    }
    looks = dict.fromkeys((count for count in _COUNTS if not counts[count]), "dim") | {
        "class": "dim",
        "state": {"active": "good", "inactive": "dim"}.get(state, "warn"),
        "minute": "good",
    }
    if counts["jobs"]:
        looks["jobs"] = "strong"
    if counts["wait"] > 100:
        looks["wait"] = "warn"
    if bad:
        looks["bad"] = "bad" if it["error"] else "warn"
    if it["restarts"]:
        looks["restarts"] = "warn"
    row = _row(key, texts, counts, looks)
    if rate is None:
        row = row._replace(texts={**row.texts, "rate": number(None)})
    return row._replace(values={**row.values, "minute": _answered(it)})


def _runner_row(name: str, it: Mapping[str, Any] | None, totals: Mapping[str, Any]) -> Row:
    why = [] if it is None else it.get("not_ready", [])
    state = "elsewhere" if not totals else "" if it is None else "not ready" if why else "ready"
    if it is not None and it.get("silent"):
        state = "silent"
    look = "warn" if state in ("not ready", "silent") else "dim"
    looks = dict.fromkeys(_COUNTS, "dim") | {"name": "strong", "class": "dim", "state": look}
    return _row(_key(name), {"name": name, "class": "runner", "state": state}, totals, looks)


def _strips(state: State, now: float) -> dict[str, str]:
    """Return of each worker how many jobs it was at work on in each part of the last minute, as bars."""
    step = MINUTE / STRIP
    busy: dict[str, list[float | None]] = {}
    spans = [(span[0], span[1], span[2]) for span in state["spans"].values() if span[2] > now - MINUTE]
    spans += [(it["worker"], it["begun"], None) for it in state["jobs"].values()]
    for worker, begun, ended in spans:
        parts = busy.setdefault(worker, [0.0] * STRIP)
        first = int((begun - now + MINUTE) / step) if begun > now - MINUTE else 0
        last = int((min(ended, now) - now + MINUTE) / step) if ended is not None else STRIP - 1
        for part in range(max(0, first), min(STRIP - 1, last) + 1):
            parts[part] = (parts[part] or 0.0) + 1
    return {worker: bars(parts, STRIP) for worker, parts in busy.items()}


def job_rows(state: State, now: float, choice: Choice) -> list[Placed]:
    """Return the rows of the jobs in flight."""
    tree = Tree(JOBS, choice._replace(tree=False))
    for key, it in state["jobs"].items():
        left = None if it["until"] is None else max(0.0, it["until"] - now)
        age = max(0.0, now - it["begun"])
        texts = {
            "name": it["name"] or "job",
            "worker": it["worker"],
            "requester": it["requester"],
            "age": duration(age),
            "left": duration(left),
            "progress": _progress(it),
        }
        values = {**texts, "name": natural(texts["name"]), "age": age, "left": -1.0 if left is None else left}
        looks = {"requester": "dim", "left": "dim" if left is None or left >= 1 else "bad", "name": "strong"}
        looks["progress"] = "warn" if it["state"] in ("queued", "cancelling") else "dim"
        tree.add(Row(key, values, texts, looks), None, it["id"])
    return tree.placed()


def _progress(it: Mapping[str, Any]) -> str:
    if it["state"] in ("queued", "cancelling", "deferred"):
        return str(it["state"])
    if it["answered"]:
        return "{} of {}".format(*it["answered"])
    return f"{it['updates']} update{'s' if it['updates'] > 1 else ''}" if it["updates"] else str(it["state"])


def error_rows(state: State, now: float, choice: Choice) -> list[Placed]:
    """Return the rows of the errors."""
    tree = Tree(ERRORS, choice._replace(tree=False))
    for key, (at, text, worker, _, traceback, *_) in state["errors"].items():
        ago = max(0.0, now - at)
        last = _MODULE.sub("", traceback.rstrip().rpartition("\n")[2])
        texts = {"name": duration(ago), "worker": worker or "", "text": f"{last} · {text}" if last else text}
        looks = {"name": "dim", "text": "bad"}
        tree.add(Row(key, {**texts, "name": -ago}, texts, looks), None)
    return tree.placed()
