"""The tables: what everything takes, and the ratios with their spread."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks._contenders import Contender
from benchmarks._goals import outcomes
from benchmarks._growth import MOST, exponents
from benchmarks._numbers import Row, digits, quantity, ratio, rows_of, say_ratio
from benchmarks._results import Cell, Results, Spread
from benchmarks._subject import GROWTH, JOBS, Subject

ABREAST = 4
"""How many columns of exponents fit beside each other."""

DASH = Text("-", style="dim")

LEGEND = """\
Medians of {what} over {rounds}, and below them the minima. Ratios are taken within each round: their median,
and in brackets the smallest and the largest. Peer / workerbus: more is better for workerbus. Workerbus / floor (bare
anyio on the same backend, bare asyncio): 1 would be the best there can be. A dash: it has no such thing. --list says
what every side does."""


def ratio_text(spread: Spread | None) -> Text:
    """Return a ratio with its spread."""
    if spread is None:
        return DASH
    text = Text(digits(spread.median))
    if len(spread.values) > 1:
        text.append(f" ({digits(spread.low)}-{digits(spread.high)})", style="dim")
    return text


def head(other: Contender) -> str:
    """Return what is divided by what."""
    return f"workerbus\n/ {other.short}" if other.role == "floor" else f"{other.short}\n/ workerbus"


def table(title: str, heads: Iterable[str]) -> Table:
    """Return an empty table."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    made.add_column("", no_wrap=True)
    for head in heads:
        made.add_column(head, justify="right", no_wrap=True)
    return made


