"""Measures workerbus beside its peers and the floor, interleaved in one run."""

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

import anyio
from rich.console import Console

from benchmarks._contenders import CONTENDERS, Contender, also, beside
from benchmarks._goals import markdown, outcomes
from benchmarks._measure import Plan, choose, measure
from benchmarks._results import Results
from benchmarks._subject import Subject
from benchmarks._subjects import SUBJECTS
from benchmarks._table import Tables

ROUNDS, QUICK_ROUNDS = 5, 2
PATIENCE, QUICK_PATIENCE = 8.0, 1.0


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = made.add_argument
    add("--quick", action="store_true", help="small sizes, few rounds: to see that it works; two minutes")
    add("--only", metavar="NAME", action="append", default=[], help="a subject; may be repeated")
    add(
        "--group",
        metavar="NAME",
        action="append",
        default=[],
        help="a table's subjects: growth, jobs …; may be repeated",
    )
    add("--contender", metavar="NAME", action="append", default=[], help="one who takes part; may be repeated")
    add("--beside", metavar="DIR", action="append", default=[], help="another workerbus, from that source tree")
    add("--also", metavar="MODULE", action="append", default=[], help="a contender of your own; see the README")
    add("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}, or {QUICK_ROUNDS} with --quick")
    add("--cpu", action="store_true", help="show processor time instead of time, where the machine is not idle")
    add("--limit", type=float, metavar="SECONDS", default=180.0, help="of one measurement; default: %(default)g")
    add(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="for one contender, subject and size; then it gets no more rounds; "
        f"default: {PATIENCE:g}, or {QUICK_PATIENCE:g} with --quick",
    )
    add("--json", metavar="FILE", type=Path, help="write everything there, round by round")
    add("--from", metavar="FILE", type=Path, dest="earlier", help="show an earlier run's --json instead of measuring")
    add("--markdown", metavar="FILE", type=Path, help="write the goals there, and what was measured, for the README")
    add("--plot", metavar="DIR", type=Path, help="draw one picture for each subject there")
    add("--list", action="store_true", help="say what there is, and what every side does")
    return made


def everybody(options: argparse.Namespace) -> list[Contender]:
    """Return who takes part; raise `LookupError` for an unknown one."""
    known = [*CONTENDERS, *map(also, options.also), *(each for path in options.beside for each in beside(path))]
    names = [each.name for each in known]
    for name in options.contender:
        if name not in names:
            raise LookupError(f"there is no contender {name!r}; there are {', '.join(names)}")
    return [each for each in known if not options.contender or each.name in options.contender]


def describe(console: Console) -> None:
    """Say what there is."""
    for subject in SUBJECTS.values():
        console.print(f"[bold]{subject.name}[/]\n{subject.about}\n", highlight=False)
    console.print("Contenders: " + ", ".join(each.name for each in CONTENDERS), highlight=False)


def run(plan: Plan, results: Results) -> None:
    """Measure; what there is when somebody presses Ctrl-C is kept."""
    console = Console(stderr=True)
    with console.status("starting") as status:
        try:
            anyio.run(measure, plan, results, status.update)
        except KeyboardInterrupt:
            console.print("interrupted: what follows is what there was until then")


def draw(contenders: Sequence[Contender], results: Results, directory: Path, subjects: Sequence[Subject]) -> None:
    """Draw the pictures."""
    plot = importlib.import_module("benchmarks._plot")  # here, as only this needs matplotlib
    drawn = plot.Pictures(contenders, results, directory).draw(subjects)
    Console().print(f"Drawn: {len(drawn)} pictures in {directory}")


def main() -> None:
    """Measure, print, write and draw, as asked."""
    commands = parser()
    options = commands.parse_args()
    console = Console()
    if options.list:
        describe(console)
        return
    try:
        contenders, subjects = everybody(options), choose(options.only, options.group)
    except LookupError as error:
        commands.error(str(error))
    if options.earlier is not None:
        results = Results.from_json(json.loads(options.earlier.read_text()))
    else:
        results = Results()
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        patience = (QUICK_PATIENCE if options.quick else PATIENCE) if options.patience is None else options.patience
        run(Plan(contenders, subjects, rounds, options.quick, options.limit, patience), results)
    results.by_cpu = options.cpu
    Tables(console, contenders, results).show(subjects)
    if options.json is not None:
        options.json.write_text(json.dumps(results.to_json(), indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(markdown(outcomes(results, contenders)))
    if options.plot is not None:
        draw(contenders, results, options.plot, subjects)


if __name__ == "__main__":
    main()
