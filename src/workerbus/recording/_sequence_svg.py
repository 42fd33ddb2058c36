"""A sequence diagram as SVG."""

from collections.abc import Sequence
from typing import Final

from workerbus.recording._records import Record
from workerbus.recording._sequence import SequenceDiagram, Step, sequence_of
from workerbus.recording._svg import document, element, in_time, shortened, text

_ROW: Final = 34
_TIMES: Final = 78.0
"""The width of the column in which the times are."""
_TOP: Final = 58.0
_NARROWEST, _WIDEST = 120.0, 300.0
_PER_CHARACTER: Final = 6.4

_STYLE: Final = """\
.head { fill: var(--shade); stroke: var(--line); }
.life { stroke: var(--line); stroke-dasharray: 4 4; }
.arrow { stroke: var(--c); stroke-width: 1.5; fill: none; }
.dashed { stroke-dasharray: 5 4; }
.tip { fill: var(--c); stroke: none; }
.said { fill: var(--c); }
"""


def sequence_svg(records: Sequence[Record], *, dropped: int, most: int) -> str:
    """Return the diagram of some records."""
    told = sequence_of(records, most)
    columns = _columns(told)
    width = max([*columns.values(), 300.0]) + 110
    rows = len(told.steps)
    bottom = _TOP + rows * _ROW + 14
    notes = _notes(told, dropped)
    parts = [*_heads(columns, bottom)]
    for row, step in enumerate(told.steps):
        parts.append(_arrow(step, columns, _TOP + row * _ROW + 26, width))
    parts += [text(note, 12, bottom + 18 + 16 * line, class_="faint") for line, note in enumerate(notes)]
    what = f"a sequence diagram of {len(told.names)} participants and {rows} messages"
    return document(width, bottom + 12 + 16 * len(notes), what, parts, _STYLE)


def _notes(told: SequenceDiagram, dropped: int) -> list[str]:
    notes: list[str] = []
    if not told.steps:
        notes.append("nothing was recorded that this shows")
    if dropped:
        notes.append(f"{dropped:,} earlier records were dropped: the recording keeps no more")
    if told.left_out:
        notes.append(f"{told.left_out:,} more steps are not shown")
    return notes


def _columns(told: SequenceDiagram) -> dict[str, float]:
    """Return where each line of life is; two are as far from each other as what is said between them needs."""
    places = {name: place for place, name in enumerate(told.names)}
    gaps = [_NARROWEST] * len(told.names)
    for step in told.steps:
        here, there = places[step.source], places.get(step.target or "", places[step.source])
        left = min(here, there)
        if abs(here - there) <= 1:
            gaps[left] = max(gaps[left], len(step.text) * _PER_CHARACTER + 24)
    columns: dict[str, float] = {}
    x = _TIMES + 60
    for name, gap in zip(told.names, gaps, strict=True):
        columns[name] = x
        x += min(gap, _WIDEST)
    return columns


def _heads(columns: dict[str, float], bottom: float) -> list[str]:
    parts: list[str] = []
    for name, x in columns.items():
        shown = shortened(name, 104)
        half = max(30.0, len(shown) * _PER_CHARACTER / 2 + 8)
        parts.append(element("line", class_="life", x1=x, x2=x, y1=40.0, y2=bottom))
        parts.append(element("rect", class_="head", x=x - half, y=12.0, width=2 * half, height=28.0, rx=5))
        parts.append(text(shown, x, 30, text_anchor="middle", title=None if shown == name else name))
    return parts


def _arrow(step: Step, columns: dict[str, float], y: float, width: float) -> str:
    here = columns[step.source]
    colour = step.outcome or {"request": "open", "cancel": "cancelled"}.get(step.kind, "ink")
    dashed = " dashed" if step.kind in ("progress", "answer") else ""
    span = in_time(step.time) + (f" to {in_time(step.until)}" if step.until > step.time else "")
    title = f"{step.source} → {step.target or 'all'}: {step.text}, at {span}"
    time = text(in_time(step.time), _TIMES - 14, y + 4, class_="faint", text_anchor="end")
    if step.target is None or step.target == step.source:
        room = width - here - 20
        path = f"M{here:.1f} {y - 8:.1f} h26 v12 h-20" if step.target else f"M{here:.1f} {y:.1f} h14"
        tip = _tip(here + 2, y + 4, -1) if step.target else element("circle", class_="tip", cx=here + 17, cy=y, r=3)
        label = text(shortened(step.text, room), here + 32, y + 1, class_="said")
    else:
        there = columns[step.target]
        way = 1 if there > here else -1
        path = f"M{here:.1f} {y:.1f} H{there - 6 * way:.1f}"
        tip = _cross(there - 5 * way, y) if step.kind == "cancel" else _tip(there, y, way)
        label = text(
            shortened(step.text, abs(there - here) - 14), (here + there) / 2, y - 6, class_="said", text_anchor="middle"
        )
    line = element("path", class_=f"arrow{dashed}", d=path)
    return element("g", time, line, tip, label, title=title, class_=colour)


def _tip(x: float, y: float, way: int) -> str:
    return element("path", class_="tip", d=f"M{x:.1f} {y:.1f} l{-9 * way} -4.5 v9 z")


def _cross(x: float, y: float) -> str:
    return element("path", class_="arrow", d=f"M{x - 4:.1f} {y - 4:.1f} l8 8 m0 -8 l-8 8")
