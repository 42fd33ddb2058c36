"""Counts the schedules that known bugs take, for docs/exploring-bugs.md: ``python docs/draw_exploring.py [BUG …]``.

It writes the table between the two marks on the page, and the stories that are shown there. With names of bugs it only
prints their rows. Nothing is measured in time, so the table is the same wherever it is made.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from workerbus.testing import exhaustive, explore, pct, random_walk, run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.known_bugs import KNOWN_BUGS, Bug  # noqa: E402 - beside the tests

PAGE = ROOT / "docs/exploring-bugs.md"
BEGIN, END = "<!-- the table: python docs/draw_exploring.py -->\n", "<!-- the end of the table -->\n"
STORY = re.compile(r"(<!-- the story of (\w+) -->\n```text\n).*?(```\n)", re.DOTALL)

BUDGET = 2_000
SEEDS = range(5)
BACKENDS = ("asyncio", "trio")
DRAWN = (random_walk(), pct(1), pct(2), pct(3))
COUNTED = ["plain seeds", *(f"`{strategy!r}`" for strategy in (*DRAWN, exhaustive(2)))]


def with_plain_seeds(bug: Bug, backend: str, first: int) -> int | None:
    """How many seeds of `run` it takes, from one on."""
    for number in range(BUDGET):
        try:
            run(bug, backend=backend, seed=first + number)
        except Exception:  # noqa: BLE001 - whatever it is, it is the bug
            return number + 1
    return None


def told(counts: Sequence[int | None]) -> str:
    """The median; a run that has found nothing counts as the longest of all."""
    middle = median(BUDGET + 1 if count is None else count for count in counts)
    return "—" if middle > BUDGET else f"{middle:g}"


def name_of(bug: Bug) -> str:
    """What a bug is called on the page."""
    return bug.__name__.replace("_", " ")


def both(count: Callable[[str], str]) -> str:
    """A cell: the same on both backends."""
    return " / ".join(map(count, BACKENDS))


def row(bug: Bug) -> str:
    """A line of the table."""
    switches: list[int] = []

    def found(strategy: Any, backend: str, seed: int) -> int | None:
        report = explore(bug, strategy=strategy, budget=BUDGET, backend=backend, seed=seed, raises=False)
        if report.failure is None:
            return None
        switches.append(report.failure.switches)
        return report.failure.number

    def median_of(strategy: Any, seeds: Sequence[int]) -> str:
        return both(lambda backend: told([found(strategy, backend, seed) for seed in seeds]))

    cells = [
        both(lambda backend: told([with_plain_seeds(bug, backend, seed * BUDGET) for seed in SEEDS])),
        *(median_of(strategy, SEEDS) for strategy in DRAWN),
        median_of(exhaustive(2), [0]),  # it draws nothing
    ]
    fewest = f"{min(switches)}" if min(switches) == max(switches) else f"{min(switches)} to {max(switches)}"
    return f"| {name_of(bug)} | {' | '.join(cells)} | {fewest} |\n"


def table() -> str:
    """The table."""
    names = [*COUNTED, "switches when shrunk"]
    head = f"| bug | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n"
    return head + "".join(map(row, KNOWN_BUGS))


def story(name: str) -> str:
    """What `explore` says of a bug."""
    (bug,) = (bug for bug in KNOWN_BUGS if bug.__name__ == name)
    failure = explore(bug, raises=False).failure
    if failure is None:
        raise ValueError(f"{name} was not found")
    notes = failure.error.__notes__
    start = next(index for index, note in enumerate(notes) if note.startswith("in workerbus.testing"))
    return "\n".join([f"{type(failure.error).__name__}: {failure.error}", *notes[start:], ""])


def with_stories(page: str) -> str:
    """The page, with the stories that it shows made anew."""
    return STORY.sub(lambda match: f"{match[1]}{story(match[2])}{match[3]}", page)


if __name__ == "__main__":
    if wanted := sys.argv[1:]:
        sys.stdout.writelines(row(bug) for bug in KNOWN_BUGS if bug.__name__ in wanted)
    else:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(with_stories(f"{before}{BEGIN}{table()}{END}{after}"))
