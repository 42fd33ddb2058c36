"""Survey a tree of Python source: how much is in it, what is documented, which function is the longest.

    python examples/survey.py                      the standard library of this Python
    python examples/survey.py src --json out.json  any other tree, the figures as JSON too
    python examples/survey.py --backend trio --workers 4

How it works:

* A `Coordinator` has a pool of `Parser` workers as its child, and asks it for a job for each file, the largest first.
* Each file goes to the parser that is free. What the handler takes and gives are dataclasses, as it is annotated.
* The answers are read as they come, and no more files are under way than there are parsers.
* When the coordinator's `run` returns, its pool ends; the runner ends with its last worker.
* The runner turns Ctrl-C into a cancellation of all this, and `runner.signal` says so afterwards.

Threads keep the event loop free while files are parsed. Where Python has a global lock, they make nothing faster.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports: there is nothing to clean up yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import ast
import io
import json
import platform
import sys
import sysconfig
import time
import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import anyio
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from workerbus import BaseWorker, WorkerParams, WorkerPool, WorkerRunner, job

CPUS = max(2, os.cpu_count() or 1)
STDLIB = Path(sysconfig.get_path("stdlib"))
NOT_STDLIB = frozenset({"site-packages", "dist-packages", "__pycache__"})

Files = dict[str, int]
"""Paths of files, relative to the root, and their sizes in bytes."""


# --- what is counted


@dataclass
class Counts:
    """The figures of a file, a package or a tree."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    documented: int = 0
    documentable: int = 0
    longest_function: dict[str, Any] | None = None

    @property
    def docstring_share(self) -> float | None:
        return self.documented / self.documentable if self.documentable else None

    def add(self, other: "Counts") -> None:
        for figure in ("files", "lines", "functions", "classes", "documented", "documentable"):
            setattr(self, figure, getattr(self, figure) + getattr(other, figure))
        self.longest_function = longest(self.longest_function, other.longest_function)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "docstring_share": self.docstring_share}


def longest(*functions: dict[str, Any] | None) -> dict[str, Any] | None:
    return min(filter(None, functions), key=lambda it: (-it["lines"], it["file"], it["line"]), default=None)


@dataclass
class Result:
    """What is in a file, or why that is not known."""

    counts: Counts | None = None
    reason: str = ""
    parser: str = ""


def measure(root: str, file: str) -> Result:
    """Count what is in a file, or say why it does not parse. Runs in a thread, and knows nothing of workers."""
    path = Path(root, file)
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # reading a pipe, say, might never end
        source = path.read_bytes()
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        text = getattr(exc, "msg", None) or getattr(exc, "strerror", None) or str(exc) or "nested too deeply"
        where = f" (line {exc.lineno})" if isinstance(exc, SyntaxError) and exc.lineno else ""
        return Result(reason=f"{type(exc).__name__}: {text}{where}")
    counts = Counts(files=1, lines=len(source.splitlines()))
    nodes: list[tuple[ast.AST, str]] = [(tree, "")]
    while nodes:
        node, prefix = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            counts.documentable += 1
            counts.documented += ast.get_docstring(node, clean=False) is not None
        if isinstance(node, ast.ClassDef):
            counts.classes += 1
            prefix += f"{node.name}."
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            function = {"name": prefix + node.name, "file": file, "line": node.lineno, "lines": lines}
            counts.functions += 1
            counts.longest_function = longest(counts.longest_function, function)  # never one inside another
        below = ast.iter_child_nodes(node)  # of these, expressions hold no definitions
        nodes += [(each, prefix) for each in below if isinstance(each, ast.stmt | ast.excepthandler | ast.match_case)]
    return Result(counts)


@dataclass
class Survey:
    """The figures so far."""

    packages: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    unparsed: list[dict[str, str]] = field(default_factory=list)

    def add(self, file: str, result: Result) -> None:
        folder, slash, _ = file.partition("/")
        self.packages[folder if slash else "(modules)"].add(result.counts or Counts(files=1))
        if result.counts is None:
            self.unparsed.append({"file": file, "reason": result.reason})

    def by_size(self) -> list[tuple[str, Counts]]:
        return sorted(self.packages.items(), key=lambda item: (-item[1].lines, item[0]))

    def totals(self) -> Counts:
        totals = Counts()
        for counts in self.packages.values():
            totals.add(counts)
        return totals

    def as_json(self) -> dict[str, Any]:
        packages = {name: counts.as_json() for name, counts in self.by_size()}
        unparsed = sorted(self.unparsed, key=lambda result: result["file"])
        return {"totals": self.totals().as_json(), "packages": packages, "unparsed": unparsed}


# --- the workers


@dataclass
class File:
    """A file that is to be parsed."""

    root: str
    path: str


class Parser(BaseWorker):
    """Parses files, each of them in a thread."""

    @job(name="parse")
    async def parse(self, file: File) -> Result:
        # When the job is cancelled, the thread is left alone; it ends with its file.
        result = await anyio.to_thread.run_sync(measure, file.root, file.path, abandon_on_cancel=True)
        return replace(result, parser=self.name)


