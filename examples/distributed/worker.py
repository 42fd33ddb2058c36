"""A process that parses Python files for the surveys on a Redis server; `survey.py` in this directory asks it to.

    python examples/distributed/worker.py --redis redis://localhost
    python examples/distributed/worker.py --redis redis://localhost --name parsers-2 --backend trio

Start as many as you like, on any machine that has the same files at the same place. Ctrl-C ends one; what it was doing
is then done by others. One that is killed is lost for the others when its lease has run out, or when another one is
started under its name.
"""

import argparse
import os
import platform
import signal
import socket
import sys
from pathlib import Path
from threading import Thread

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))  # the other survey.py

import survey
from workerbus import BusJobRequestMessage, BusUnavailable, WorkerRunner, job
from workerbus.redis import RedisBus, RedisSetupError, RedisURLError

PREFIX = "survey"
"""What all keys at the server begin with."""
LEASE = 2.0
"""Seconds of silence after which a process is lost, the same for all. The default is 10; this is for a show."""


class Parser(survey.Parser):
    """The parser of the survey in one process, which can also say where it is."""

    def __init__(self, name: str, backend: str) -> None:
        super().__init__(name)
        self._backend = backend

    @job(name="who")
    async def who(self, message: BusJobRequestMessage) -> dict[str, object]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "backend": self._backend}


async def run(given: argparse.Namespace) -> None:
    bus = RedisBus(given.redis, prefix=PREFIX, lease=LEASE)
    parser = Parser(f"{given.name}/parser", given.backend)
    async with WorkerRunner(name=given.name, bus=bus, handle_sigterm="end") as runner:
        await runner.add_workers(parser, wait=True)
        if not given.attached:
            print(f"{given.name} is ready, on {given.backend} under Python {platform.python_version()}; Ctrl-C ends it")
        await parser.wait()


def end_with_stdin() -> None:
    """Wait until whoever has started this process is gone: nothing is ever written to its standard input."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    default = f"parsers-{socket.gethostname()}-{os.getpid()}"
    parser = survey.Arguments(description="Parse Python files for surveys.")
    parser.add_argument("--redis", metavar="URL", required=True, help="where the server is")
    parser.add_argument("--name", default=default, help='of this process; begins with "parsers"; default: %(default)s')
    parser.add_argument("--backend", choices=anyio.get_available_backends(), default="asyncio")
    parser.add_argument("--attached", action="store_true", help="end with standard input")
    given = parser.parse_args()
    if not given.name.startswith("parsers"):
        parser.error('--name: it has to begin with "parsers"')
    if given.attached:
        Thread(target=end_with_stdin, daemon=True).start()
    try:
        anyio.run(run, given, backend=given.backend)
    except KeyboardInterrupt:
        return 130
    except (RedisURLError, RedisSetupError, BusUnavailable) as exc:
        sys.exit(f"worker.py: {exc}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
