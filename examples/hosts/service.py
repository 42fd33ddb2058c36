"""A service, as systemd or a container runs it: SIGTERM lets jobs finish, probes ask how it is, logs are JSON.

It counts the words of the files that somebody leaves in a folder. It reads a file as soon as it is there, so write
each one elsewhere and rename it into the folder:

python examples/hosts/service.py --spool /var/spool/words
"""

import argparse
import json
import logging
import os
import secrets
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio

from workerbus import BaseWorker, BusJobRequestMessage, WorkerPool, WorkerRunner, every, job
from workerbus.view import serve_view


class JsonLines(logging.Formatter):
    """Makes of each record a line of JSON, with the runner, the worker and the job that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {about: getattr(record, about) for about in ("runner", "worker", "job") if hasattr(record, about)}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


def notify(state: str) -> None:
    """Tell systemd how the service is, if it has asked for that."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.sendto(state.encode(), address.replace("@", "\0", 1))


class Counter(BaseWorker):
    """Counts the words of a file. The file is gone when that is done, and not before."""

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> None:
        """Write the number of words beside the file."""
        file, words = anyio.Path(message.payload["file"]), 0
        for line in (await file.read_text()).splitlines():
            words += len(line.split())
            await anyio.sleep(0.05)  # stands for work that takes its time
        await file.with_suffix(".count").write_text(f"{words}\n")
        await file.unlink()


class Clerk(BaseWorker):
    """Looks for new files, and has them counted."""

    def __init__(self, name: str, spool: Path) -> None:
        super().__init__(name)
        self.spool = spool
        self.seen: set[Path] = set()

    @every(0.2, at_once=True)
    async def look(self) -> None:
        """Ask for a job for each file that is new. That the loop runs keeps systemd's watchdog quiet."""
        notify("WATCHDOG=1")
        for file in sorted(self.spool.glob("*.txt")):
            if file not in self.seen:
                self.seen.add(file)
                await self.request_job("counters", name="count", payload={"file": str(file)})


async def serve(spool: Path, host: str, port: int) -> int:
    """Run until a signal comes; returns the exit code."""
    runner = WorkerRunner(name="spool", handle_sigterm="end", job_grace=20, stall_seconds=0.5)
    runner.add_event_handler("on_ready", lambda _: notify("READY=1"))
    await runner.add_workers(WorkerPool("counters", Counter, size=4), Clerk("clerk", spool))
    token = os.environ.get("VIEW_TOKEN") or secrets.token_urlsafe()  # the probes need none
    async with serve_view(runner, host=host, port=port, token=token):
        await runner.run(auto_end=False)  # the probes are answered for as long as jobs come to their end
    outcome = runner.outcome
    if outcome is not None and outcome.how == "cancelled" and outcome.signal is not None:
        return 128 + outcome.signal
    return 0


def main() -> int:
    """Run the service; returns its exit code."""
    parser = argparse.ArgumentParser(description="Count the words of files that are left in a folder.")
    parser.add_argument("--spool", metavar="DIR", type=Path, required=True, help="the folder")
    parser.add_argument("--host", default="127.0.0.1", help="where probes ask; default: %(default)s")
    parser.add_argument("--port", type=int, default=8765, help="default: %(default)s")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    given = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("workerbus.jobs").setLevel(logging.DEBUG)  # each job, too
    return anyio.run(serve, given.spool, given.host, given.port, backend=given.backend)


if __name__ == "__main__":
    sys.exit(main())