class Coordinator(BaseWorker):
    """Has the files parsed, shows how far that is, and keeps the results in `survey`."""

    def __init__(self, root: Path, files: Files, workers: int) -> None:
        super().__init__("coordinator")
        self.survey = Survey()
        self._root = str(root)
        self._files = files
        self._parsers = WorkerPool("parsers", Parser, size=workers)

    async def run(self, params: WorkerParams) -> None:
        await self.add_workers(self._parsers)
        await self.start()
        largest_first = sorted(self._files, key=lambda path: (-self._files[path], path))
        files = (File(self._root, path) for path in largest_first)
        with Bars(self._files, self._parsers.size) as bars:
            async with self._parsers.map(Parser.parse, files) as answers:
                async for answer in answers:
                    self.survey.add(answer.payload.path, answer.response)
                    bars.advance_with(answer.response.parser, answer.payload.path)


async def run(coordinator: Coordinator) -> bool:
    """Run the coordinator to its end; returns whether that was its own end, and not Ctrl-C."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = CPUS  # more would only be in each other's way
    runner = WorkerRunner()
    await runner.add_workers(coordinator)
    await runner.run()
    return runner.signal is None


# --- the program around them


def find_files(root: Path, skip: frozenset[str]) -> Files:
    files: Files = {}
    for folder, folders, names in os.walk(root, onerror=lambda exc: print(f"survey.py: {exc}", file=sys.stderr)):
        folders[:] = set(folders) - skip
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            files[path.relative_to(root).as_posix()] = path.stat().st_size if path.is_file() else 0
    return files


class Bars(Progress):
    """A bar for all files, and one for what each parser has done of them."""

    def __init__(self, files: Files, parsers: int) -> None:
        console = Console(stderr=True)
        name = Column(no_wrap=True, overflow="ellipsis", max_width=28)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(max(10, console.width - 60)),  # the rest has room, and so has the terminal's ^C
            TextColumn("{task.fields[files]:,}/{task.fields[of]:,} files", justify="right"),
            TextColumn("{task.fields[file]}", style="dim", markup=False, table_column=name),
            console=console,
            disable=not console.is_interactive,
        )
        self._sizes = files
        names = ["all", *(f"parsers/{number}" for number in range(1, parsers + 1))]
        total = sum(files.values())
        self._rows = {name: self.add_task(name, total=total, files=0, of=len(files), file="") for name in names}

    def advance_with(self, parser: str, file: str) -> None:
        for row in (self._rows["all"], self._rows[parser]):
            done = self.tasks[row].fields["files"] + 1
            self.update(row, advance=self._sizes[file], files=done, file=file if row else "")


def summary(survey: Survey, title: str, caption: str, width: int) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", width=width)
    table.box, table.padding, table.pad_edge, table.show_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False, False
    table.add_column("package", no_wrap=True, overflow="ellipsis", max_width=16)
    for heading in ("files", "lines", "functions", "classes", "docs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("longest function", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, counts in [*survey.by_size(), ("total", survey.totals())]:
        share, function = counts.docstring_share, counts.longest_function
        figures = [f"{figure:,}" for figure in (counts.files, counts.lines, counts.functions, counts.classes)]
        docs = "" if share is None else f"{share:.0%}"
        table.add_row(name, *figures, docs, f"{function['lines']:5,} {function['name']}" if function else "")
    table.rows[-2].end_section = True
    table.rows[-1].style = "bold"
    return table


def is_writable(file: Path) -> bool:
    place = file if file.exists() else file.parent
    return file.parent.is_dir() and not file.is_dir() and os.access(place, os.W_OK)


class Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def arguments() -> tuple[argparse.Namespace, Files]:
    parser = Arguments(description="Survey a tree of Python source.")
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, default=STDLIB, help="default: %(default)s")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    parser.add_argument("--workers", metavar="N", type=int, default=CPUS, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where to write the figures as JSON")
    given = parser.parse_args()
    if given.workers < 1:
        parser.error(f"--workers: at least 1, not {given.workers}")
    if not given.path.is_dir():
        parser.error(f"{str(given.path)!r} is not a directory")
    if given.json and not is_writable(given.json):
        parser.error(f"--json: {str(given.json)!r} cannot be written")
    given.path = given.path.absolute()
    files = find_files(given.path, NOT_STDLIB if given.path == STDLIB else frozenset())
    if not files:
        parser.error(f"{str(given.path)!r} has no .py files in it")
    return given, files


def main() -> int:
    given, files = arguments()
    warnings.simplefilter("ignore", SyntaxWarning)  # they would be about the files
    warnings.simplefilter("ignore", DeprecationWarning)
    started = time.monotonic()
    coordinator = Coordinator(given.path, files, given.workers)
    if not anyio.run(run, coordinator, backend=given.backend):
        return 130
    seconds = time.monotonic() - started
    about = {"root": str(given.path), "python": platform.python_version()}
    about |= {"backend": given.backend, "workers": given.workers}
    figures = about | coordinator.survey.as_json()
    caption = f"{len(files):,} files in {seconds:.1f} s by {given.workers} workers on {given.backend}"
    if figures["unparsed"]:
        caption += f"; {len(figures['unparsed'])} do not parse and count as files only:"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(summary(coordinator.survey, str(given.path), caption, min(console.width, 120)))
    for result in figures["unparsed"]:
        console.print(f"{result['file']}: {result['reason']}", soft_wrap=True)
    if given.json:
        try:
            given.json.write_text(json.dumps(figures, indent=2) + "\n")
        except OSError as exc:
            sys.exit(f"survey.py: --json: {exc}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # from before the runner listens, or the second one
        Console(stderr=True).show_cursor()
        sys.exit(130)
