"""What a change costs: workerbus of this tree beside that of another, interleaved in one run of under three minutes.

``python -m benchmarks.beside DIR`` prints, for each line, how many times as long this tree takes as the one in ``DIR``,
by processor time: the median over the rounds, and between which two numbers the middle half of them lies. Messages,
hooks, jobs, groups and streams are the subjects of ``python -m benchmarks``, at sizes of its own.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import anyio
from attrs import evolve, frozen
from rich.console import Console
from rich.text import Text

from benchmarks._contenders import CONTENDERS, Contender, beside
from benchmarks._measure import Plan, measure
from benchmarks._numbers import quantity
from benchmarks._results import Cell, Results, Spread
from benchmarks._subject import Subject
from benchmarks._subjects import SUBJECTS
from benchmarks._table import DASH, table

SECONDS = 150.0
RENEW = 1
"""After so many rounds everybody gets a new process: two of the same tree may differ by a tenth, throughout."""


@frozen
class Case:
    """One measurement.

    Args:
        name: The subject.
        size: Its size.
        count: How often it is done.
        work: Whether the size is how much there is to do.
    """

    name: str
    size: int
    count: int
    work: bool = False

    def scaled(self, share: float) -> "Case":
        """Return it with less to do."""
        count = max(1, int(self.count * share))
        if self.work:
            return evolve(self, size=max(10, count), count=max(10, count))
        return evolve(self, count=max(self.size, count) if self.name == "in_flight" else count)


@frozen
class Line:
    """Something that a change may cost so much.

    Args:
        title: What it is called.
        most: How many times as long this tree may take.
        cases: What is measured for it.
    """

    title: str
    most: float
    cases: tuple[Case, ...]

    def scaled(self, share: float) -> "Line":
        """Return it with less to do."""
        return evolve(self, cases=tuple(case.scaled(share) for case in self.cases))


LINES = (
    Line("flood", 1.25, (Case("flood", 1, 20_000),)),
    Line("targeted", 1.25, (Case("targeted", 100, 10_000),)),
    Line("broadcast with a backlog", 1.45, (Case("broadcast", 100, 500),)),
    Line("idle wake", 1.1, (Case("wake", 1, 2_000),)),
    Line("idle broadcast", 1.1, (Case("broadcast_wake", 100, 60),)),
    Line(
        "worker hooks", 1.1, (Case("flood_worker", 1, 10_000), Case("wake_worker", 1, 2_000), Case("hooks", 1, 4_000))
    ),
    Line("jobs", 1.03, (Case("job", 1, 1_000), Case("job_timeout", 1, 800), Case("in_flight", 100, 1_000))),
    Line("groups", 1.03, (Case("group", 10, 150), Case("group", 100, 15))),
    Line("streams", 1.03, (Case("stream", 5_000, 5_000, True), Case("stream_paced", 2_000, 2_000, True))),
)


def subjects_of(lines: Sequence[Line]) -> list[Subject]:
    """Return the subjects, at the sizes of the lines."""
    sizes: dict[str, dict[int, int]] = {}
    for line in lines:
        for case in line.cases:
            sizes.setdefault(case.name, {})[case.size] = case.count
    return [evolve(SUBJECTS[name], full=full) for name, full in sizes.items()]


def sides(directory: str, backends: Sequence[str]) -> list[tuple[Contender, Contender]]:
    """Return this tree's and the other's contender for each backend."""
    ours = [each for each in CONTENDERS if each.role == "ours"]
    others = beside(directory)
    return [
        (our, other) for our in ours for other in others if our.backend == other.backend and our.backend in backends
    ]


def middle(spread: Spread) -> tuple[float, float]:
    """Return between which numbers the middle half lies."""
    if len(spread.values) < 2:
        return spread.low, spread.high
    lower, _, upper = quantiles(spread.values, n=4, method="inclusive")
    return lower, upper


def verdict(spread: Spread | None, most: float) -> Text:
    """Return a ratio, its spread, and whether it is too much."""
    if spread is None:
        return DASH
    lower, upper = middle(spread)
    text = Text(f"{spread.median:.3f}", style="red" if spread.median > most else "")
    text.append(f" ({lower:.2f}-{upper:.2f})", style="dim")
    return text.append(" over" if spread.median > most else "     ", style="red")


def compared(results: Results, case: Case, our: Contender, other: Contender, most: float) -> tuple[Text, Text]:
    """Return the ratio and the time of this tree."""
    mine, theirs = (Cell(case.name, case.size, each.name) for each in (our, other))
    if {mine, theirs} & results.failed.keys():
        return Text("failed", style="red"), DASH
    took = results.spread(mine, "cpu")
    time = DASH if took is None else Text(quantity(took.median, "time"))
    return verdict(results.ratio(mine, theirs, "cpu"), most), time


def show(
    console: Console, lines: Sequence[Line], both: Sequence[tuple[Contender, Contender]], results: Results
) -> None:
    """Print the table."""
    heads = [head for our, _ in both for head in (f"this / that\n{our.backend}", f"this tree\n{our.backend}")]
    made = table("This tree beside the other, processor time", ["at most", *heads])
    for line in lines:
        for case in line.cases:
            title = SUBJECTS[case.name].values[0].title.format(f"{case.size:,}")
            row = [part for our, other in both for part in compared(results, case, our, other, line.most)]
            made.add_row(Text(line.title).append(f"\n  {title}", style="dim"), f"{line.most:g}", *row)
    console.print(made)
    console.print()
    console.print(
        f"Medians over {results.rounds} rounds, in brackets the middle half; new processes in each round.",
        style="dim",
        highlight=False,
    )
    for which, each in zip(("This", "That"), both[0], strict=True):
        source = results.sources.get(each.name, "nowhere")
        console.print(f"{which} tree: {source}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if results.sources.get(both[0][0].name) == results.sources.get(both[0][1].name):
        console.print("Both are the same!", style="red")
    for name, reason in results.left_out.items():
        console.print(f"Left out: {name}: {reason}", markup=False)
    for cell, reason in results.failed.items():
        console.print(f"Failed: {cell.contender}, {cell.subject} of {cell.size:,}: {reason}", style="red", markup=False)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    add = made.add_argument
    add("directory", metavar="DIR", help="the other source tree")
    add("--line", metavar="TITLE", action="append", default=[], help="one line alone; may be repeated")
    add("--backend", choices=["asyncio", "trio"], action="append", help="default: both")
    add("--seconds", type=float, default=SECONDS, help="as many rounds as fit into these; default: %(default)g")
    add("--rounds", type=int, default=1_000_000, help="no more than so many")
    add("--share", type=float, default=1.0, help="of the work in one measurement; less only shows that it works")
    add("--json", metavar="FILE", type=Path, help="write everything there, round by round")
    return made


def main() -> None:
    """Measure and print."""
    commands = parser()
    options = commands.parse_args()
    lines = [each.scaled(options.share) for each in LINES if not options.line or each.title in options.line]
    if unknown := set(options.line) - {each.title for each in LINES}:
        commands.error(f"there is no line {min(unknown)!r}; there are {', '.join(each.title for each in LINES)}")
    if not Path(options.directory).is_dir():
        commands.error(f"there is no directory {options.directory}")
    both = sides(options.directory, options.backend or ["asyncio", "trio"])
    results = Results()
    contenders = [each for pair in both for each in pair]
    plan = Plan(
        contenders, subjects_of(lines), options.rounds, patience=options.seconds, seconds=options.seconds, renew=RENEW
    )
    errors = Console(stderr=True)
    with errors.status("starting") as status:
        try:
            anyio.run(measure, plan, results, status.update)
        except KeyboardInterrupt:
            errors.print("interrupted: what follows is what there was until then")
    show(Console(), lines, both, results)
    if options.json is not None:
        options.json.write_text(json.dumps(results.to_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
