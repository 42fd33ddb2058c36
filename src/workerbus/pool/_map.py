"""A job of a pool for each payload of an iterable, and the answers as they come (S2, L7).

The context owns a task group. One task in it takes payloads from the iterable, always the same one, so that an async
generator may have scopes of its own; others ask for the jobs, and are used again. A payload is taken when fewer are
open than may be: open is what was taken and whose answer has not been read yet. So neither a slow pool nor a slow
reader lets anything pile up.
"""

import logging
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from workerbus._concurrency.failures import own_error, unwrap_group
from workerbus._concurrency.generators import close_generator
from workerbus._concurrency.left_open import LEFT_OPEN, Entry, close_left_open, entered_here, is_here, leave_open
from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._concurrency.waiting import Wait, waits
from workerbus._values import BATCH, Value, value
from workerbus.errors import JobError, NotRunningError, WrongTaskError
from workerbus.jobs._pool import TaskPool

logger = logging.getLogger("workerbus.pool")

P = TypeVar("P")
R = TypeVar("R")


@value
class PoolAnswer(Value, Generic[P, R]):
    """The answer to one job of `WorkerPool.map`.

    Args:
        index: The number of its payload, from 0.
        payload: The payload, as it came from the iterable.
        error: Why the job did not complete; None if it did.

    Guarantees: S2.
    """

    index: int
    payload: P
    _response: Any
    error: JobError | None = None

    @property
    def response(self) -> R:
        """The answer of the job.

        Raises:
            JobError: It did not complete; the exception is `error`.
        """
        if self.error is not None:
            raise self.error
        response: R = self._response
        return response


