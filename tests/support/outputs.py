"""What the programs of a test have written, for the report of its failure.

It is found in the variables of the functions through which the failure has come: results of `subprocess`, and objects
that have a property ``written``, as those have that stand for a program here.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

TESTS = str(Path(__file__).parents[1])
MOST = 6000
"""So many characters are shown of each program, the last ones."""


def written_by(failure: BaseException) -> list[tuple[str, str]]:
    """Return a title and a text for each program that has written something."""
    found: dict[int, tuple[str, str]] = {}
    for name, value in _values(failure):
        if id(value) not in found and (text := _written(value).strip()):
            found[id(value)] = f"written by {name}", text[-MOST:]
    return list(found.values())


def _values(failure: BaseException) -> Iterator[tuple[str, Any]]:
    for each in _leaves(failure):
        yield "the program", each  # one of subprocess has what was written
        for frame in _frames(each.__traceback__):
            if frame.f_code.co_filename.startswith(TESTS):
                yield from frame.f_locals.items()


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    yield failure
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _leaves(each)


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):  # such as several programs
        return "\n".join(text for each in value[:10] if (text := _written(each)))
    if isinstance(value, subprocess.CompletedProcess):
        return _all_of(value.args, f"ended with {value.returncode}", value.stdout, value.stderr)
    if isinstance(value, subprocess.TimeoutExpired | subprocess.CalledProcessError):
        return _all_of(value.cmd, str(value).rpartition("' ")[2], value.stdout, value.stderr)
    return str(value.written) if isinstance(getattr(type(value), "written", None), property) else ""


def _all_of(command: Any, end: str, *streams: str | bytes | None) -> str:
    words = command if isinstance(command, str) else " ".join(str(word) for word in command)
    texts = [text.decode(errors="replace") if isinstance(text, bytes) else text or "" for text in streams]
    return "\n".join([f"$ {words[-500:]}", *(text.rstrip() for text in texts if text), f"({end})"])
