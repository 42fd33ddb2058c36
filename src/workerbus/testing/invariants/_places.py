"""Where a coroutine is suspended, in a few words."""

import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from workerbus.diagnosis._frames import frames_of, has_not_begun, is_machinery, module_of
from workerbus.testing.cancellation._cutting import place_of

BEGINS: Final = "begins"
WITHIN: Final = "within "


_LIBRARY: Final = Path(__file__).parents[2]
_OTHERS: Final = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}


@lru_cache(maxsize=10_000)
def is_own(file_name: str) -> bool:
    """Whether a file is one of the program's own: none of this library, of others, or of Python."""
    file = Path(file_name)
    return file.is_absolute() and not any(file.is_relative_to(path) for path in (_LIBRARY, *_OTHERS))


def look(coroutine: Any) -> str:
    """Say where a coroutine is suspended, by its innermost line of the program's own code."""
    if has_not_begun(coroutine):
        return BEGINS
    frames = list(frames_of(coroutine))
    if not frames:
        return f"{WITHIN}the event loop"
    position = place_of(frames)
    file, _, line = position.where.rpartition(":")
    if is_machinery(frames[0]) and position.where == f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}":
        return f"{WITHIN}{position.inside or module_of(frames[0]).partition('.')[0]}"  # no line is the program's own
    return f"{Path(file).name}:{line}" + (f" `{position.statement}`" if position.statement else "")


def is_over(coroutine: Any) -> bool:
    """Whether a coroutine has come to its end."""
    return not has_not_begun(coroutine) and not list(frames_of(coroutine))
