"""A timeline as SVG: a row for each worker, a bar for each job, what its requesters waited for, and marks."""

import math
from collections.abc import Sequence
from typing import Final

from workerbus.recording._jobs import RecordedJob
from workerbus.recording._records import Record
from workerbus.recording._svg import document, element, in_bytes, in_time, number, shortened, text
from workerbus.recording._timeline import Bar, Lane, Timeline, Wait, timeline_of

_NAMES: Final = 140.0
_WIDTH: Final = 1100.0
_ROOM: Final = _WIDTH - _NAMES - 24
_LINE: Final = 24.0
_WAIT_LINE: Final = 19.0
_TOP: Final = 34.0
_NARROWEST: Final = 3.0
_MOST_MARKS: Final = 200
_LEGEND: Final = ("completed", "failed", "error", "cancelled", "open")

_STYLE: Final = """\
.queued { fill: var(--c); fill-opacity: .18; stroke: var(--c); stroke-opacity: .5; }
.run { fill: var(--c); fill-opacity: .42; stroke: var(--c); }
.waits { fill: none; stroke: var(--c); stroke-dasharray: 3 2; }
.mark { stroke: var(--ink); stroke-opacity: .75; }
.update { fill: var(--ink); }
.cross { stroke: var(--error); stroke-width: 1.8; fill: none; }
"""


def timeline_svg(records: Sequence[Record], *, dropped: int, most: int) -> str:
    """Return the timeline of some records."""
    begun, last = (records[0].time, records[-1].time) if records else (0.0, 0.0)
    told = timeline_of(records, most, shortest=(last - begun) * _NARROWEST / _ROOM)
    scale = _ROOM / told.length if told.length > 0 else 0.0
    parts: list[str] = []
    y = _TOP
    for row, lane in enumerate(told.lanes):
        height = 10 + lane.wait_places * _WAIT_LINE + lane.bar_places * _LINE
        if row % 2 == 0:
            parts.append(element("rect", class_="shade", x=0.0, y=y, width=_WIDTH, height=height))
        shown = shortened(lane.name, _NAMES - 18)
        parts.append(text(shown, 10, y + 18, title=None if shown == lane.name else lane.name))
        parts += _row(lane, y + 5, scale)
        y += height
    axis = _axis(told.length, scale, y)
    notes = _notes(told, dropped)
    legend = [
        *_legend(y + 22),
        *(text(note, 10, y + 44 + 16 * line, class_="faint") for line, note in enumerate(notes)),
    ]
    what = f"a timeline of {sum(len(lane.bars) for lane in told.lanes)} jobs in {in_time(told.length)}"
    return document(_WIDTH, y + 38 + 16 * len(notes), what, [*axis[:1], *parts, *axis[1:], *legend], _STYLE)


def _notes(told: Timeline, dropped: int) -> list[str]:
    notes: list[str] = []
    if not told.lanes:
        notes.append("no job was recorded")
    if dropped:
        notes.append(f"{dropped:,} earlier records were dropped: the recording keeps no more")
    if told.left_out:
        notes.append(f"{told.left_out:,} later jobs are not shown")
    return notes


def _row(lane: Lane, y: float, scale: float) -> list[str]:
    parts = [_wait(wait, y + wait.place * _WAIT_LINE, scale) for wait in lane.waits]
    y += lane.wait_places * _WAIT_LINE
    return [*parts, *(_bar(bar, y + bar.place * _LINE, scale) for bar in lane.bars)]


def _x(time: float, scale: float) -> float:
    return _NAMES + time * scale


def _wait(wait: Wait, y: float, scale: float) -> str:
    x = _x(wait.begin, scale)
    width = max(_NARROWEST, (wait.end - wait.begin) * scale)
    answers = ", ".join(f"{job.worker} {job.outcome}" for job in wait.jobs[:8])
    more = f" and {len(wait.jobs) - 8} more" if len(wait.jobs) > 8 else ""
    title = (
        f"{wait.jobs[0].requester} waits {in_time(wait.end - wait.begin)} for {wait.label}"
        f" ({wait.jobs[0].job_id}): {answers}{more}"
    )
    box = element("rect", class_="waits", x=x, y=y + 2, width=width, height=_WAIT_LINE - 5, rx=3)
    label = text(shortened(f"waits for {wait.label}", width - 8), x + 5, y + 13, class_="faint")
    return element("g", box, label, title=title, class_=wait.outcome)


