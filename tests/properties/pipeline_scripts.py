"""Pipelines whose processors do something of everything, and scripts of what befalls them, drawn by hypothesis.

All times are multiples of a `TICK`, so that they add up without rounding. Each processor, and each line of the script,
has a remainder of its own: what happens at the same moment has one cause, as a rule.
"""

from random import Random
from typing import Final, Literal, get_args

import hypothesis.strategies as st
from attrs import frozen

TICK: Final = 2.0**-20
SPAN: Final = 1 / 4
REST: Final = 8.0
"""How long after the last line the end comes. Tasks of processors, and holds, are over by then."""
RESUMES: Final = 30
"""How often everything is resumed towards the end, each time a second later."""

What = Literal[
    "down", "up", "firm", "kept", "flash", "interrupt", "break", "both", "copies", "into", "pause", "resume",
    "pause system", "resume system", "hold", "pause frame", "resume frame", "pause urgent", "resume urgent", "flush",
    "observe", "unobserve", "listen", "error", "task", "cancel task", "filter", "toggle", "came", "speak",
]  # fmt: skip
EVENTS: Final = (
    "on_before_process_frame",
    "on_after_process_frame",
    "on_before_push_frame",
    "on_after_push_frame",
    "on_error",
)


@frozen
class Stage:
    """What a processor does with the data frames that bear a number.

    Args:
        pace: Seconds that one takes, in quarters; 0 for a handler that never suspends.
        urgent: The same, for a system frame.
        lingers: The same, for a handler that was interrupted.
        bound: How many frames may wait for it; 0 for any number.
        raises: It raises at every so-manieth; 0 for never, as below.
        turns: It sends every so-manieth back.
        makes: It pushes two frames of its own instead.
        breaks: It interrupts the pipeline first.
    """

    pace: int = 0
    urgent: int = 0
    lingers: int = 0
    bound: int = 0
    raises: int = 0
    turns: int = 0
    makes: int = 0
    breaks: int = 0


@frozen
class Row:
    """Parts in a row."""

    parts: "tuple[Part, ...]"


@frozen
class Fork:
    """Branches side by side: "loose", or one frame at a time, in the order of "arrival" or of the "pipeline"."""

    branches: tuple[Row, ...]
    order: str


Part = Stage | Row | Fork


@frozen
class Line:
    """Something that happens.

    Args:
        gap: How long after the line before it, in quarters of a second.
        what: What it is.
        who: Which processor, counted on from the last when there are no more.
        much: How many, or which of several kinds.
    """

    gap: int
    what: What
    who: int
    much: int

    @property
    def up(self) -> bool:
        """Whether it goes upstream, where it may go either way."""
        return bool(self.much % 2)


@frozen
class Script:
    """A pipeline, and what befalls it.

    Args:
        row: The pipeline.
        lines: What happens.
        beats: Whether there are heartbeats.
        idle: After how many seconds it is idle; 0 for never.
        counts: Which frames count for that: all, data frames, or control frames.
        bridged: The names of its bridges; None for a worker that is not bridged.
        excluded: Whether urgent frames stay here.
    """

    row: Row
    lines: tuple[Line, ...]
    beats: bool
    idle: int
    counts: str
    bridged: tuple[str, ...] | None
    excluded: bool

    def times(self) -> list[float]:
        """When each line comes."""
        times, now = [], SPAN
        for number, line in enumerate(self.lines):
            now += line.gap * SPAN
            times.append(now + rest("line", number))
        return times


def stages(part: Part) -> list[Stage]:
    """All processors, downstream, branch by branch."""
    if isinstance(part, Stage):
        return [part]
    inner = part.parts if isinstance(part, Row) else part.branches
    return [stage for each in inner for stage in stages(each)]


def rest(what: str, number: int = 0) -> float:
    """A remainder of its own for everything that takes time, less than 1/32 of a second."""
    return Random(f"{what} {number}").randrange(1, 1 << 15) * TICK


def seconds(quarters: int, number: int, what: str) -> float:
    """How long something takes a processor."""
    return quarters and quarters * SPAN + rest(what, number)


def hits(every: int, number: int) -> bool:
    """Whether a number is one of every so many."""
    return bool(every) and number % every == 0


def _often(*values: int) -> st.SearchStrategy[int]:
    return st.sampled_from((0, 0, 0, *values))


_STAGES: Final = st.builds(
    Stage,
    pace=st.sampled_from((0, 0, 1, 2, 5)),
    urgent=_often(1, 2),
    lingers=_often(1, 3),
    bound=_often(1, 2),
    raises=_often(0, 3),
    turns=_often(0, 4),
    makes=_often(0, 3),
    breaks=_often(0, 0, 5),
)


def _rows(parts: st.SearchStrategy[Part], least: int, most: int) -> st.SearchStrategy[Row]:
    return st.lists(parts, min_size=least, max_size=most).map(tuple).map(Row)


def _forks(parts: st.SearchStrategy[Part]) -> st.SearchStrategy[Fork]:
    branches = st.lists(_rows(parts, 1, 2), min_size=1, max_size=3).map(tuple)
    return st.builds(Fork, branches, st.sampled_from(("loose", "arrival", "pipeline")))


_FULL: Final = st.builds(
    Stage, pace=st.sampled_from((1, 2, 5)), lingers=_often(1), bound=st.sampled_from((1, 1, 2)), turns=_often(0, 4)
)
_FORKS: Final = _forks(_STAGES)
_TIGHT: Final[st.SearchStrategy[Part]] = st.one_of(_FULL, _FULL, _FULL, _forks(_FULL))
_PARTS: Final = st.one_of(_STAGES, _STAGES, _STAGES, _FORKS, _rows(_STAGES, 1, 2), _forks(st.one_of(_STAGES, _FORKS)))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Scripts that do each thing that they do again and again: of all that may happen, a handful is drawn first."""
    tight = draw(st.sampled_from((False, False, False, True)))
    row = draw(_rows(_TIGHT if tight else _PARTS, 1, 3))
    some = draw(st.lists(st.sampled_from(get_args(What)), min_size=2, max_size=6, unique=True))
    many: st.SearchStrategy[What] = st.sampled_from([*some, *some, "down", "up", "flash"])
    whom = st.integers(0, min(3, len(stages(row)) - 1))
    line = st.builds(Line, st.sampled_from((0, 0, 0, 1, 1, 3, 9)), many, whom, st.integers(1, 4))
    watched = [Line(0, "observe", 0, 0)] if draw(st.booleans()) else []
    return Script(
        row=row,
        lines=(*watched, *draw(st.lists(line, min_size=6, max_size=24))),
        beats=draw(st.sampled_from((False, False, True))),
        idle=draw(st.sampled_from((0, 0, 1, 2))),
        counts=draw(st.sampled_from(("all", "data", "control"))),
        bridged=draw(st.sampled_from((None, None, (), ("one",), ("one", "two")))),
        excluded=draw(st.booleans()),
    )
