"""How long things live: the tasks of an owner, and the one clock of a wind-down (L1, L3-L5, R5, W8).

`TaskHost` is a task group seen from synchronous code: what it starts begins with the owner's context variables, not
with those of whoever happened to send the message, and a `KeyboardInterrupt` or `SystemExit` in it ends the owner as
itself. `CleanUp` hands out the only shields of the library. Each has a deadline, all of one wind-down share it, and
`CleanUp.abandon` opens them all at once.
"""

import math
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Final

from anyio import CancelScope, Event, current_time, get_cancelled_exc_class
from anyio.abc import TaskGroup

from workerbus._concurrency.failures import cancelled_from_outside
from workerbus._concurrency.turns import Turns

CLEANUP_SECONDS: Final = 2.0
"""How long, in seconds, the library waits for what it has cancelled: one absolute deadline per wind-down.

Guarantees: L4.
"""

_MARK = "__workerbus_deadline__"
_STALE = 0.1


class LazyEvent:
    """An event that is made when somebody waits for it: most of a worker's never are, and each takes a kilobyte."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._event: Event | None = None
        self._set = False

    def set(self) -> None:
        """Let all who wait go on, now and from now on."""
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


def carry_deadline(source: BaseException | None, target: BaseException) -> None:
    """Let an exception that takes the place of another one have the same deadline for clean-up."""
    if source is not None and _MARK in source.__dict__:
        target.__dict__[_MARK] = source.__dict__[_MARK]


class Shield:
    """A context, entered with a plain ``with``: what runs in it is not cancelled from outside until the deadline.

    A class and not a generator, so that no cancel scope is ever held open across a ``yield``.
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
        abandoned: Whether all shields are open, now and from now on.
        interruptible: Whether the next interruption opens all shields: set when a signal has begun the wind-down.
        _deadline: When this wind-down must be over, once its clock was started.
        _shields: The shields in which something runs; None until there is one.
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
        """The scopes of the shields in which something runs; a part of a wind-down has none, and uses the whole's."""
        if self._shields is None:
            self._shields = set()
        return self._shields

    def begin(self) -> float:
        """Start the clock of a wind-down that covers everything here, unless it runs; returns the deadline."""
        if self._deadline is None:
            self._deadline = current_time() + CLEANUP_SECONDS
        return self.deadline()

    def deadline(self, exc: BaseException | None = None) -> float:
        """Return when clean-up must be over, on the event loop's clock.

        Contexts that one exception leaves one after the other share its deadline, so that nesting does not add up.

        Args:
            exc: The exception that is on its way out, if any; it is where the deadline is kept.
        """
        begun = self.begun
        if begun is not None:
            return begun
        if exc is None:
            return current_time() + CLEANUP_SECONDS
        now = current_time()
        deadline: float = exc.__dict__.get(_MARK, -math.inf)
        if deadline < now - _STALE:  # it has left all contexts before: it was kept, and raised again
            deadline = exc.__dict__[_MARK] = now + CLEANUP_SECONDS
        return deadline

    @property
    def begun(self) -> float | None:
        """The deadline, if the clock was started, here or for the whole; else None."""
        whole = None if self._whole is None else self._whole.begun
        if self._deadline is None or whole is None:
            return self._deadline if whole is None else whole
        return min(self._deadline, whole)

    def shield(self, deadline: float | None = None) -> Shield:
        """Return a shield for clean-up that must await, until the deadline (by default, this wind-down's)."""
        return Shield(self._whole or self, self.deadline() if deadline is None else deadline)

    def interrupt(self) -> bool:
        """Open all shields, once, if the whole wind-down is interruptible; returns whether it was."""
        whole = self._whole or self
        if not whole.interruptible:
            return False
        whole.interruptible = False  # by now, only the user's own clean-up can take time
        whole.abandon()
        return True

    def abandon(self) -> None:
        """Open all shields, now and from now on, since somebody insists on the end."""
        self.abandoned = True
        for scope in list(self.shields):
            scope.cancel()


class TaskHost:
    """A task group that synchronous code can start tasks in.

    Args:
        group: The task group.
        clean_up: The wind-down that an interruption of one of the tasks is to cut short.

    Attributes:
        group: The task group.
        context: The owner's context variables, of which each task gets a copy.
        running: How many of its tasks have not ended.
        ends: Whether its owner waits for what still runs, and for nothing else: then the group closes.
        turns: The turns of those lanes in it that take turns; None where none do.
        fatal: The `KeyboardInterrupt` or `SystemExit` that a task raised, for the owner to raise when all is closed.
    """

    __slots__ = ("_clean_up", "_gone", "context", "ends", "fatal", "group", "running", "turns")

    def __init__(self, group: TaskGroup, clean_up: CleanUp) -> None:
        self.group: TaskGroup = group
        self._clean_up = clean_up
        self.context: Context = copy_context()
        self.fatal: BaseException | None = None
        self.running: int = 0
        self.ends: bool = False
        self.turns: Turns | None = None
        self._gone: Event | None = None

    @property
    def over(self) -> bool:
        """Whether the group takes no more tasks, where its owner notes that it ends."""
        return self.ends and not self.running

    def start(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str) -> None:
        """Start a task with a fresh copy of the owner's context variables."""
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
            # Only this task was cancelled, natively. Let through, that would cancel the whole group on asyncio.
            if cancelled_from_outside():
                raise
        finally:
            self.running -= 1
            if self._gone is not None:
                self._gone.set()

    async def gone(self) -> None:
        """Wait until none of the tasks runs."""
        while self.running:
            self._gone = Event()
            await self._gone.wait()

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
