"""``workerbus …``: finds the command, and turns what is wrong into one line and an exit code."""

import sys
from collections.abc import Sequence

from workerbus import __version__
from workerbus.cli._commands import CommandError, Parser
from workerbus.cli._record import add_draw, add_record


def _parser() -> Parser:
    parser = Parser(prog="workerbus", description="Look at programs made of workers that talk over a bus.")
    parser.add_argument("--version", action="version", version=f"workerbus {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_record(commands)
    add_draw(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of ``workerbus``.

    Args:
        arguments: Its arguments; by default those of the program. What stands behind ``--`` is for a program that the
            command runs.

    Returns:
        The exit code: 0, or that of the program; 1 for what went wrong, 2 for a command that was called wrongly.

    Raises:
        SystemExit: The arguments are wrong, or asked for help.
    """
    own = list(sys.argv[1:] if arguments is None else arguments)
    rest: list[str] = []
    if "--" in own:
        place = own.index("--")
        own, rest = own[:place], own[place + 1 :]
    given = _parser().parse_args(own)
    given.rest = rest
    try:
        exit_code: int = given.run(given)
    except CommandError as exc:
        sys.stderr.write(f"workerbus: {exc}\n")
        return exc.exit_code
    return exit_code