class Tables:
    """Prints results.

    Args:
        console: Where.
        contenders: Everybody, in the order of the columns.
        results: What they did.
    """

    def __init__(self, console: Console, contenders: Sequence[Contender], results: Results) -> None:
        self._console = console
        self._contenders = [each for each in contenders if each.name in results.took_part]
        self._results = results

    def show(self, subjects: Sequence[Subject]) -> None:
        """Print everything."""
        for group in dict.fromkeys(subject.group for subject in subjects):
            members = [each for each in subjects if each.group == group]
            rows = rows_of(members, self._results)
            if group == GROWTH:
                self._exponents(members)
            elif rows:
                self._times(group, rows)
                self._ratios(group, [row for row in rows if row.value.compares])
            if group == JOBS:
                self._own_part(members)
        self._growth([each for each in subjects if each.group != GROWTH])
        self._goals()
        self._notes()

    def _times(self, group: str, rows: Sequence[Row]) -> None:
        times = table(group, (contender.title for contender in self._contenders))
        for row in rows:
            label = Text(row.title).append(f"\n  {row.what}", style="dim")
            times.add_row(label, *(self._time(row, each.name) for each in self._contenders))
        self._print(times)

    def _time(self, row: Row, contender: str) -> Text:
        cell = row.cell(contender)
        if cell in self._results.failed:
            return Text("failed", style="red")
        spread = self._results.spread(cell, row.value.key)
        if spread is None:
            return DASH
        text = Text(quantity(spread.median, row.value.kind))
        if len(spread.values) > 1:
            text.append(f"\n{quantity(spread.low, row.value.kind)}", style="dim")
        return text

    def _ratios(self, group: str, rows: Sequence[Row]) -> None:
        for ours in self._contenders:
            others = [
                each
                for each in self._contenders
                if each.comparable(ours) and any(ratio(self._results, row, ours, each) for row in rows)
            ]
            if ours.role != "ours" or not others or not rows:
                continue
            ratios = table(f"{group}: ratios of {' on '.join(ours.title.split())}", map(head, others))
            for row in rows:
                ratios.add_row(row.title, *(ratio_text(ratio(self._results, row, ours, each)) for each in others))
            self._print(ratios)

    def _exponents(self, subjects: Sequence[Subject]) -> None:
        sides = [
            each
            for each in self._contenders
            if any(exponents(self._results, subject, each.name) is not None for subject in subjects)
        ]
        rows = []
        for subject in subjects:
            sizes = self._results.sizes(subject.name)
            if sizes:
                rows.append((Row(subject, subject.values[0], sizes[-1]), sizes[0]))
        for some in (sides[start : start + ABREAST] for start in range(0, len(sides), ABREAST)):
            made = table(
                "Growth: exponent (1 is linear), and the time of one of the most", (each.title for each in some)
            )
            for row, least in rows:
                label = Text(row.title).append(f"\n  {least:,} to {row.size:,}, {row.what}", style="dim")
                made.add_row(label, *(self._exponent(row, each.name) for each in some))
            self._print(made)
        self._ratios("Growth, at the largest size", [row for row, _ in rows])

    def _exponent(self, row: Row, contender: str) -> Text:
        spread = exponents(self._results, row.subject, contender)
        if any(cell.subject == row.subject.name and cell.contender == contender for cell in self._results.failed):
            return Text("failed", style="red")
        if spread is None:
            return DASH
        text = Text(f"{spread.median:.2f}", style="red" if spread.median > MOST else "")
        if len(spread.values) > 1:
            text.append(f" ({spread.low:.2f}-{spread.high:.2f})", style="dim")
        time = self._results.spread(row.cell(contender), row.value.key)
        last = exponents(self._results, row.subject, contender, last=2)
        if time is not None and last is not None:
            text.append(f"\n{quantity(time.median, 'time')}, last {last.median:.2f}", style="dim")
        return text

    def _own_part(self, subjects: Sequence[Subject]) -> None:
        for subject in (each for each in subjects if each.name == "job_least"):
            for ours, floor in ((each, f"anyio-{each.backend}") for each in self._contenders if each.role == "ours"):
                for size in self._results.sizes(subject.name):
                    whole = self._results.spread(Cell(subject.name, size, ours.name), "seconds")
                    least = self._results.spread(Cell(subject.name, size, floor), "seconds")
                    if whole is None or least is None:
                        continue
                    took, needed, own = (
                        quantity(number, "time") for number in (whole.median, least.median, whole.median - least.median)
                    )
                    self._console.print(
                        f"{' on '.join(ours.title.split())}: a job takes {took}; nobody can do without {needed} of it, "
                        f"the other {own} are the library's own.",
                        highlight=False,
                    )
                    self._console.print()

    def _goals(self) -> None:
        rows = outcomes(self._results, self._contenders)
        if not rows:
            return
        backends = [each.backend for each in self._contenders if each.role == "ours"]
        made = table("Goals", [head for each in backends for head in (f"goal\n{each}", f"measured\n{each}")])
        for title, row in rows:
            cells: list[Text] = []
            for backend in backends:
                each = row.get(backend)
                if each is None:
                    cells += [DASH, DASH]
                else:
                    cells += [Text(each.goal), Text(each.measured, style="" if each.reached else "red")]
            made.add_row(title, *cells)
        self._print(made)

    def _growth(self, subjects: Sequence[Subject]) -> None:
        growth = table("How the time grows with the size", (each.title for each in self._contenders))
        for subject in subjects:
            sizes = self._results.sizes(subject.name)
            if len(sizes) < 2:
                continue
            value, least, most = subject.values[0], sizes[0], sizes[-1]
            pairs = [
                (Cell(subject.name, most, each.name), Cell(subject.name, least, each.name)) for each in self._contenders
            ]
            spreads = [self._results.ratio(large, small, value.key) for large, small in pairs]
            medians = [DASH if spread is None else Text(say_ratio(spread.median)) for spread in spreads]
            growth.add_row(f"{value.title.format(f'{most:,}')}, beside {least:,}", *medians)
        if growth.row_count:
            self._print(growth)

    def _print(self, made: Table) -> None:
        self._console.print(made)
        self._console.print()

    def _notes(self) -> None:
        results, say = self._results, self._console.print
        what = "processor time" if results.by_cpu else "time"
        number = f"{results.rounds} round{'s' * (results.rounds != 1)}"
        say(LEGEND.format(what=what, rounds=number), style="dim", highlight=False)
        say(f"Python {results.python}; " + ", ".join(f"{name} {number}" for name, number in results.versions.items()))
        for name, reason in results.left_out.items():
            say(f"Left out: {name}: {reason}", markup=False)
        for cell, reason in results.failed.items():
            say(f"Failed: {cell.contender}, {cell.subject} of {cell.size:,}: {reason}", style="red", markup=False)
        few: dict[str, list[str]] = {}
        for cell, rounds in results.samples.items():
            if len(rounds) < results.rounds:
                few.setdefault(cell.contender, []).append(f"{cell.subject} of {cell.size:,} ({len(rounds)})")
        for contender, cells in few.items():
            say(f"Fewer rounds, as they take long: {contender}: {', '.join(cells)}")
