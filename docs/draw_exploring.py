"""Counts the schedules that known bugs take, for docs/exploring.md: ``python docs/draw_exploring.py``.

It writes the table between the two marks on the page.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from workerbus.testing import exhaustive, explore, pct, random_walk, run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/exploring.md"
BEGIN, END = "<!-- the table: python docs/draw_exploring.py -->\n", "<!-- the end of the table -->\n"
Scenario = Callable[[], Awaitable[None]]

BUDGET = 2_000
SEEDS = range(11)
BACKENDS = ("asyncio", "trio")
STRATEGIES = (random_walk(), pct(2), pct(3), exhaustive(2))


def with_plain_seeds(scenario: Scenario, backend: str, first: int) -> int | None:
    """How many seeds of `run` it takes, from one on."""
    for number in range(BUDGET):
        try:
            run(scenario, backend=backend, seed=first + number)
        except Exception:  # noqa: BLE001 - whatever it is, it is the bug
            return number + 1
    return None


def told(counts: Sequence[int | None]) -> str:
    """The median; a run that has found nothing counts as the longest of all."""
    middle = median(BUDGET + 1 if count is None else count for count in counts)
    return "none" if middle > BUDGET else f"{middle:g}"


def name_of(scenario: Scenario) -> str:
    """What a bug is called on the page."""
    return getattr(scenario, "__name__", "").replace("_", " ")


def row(scenario: Scenario) -> str:
    """A line of the table."""
    cells: list[str] = []
    switches: list[int] = []
    cells.append(
        " / ".join(told([with_plain_seeds(scenario, each, seed * BUDGET) for seed in SEEDS]) for each in BACKENDS)
    )
    for strategy in STRATEGIES:
        parts = []
        for backend in BACKENDS:
            seeds = SEEDS if strategy is not STRATEGIES[-1] else range(1)  # it draws nothing
            failures = [
                explore(scenario, strategy=strategy, budget=BUDGET, backend=backend, seed=seed, raises=False).failure
                for seed in seeds
            ]
            switches += [each.switches for each in failures if each is not None]
            parts.append(told([None if each is None else each.number for each in failures]))
        cells.append(" / ".join(parts))
    fewest = f"{min(switches)}" if min(switches) == max(switches) else f"{min(switches)} to {max(switches)}"
    return f"| {name_of(scenario)} | {' | '.join(cells)} | {fewest} |\n"


def table() -> str:
    """The table."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.known_bugs import KNOWN_BUGS  # noqa: PLC0415 - beside the tests

    names = ["plain seeds", *(f"`{strategy!r}`" for strategy in STRATEGIES), "switches when shrunk"]
    head = f"| bug | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n"
    return head + "".join(map(row, KNOWN_BUGS))


if __name__ == "__main__":
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}")
