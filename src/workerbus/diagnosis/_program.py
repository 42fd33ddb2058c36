"""What all of a program waits for, in words: `dump` (O6, O3).

Runners say what there is to say of them while they run (`Source`); the tasks of their event loops are described by
`_waiting`. Where it is asked decides how it is found:

1. In an event loop's own thread, everything is read at once: between two steps of tasks, in the middle of one, or in a
   signal handler. So nothing that is read may be changed by it, or has to be whole.
2. For a loop in another thread, that loop is asked to do it. Where it stands still it does not answer: then there is
   what its thread is doing, and what its runners have. Its tasks only it can name.

What cannot be read at this moment is left out, and never raises.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from sys import _current_frames
from threading import get_ident
from types import FrameType
from typing import Final, Protocol, TypeVar

from workerbus._concurrency.doing import above_the_loop, doing_of
from workerbus._concurrency.home import Home
from workerbus.diagnosis._waiting import Live, Waiter, describe

T = TypeVar("T")

MOST: Final = 200
"""How many tasks of one event loop are described at most."""
PATIENCE: Final = 1.0
"""For how many seconds another thread's event loop may take to answer before it counts as standing still."""


class Source(Protocol):
    """Somebody who says what there is to say of it: a runner."""

    def lines(self, live: Live) -> list[str]:
        """Return a title, and lines on what it hosts."""


class Writes(Protocol):
    """A file to write text to."""

    def write(self, text: str, /) -> object:
        """Write a text."""


_SOURCES: Final[dict[Source, Home]] = {}


def begin_to_tell(source: Source) -> None:
    """Let a source be told of, which runs in the event loop that is here."""
    _SOURCES[source] = Home()


def end_telling(source: Source) -> None:
    """Tell of a source no more."""
    _SOURCES.pop(source, None)


def dump(file: Writes | None = None) -> str:
    """Return what every worker, job and task of this program waits for, in words.

    ::

        print(workerbus.dump())

    It may be called at any time and anywhere: in a task, a callback, another thread, a signal handler. It covers all
    running runners of this process and all tasks of their event loops; without a runner, the tasks of the current loop.
    If a loop in another thread stands still, this waits for it for a second, and then says what holds it up. No payload
    is shown.

    Args:
        file: An object with a ``write`` method that also gets the text, with a newline at its end.

    Returns:
        The text. It has, for each runner, its busy workers, their jobs with requester and age, what waits, and which
        lanes are full; then circles of tasks that wait for each other; then the tasks, those first that keep others
        waiting, with what each waits for and where.

    Guarantees: O3, O6.
    """
    loops = _loops()
    parts = [part for home, sources in loops for part in _told(home, sources)]
    runners = sum(len(sources) for _, sources in loops)
    head = f"process {os.getpid()}, with {runners} runner{'' if runners == 1 else 's'}"
    text = "\n\n".join([head, *parts])
    if file is not None:
        file.write(f"{text}\n")
    return text


def _loops() -> list[tuple[Home, list[Source]]]:
    loops: list[tuple[Home, list[Source]]] = []
    for source, home in list(_SOURCES.items()):
        known = next((sources for other, sources in loops if home.is_same(other)), None)
        if known is None:
            loops.append((home, [source]))
        else:
            known.append(source)
    if not loops:
        with suppress(RuntimeError):  # where no event loop is here
            loops.append((Home(), []))
    return loops


def _told(home: Home, sources: list[Source]) -> list[str]:
    if home.is_here():
        return _inside(home, sources)
    answer: SimpleQueue[list[str]] = SimpleQueue()  # the kind of queue that a signal handler may use
    if home.thread != get_ident() and home.call_soon(lambda: answer.put(_inside(home, sources))):
        with suppress(Empty):
            return answer.get(timeout=PATIENCE)
    return _outside(home, sources)


def _inside(home: Home, sources: list[Source]) -> list[str]:
    live = _read(lambda: Live(home.now(), _running()), Live())
    return [*_lines(sources, live), *_read(lambda: _tasks(home, live), ["its tasks cannot be read at this moment"])]


def _tasks(home: Home, live: Live) -> list[str]:
    waiters = [Waiter(task.name or "", task.coro, id=task.id) for task in home.tasks()]
    trios = "<"  # its own tasks are named like that
    return list(describe([each for each in waiters if not each.name.startswith(trios)], live=live, most=MOST))


def _outside(home: Home, sources: list[Source]) -> list[str]:
    doing = _read(lambda: doing_of(home.thread), None)
    what = "it does not answer" if doing is None else f"held up by {doing.what}\n{doing.stack.rstrip()}"
    return [*_lines(sources, Live()), f"the event loop stands still, and its tasks cannot be asked: {what}"]


def _lines(sources: list[Source], live: Live) -> list[str]:
    unreadable = ["a runner cannot be read at this moment"]
    return ["\n".join(_read(partial(source.lines, live), unreadable)) for source in sources]


def _read(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except Exception:  # noqa: BLE001 - it is in the middle of a step, or changes in another thread
        return otherwise


def _running() -> list[FrameType]:
    """Return the frames of what the event loop here runs at this moment, outermost first, those of the dump last."""
    return list(above_the_loop(_current_frames().get(get_ident())))[::-1]


def _forget_in_child() -> None:
    _SOURCES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
