"""What a thread with an event loop is doing at this moment, seen from another thread (R8).

The stack of a running task has the library's own frames in it: those that call a handler, a hook, a worker's task. Each
such function says with `tells` how its variables are put into words. That costs nothing while nobody asks.

It does not know which functions these are, and not why somebody asks.
"""

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple


class Doing(NamedTuple):
    """What a thread is doing.

    Attributes:
        what: In words; with the names of the worker and the job, where there are any.
        worker: The name of the worker whose code runs; None where it is of no worker.
        job: The id of the job whose handler runs, if one does.
        stack: The lines of its stack, from the code that the event loop has called.
        step: What is equal at two looks if both have found the same task, or the same callback.
    """

    what: str
    worker: str | None = None
    job: str | None = None
    stack: str = ""
    step: int = 0


Tells = Callable[[Mapping[str, Any]], Doing]

_TELLS: Final[dict[CodeType, Tells]] = {}
_LOOPS: Final = frozenset({"asyncio.base_events", "asyncio.events", "asyncio.runners", "trio._core._run"})
_BACKENDS: Final = frozenset({"anyio", "asyncio", "concurrent", "outcome", "selectors", "trio"})
_MACHINERY: Final = _BACKENDS | {"workerbus"}


def tells(function: Callable[..., Any], tell: Tells) -> None:
    """Say what a function is doing while it runs, given its variables."""
    _TELLS[function.__code__] = tell


def doing_of(thread: int) -> Doing | None:
    """Return what the thread of an event loop is doing; None if its loop only waits, or there is no such thread."""
    innermost = sys._current_frames().get(thread)  # noqa: SLF001 - there is no other way to look
    frames = list(above_the_loop(innermost))
    while frames and _package(frames[-1]) in _BACKENDS:
        frames.pop()
    own = [frame for frame in frames if _package(frame) not in _MACHINERY]
    told = next((doing for frame in frames if (doing := _told(frame)) is not None), None)
    if told is None and not own:
        return None  # it waits for something to happen, or does what the loop has to do itself
    if told is None:
        code = own[-1].f_code
        told = Doing(f"{code.co_qualname}() in {code.co_filename}:{own[-1].f_lineno}")
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in reversed(frames))
    return told._replace(stack="".join(summary.format()), step=id(frames[-1]))


def above_the_loop(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames that the event loop has called, innermost first."""
    while frame is not None and frame.f_globals.get("__name__") not in _LOOPS:
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _told(frame: FrameType) -> Doing | None:
    tell = _TELLS.get(frame.f_code)
    try:
        return None if tell is None else tell(frame.f_locals)
    except Exception:  # noqa: BLE001 - it has just begun, and a variable is not there; or a `repr` of the user's fails
        return None
