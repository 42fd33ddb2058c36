"""The pictures: one for each subject, and one of all ratios. Needs matplotlib."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks._contenders import Contender
from benchmarks._numbers import Row, quantity, ratio, rows_of, say_ratio
from benchmarks._results import Results
from benchmarks._subject import GROWTH, Subject

COLOURS = {
    "workerbus-asyncio": "#0b5cad",
    "workerbus-trio": "#38a3d1",
    "pipecat": "#e07b00",
    "autogen": "#b03060",
    "pykka": "#6b4fa0",
    "anyio-asyncio": "#4d4d4d",
    "anyio-trio": "#8c8c8c",
    "asyncio": "#b8b8b8",
}
OTHERS = ("#2e8b57", "#9acd32", "#8b5a2b", "#d2a679")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
WIDTH, DPI, PALETTE = 8.0, 150, 64


def tick(number: float, kind: str) -> str:
    """Return a number for an axis."""
    return re.sub(r"\.0+(?=\D|$)", "", quantity(number, kind)) if number else "0"


class Pictures:
    """Draws results.

    Args:
        contenders: Everybody; the colours go by it.
        results: What they did.
        directory: Where the pictures go.
    """

    def __init__(self, contenders: Sequence[Contender], results: Results, directory: Path) -> None:
        self._contenders = [each for each in contenders if each.name in results.took_part]
        strangers = [each.name for each in contenders if each.name not in COLOURS]
        self._colours = COLOURS | dict(zip(strangers, OTHERS * len(strangers), strict=False))
        self._results = results
        self._directory = directory

    def draw(self, subjects: Sequence[Subject]) -> list[Path]:
        """Draw everything that was measured; return where."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            alone = [each for each in subjects if each.group != GROWTH]
            drawn = [path for subject in alone if (path := self._subject(subject))]
            together = [self._growth([each for each in subjects if each.group == GROWTH]), self._overview(alone)]
        return [*drawn, *(path for path in together if path is not None)]

    def _save(self, figure: Figure, name: str) -> Path:
        path = self._directory / f"{name}.png"
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=DPI)
        Image.open(drawn).quantize(PALETTE).save(path, optimize=True)
        return path

    def _headline(self, title: str, row: Row) -> str:
        clock = ", processor time" if self._results.by_cpu and row.value.kind == "time" else ""
        return f"{title[0].upper()}{title[1:]}, {row.what}{clock}"

    def _subject(self, subject: Subject) -> Path | None:
        rows = [row for row in rows_of([subject], self._results) if row.value is subject.values[0]]
        if not rows:
            return None
        figure = Figure(figsize=(WIDTH, 4.0 if len(rows) > 1 else 3.0), layout="constrained")
        axes = figure.add_subplot()
        if len(rows) > 1:
            self._lines(axes, rows)
        else:
            self._bars(axes, rows[0])
        return self._save(figure, subject.name)

    def _lines(self, axes: Axes, rows: Sequence[Row]) -> None:
        value = rows[0].value
        for contender in self._contenders:
            spreads = [(row.size, self._results.spread(row.cell(contender.name), value.key)) for row in rows]
            points = [(size, spread) for size, spread in spreads if spread is not None]
            if not points:
                continue
            sizes, medians = [size for size, _ in points], [spread.median for _, spread in points]
            colour, floor = self._colours[contender.name], contender.role == "floor"
            axes.plot(
                sizes,
                medians,
                color=colour,
                marker="o",
                markersize=4,
                linestyle=":" if floor else "-",
                linewidth=2.5 if contender.role == "ours" else 1.5,
                zorder=3 if contender.role == "ours" else 2,
                label=" ".join(contender.title.split()) + (" (floor)" if floor else ""),
            )
            lows, highs = [spread.low for _, spread in points], [spread.high for _, spread in points]
            axes.fill_between(sizes, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([row.size for row in rows], [f"{row.size:,}" for row in rows])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda number, _: tick(number, value.kind))
        axes.grid(color="#e6e6e6")
        axes.set_title(self._headline(value.title.format("N"), rows[0]), loc="left", fontweight="bold")
        axes.set_xlabel("N")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

    def _bars(self, axes: Axes, row: Row) -> None:
        results, kind = self._results, row.value.kind
        spreads = [(each, results.spread(row.cell(each.name), row.value.key)) for each in self._contenders]
        shown = [(each, spread) for each, spread in spreads if spread is not None]
        ours = next((each for each, _ in shown if each.role == "ours"), None)
        for place, (each, spread) in enumerate(shown):
            axes.barh(place, spread.median, color=self._colours[each.name], height=0.7)
            axes.plot([spread.low, spread.high], [place, place], color="black", linewidth=1)
            label = quantity(spread.median, kind)
            beside = (
                None
                if ours is None or each is ours or not row.value.compares
                else results.ratio(row.cell(each.name), row.cell(ours.name), row.value.key)
            )
            if beside is not None:
                label += f"  ({say_ratio(beside.median)})"
            axes.annotate(
                label, (max(spread.high, spread.median), place), (5, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(shown)), [" ".join(each.title.split()) for each, _ in shown])
        axes.invert_yaxis()
        axes.margins(x=0.22)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda number, _: tick(number, kind))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e6e6e6")
        if ours is not None and row.value.compares:
            axes.set_xlabel(f"in brackets: beside {' on '.join(ours.title.split())}")
        axes.set_title(self._headline(row.title, row), loc="left", fontweight="bold")

    def _growth(self, subjects: Sequence[Subject]) -> Path | None:
        ours = [each for each in self._contenders if each.role == "ours"]
        lines = [
            (each, subject, points)
            for each in ours
            for subject in subjects
            if len(points := self._beside_smallest(subject, each.name)) > 1
        ]
        if not lines:
            return None
        top = max(3.0, *(1.1 * time for _, _, points in lines for _, time in points))
        figure = Figure(figsize=(WIDTH, 0.8 + 0.62 * len(subjects)), layout="constrained")
        panels = figure.subplots(len(subjects), len(ours), sharex=True, sharey=True, squeeze=False)
        for number, subject in enumerate(subjects):
            panels[number][0].set_ylabel(subject.values[0].title, rotation=0, ha="right", va="center", fontsize=8)
            for column, each in enumerate(ours):
                axes = panels[number][column]
                axes.axhline(1, color="black", linewidth=0.6)
                axes.set_xscale("log")
                axes.set_ylim(0, top)
                axes.set_xticks([1, 2, 4, 8], ["n", "2n", "4n", "8n"])
                axes.minorticks_off()
                axes.set_yticks([1, 2], ["1x", "2x"])
                axes.grid(color="#e6e6e6")
                if not number:
                    axes.set_title(" on ".join(each.title.split()), loc="left", fontweight="bold")
                points = self._beside_smallest(subject, each.name)
                axes.plot(*zip(*points, strict=True), color=self._colours[each.name], marker="o", markersize=3)
        figure.suptitle("Time of one, beside one of n: flat is linear growth", x=0.01, ha="left", fontweight="bold")
        return self._save(figure, "growth")

    def _beside_smallest(self, subject: Subject, contender: str) -> list[tuple[float, float]]:
        rows = rows_of([subject], self._results)
        spreads = [(row.size, self._results.spread(row.cell(contender), row.value.key)) for row in rows]
        points = [(size, spread.median) for size, spread in spreads if spread is not None]
        return [(size / points[0][0], time / points[0][1]) for size, time in points]

    def _overview(self, subjects: Sequence[Subject]) -> Path | None:
        rows = [row for row in rows_of(subjects, self._results) if row.value.compares]
        ours = next((each for each in self._contenders if each.role == "ours"), None)
        peers = [each for each in self._contenders if each.role in ("peer", "other")]
        if not rows or ours is None or not peers:
            return None
        figure = Figure(figsize=(WIDTH, 1.2 + 0.28 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(1, color="black", linewidth=1)
        for peer in peers:
            spreads = [(place, ratio(self._results, row, ours, peer)) for place, row in enumerate(rows)]
            points = [(place, spread) for place, spread in spreads if spread is not None]
            axes.scatter(
                [spread.median for _, spread in points],
                [place for place, _ in points],
                color=self._colours[peer.name],
                s=36,
                label=" on ".join(peer.title.split()),
            )
            for place, spread in points:
                axes.plot([spread.low, spread.high], [place, place], color=self._colours[peer.name], linewidth=1.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}x")
        axes.set_yticks(range(len(rows)), [row.title for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(color="#e6e6e6")
        axes.set_title(f"Times as long as {' on '.join(ours.title.split())}", loc="left", fontweight="bold")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=len(peers), frameon=False)
        return self._save(figure, "overview")