class PoolMap(Generic[P, R]):
    """The context of `WorkerPool.map`, and the iterator over its answers.

    Guarantees: L7, S2.
    """

    def __init__(
        self,
        ask: Callable[[P], Awaitable[R]],
        payloads: Iterable[P] | AsyncIterable[P],
        *,
        capacity: Callable[[], int],
        resized: set[Callable[[], None]],
        ordered: bool,
        cancel_on_error: bool,
        title: str,
        about_it: Mapping[str, str],
    ) -> None:
        if not isinstance(payloads, Iterable | AsyncIterable):
            raise TypeError(f"{title}: payloads is an iterable of payloads, or an async one, not {payloads!r}")
        self._ask = ask
        self._payloads = payloads
        self._capacity = capacity
        self._resized = resized
        self._ordered = ordered
        self._cancel_on_error = cancel_on_error
        self._title = title
        self._about = about_it
        self._group: TaskGroup | None = None
        self._entry: Entry = (None, 0)
        self._tasks: TaskPool[tuple[int, P]] = TaskPool(title, self._perform, lambda: self)
        self._taking = CancelScope()
        self._runs = False
        self._taken: Event
        self._index = 0
        self._open = 0
        self._all_taken = False
        self._closed = False
        self._failure: BaseException | None = None
        self._late_failure: BaseException | None = None
        self._answers: dict[int, PoolAnswer[P, R]] = {}
        self._answered: deque[int] = deque()  # in the order in which they came
        self._read = 0
        self._changed: Event | None = None
        self._room: Event | None = None

    # --- as a context

    async def __aenter__(self) -> Self:
        """Begin to take payloads, and to ask for jobs.

        Raises:
            NotRunningError: The context was used before; a `RuntimeError`.
        """
        if self._group is not None:
            raise NotRunningError(f"{self._title} was used before: call map() again")
        self._taken = Event()
        self._group = create_task_group()
        await self._group.__aenter__()
        self._entry = entered_here()
        self._resized.add(self._make_room)
        self._group.start_soon(self._take, name=f"{self._title}: payloads")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Cancel what is under way; it has unwound when this returns.

        Raises:
            Exception: What the iterable has raised while it was closed; it is logged instead where the body has raised.
            WrongTaskError: It was entered in another task; a `RuntimeError`.
        """
        group = self._group
        assert group is not None
        self._resized.discard(self._make_room)
        self._close()
        if not is_here(self._entry):
            leave_open(self._entry, lambda: self._leave(group, None))
            await self._unwound()
            raise WrongTaskError(self._title)
        if LEFT_OPEN:
            await close_left_open(self._entry[1])
        await self._unwound()
        group.cancel_scope.cancel()
        # Not with an error of the body's, which would come out of it in an exception group.
        suppressed = await self._leave(group, exc if isinstance(exc, get_cancelled_exc_class()) else None)
        if self._late_failure is not None:
            if exc is None:
                raise self._late_failure
            text = "%s: its payloads failed while they were closed"
            logger.error(text, self._title, exc_info=self._late_failure, extra=self._about)
        return suppressed

    async def _unwound(self) -> None:
        with move_on_after(CLEANUP_SECONDS, shield=True):
            await self._taken.wait()
            await self._tasks.quiet()

    async def _leave(self, group: TaskGroup, exc: BaseException | None) -> bool:
        try:
            if exc is not None:
                return bool(await group.__aexit__(type(exc), exc, exc.__traceback__))
            await group.__aexit__(None, None, None)
        except BaseExceptionGroup as several:
            raise unwrap_group(several) from None
        return False

    # --- as the host of its tasks

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Start a task."""
        assert self._group is not None
        self._group.start_soon(function, *args, name=name)

    # --- what the tasks do

    async def _take(self) -> None:
        try:
            if isinstance(self._payloads, AsyncIterable):
                await self._take_from(aiter(self._payloads))
            else:
                await self._take_at_once(iter(self._payloads))
        except BaseException as exc:  # noqa: BLE001 - sorted there; raised where the answers are read
            error = await own_error(exc)
            if self._closed:
                self._late_failure = error
            self._fail(error)
        else:
            self._all_taken = True
            self._tell()
        finally:
            self._taken.set()

    async def _take_at_once(self, payloads: Iterator[P]) -> None:
        while await self._has_room():
            try:
                payload = next(payloads)
            except StopIteration:
                return
            self._submit(payload)

    async def _take_from(self, payloads: AsyncIterator[P]) -> None:
        # An async generator may be inside of a scope of its own when it waits to go on. So there is one scope around
        # all of it, and none around a step; and it is cancelled while the generator runs, and not while it waits.
        with CancelScope() as self._taking:
            try:
                while await self._has_room():
                    self._runs = True
                    try:
                        payload = await anext(payloads)
                    except StopAsyncIteration:
                        return
                    finally:
                        self._runs = False
                    self._submit(payload)  # which asks for no job where the context has been left meanwhile
            finally:
                if isinstance(payloads, AsyncGenerator):  # its clean-up has run when the context is left
                    await close_generator(payloads)

    async def _has_room(self) -> bool:
        while self._open >= self._capacity() and not self._closed:
            self._room = Event()
            await self._room.wait()
        return not self._closed

    waits(_has_room, lambda its: its["self"].answer_in_words(" to be read"))

    def _submit(self, payload: P) -> None:
        self._open += 1
        self._tasks.submit((self._index, payload))
        self._index += 1

    async def _perform(self, item: tuple[int, P], scope: CancelScope) -> bool:
        index, payload = item
        if self._closed:
            return False
        try:
            answer: PoolAnswer[P, R] = PoolAnswer(index, payload, await self._ask(payload))
        except JobError as error:
            if self._cancel_on_error:
                self._fail(error)
                return False
            answer = PoolAnswer(index, payload, None, error)
        except BaseException as exc:  # noqa: BLE001 - sorted there; raised where the answers are read
            self._fail(await own_error(exc))
            return False
        self._answers[index] = answer
        if not self._ordered:
            self._answered.append(index)
        self._tell()
        return not scope.cancel_called

    def _fail(self, error: BaseException) -> None:
        if self._failure is None and not self._closed:
            self._failure = error
            self._close()
            self._tell()

    def _close(self) -> None:
        self._closed = True
        if self._runs:
            self._taking.cancel()
        self._make_room()
        self._tasks.cancel()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # --- as an iterator

    def __aiter__(self) -> Self:
        """Iterate over the answers; several loops share them.

        Raises:
            NotRunningError: The context was not entered; a `RuntimeError`.
        """
        if self._group is None:
            raise NotRunningError(f"{self._title} was not entered: write 'async with pool.map(…) as answers'")
        return self

    async def __anext__(self) -> PoolAnswer[P, R]:
        """Return the next answer.

        Raises:
            JobError: A job did not complete, and ``cancel_on_error`` says that it ends the others.
            StopAsyncIteration: All answers have been read.
            Exception: What the iterable of payloads has raised.
        """
        if self._read and not self._read % BATCH:
            await checkpoint()
        while True:
            if self._failure is not None:
                error, self._failure = self._failure, None
                raise error
            answer = None if self._closed else self._next_answer()
            if answer is not None:
                return answer
            if self._closed or (self._all_taken and not self._open):
                raise StopAsyncIteration
            if self._changed is None:
                self._changed = Event()
            await self._changed.wait()

    waits(__anext__, lambda its: its["self"].answer_in_words())

    def answer_in_words(self, what: str = "") -> Wait:
        """Return what those wait for who wait for an answer, or for one to be read."""
        return Wait(1, f"for an answer to {self._title}{what}")

    def _next_answer(self) -> PoolAnswer[P, R] | None:
        if self._ordered:
            answer = self._answers.pop(self._read, None)
        else:
            answer = self._answers.pop(self._answered.popleft()) if self._answered else None
        if answer is not None:
            self._read += 1
            self._open -= 1
            self._make_room()
        return answer
