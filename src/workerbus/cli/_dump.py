"""``workerbus dump``: has a program write what it waits for to its standard error (O6, O8).

It sends a signal, which would end a process that does not handle it. So it asks the system first, where that can tell.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Final

from workerbus.cli._commands import CommandError, Commands, whole

_PROCESSES: Final = Path("/proc")
_CAUGHT: Final = "SigCgt:"


def add_dump(commands: Commands) -> None:
    """Add the command ``dump``."""
    parser = commands.add_parser(
        "dump",
        help="have a program write what it waits for",
        description="Have a running program write to its standard error what its workers, jobs and tasks wait for."
        " A runner of it was made with dump_signal=.",
    )
    parser.add_argument("pid", metavar="PID", type=whole, help="the number of the process")
    parser.add_argument("--signal", metavar="NAME", default="SIGUSR1", help="the signal; default: %(default)s")
    parser.set_defaults(run=dump)


def dump(given: argparse.Namespace) -> int:
    """Send the signal, where the process handles it."""
    name, pid = given.signal, given.pid
    number = getattr(signal, name, None)
    if not isinstance(number, signal.Signals):
        raise CommandError(f"{sys.platform} has no signal {name}")
    if not _handles(pid, number):
        asked = f"dump_signal={name!r}"
        raise CommandError(
            f"process {pid} does not handle {name}, which would end it: its runner needs {asked}, and to run"
        )
    try:
        os.kill(pid, number)
    except PermissionError:
        raise CommandError(f"process {pid} is another user's") from None
    except ProcessLookupError:
        raise CommandError(f"there is no process {pid}") from None
    return 0


def _handles(pid: int, number: signal.Signals) -> bool:
    if not (_PROCESSES / "self" / "status").exists():
        raise CommandError(
            f"{sys.platform} does not say whether process {pid} handles {number.name}, which ends one that does not:"
            f" kill -{number.name.removeprefix('SIG')} {pid} sends it"
        )
    try:
        lines = (_PROCESSES / str(pid) / "status").read_text().splitlines()
    except OSError:
        raise CommandError(f"there is no process {pid}") from None
    caught = next((line.removeprefix(_CAUGHT) for line in lines if line.startswith(_CAUGHT)), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)
