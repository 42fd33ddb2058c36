"""``workerbus …``: finds the command, and turns what is wrong into one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Sequence

from workerbus import __version__
from workerbus.cli._call import add_call
from workerbus.cli._commands import BROKEN_PIPE, INTERRUPTED, CommandError, Commands, Parser, one_line
from workerbus.cli._completion import add_completion
from workerbus.cli._dump import add_dump
from workerbus.cli._new import add_new
from workerbus.cli._page import add_view
from workerbus.cli._record import add_draw, add_record
from workerbus.cli._tail import add_tail
from workerbus.cli._top import add_top
from workerbus.errors import MissingExtraError


def parser() -> Parser:
    """Return what knows all commands."""
    made = Parser(prog="workerbus", description="Look at programs made of workers that talk over a bus.")
    made.add_argument("--version", action="version", version=f"workerbus {__version__}")
    commands = Commands(made)
    add_top(commands)
    add_view(commands)
    add_tail(commands)
    add_call(commands)
    add_dump(commands)
    add_record(commands)
    add_draw(commands)
    add_completion(commands)
    add_new(commands, __version__)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of ``workerbus``.

    Args:
        arguments: Its arguments; by default those of the program. Everything after ``--`` is for a program that the
            command runs.

    Returns:
        The exit code: 0, or that of the program; 1 if something went wrong, 2 for a wrong command line, 130 after
            Ctrl-C, 141 if nobody reads the output any more; ``call`` has more.

    Raises:
        SystemExit: The arguments are wrong, or asked for help.
    """
    own = list(sys.argv[1:] if arguments is None else arguments)
    rest: list[str] = []
    if "--" in own:
        place = own.index("--")
        own, rest = own[:place], own[place + 1 :]
    known = parser()
    given = known.parse_args(own)
    given.parser, given.rest = known, rest
    try:
        return _run(given)
    except CommandError as exc:
        sys.stderr.write(f"workerbus: {one_line(str(exc))}\n")
        return exc.exit_code


def _run(given: argparse.Namespace) -> int:
    try:
        exit_code: int = given.run(given)
        sys.stdout.flush()
    except MissingExtraError as exc:
        raise CommandError(str(exc)) from None
    except BrokenPipeError:
        # What is still in the buffer would be written at the end of the program, and could not be.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    return exit_code
