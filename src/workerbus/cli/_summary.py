"""The numbers at the head of `workerbus top`, and all of it as plain text (O3, O8)."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from workerbus.cli._lists import ERRORS, JOBS, WORKERS, Rates, error_rows, job_rows, worker_rows
from workerbus.cli._rows import Choice, Column, Placed, head, laid_out, line
from workerbus.cli._watch import State, Watch
from workerbus.cli._words import duration, number, one_line, plural

MOST_JOBS: Final = 20
"""How many jobs in flight the plain text has: the oldest."""
MOST_ERRORS: Final = 5
"""How many errors it has: the last."""


class Number(NamedTuple):
    """A number at the head.

    Attributes:
        title: What it is of.
        text: The number.
        look: How it looks, as in a `Row`.
        curve: What it was in the last two minutes; empty where that is not known.
    """

    title: str
    text: str
    look: str = ""
    curve: Sequence[float | None] = ()


def numbers(state: State) -> list[Number]:
    """Return the numbers at the head, in their order."""
    about = state["about"]
    points = [state["curves"][key] for key in sorted(state["curves"], key=int)]
    _, sent, done, half, most, in_flight = zip(*points, strict=False) if points else ((),) * 6
    errors, failed = about.get("answered_error", 0), about.get("answered_failed", 0)
    return [
        Number("workers", number(about.get("workers", 0))),
        Number("in flight", number(about.get("jobs", 0)), "strong", in_flight),
        Number("jobs/s", number(_last(done)), "strong", done),
        Number("messages/s", number(_last(sent)), "", sent),
        Number("p50", _milliseconds(half), "", half),
        Number("p99", _milliseconds(most), "", most),
        Number("done", number(about.get("answered_completed", 0))),
        Number("failed", number(failed), "warn" if failed else "dim"),
        Number("errors", number(errors), "bad" if errors else "dim"),
        Number("cancelled", number(about.get("answered_cancelled", 0)), "dim"),
        Number("restarts", number(about.get("restarts", 0)), "warn" if about.get("restarts") else "dim"),
        Number("hooks raised", number(about.get("hooks_failed", 0)), "warn" if about.get("hooks_failed") else "dim"),
    ]


def _last(values: Sequence[float | None]) -> float | None:
    return values[-1] if values else None


def _milliseconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return duration(known[-1] / 1000 if known else None)


def remarks(state: State) -> list[str]:
    """Return what is to be known beside the numbers, in words."""
    about = state["about"]
    found = [f"not ready: {why}" for why in about.get("not_ready", ())]
    if about.get("bus", "connected") != "connected":
        found.append(f"the bus is {about['bus']}")
    if about.get("sampled"):
        found.append("latencies are of a sample")
    return found


def title(watch: Watch) -> str:
    """Return what is looked at, in words."""
    about = watch.state["about"]
    runners = len(watch.state["runners"])
    name = plural(runners, "runner") if about.get("cluster") else str(about.get("runner", ""))
    return f"{one_line(name)} at {watch.shown}" if name else watch.shown


def plain(watch: Watch, rates: Rates, choice: Choice) -> str:
    """Return what there is to see as plain text, which has no end to its lines."""
    state, now = watch.state, watch.now()
    told = [one_line(title(watch)) + ("" if watch.link == "live" else f" ({watch.link}: {watch.why})")]
    told.append(", ".join(f"{each.title} {each.text}" for each in numbers(state)))
    told += remarks(state)
    told += _list(WORKERS, worker_rows(state, rates, now, choice), choice)
    for columns, rows, most, what in (
        (JOBS, job_rows(state, now, Choice("age", wanted=choice.wanted)), MOST_JOBS, "more job"),
        (ERRORS, error_rows(state, now, Choice("name", wanted=choice.wanted)), MOST_ERRORS, "earlier error"),
    ):
        if rows:
            told += _list(columns, rows[:most], Choice("", tree=False))
        if len(rows) > most:
            told.append(f"and {plural(len(rows) - most, what)}")
    return "".join(f"{text.rstrip()}\n" for text in told)


def _list(columns: Iterable[Column], rows: Sequence[Placed], choice: Choice) -> list[str]:
    seen, wide = laid_out(
        [each for each in columns if each.key not in ("class", "minute")], rows, None, tree=choice.tree
    )
    lines = [head(seen, wide, choice), *(line(seen, row, wide, tree=choice.tree) for row in rows)]
    return ["", *("".join(text for text, _ in cells) for cells in lines)]


def as_json(watch: Watch, at: float) -> dict[str, Any]:
    """Return what there is to see as one object.

    Args:
        watch: What is looked at.
        at: What the time is, for people.
    """
    about = {"time": round(at, 3), "address": watch.shown, "link": watch.link, "now": round(watch.now(), 3)}
    return {**about, **watch.state}
