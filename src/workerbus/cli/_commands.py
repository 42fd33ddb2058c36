"""What all commands of ``workerbus …`` have in common: how they are found, and how they say what is wrong."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

Command = Callable[[argparse.Namespace], int]
"""Does a command, given its arguments; returns its exit code."""

USAGE = 2
"""The exit code of a command that was called wrongly."""


class CommandError(Exception):
    """A command cannot do what it was told to; its text is the one line that is shown.

    Attributes:
        exit_code: The exit code.
    """

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the program."""
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")