def _bar(bar: Bar, y: float, scale: float) -> str:
    job = bar.job
    top, height = y + 2, _LINE - 5
    begin = _x(job.asked, scale)
    end = max(_x(bar.end, scale), begin + _NARROWEST)
    start = begin if job.begun is None else min(_x(job.begun, scale), end - _NARROWEST / 2)
    parts: list[str] = []
    if job.begun is None:  # it has only waited, as far as one knows
        parts.append(element("rect", class_="queued", x=begin, y=top, width=end - begin, height=height, rx=3))
    else:
        if start - begin >= 0.5:
            parts.append(element("rect", class_="queued", x=begin, y=top, width=start - begin, height=height, rx=3))
        parts.append(element("rect", class_="run", x=start, y=top, width=end - start, height=height, rx=3))
    for time in job.chunks[:_MOST_MARKS]:
        x = _x(time, scale)
        parts.append(element("line", class_="mark", x1=x, x2=x, y1=top + height - 5, y2=top + height))
    parts += [
        element("circle", class_="update", cx=_x(time, scale), cy=top + height - 3, r=1.8)
        for time in job.updates[:_MOST_MARKS]
    ]
    if job.cancelled is not None:
        x = _x(job.cancelled, scale)
        parts.append(element("path", class_="cross", d=f"M{x - 4:.1f} {top + 5:.1f} l8 8 m0 -8 l-8 8"))
    label = f"{job.name or 'a job'} {job.job_id}"
    if job.begun is not None:
        begin = start
    parts.append(text(shortened(label, end - begin - 12), begin + 6, top + 13))
    return element("g", *parts, title=_title(job), class_=job.outcome)


def _title(job: RecordedJob) -> str:
    lines = [f"{job.name or 'a job'} ({job.job_id}) of {job.requester}, asked of {job.worker} at {in_time(job.asked)}"]
    if job.attempt > 1:
        lines.append(f"attempt {job.attempt}")
    if job.parent is not None:
        lines.append(f"in job {job.parent[0]} of {job.parent[1]}")
    if job.begun is not None:
        lines.append(f"began after {in_time(job.begun - job.asked)}, at {job.handler}")
    if job.updates:
        lines.append(f"{len(job.updates)} update{'s' * (len(job.updates) > 1)}")
    if job.chunks:
        lines.append(f"{len(job.chunks)} chunk{'s' * (len(job.chunks) > 1)}")
    if job.cancelled is not None:
        lines.append(f"told to stop at {in_time(job.cancelled)}")
    if job.answered is None:
        lines.append("no answer")
    else:
        lines.append(f"{job.outcome} after {in_time(job.answered - job.asked)}")
    if job.reason is not None:
        lines.append(f"reason: {job.reason}")
    lines.append(f"payload about {in_bytes(job.size)}, answer about {in_bytes(job.answer_size)}")
    return "\n".join(lines)


def _step(length: float) -> float:
    """Return how far the marks of the axis are from each other: 1, 2 or 5 times a power of ten, at most ten marks."""
    if length <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(length / 10))
    return next(power * times for times in (1, 2, 5, 10, 20) if length / (power * times) <= 10)


def _axis(length: float, scale: float, bottom: float) -> list[str]:
    """Return the lines of the axis, and then its numbers."""
    step = _step(length)
    marks = [each * step for each in range(int(length / step + 1e-9) + 1)] if scale else [0.0]
    paths = " ".join(f"M{number(_x(time, scale))} {_TOP - 6:.0f} V{number(bottom)}" for time in marks)
    texts = [text(in_time(round(time, 9)), _x(time, scale), 20, class_="faint", text_anchor="middle") for time in marks]
    return [*texts, element("path", class_="line", d=paths, stroke_opacity="0.6")]


def _legend(y: float) -> list[str]:
    parts: list[str] = []
    x = 10.0
    for outcome in _LEGEND:
        parts.append(element("rect", class_=f"run {outcome}", x=x, y=y - 9, width=12.0, height=11.0, rx=2))
        parts.append(text(outcome, x + 17, y, class_="faint"))
        x += 36 + len(outcome) * 6.2
    for shape, word in (("queued", "queued"), ("waits", "a requester waits")):
        parts.append(element("rect", class_=f"{shape} ink", x=x, y=y - 9, width=12.0, height=11.0, rx=2))
        parts.append(text(word, x + 17, y, class_="faint"))
        x += 36 + len(word) * 6.2
    parts.append(text("| chunk   • update   \N{MULTIPLICATION SIGN} told to stop", x, y, class_="faint"))
    return parts
