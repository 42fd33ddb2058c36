"""Survey a tree of Python source: how much is in it, what is documented, which function is the longest.

    python examples/survey.py                      the standard library of this Python
    python examples/survey.py src --json out.json  any other tree, with the figures as JSON
    python examples/survey.py --backend trio --workers 4

How it works, for readers who came to learn the library:

* The `Coordinator` has several `Parser` workers as its children and asks them all for one job: a job group.
* A group shares one payload, so the payload has a share of the files for each worker, by its name.
* A parser says with job updates what it is at, and streams one result per file. The coordinator iterates over both.
* When the coordinator's `run` returns, its children end, and with the last worker the runner.
* Ctrl-C cancels the run: the runner listens for it, the job handlers are cancelled, and `runner.signal` tells afterwards.

Threads keep the event loop free while files are parsed. On a Python with a global lock they do not parse any faster.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports: there is nothing to clean up yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import ast
import json
import platform
import sys
import sysconfig
import time
import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import anyio
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from workerbus import BaseWorker, BusJobRequestMessage, JobGroupEvent, WorkerParams, WorkerRunner, job

Sizes = dict[str, int]
"""Files, relative to the root, and their sizes in bytes."""


# --- what is counted


@dataclass
class Counts:
    """The figures of a file, of a package, or of everything."""

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
        longest = [counts.longest_function for counts in (self, other) if counts.longest_function]
        self.longest_function = min(longest, key=lambda it: (-it["lines"], it["file"], it["line"]), default=None)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "docstring_share": self.docstring_share}


def measure(root: str, file: str) -> dict[str, Any]:
    """Count what is in one file, or say why it cannot be parsed. Runs in a thread and knows nothing of workers."""
    path = Path(root, file)
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # a pipe, say, which would keep us waiting
        source = path.read_bytes()
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        return {"file": file, "reason": reason(exc)}
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
            counts.add(Counts(functions=1, longest_function=function))
            prefix += f"{node.name}.<locals>."
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):  # no expression holds a definition
                nodes.append((child, prefix))
    return {"file": file, "counts": asdict(counts)}


def reason(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        text = f"{exc.msg} (line {exc.lineno})" if exc.lineno else exc.msg
    else:
        text = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or "nested too deeply"
    return f"{type(exc).__name__}: {text}"


@dataclass
class Survey:
    """Everything that is known so far."""

    packages: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    unparsed: list[dict[str, str]] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        folder, slash, _ = result["file"].partition("/")
        package = self.packages[folder if slash else "(modules)"]
        if "reason" in result:
            package.add(Counts(files=1))
            self.unparsed.append(result)
        else:
            package.add(Counts(**result["counts"]))

    def by_size(self) -> list[tuple[str, Counts]]:
        return sorted(self.packages.items(), key=lambda item: (-item[1].lines, item[0]))

    def totals(self) -> Counts:
        totals = Counts()
        for counts in self.packages.values():
            totals.add(counts)
        return totals


# --- the workers


class Parser(BaseWorker):
    """Parses its share of the files, one at a time."""

    @job(name="parse")
    async def parse(self, message: BusJobRequestMessage) -> None:
        request = message.payload or {}
        share: Sizes = request["shares"][self.name]
        done = 0
        await self.send_job_stream_start(message.job_id)
        for number, (file, size) in enumerate(share.items()):
            await self.send_job_update(message.job_id, {"completed": done, "files": number, "file": file})
            # If the job is cancelled, nobody waits for the thread, which ends with its file.
            result = await anyio.to_thread.run_sync(measure, request["root"], file, abandon_on_cancel=True)
            await self.send_job_stream_data(message.job_id, result)
            done += size
        await self.send_job_update(message.job_id, {"completed": done, "files": len(share), "file": "done"})
        await self.send_job_stream_end(message.job_id)


class Coordinator(BaseWorker):
    """Has the files parsed, shows how far that is, and collects the results in `survey`."""

    def __init__(self, root: Path, shares: dict[str, Sizes], bars: Progress) -> None:
        super().__init__("coordinator")
        self.survey = Survey()
        self._root = root
        self._shares = shares
        self._bars = bars

    async def run(self, params: WorkerParams) -> None:
        await self.add_workers(*(Parser(name) for name in self._shares))
        await self.start()
        bars = {
            name: self._bars.add_task(name, total=sum(share.values()), files=0, of=len(share), file="")
            for name, share in self._shares.items()
        }
        payload = {"root": str(self._root), "shares": self._shares}
        async with self.job_group(*self._shares, name="parse", payload=payload) as group:
            async for event in group:
                data = event.data or {}
                if event.type == JobGroupEvent.UPDATE:
                    self._bars.update(bars[event.worker_name], **data)
                elif event.type == JobGroupEvent.STREAM_DATA:
                    self.survey.add(data)


async def run(coordinator: Coordinator) -> bool:
    """Run the coordinator to its end; returns whether that came before its time, by Ctrl-C."""
    runner = WorkerRunner()
    await runner.add_workers(coordinator)
    await runner.run()
    return runner.signal is not None


# --- the program around them


def find_files(root: Path, skipped: frozenset[str]) -> Sizes:
    files: Sizes = {}
    for folder, folders, names in os.walk(root, onerror=lambda exc: print(f"survey.py: {exc}", file=sys.stderr)):
        folders[:] = sorted(set(folders) - skipped)
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            files[path.relative_to(root).as_posix()] = path.stat().st_size if path.is_file() else 0
    return files


def share_out(files: Sizes, workers: int) -> dict[str, Sizes]:
    """Give each worker about as many bytes: the largest files first, each to whoever has the least."""
    shares: dict[str, Sizes] = {f"parser-{number}": {} for number in range(1, workers + 1)}
    loads = dict.fromkeys(shares, 0)
    for file in sorted(files, key=lambda file: (-files[file], file)):
        lightest = min(loads, key=lambda name: (loads[name], len(shares[name])))
        shares[lightest][file] = files[file]
        loads[lightest] += files[file]
    return shares


def progress_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[files]}/{task.fields[of]} files", justify="right", style="progress.percentage"),
        TextColumn(
            "{task.fields[file]}",
            style="dim",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=console,
        expand=True,
        disable=not console.is_interactive,
    )


def table(survey: Survey, title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column("package", no_wrap=True, overflow="ellipsis", max_width=24)
    for heading in ("files", "lines", "functions", "classes", "docs", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("function", overflow="ellipsis")
    for name, counts in [*survey.by_size(), ("total", survey.totals())]:
        share, longest = counts.docstring_share, counts.longest_function
        numbers = (counts.files, counts.lines, counts.functions, counts.classes)
        if name == "total":
            table.add_section()
        table.add_row(
            name,
            *(f"{number:,}" for number in numbers),
            "–" if share is None else f"{share:.0%}",
            f"{longest['lines']:,}" if longest else "–",
            longest["name"] if longest else "",
            style="bold" if name == "total" else "",
        )
    return table


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse_arguments() -> tuple[argparse.Namespace, Sizes]:
    parser = OneLineParser(description="Survey a tree of Python source.")
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, help="default: this Python's standard library")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    parser.add_argument("--workers", metavar="N", type=int, default=max(2, os.cpu_count() or 1))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    skipped = frozenset[str]()
    if arguments.path is None:
        arguments.path = Path(sysconfig.get_path("stdlib"))
        skipped = frozenset({"site-packages", "dist-packages", "__pycache__"})
    if arguments.workers < 1:
        parser.error(f"there must be at least 1 worker, not {arguments.workers}")
    if not arguments.path.is_dir():
        parser.error(f"{str(arguments.path)!r} is no directory")
    if arguments.json is not None and not is_writable(arguments.json):
        parser.error(f"{str(arguments.json)!r} cannot be written")
    files = find_files(arguments.path, skipped)
    if not files:
        parser.error(f"there are no .py files in {str(arguments.path)!r}")
    return arguments, files


def is_writable(file: Path) -> bool:
    if file.exists():
        return not file.is_dir() and os.access(file, os.W_OK)
    return file.parent.is_dir() and os.access(file.parent, os.W_OK)


def as_json(survey: Survey, root: Path, backend: str, workers: int) -> str:
    figures = {
        "root": str(root.absolute()),
        "python": platform.python_version(),
        "backend": backend,
        "workers": workers,
        "totals": survey.totals().as_dict(),
        "packages": {name: counts.as_dict() for name, counts in survey.by_size()},
        "unparsed": survey.unparsed,
    }
    return json.dumps(figures, indent=2) + "\n"


def main() -> int:
    arguments, files = parse_arguments()
    root, backend, workers = arguments.path, arguments.backend, arguments.workers
    warnings.simplefilter("ignore", SyntaxWarning)  # they would be about the files
    warnings.simplefilter("ignore", DeprecationWarning)
    started = time.monotonic()
    with progress_bars(Console(stderr=True)) as bars:
        coordinator = Coordinator(root, share_out(files, workers), bars)
        interrupted = anyio.run(run, coordinator, backend=backend)
    if interrupted:
        return 130
    seconds = time.monotonic() - started
    survey = coordinator.survey
    survey.unparsed.sort(key=lambda result: result["file"])
    if arguments.json is not None:
        arguments.json.write_text(as_json(survey, root, backend, workers))
    console = Console(markup=False, highlight=False, emoji=False)
    caption = f"{len(files):,} files in {seconds:.1f} s by {workers} workers on {backend}."
    if survey.unparsed:
        caption += " Files that do not parse count as files only."
    console.print(table(survey, str(root), caption))
    if survey.unparsed:
        console.print(f"{len(survey.unparsed)} files do not parse:")
    for result in survey.unparsed:
        console.print(f"  {result['file']}: {result['reason']}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
