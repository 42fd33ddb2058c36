"""Tasks that users start: what `create_task` takes and returns, and what `cancel_task` does (N1, L1, W10).

In which group such a task runs, and what becomes of its errors, is not known here.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

from anyio import CancelScope, move_on_after

from workerbus._concurrency.left_open import nothing_left_open
from workerbus._concurrency.lifetime import CLEANUP_SECONDS, LazyEvent
from workerbus.errors import HandlerTypeError

logger = logging.getLogger("workerbus.worker")

Work = Callable[..., Awaitable[Any]] | Awaitable[Any]


class TaskHandle:
    """A task that was started with ``create_task``.

    Guarantees: W10.
    """

    __slots__ = ("_name", "_over", "_scope")

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope = CancelScope()
        self._over = LazyEvent()

    def __repr__(self) -> str:
        state = "over" if self.done() else "being cancelled" if self._scope.cancel_called else "running"
        return f"<task {self._name!r}, {state}>"

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()

    def cancel(self) -> None:
        """Cancel the task; returns without waiting for its end."""
        self._scope.cancel()

    def done(self) -> bool:
        """Whether the task is over, however it has ended."""
        return self._over.is_set()

    def get_name(self) -> str:
        """Return the name of the task, which begins with that of its owner."""
        return self._name

    async def wait(self) -> None:
        """Wait until the task is over, however it ends; awaiting the handle does the same.

        An error of the task has already been reported, and is not raised here.
        """
        await self._over.wait()


class OwnTask(TaskHandle):
    """The same, as those see it who run it."""

    __slots__ = ()

    async def run(self, work: Awaitable[Any]) -> None:
        """Do the work of the task; called in the task itself."""
        try:
            with self._scope:
                await nothing_left_open(work)
        finally:
            self._over.set()


def work_of(work: Work, args: tuple[Any, ...], name: str | None) -> tuple[Awaitable[Any], str]:
    """Return what a new task is to await, and what the task is called.

    Args:
        work: An async function, or a coroutine.
        args: The function's arguments; with a coroutine, nothing but its name.
        name: The name of the task; None for that of the function.

    Raises:
        HandlerTypeError: It is neither; a `TypeError`.
    """
    if inspect.isawaitable(work):
        if name is None and len(args) == 1 and isinstance(args[0], str):
            name, args = args[0], ()
        if args:
            discard(work)
            raise HandlerTypeError(f"create_task takes a coroutine and its name, not a coroutine and {args!r}")
        return work, name or str(getattr(work, "__name__", "task"))
    if not callable(work):
        raise HandlerTypeError(f"create_task takes an async function and its arguments, or a coroutine, not {work!r}")
    label = name or str(getattr(work, "__name__", "task"))
    made = work(*args)
    if not inspect.isawaitable(made):
        raise HandlerTypeError(f"create_task takes an async function, and {label!r} is not async: it returned {made!r}")
    return made, label


def discard(work: Awaitable[Any]) -> None:
    """Close a coroutine that no task will await."""
    if inspect.iscoroutine(work):
        work.close()


async def end_task(task: TaskHandle, timeout: float | None, owner: str, extra: Mapping[str, str]) -> None:
    """Cancel a task and wait until it has ended.

    Args:
        task: The task.
        timeout: How long to wait, in seconds; by default, as long as clean-up may take.
        owner: Whose task it is, for the log.
        extra: What the log record says that it is about.
    """
    if not isinstance(task, TaskHandle):
        raise TypeError(f"cancel_task takes what create_task has returned, not {task!r}")
    seconds = CLEANUP_SECONDS if timeout is None else timeout
    task.cancel()
    with move_on_after(seconds) as limit:
        await task.wait()
    if limit.cancelled_caught:
        logger.warning("a task of %s has not ended %g seconds after it was cancelled", owner, seconds, extra=extra)
