"""The frames in which tasks are suspended, and threads at work: what can be seen of a program that waits.

It does not know what the frames mean: those of the library say so themselves (`_concurrency.waiting`), and those of
anyio, trio and asyncio are in `_primitives`.
"""

import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

_BY_HAND: Final[dict[CodeType, str]] = {}


def drives(function: Callable[..., Any], variable: str) -> None:
    """Say that a function drives a coroutine by hand: it awaits nothing, and the coroutine is in a variable of its."""
    _BY_HAND[function.__code__] = variable


def links_of(coro: Any) -> Iterator[Any]:
    """Yield what a coroutine is made of, outermost first: frames, and at the end what the innermost one awaits."""
    while coro is not None:
        frame = next(
            (getattr(coro, name) for name in ("cr_frame", "gi_frame", "ag_frame") if hasattr(coro, name)), None
        )
        yield coro if frame is None else frame
        if frame is not None and frame.f_code in _BY_HAND:
            coro = frame.f_locals.get(_BY_HAND[frame.f_code])
            continue
        for name in ("cr_await", "gi_yieldfrom", "ag_await"):
            if hasattr(coro, name):
                coro = getattr(coro, name)
                break
        else:
            coro = _driven(coro)


_DRIVERS: Final = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable")


def _driven(awaitable: Any) -> Any:
    # These have no attribute for what they drive; only the garbage collector can be asked for it.
    if type(awaitable).__name__ not in _DRIVERS:
        return None
    for each in gc.get_referents(awaitable):
        if type(each).__name__ in _DRIVERS or hasattr(each, "cr_frame") or hasattr(each, "ag_frame"):
            return each
    return None


def frames_of(coro: Any) -> Iterator[FrameType]:
    """Yield the frames in which a coroutine is suspended, outermost first."""
    return (link for link in links_of(coro) if isinstance(link, FrameType))


def has_not_begun(coro: Any) -> bool:
    """Whether no step of a coroutine has run."""
    return inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED


def future_of(coro: Any) -> Any:
    """Return the asyncio future that the innermost part of a coroutine waits for; None if it waits for none."""
    *_, last = links_of(coro)
    return next((each for each in gc.get_referents(last) if hasattr(each, "add_done_callback")), None)


_MACHINERY: Final = frozenset(
    {"workerbus", "anyio", "trio", "asyncio", "outcome", "contextlib", "functools", "concurrent", "threading"}
)


def module_of(frame: FrameType) -> str:
    """Return the name of a frame's module; empty if it has none."""
    name = frame.f_globals.get("__name__", "")
    return name if isinstance(name, str) else ""


def is_machinery(frame: FrameType) -> bool:
    """Whether a frame is not of the program's own code."""
    return module_of(frame).partition(".")[0] in _MACHINERY


_USE_THREADS: Final = {"run_sync_in_worker_thread", "to_thread_run_sync", "to_thread"}
_WAIT_IN_THREADS: Final = {"run_async_from_thread", "_send_message_to_trio"}


def threads_of(coros: Iterable[Any]) -> tuple[int, int]:
    """Count threads.

    Args:
        coros: The coroutines of all tasks.

    Returns:
        How many threads the coroutines wait for, and how many threads of the process wait for an event loop.
    """
    used = sum(
        any(frame.f_code.co_name in _USE_THREADS and is_machinery(frame) for frame in frames_of(coro)) for coro in coros
    )
    waiting = sum(_waits_for_the_loop(frame) for frame in sys._current_frames().values()) if used else 0
    return used, waiting


def _waits_for_the_loop(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _WAIT_IN_THREADS and is_machinery(frame):
            return True
        frame = frame.f_back
    return False
