"""Numbers as a person reads them, and which are divided by which."""

import math
from collections.abc import Iterable

from attrs import frozen

from benchmarks._contenders import Contender
from benchmarks._results import Cell, Results, Spread
from benchmarks._subject import Subject, Value

UNITS = {
    "time": ((1e-6, "ns", 1e9), (1e-3, "µs", 1e6), (1.0, "ms", 1e3), (math.inf, "s", 1.0)),
    "bytes": ((1e3, "B", 1.0), (1e6, "KB", 1e-3), (math.inf, "MB", 1e-6)),
    "count": ((math.inf, "", 1.0),),
}


@frozen
class Row:
    """One value of one subject at one size.

    Args:
        subject: The subject.
        value: Which of its values.
        size: The size.
    """

    subject: Subject
    value: Value
    size: int

    @property
    def title(self) -> str:
        """What it is."""
        return self.value.title.format(f"{self.size:,}")

    @property
    def what(self) -> str:
        """Of what it is."""
        return self.value.what.format(f"{self.size:,}")

    def cell(self, contender: str) -> Cell:
        """Return where a contender's numbers are."""
        return Cell(self.subject.name, self.size, contender)


def rows_of(subjects: Iterable[Subject], results: Results) -> list[Row]:
    """Return what has been measured, row by row."""
    return [
        Row(subject, value, size)
        for subject in subjects
        for size in results.sizes(subject.name)
        for value in subject.values
    ]


def digits(number: float) -> str:
    """Return a number with three digits."""
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def quantity(number: float, kind: str) -> str:
    """Return a number with its unit."""
    if kind == "flag":
        return "yes" if number else "no"
    if kind == "ratio":
        return say_ratio(number)
    _, unit, factor = next(each for each in UNITS[kind] if abs(number) < each[0])
    return f"{digits(number * factor)} {unit}".strip()


def say_ratio(number: float) -> str:
    """Return a ratio."""
    return digits(number) + "x"


def ratio(results: Results, row: Row, ours: Contender, other: Contender) -> Spread | None:
    """Return the ratio of two contenders: peer by ours, but ours by the floor."""
    above, below = row.cell(other.name), row.cell(ours.name)
    if other.role == "floor":
        above, below = below, above
    return results.ratio(above, below, row.value.key)
