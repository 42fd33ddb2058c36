"""What was measured, and the numbers that are made of it."""

import os
import platform
import sys
from statistics import median
from typing import Any, Self

from attrs import Factory, asdict, define, field, frozen


@frozen
class Cell:
    """Who did what, how large.

    Args:
        subject: The subject's name.
        size: The size.
        contender: The contender's name.
    """

    subject: str
    size: int
    contender: str


@frozen
class Spread:
    """Several values of the same thing.

    Args:
        values: The values, one for each round that has one.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)


@define
class Results:
    """Everything that was measured, round by round.

    Args:
        rounds: How many rounds are complete.
        python: The version of Python.
        machine: What it ran on.
        took_part: The contenders that did.
        left_out: Contender to reason.
        versions: Package to version.
        sources: Contender to the directory from which it came; of this run alone, not written.
        samples: For each cell, round to values.
        failed: Cell to reason; it was not tried again.
        by_cpu: Whether to give processor time where there is time.
    """

    rounds: int = 0
    python: str = sys.version.split()[0]
    machine: str = f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"
    took_part: list[str] = Factory(list)
    left_out: dict[str, str] = Factory(dict)
    versions: dict[str, str] = Factory(dict)
    sources: dict[str, str] = field(factory=dict, eq=False)
    samples: dict[Cell, dict[int, dict[str, float]]] = Factory(dict)
    failed: dict[Cell, str] = Factory(dict)
    by_cpu: bool = False

    def add(self, cell: Cell, number: int, values: dict[str, float]) -> None:
        """Add what one round gave."""
        self.samples.setdefault(cell, {})[number] = values

    def spread(self, cell: Cell, key: str) -> Spread | None:
        """Return all rounds' values; None if there are none."""
        key = self._key(key)
        values = tuple(each[key] for each in self.samples.get(cell, {}).values() if key in each)
        return Spread(values) if values else None

    def ratio(self, above: Cell, below: Cell, key: str) -> Spread | None:
        """Return one divided by the other, in each round that has both; None if there is none."""
        key = self._key(key)
        uppers, lowers = self.samples.get(above, {}), self.samples.get(below, {})
        values = tuple(
            upper[key] / lowers[number][key]
            for number, upper in uppers.items()
            if lowers.get(number, {}).get(key) and key in upper
        )
        return Spread(values) if values else None

    def _key(self, key: str) -> str:
        return "cpu" if self.by_cpu and key == "seconds" else key

    def sizes(self, subject: str) -> list[int]:
        """Return the sizes at which a subject was measured."""
        cells = [*self.samples, *self.failed]
        return sorted({cell.size for cell in cells if cell.subject == subject})

    def to_json(self) -> dict[str, Any]:
        """Return everything, raw, for `from_json`."""
        return {
            "python": self.python,
            "machine": self.machine,
            "versions": self.versions,
            "rounds": self.rounds,
            "took_part": self.took_part,
            "left_out": self.left_out,
            "samples": [
                {**asdict(cell), "rounds": [{"round": number, **values} for number, values in rounds.items()]}
                for cell, rounds in self.samples.items()
            ],
            "failed": [{**asdict(cell), "reason": reason} for cell, reason in self.failed.items()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return what `to_json` was made of."""
        results = cls(**{key: value for key, value in data.items() if key not in ("samples", "failed")})
        for sample in data["samples"]:
            for values in sample["rounds"]:
                number = values.pop("round")
                results.add(_cell(sample), number, values)
        results.failed = {_cell(each): each["reason"] for each in data["failed"]}
        return results


def _cell(data: dict[str, Any]) -> Cell:
    return Cell(data["subject"], data["size"], data["contender"])
