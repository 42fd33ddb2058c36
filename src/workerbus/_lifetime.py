"""How long things live: the tasks of an owner, and the one clock of a wind-down (L1, L4).

`TaskHost` is a task group seen from synchronous code: what it starts begins with the owner's context variables, not
with those of whoever happened to send the message, and a `KeyboardInterrupt` or `SystemExit` in it ends the owner as
itself. `CleanUp` hands out the only shields of the library. Each has a deadline, all of one wind-down share it, and
`CleanUp.abandon` opens them all at once.
"""

import math
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Final

import anyio
from anyio import CancelScope, Event, current_effective_deadline, current_time, get_cancelled_exc_class
from anyio.abc import TaskGroup

CLEANUP_SECONDS: Final = 2.0
"""How long, in seconds, the library waits for what it has cancelled: one absolute deadline per wind-down (L4)."""

_MARK = "__workerbus_deadline__"
_STALE = 0.1


def event_class() -> type[Event]:
    """Return the running backend's class of events: `Event` looks it up each time, which takes longer than the rest."""
    return type(Event())


def scope_class() -> type[CancelScope]:
    """Return the running backend's class of cancel scopes, for the same reason."""
    return type(CancelScope())


def running_backend() -> Any:
    """Return the running backend's ``current_time`` and ``current_effective_deadline``, as attributes of something.

    Those of anyio look the backend up in each call, which takes half a microsecond: together, a thirtieth of a job.
    """
    return getattr(sys.modules[event_class().__module__], "backend_class", anyio)


class Mark:
    """An event that is made when somebody waits for it: most of a worker's never are, and each takes a kilobyte."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._event: Event | None = None
        self._set = False

    def set(self) -> None:
        """Let all who wait go on."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._event is None:
            self._event = Event()
            if self._set:
                self._event.set()
        await self._event.wait()


def cancelled_from_outside() -> bool:
    """Whether the running task is in a cancelled scope.

    If not, a cancellation that comes up is a native one, of asyncio's: somebody has cancelled this very task, or code
    in it has raised `CancelledError`. That concerns what runs in it, and nobody else.
    """
    return current_effective_deadline() == -math.inf


def plain(exc: BaseException) -> BaseException:
    """Take one cause out of its exception groups; of several, one that ends programs comes first (L6)."""
    while isinstance(exc, BaseExceptionGroup):
        ending = exc.subgroup((KeyboardInterrupt, SystemExit))
        if ending is not None and len(exc.exceptions) > 1:
            exc = ending
        elif len(exc.exceptions) == 1:
            exc = exc.exceptions[0]
        else:
            break
    return exc


def without_cancellation(several: BaseExceptionGroup[BaseException]) -> Exception | None:
    """Return what user code raised beside its cancellation, as one plain exception where it was one; None for nothing.

    Raises:
        BaseException: A `KeyboardInterrupt` or `SystemExit` that was among it.
    """
    rest = several.split(get_cancelled_exc_class())[1]
    if rest is None:
        return None
    error = plain(rest)
    if not isinstance(error, Exception):
        raise error
    return error


def carry_deadline(source: BaseException | None, target: BaseException) -> None:
    """Let an exception that takes the place of another share the deadline of its clean-up."""
    if source is not None and _MARK in source.__dict__:
        target.__dict__[_MARK] = source.__dict__[_MARK]


class Shield:
    """An ``async``-free context: what runs in it is not cancelled from outside until the deadline.

    A class and not a generator, so that no cancel scope is ever held open across a ``yield`` (L5).
    """

    __slots__ = ("_owner", "_scope")

    def __init__(self, owner: "CleanUp", deadline: float) -> None:
        self._owner = owner
        self._scope = CancelScope(shield=True, deadline=deadline)

    def __enter__(self) -> CancelScope:
        self._owner.shields.add(self._scope)
        if self._owner.abandoned:
            self._scope.cancel()
        return self._scope.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._owner.shields.discard(self._scope)
        return self._scope.__exit__(exc_type, exc, traceback)


