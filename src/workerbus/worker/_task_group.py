"""The task group that a worker's ``run()`` gets: one that tells at once when a task in it fails (N2, W7).

An ordinary task group raises its errors when it is left. That is after the wind-down, in which the worker's jobs are
answered, and those answers have to say what has failed.
"""

from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from anyio.abc import TaskGroup

from workerbus._concurrency.failures import Kind, sort_failure
from workerbus._concurrency.handling import outside
from workerbus.errors import NotRunningError

T = TypeVar("T")


class WorkerTaskGroup(TaskGroup):
    """The task group that a worker's `run` is given; it is entered and left by the library.

    Args:
        group: Where the tasks run.
        failed: Called with the error of each task that fails, before anything is cancelled for it.
    """

    def __init__(self, group: TaskGroup, failed: Callable[[BaseException], None]) -> None:
        self._group = group
        self._failed = failed
        self.cancel_scope = group.cancel_scope

    def create_task(self, coro: Coroutine[Any, Any, T], *, name: object = None, context: Context | None = None) -> Any:
        """Start a task from a coroutine; see `anyio.abc.TaskGroup.create_task`."""
        named = getattr(coro, "__qualname__", None) if name is None else name
        # It ends with the worker, and not with the hook that starts it: that is why it may wait where a hook may not.
        return self._group.create_task(self._tell(coro), name=named, context=context or outside())

    async def start(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: object, **kwargs: Any) -> Any:
        """Start a task and wait until it says that it has; see `anyio.abc.TaskGroup.start`."""

        async def told(*arguments: Any, **keywords: Any) -> Any:
            return await self._tell(func(*arguments, **keywords))

        return await self._group.start(told, *args, **kwargs)

    async def _tell(self, coro: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await coro
        except BaseException as exc:
            failure = sort_failure(exc)
            if failure.own:
                self._failed(failure.error)
            elif failure.kind is Kind.EXIT:
                self._failed(failure.cause)  # which cancels everything
                return None  # out of an asyncio task it would end the loop itself
            raise

    async def __aenter__(self) -> NoReturn:
        raise NotRunningError("a worker's task group is entered already: start tasks in it, they end with the worker")

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> NoReturn:
        raise NotRunningError("a worker's task group is left when the worker ends")
