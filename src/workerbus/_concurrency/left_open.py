"""What was left in another task than the one that has entered it, and so is still open there (L7).

Scopes are a stack: a task leaves what it has entered, the last first, and nobody else can. A context that is left in
another task closes what it can there. Its scope stays on the stack of the task that has entered it, cancelled by
nobody, and in the way of every scope below it. So it is remembered here, until

1. the task leaves a context of the library's that it had entered before, or
2. the task is one of the library's own, and what it ran of its user's is over, or
3. the task has ended.

A scope of the program's own, entered before and left after, cannot be helped: the backend refuses that, in its words.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, Final, NamedTuple, TypeVar

from anyio import TaskInfo, get_running_tasks

from workerbus._concurrency.backend import task_getter
from workerbus._order import PROCESS

T = TypeVar("T")

Entry = tuple[Any, int]
"""In which task something was entered, and when, by the numbers of this process."""


class _LeftOpen(NamedTuple):
    task: int
    thread: int
    number: int
    close: Callable[[], Awaitable[object]]


LEFT_OPEN: Final[list[_LeftOpen]] = []
"""All of it. Look whether there is any before you call `close_left_open`: nearly always there is none."""


def entered_here() -> Entry:
    """Return the entry of what the running task enters now."""
    return task_getter()(), PROCESS.next_number()


def is_here(entry: Entry) -> bool:
    """Whether the running task is the one that has entered something."""
    return bool(entry[0] == task_getter()())


def leave_open(entry: Entry, close: Callable[[], Awaitable[object]]) -> None:
    """Remember what the running task cannot close.

    Args:
        entry: When and where it was entered.
        close: Closes it, in the task that has entered it.
    """
    task, number = entry
    thread, alive = get_ident(), {each.id for each in get_running_tasks()}
    LEFT_OPEN[:] = [each for each in LEFT_OPEN if each.thread != thread or each.task in alive]
    LEFT_OPEN.append(_LeftOpen(_id(task), thread, number, close))


async def close_left_open(since: int = 0) -> None:
    """Close what the running task has entered and others have left, the last first.

    Args:
        since: The number of the entry that is about to be left; what was entered before it is not touched.
    """
    here = _id(task_getter()())
    own = [each for each in LEFT_OPEN if each.task == here and each.number > since]
    for each in sorted(own, key=lambda left: left.number, reverse=True):
        LEFT_OPEN.remove(each)
        with suppress(RuntimeError):  # a scope of the program's own is in between; to leave that fails, and says so
            await each.close()


async def nothing_left_open(work: Awaitable[T]) -> T:
    """Await a user's code in a task of the library's, in a scope; what it has left open is closed afterwards."""
    try:
        return await work
    finally:
        if LEFT_OPEN:
            await close_left_open()


def _id(task: Any) -> int:
    return task.id if isinstance(task, TaskInfo) else id(task)
