"""Lists in a terminal: rows and columns, in an order, in a tree, filtered, and as lines of a width (O8).

Pure functions; knows neither what is listed nor a terminal.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from workerbus.cli._words import cells, fitted

GAP: Final = 2
"""Columns of the terminal between two columns of a list."""
LEAST: Final = 6
"""How many columns of the terminal a column with texts has at least."""
PLENTY: Final = 24
"""How many it has before another column is left out."""
_NUMBERS: Final = re.compile(r"(\d+)")


class Column(NamedTuple):
    """A column of a list.

    Attributes:
        title: What stands at its head.
        key: What it is called where it is chosen.
        right: Whether it is set flush right, as numbers are, and sorted from the largest down.
        spare: Where there is no room for all, those with the highest number are left out first; those with 0 never.
    """

    title: str
    key: str
    right: bool = False
    spare: int = 0


class Row(NamedTuple):
    """A row of a list.

    Attributes:
        key: What it is about; the same as long as it is about the same.
        values: Column to what it is sorted by.
        texts: Column to its text; empty where it is missing.
        looks: Column to how that looks: ``dim``, ``good``, ``warn``, ``bad`` or ``strong``; plain where it is missing.
    """

    key: str
    values: Mapping[str, Any]
    texts: Mapping[str, str]
    looks: Mapping[str, str]


class Choice(NamedTuple):
    """What somebody has chosen of a list.

    Attributes:
        sort: The key of the column that it is sorted by.
        reverse: Whether that is the other way round.
        tree: Whether it is a tree.
        folded: The keys of the rows that are not as they would be by themselves, folded or not.
        wanted: What somebody looks for; empty for everything.
    """

    sort: str
    reverse: bool = False
    tree: bool = True
    folded: Collection[str] = frozenset()
    wanted: str = ""


class Placed(NamedTuple):
    """A row at its place.

    Attributes:
        row: The row.
        level: How deep it is in the tree.
        below: Whether there are rows below it.
        shut: Whether these are hidden.
    """

    row: Row
    level: int = 0
    below: bool = False
    shut: bool = False


def natural(text: str) -> tuple[Any, ...]:
    """Return by what a text is sorted so that 10 comes after 9."""
    parts = _NUMBERS.split(text.lower())
    return tuple((0, int(part), "") if n % 2 else (1, 0, part) for n, part in enumerate(parts))


class Tree:
    """Rows above and below each other.

    Args:
        columns: The columns.
        choice: What is wanted, and in which order.
    """

    def __init__(self, columns: Sequence[Column], choice: Choice) -> None:
        self._choice = choice
        column = next((each for each in columns if each.key == choice.sort), columns[0])
        self._sort = column.key
        self._reverse = column.right is not choice.reverse
        self._below: dict[str | None, list[Row]] = {}
        self._found: set[str] = set()

    def add(self, row: Row, above: str | None = None, also: str = "") -> None:
        """Add a row.

        Args:
            row: The row.
            above: The key of the row above it; None for none.
            also: What it is found by besides its texts.
        """
        self._below.setdefault(above, []).append(row)
        if not self._choice.wanted or self._choice.wanted in " ".join((*row.texts.values(), also)).lower():
            self._found.add(row.key)

    def placed(self, is_shut: Callable[[str], bool] = frozenset[str]().__contains__) -> list[Placed]:
        """Return the rows at their places; those above of what was found are there, too.

        Args:
            is_shut: Whether what is below a row is hidden unless somebody chooses otherwise.
        """
        if not self._choice.tree:
            rows = [row for rows in self._below.values() for row in rows if row.key in self._found]
            return [Placed(row) for row in self._sorted(rows)]
        placed: list[Placed] = []
        for row in self._sorted(self._below.get(None, ())):
            placed += self._placed_below(row, 0, is_shut)
        return placed

    def _placed_below(self, row: Row, level: int, is_shut: Callable[[str], bool]) -> list[Placed]:
        inside: list[Placed] = []
        for each in self._sorted(self._below.get(row.key, ())):
            inside += self._placed_below(each, level + 1, is_shut)
        if not inside and row.key not in self._found:
            return []
        shut = not self._choice.wanted and is_shut(row.key) is not (row.key in self._choice.folded)
        return [Placed(row, level, row.key in self._below, shut), *([] if shut else inside)]

    def _sorted(self, rows: Iterable[Row]) -> list[Row]:
        by_name = sorted(rows, key=lambda row: row.values["name"])
        return sorted(by_name, key=lambda row: row.values[self._sort], reverse=self._reverse)


Cell = tuple[str, str]
"""A text, and how it looks."""


def name_of(placed: Placed, text: str, *, tree: bool) -> str:
    """Return the text of a row's first column, at its place in the tree."""
    if not tree:
        return text
    mark = ("▸ " if placed.shut else "▾ ") if placed.below else "  "
    return f"{'  ' * placed.level}{mark}{text}"


