"""Numbers, times and texts as a terminal shows them: short, of a known width, and nothing that moves its cursor."""

import time
from collections.abc import Sequence
from itertools import islice
from typing import Final
from unicodedata import category, east_asian_width

from workerbus.cli._commands import one_line as one_line

UNKNOWN: Final = "\N{EN DASH}"
_BARS: Final = "▁▂▃▄▅▆▇█"


def time_for_people() -> float:
    """Return what the time is, by the clock on the wall, to be shown and for nothing else."""
    return time.time()


def number(value: float | None) -> str:
    """Return a number in five characters or so; a dash where it is not known."""
    if value is None:
        return UNKNOWN
    if 0 < value < 10 and value != int(value):
        return f"{value:.1f}"
    for limit, unit in ((1e4, ""), (1e7, "k"), (1e10, "M")):
        if value < limit:
            return f"{value * 1e4 / limit:.{1 if unit and value < limit / 100 else 0}f}{unit}"
    return f"{value / 1e9:.0f}G"


def duration(seconds: float | None) -> str:
    """Return seconds in seven characters at most; a dash where they are not known."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1e3:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 100:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    if seconds < 6000:
        return f"{int(seconds // 60)}m {int(seconds % 60):02}s"
    if seconds < 100 * 3600:
        return f"{int(seconds // 3600)}h {int(seconds % 3600 // 60):02}m"
    return f"{int(seconds // 86400)} d"


def bars(values: Sequence[float | None], width: int) -> str:
    """Return the last values as a small curve, of so many characters; where there is nothing, nothing is drawn."""
    last = [value or 0.0 for value in values][-width:] if width > 0 else []
    top = max(last, default=0.0)
    drawn = "".join(_BARS[min(7, int(8 * value / top))] if value > 0 else " " for value in last)
    return drawn.rjust(width)


def plural(count: int, what: str) -> str:
    """Return how many there are of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def cells(text: str) -> int:
    """Return how many columns a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width(each) for each in text)


def _width(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in ("W", "F") else 1


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return a text in one line that takes exactly so many columns; what is too long ends in an ellipsis."""
    text, width = one_line(text), max(0, width)
    taken = cells(text)
    if taken > width:
        kept, taken = "", 0
        for each in islice(text, width):
            if taken + _width(each) > width - 1:
                break
            kept, taken = kept + each, taken + _width(each)
        text = f"{kept}…" if width > 0 else ""
        taken += width > 0
    space = " " * (width - taken)
    return space + text if right else text + space
