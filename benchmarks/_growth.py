"""How the time of many things grows with their number: exponents."""

import math
from collections.abc import Sequence
from statistics import fmean

from benchmarks._results import Cell, Results, Spread
from benchmarks._subject import Subject

MOST = 1.1
"""The exponent that is still called linear: caches, and the logarithms of sorted timers, are not free."""


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of a straight line through the logarithms: 1 is linear growth, 2 quadratic.

    Args:
        points: Of each size, how many items there are, and what they take in all.
    """
    across, up = [math.log(items) for items, _ in points], [math.log(total) for _, total in points]
    middle, height = fmean(across), fmean(up)
    above = sum((x - middle) * (y - height) for x, y in zip(across, up, strict=True))
    return above / sum((x - middle) ** 2 for x in across)


def exponents(results: Results, subject: Subject, contender: str, last: int | None = None) -> Spread | None:
    """Return the exponents of the rounds in which all sizes were measured; None if there is none.

    Args:
        results: What was measured.
        subject: Of what.
        contender: Of whom.
        last: Only of so many of the largest sizes.
    """
    sizes, key = results.sizes(subject.name), subject.values[0].key
    if len(sizes) < 2:
        return None
    cells = [(size, results.samples.get(Cell(subject.name, size, contender), {})) for size in sizes]
    found = []
    for number in cells[0][1]:
        each = [(size**subject.power, rounds[number][key]) for size, rounds in cells if number in rounds]
        if len(each) == len(sizes) and all(time > 0 for _, time in each):
            found.append(exponent([(items, items * time) for items, time in each[-last if last else 0 :]]))
    return Spread(tuple(found)) if found else None
