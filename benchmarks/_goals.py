"""What is to be reached, and whether it was."""

from collections.abc import Iterable, Sequence
from typing import Literal

from attrs import frozen

from benchmarks._contenders import Contender
from benchmarks._growth import MOST, exponents
from benchmarks._numbers import digits, quantity
from benchmarks._results import Cell, Results
from benchmarks._subject import GROWTH, Kind, Subject
from benchmarks._subjects import SUBJECTS

What = Literal["faster", "most"]


@frozen
class Goal:
    """One thing to be reached on each backend.

    Args:
        title: What it is called.
        subject: The subject.
        size: Its size.
        key: Its value.
        kind: Its unit.
        what: Whether it is how many times as long as workerbus Pipecat takes, at least, or the most that it may be.
        asyncio: The goal there.
        trio: The goal there.
    """

    title: str
    subject: str
    size: int
    asyncio: float
    trio: float
    key: str = "seconds"
    kind: Kind = "ratio"
    what: What = "faster"

    def on(self, backend: str) -> float:
        """Return the goal on a backend."""
        return self.asyncio if backend == "asyncio" else self.trio


def most(title: str, subject: str, size: int, key: str, kind: Kind, number: float) -> Goal:
    """Return a goal that is an upper bound, on both backends."""
    return Goal(title, subject, size, number, number, key, kind, "most")


GOALS = (
    Goal("flood", "flood", 1, 3, 3),
    Goal("broadcast to 100", "broadcast", 100, 3.5, 3.4),
    Goal("one of 100", "targeted", 100, 65, 65),
    Goal("job", "job", 1, 3.6, 2.9),
    Goal("100 in flight", "in_flight", 100, 1.75, 1.45),
    Goal("group of 10", "group", 10, 5.6, 5),
    Goal("group of 100", "group", 100, 24, 20),
    Goal("group of 1,000", "group", 1_000, 145, 120),
    Goal("start and stop 100", "start_stop", 100, 16, 14),
    Goal("start and stop 1,000", "start_stop", 1_000, 150, 95),
    Goal("cancel 100", "cancel", 100, 3.6, 2.5),
    Goal("stream of results", "stream", 1_000, 4.5, 4.5),
    Goal("frames through 5 processors", "frames", 5, 13, 10),
    most("lag p99, fan-out 100", "lag", 100, "p99", "time", 0.005),
    most("lag p99, fan-out 1,000", "lag", 1_000, "p99", "time", 0.020),
    most("queued message", "queued", 100_000, "queued", "bytes", 100),
    most("queued sequential job", "queued_job", 10_000, "queued", "bytes", 1_000),
    most("wake-ups of 1,000 idle in 10 s", "idle", 1_000, "passes", "count", 0),
    most("job 1,000,000 beside job 1,000", "late", 1_000_000, "ratio", "ratio", 1.05),
    most("memory grown by 1,000,000 jobs", "late", 1_000_000, "grown", "bytes", 256_000),
)


@frozen
class Outcome:
    """What became of a goal on one backend.

    Args:
        goal: The goal, in words.
        measured: What was measured, in words.
        reached: Whether that is enough.
    """

    goal: str
    measured: str
    reached: bool


def of_goal(goal: Goal, results: Results, ours: Contender, pipecat: str = "pipecat") -> Outcome | None:
    """Return what became of a goal; None if it was not measured."""
    cell = Cell(goal.subject, goal.size, ours.name)
    if goal.what == "faster":
        spread = results.ratio(Cell(goal.subject, goal.size, pipecat), cell, goal.key)
    else:
        spread = results.spread(cell, goal.key)
    if spread is None:
        return None
    number, bound = spread.median, goal.on(ours.backend)
    reached = number >= bound if goal.what == "faster" else number <= bound
    if goal.what == "faster":
        return Outcome(f"at least {bound:g}x", f"{digits(number)}x", reached)
    return Outcome(f"at most {quantity(bound, goal.kind)}", quantity(number, goal.kind), reached)


def of_growth(subjects: Iterable[Subject], results: Results, ours: Contender) -> Outcome | None:
    """Return the row that grows fastest, of those that were measured at their full sizes; None if there is none."""
    measured = [
        spread
        for subject in subjects
        if results.sizes(subject.name) == list(subject.full)
        and (spread := exponents(results, subject, ours.name)) is not None
    ]
    if not measured:
        return None
    worst, over = max(spread.median for spread in measured), sum(spread.median > MOST for spread in measured)
    return Outcome(
        f"at most {MOST:g}", f"{worst:.2f}" + (f"; {over} of {len(measured)} over" if over else ""), not over
    )


def outcomes(results: Results, contenders: Sequence[Contender]) -> list[tuple[str, dict[str, Outcome]]]:
    """Return, for each goal of which something was measured, what became of it on each backend."""
    ours = [each for each in contenders if each.role == "ours"]
    growing = [each for each in SUBJECTS.values() if each.group == GROWTH]
    rows: list[tuple[str, dict[str, Outcome | None]]] = [
        (goal.title, {each.backend: of_goal(goal, results, each) for each in ours}) for goal in GOALS
    ]
    alone = [each for each in growing if each.power == 1]
    rows.append(("exponent of growth", {each.backend: of_growth(alone, results, each) for each in ours}))
    runners = [each for each in growing if each.power > 1]
    rows.append(
        (
            "exponent of runners, by what they announce",
            {each.backend: of_growth(runners, results, each) for each in ours},
        )
    )
    found = [(title, {key: value for key, value in row.items() if value is not None}) for title, row in rows]
    return [(title, row) for title, row in found if row]


def markdown(rows: Sequence[tuple[str, dict[str, Outcome]]]) -> str:
    """Return a table for a README."""
    lines = ["| | goal, asyncio | measured | goal, trio | measured |", "|---|---|---|---|---|"]
    for title, row in rows:
        cells = [title]
        for backend in ("asyncio", "trio"):
            each = row.get(backend)
            cells += ["-", "-"] if each is None else [each.goal, each.measured + ("" if each.reached else " (missed)")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