class CleanUp:
    """The clock of one wind-down, and the shields that it allows.

    Args:
        whole: The wind-down that this one is a part of; the earlier deadline of the two counts.

    Attributes:
        interruptible: Whether the next interruption opens all shields: set when a signal has begun the wind-down (R5).
    """

    __slots__ = ("_deadline", "_shields", "_whole", "abandoned", "interruptible")

    def __init__(self, whole: "CleanUp | None" = None) -> None:
        self._whole = whole
        self._deadline: float | None = None
        self.abandoned: bool = False
        self.interruptible: bool = False
        self._shields: set[CancelScope] | None = None

    @property
    def shields(self) -> set[CancelScope]:
        """The shields that are open; of most parts there is never one, as they use the whole's."""
        if self._shields is None:
            self._shields = set()
        return self._shields

    def begin(self) -> float:
        """Start the clock of a wind-down that covers everything here; the first call counts."""
        if self._deadline is None:
            self._deadline = current_time() + CLEANUP_SECONDS
        return self.deadline()

    def deadline(self, exc: BaseException | None = None) -> float:
        """Return when clean-up must be over.

        Contexts that one exception leaves one after the other share its deadline, so that nesting does not add up.
        """
        begun = self.begun
        if begun is not None:
            return begun
        if exc is None:
            return current_time() + CLEANUP_SECONDS
        now = current_time()
        deadline: float = exc.__dict__.get(_MARK, -math.inf)
        if deadline < now - _STALE:  # not on its way out any more: it was kept, and raised again
            deadline = exc.__dict__[_MARK] = now + CLEANUP_SECONDS
        return deadline

    @property
    def begun(self) -> float | None:
        """The deadline, if the clock has been started, here or for the whole."""
        whole = None if self._whole is None else self._whole.begun
        if self._deadline is None or whole is None:
            return self._deadline if whole is None else whole
        return min(self._deadline, whole)

    def shield(self, deadline: float | None = None) -> Shield:
        """Return a shield for clean-up that must await, until the deadline (by default, this wind-down's)."""
        return Shield(self._whole or self, self.deadline() if deadline is None else deadline)

    def interrupt(self) -> bool:
        """Open all shields if the whole wind-down is interruptible, once; returns whether it was (R5)."""
        whole = self._whole or self
        if not whole.interruptible:
            return False
        whole.interruptible = False  # by now, only the user's own clean-up can take time
        whole.abandon()
        return True

    def abandon(self) -> None:
        """Open all shields, now and from now on: somebody insists (R5)."""
        self.abandoned = True
        for scope in list(self.shields):
            scope.cancel()


class TaskHost:
    """A task group that synchronous code can start tasks in.

    Args:
        group: The task group.
        clean_up: The wind-down that an interruption of one of the tasks is to cut short.

    Attributes:
        running: How many of its tasks have not ended.
        fatal: The `KeyboardInterrupt` or `SystemExit` that a task raised, for the owner to raise when all is closed.
    """

    __slots__ = ("_clean_up", "context", "fatal", "group", "running")

    def __init__(self, group: TaskGroup, clean_up: CleanUp) -> None:
        self.group: TaskGroup = group
        self._clean_up = clean_up
        self.context: Context = copy_context()
        self.fatal: BaseException | None = None
        self.running: int = 0

    def start(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str) -> None:
        """Start a task with a fresh copy of the owner's context variables (W8)."""
        self.running += 1
        self.context.copy().run(self._spawn, function, args, name)

    def _spawn(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], name: str) -> None:
        self.group.start_soon(self._guard, function, args, name=name)

    async def _guard(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            coroutine = function(*args)
            del args  # they may be large, and a task live long
            await coroutine
        except (KeyboardInterrupt, SystemExit) as exc:
            # Out of an asyncio task these would end the loop itself, with everything in it.
            self.end_with(exc)
        except get_cancelled_exc_class():
            # A native one that came with that of a scope in the task: it would cancel the whole group.
            if cancelled_from_outside():
                raise
        finally:
            self.running -= 1

    def end_with(self, exc: BaseException) -> None:
        """Cancel the group because of an exception that ends programs, and keep it for the owner."""
        if self.fatal is None:
            self.fatal = exc
        self.group.cancel_scope.cancel()
        self._clean_up.interrupt()

    def raise_fatal(self) -> None:
        """Raise what ended the group, if anything did, over whatever else is on its way: for a ``finally``."""
        if self.fatal is not None:
            raise self.fatal
