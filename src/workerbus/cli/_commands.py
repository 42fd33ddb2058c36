"""What all commands of ``workerbus …`` have in common: how they are found, and how they say what is wrong."""

import argparse
import logging
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

Command = Callable[[argparse.Namespace], int]
"""Does a command, given its arguments; returns its exit code."""

USAGE = 2
"""The exit code of a command that was called wrongly."""
INTERRUPTED = 130
"""The exit code where somebody has pressed Ctrl-C."""
BROKEN_PIPE = 141
"""The exit code where nobody reads the output any more, as of a program that SIGPIPE has ended."""


class CommandError(Exception):
    """A command cannot do what it was told to; its text is the one line that is shown.

    Attributes:
        exit_code: The exit code.
    """

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and knows what it was told.

    Attributes:
        arguments: What `add_argument` has added, ``--help`` included.
        commands: Command to what it does, in one line, and its parser.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.arguments: list[argparse.Action] = []
        self.commands: dict[str, tuple[str, Parser]] = {}
        super().__init__(allow_abbrev=False, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Add an argument or an option."""
        action = super().add_argument(*args, **kwargs)
        self.arguments.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the program."""
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which would do something to a terminal or a log."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class Commands:
    """Where commands are added to a parser.

    Args:
        parser: The parser.
    """

    def __init__(self, parser: Parser) -> None:
        self._known = parser.commands
        self._added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add_parser(self, name: str, *, help: str, description: str, epilog: str | None = None) -> Parser:  # noqa: A002 - as argparse calls it
        """Return the parser of a new command."""
        parser = self._added.add_parser(name, help=help, description=description, epilog=epilog)
        self._known[name] = (help, parser)
        return parser


def seconds(text: str) -> float:
    """Return the number of seconds that an argument gives.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds, not {text!r}")
    return number


def whole(text: str) -> int:
    """Return the whole number, at least 1, that an argument gives.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number, at least 1, not {text!r}")
    return int(text)


class WarningsInOneLine(logging.Handler):
    """Shows what the library warns of while a block runs, each in one line of standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def __enter__(self) -> None:
        logging.getLogger("workerbus").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("workerbus").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning."""
        sys.stderr.write(f"workerbus: {one_line(record.getMessage())}\n")
