"""Plans of pipelines, drawn by hypothesis: what stands in them, and what befalls them."""

from typing import Final, Literal, get_args

import hypothesis.strategies as st
from attrs import frozen

Trouble = Literal[
    "", "set-up fails", "set-up hangs", "start fails", "start hangs", "frame hangs", "end swallowed", "end raises",
    "clean-up fails", "clean-up hangs", "frame refuses",
]  # fmt: skip
First = Literal[
    "stop_when_done", "EndFrame", "EndFrame up", "StopFrame", "CancelFrame", "CancelFrame up", "end", "cancel", "stop",
    "scope",
]  # fmt: skip
CANCELS: Final = ("CancelFrame", "CancelFrame up", "cancel", "stop", "scope")


@frozen
class Step:
    """What a processor is like.

    Args:
        pace: Seconds that a data frame takes; 0 for a handler that never suspends.
        bound: How many frames may wait for it; 0 for any number.
        raises: Raises at every so-manieth frame; 0 for never.
        start: Seconds that it takes to pass the start on.
        lingers: Seconds for which it refuses a cancellation.
        urgent: Seconds that a system frame takes.
    """

    pace: float = 0
    bound: int = 0
    raises: int = 0
    start: float = 0
    lingers: float = 0
    urgent: float = 0


@frozen
class Row:
    """Parts in a row: a nested pipeline."""

    parts: "tuple[Part, ...]"


@frozen
class Fork:
    """Branches side by side, which may take one frame at a time."""

    branches: tuple[Row, ...]
    synchronized: bool = False


Part = Step | Row | Fork
Doing = tuple[str, float]


@frozen
class Plan:
    """What there is, and what happens.

    Args:
        row: The pipeline.
        script: What is queued, and when; the first ``early`` of it before the run.
        early: See there.
        ends: How it is ended, one way after the other.
        pause: Seconds between these.
        hurry: Seconds after which the end comes, whatever the script has got to; None for after the script.
        trouble: What one processor never gets done.
        culprit: Which one, counted on from the last when there are no more.
        jolt: Whether there is an interruption when it has been asked to end.
    """

    row: Row
    script: tuple[Doing, ...]
    early: int
    ends: tuple[First, ...]
    pause: float
    hurry: float | None
    trouble: Trouble = ""
    culprit: int = 0
    jolt: bool = False


def _times(*seconds: float) -> st.SearchStrategy[float]:
    return st.sampled_from(seconds)


def _steps(*, troubles: bool) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        pace=_times(0, 0, 0, 0.01, 0.1),
        bound=st.sampled_from((0, 0, 0, 1, 2)),
        raises=st.sampled_from((0, 0, 0, 0, 2, 3)),
        start=_times(0, 0, 0, 0.01, 0.3),
        lingers=_times(0, 0, 0, 0, 0.05, 4 if troubles else 0.05),
        urgent=_times(0, 0, 0, 0, 0, 0.02),
    )


def _rows(parts: st.SearchStrategy[Part], most: int, least: int = 1) -> st.SearchStrategy[Row]:
    return st.lists(parts, min_size=least, max_size=most).map(tuple).map(Row)


def _forks(branches: st.SearchStrategy[Row], most: int) -> st.SearchStrategy[Fork]:
    return st.builds(Fork, st.lists(branches, min_size=1, max_size=most).map(tuple), st.booleans())


def rows(*, troubles: bool = False) -> st.SearchStrategy[Row]:
    """Pipelines of all shapes."""
    steps = _steps(troubles=troubles)
    inner = _rows(steps, 2)
    forks = _forks(inner, 3)
    deep = _forks(_rows(st.one_of(steps, forks), 2), 2)
    return _rows(st.one_of(steps, steps, steps, inner, forks, deep), 4, 2)


def _doings() -> st.SearchStrategy[Doing]:
    many = st.integers(1, 5).map(float)
    return st.one_of(
        st.tuples(st.sampled_from(("down", "burst")), many),
        st.tuples(st.just("up"), many),
        st.tuples(st.sampled_from(("firm", "flash", "flash up", "interrupt", "settle")), st.just(0.0)),
        st.tuples(st.just("wait"), _times(0.005, 0.01, 0.1, 1)),
    )


@st.composite
def plans(draw: st.DrawFn, *, troubles: bool = False) -> Plan:
    """Plans; without ``troubles``, those in which nothing keeps a pipeline from its graceful end."""
    script = tuple(draw(st.lists(_doings(), min_size=2, max_size=10)))
    graceful: st.SearchStrategy[First] = st.sampled_from(
        ("stop_when_done", "EndFrame", "EndFrame up", "StopFrame", "end")
    )
    anyhow: st.SearchStrategy[First] = st.sampled_from(get_args(First))
    ends: st.SearchStrategy[tuple[First, ...]] = st.tuples(graceful)
    if troubles:
        ends = st.one_of(ends, st.tuples(anyhow), st.tuples(graceful, anyhow))
    return Plan(
        row=draw(rows(troubles=troubles)),
        script=script,
        early=draw(st.integers(0, len(script))),
        ends=draw(ends),
        pause=draw(_times(0, 0, 0.01, 1)),
        hurry=draw(st.sampled_from((None, 0.0, 0.01, 0.3))) if troubles else None,
        trouble=draw(st.sampled_from(("", "", *get_args(Trouble)))) if troubles else "",
        culprit=draw(st.integers(0, 5)) if troubles else 0,
        jolt=troubles and draw(st.booleans()),
    )


def falls(step: Step, number: int) -> bool:
    """Whether a processor raises at a frame."""
    return bool(step.raises) and number % step.raises == 0


def size(part: Part) -> int:
    """How many processors it has."""
    if isinstance(part, Step):
        return 1
    return sum(map(size, part.parts if isinstance(part, Row) else part.branches))
