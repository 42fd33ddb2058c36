"""``workerbus call``: asks a worker for a job over the bus, and prints the answer as JSON (O8).

It is a runner of its own for as long as the job takes, so a job that it has asked for is cancelled like any other when
it leaves: because of Ctrl-C, a timeout, or a loss of the server.
"""

import argparse
import json
import sys
from typing import Any, Final

import anyio

from workerbus._values import JobStatus
from workerbus.bus import WorkerBus
from workerbus.cli._address import BUS, add_address, address_of
from workerbus.cli._commands import USAGE, CommandError, Commands, WarningsInOneLine, seconds
from workerbus.cli._sources import bus_at
from workerbus.errors import (
    BusUnavailable,
    JobError,
    JobTimeoutError,
    UnknownWorkerError,
    WireError,
    WorkerBusError,
)
from workerbus.jobs import JobEvent
from workerbus.runner._runner import WorkerRunner

ERROR: Final = 3
"""The exit code where the worker has answered ERROR."""
FAILED: Final = 4
"""The exit code where it has answered FAILED."""
CANCELLED: Final = 5
"""The exit code where it has answered CANCELLED."""
UNKNOWN_WORKER: Final = 6
"""The exit code where there is no such worker."""
TIMEOUT: Final = 124
"""The exit code where time was up; that of ``timeout(1)``."""

_CODES: Final[dict[str, int]] = {
    JobStatus.ERROR: ERROR,
    JobStatus.FAILED: FAILED,
    JobStatus.CANCELLED: CANCELLED,
}
_EVENTS: Final = {JobEvent.UPDATE: "update", JobEvent.STREAM_DATA: "chunk"}


def add_call(commands: Commands) -> None:
    """Add the command ``call``."""
    parser = commands.add_parser(
        "call",
        help="ask a worker for a job, and print the answer",
        description="Join the bus, ask a worker for a job, and print its answer as JSON. Ctrl-C cancels the job.",
        epilog=f"Exit codes: 0 completed, {ERROR} the worker has answered ERROR, {FAILED} FAILED,"
        f" {CANCELLED} CANCELLED, {UNKNOWN_WORKER} no such worker, {TIMEOUT} time was up, 130 Ctrl-C, 2 called wrongly,"
        " 1 anything else.",
    )
    parser.add_argument("worker", metavar="WORKER", help="the worker's name")
    parser.add_argument("job", metavar="JOB", help="the name of the job")
    parser.add_argument(
        "payload", metavar="JSON", nargs="?", help="the payload, a JSON object; - reads it from standard input"
    )
    add_address(parser, BUS, positional=False)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="how long the job may take; default: any time"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=5.0,
        help="how long to wait for a worker that is not there; default: %(default)g",
    )
    parser.add_argument("--stream", action="store_true", help="print updates, chunks and the answer, one a line")
    parser.set_defaults(run=call)


def call(given: argparse.Namespace) -> int:
    """Ask a worker for a job, and print its answer."""
    address = address_of(given, BUS)
    if not address.is_bus:
        raise CommandError(
            "call needs the bus itself (--url redis://…): what is served over http:// is a view, and a view can only be"
            " read",
            USAGE,
        )
    payload = _payload(given.payload)
    with WarningsInOneLine():
        anyio.run(ask, bus_at(address), given, payload)
    return 0


async def ask(bus: WorkerBus, given: argparse.Namespace, payload: dict[str, Any] | None) -> None:
    """Ask a worker for a job over a bus, and print what comes.

    Raises:
        CommandError: It did not complete, with the exit code that says how.
    """
    try:
        async with WorkerRunner(bus=bus, handle_sigterm=True) as runner:
            await _find(runner, given.worker, given.wait if given.timeout is None else min(given.wait, given.timeout))
            answer = await _answer(runner, given, payload)
    except JobTimeoutError as error:
        raise CommandError(str(error), TIMEOUT) from None
    except JobError as error:
        status = error.statuses.get(given.worker, JobStatus.ERROR)
        raise CommandError(str(error), _CODES.get(status, ERROR)) from None
    except UnknownWorkerError as error:
        raise CommandError(str(error), UNKNOWN_WORKER) from None
    except WireError as error:
        raise CommandError(str(error), USAGE) from None
    except (BusUnavailable, WorkerBusError) as error:
        raise CommandError(str(error)) from None
    _print({"answer": answer} if given.stream else answer, pretty=not given.stream and sys.stdout.isatty())


async def _find(runner: WorkerRunner, name: str, wait: float) -> None:
    """Wait for a worker, so that one that is not there is told of by its name, and not by a timeout."""
    registry = runner.registry
    failed = registry.failure_of(name)
    with anyio.move_on_after(wait):
        while registry.get(name) is None and name not in registry.restarting and failed is None:
            await registry.wait_for_news(name)
            failed = registry.failure_of(name)
        if failed is None:
            return
    raise UnknownWorkerError(name, registry.remote_workers, failure=None if failed is None else failed.error)


async def _answer(runner: WorkerRunner, given: argparse.Namespace, payload: dict[str, Any] | None) -> dict[str, Any]:
    async with runner.job(given.worker, name=given.job, payload=payload, timeout=given.timeout) as asked:
        async for event in asked:
            if given.stream and event.type in _EVENTS:
                _print({_EVENTS[event.type]: event.data})
    return dict(asked.response)


def _payload(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        payload = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise CommandError(f"the payload is no JSON: {error}", USAGE) from None
    if not isinstance(payload, dict):
        raise CommandError(f'the payload is a JSON object, as in \'{{"text": "…"}}\', and not {text!r}', USAGE)
    return payload


def _print(value: object, *, pretty: bool = False) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2 if pretty else None) + "\n")
    sys.stdout.flush()