def laid_out(
    columns: Sequence[Column], rows: Sequence[Placed], width: int | None, *, tree: bool
) -> tuple[list[Column], list[int]]:
    """Return the columns for which there is room, and how wide each is: as its longest text, all as wide as the room.

    Args:
        columns: The columns.
        rows: The rows.
        width: How much room there is; None for any.
        tree: Whether the first column has a tree.
    """
    kept, needed = list(columns), []
    for column in columns:
        texts = (cells(_text(row, column, tree=tree and column is columns[0])) for row in rows)
        needed.append(max(len(column.title) + 1, max(texts, default=0)))
    if width is None:
        return kept, needed
    over = sum(needed) + GAP * (len(needed) - 1) - width
    over -= _narrow(kept, needed, over, PLENTY)
    for column in sorted((each for each in columns if each.spare), key=lambda each: -each.spare):
        if over > 0:
            place = kept.index(column)
            over -= needed[place] + GAP
            del kept[place], needed[place]
    over -= _narrow(kept, needed, over, LEAST)
    needed[0 if kept[-1].right or kept[-1].spare else -1] += max(0, -over)
    return kept, needed


def _narrow(columns: Sequence[Column], widths: list[int], over: int, least: int) -> int:
    """Make columns with texts narrower, the widest first, and none narrower than a width; returns by how much."""
    texts = [n for n, column in enumerate(columns) if not column.right]
    for by in range(max(0, over)):
        widest = max(texts, key=widths.__getitem__, default=0)
        if not texts or widths[widest] <= least:
            return by
        widths[widest] -= 1
    return max(0, over)


def _text(placed: Placed, column: Column, *, tree: bool) -> str:
    text = placed.row.texts.get(column.key, "")
    return name_of(placed, text, tree=True) if tree else text


def line(columns: Sequence[Column], placed: Placed, wide: Sequence[int], *, tree: bool) -> list[Cell]:
    """Return a row as cells that stand side by side."""
    found: list[Cell] = []
    for n, (column, width) in enumerate(zip(columns, wide, strict=True)):
        text = fitted(_text(placed, column, tree=tree and not n), width, right=column.right)
        found += [(" " * GAP, "")] * bool(n) + [(text, placed.row.looks.get(column.key, ""))]
    return found


def head(columns: Sequence[Column], wide: Sequence[int], choice: Choice) -> list[Cell]:
    """Return the titles of the columns; that by which it is sorted has a mark, and looks ``strong``."""
    found: list[Cell] = []
    for n, (column, width) in enumerate(zip(columns, wide, strict=True)):
        chosen = column.key == choice.sort
        mark = ("▾" if column.right is not choice.reverse else "▴") if chosen else ""
        title = f"{mark}{column.title}" if column.right else f"{column.title}{mark}"
        found += [(" " * GAP, "")] * bool(n) + [
            (fitted(title, width, right=column.right), "strong" if chosen else "dim")
        ]
    return found
