"""Which call of a subscriber's own code the running task belongs to, and who waits for that (B9).

Code that waits for room in the lane that it holds up itself waits for ever. A task id does not tell: a hook may have
started others in a task group of its own, and waits for them. Context variables are copied into every task that is
started, so each call of a hook is noted in one: a task counts as the hook's own code as long as the hook runs.

A hook may also wait for code elsewhere: for the handler of a job that it has asked for. So the run of a handler is
noted as well, and knows who waits for it.
"""

from collections.abc import Collection
from contextlib import suppress
from contextvars import Context, ContextVar, Token, copy_context

_current: "ContextVar[Handling | None]" = ContextVar("workerbus_handling", default=None)


class Handling:
    """One call of a subscriber's own code, from when this is made.

    Args:
        owner: What is held up meanwhile: the room in the subscriber's data lane. None where nothing is.

    Attributes:
        owner: As given.
        over: Whether the call has ended; whoever has begun it says so with `leave`.
    """

    __slots__ = ("_before", "over", "owner")

    def __init__(self, owner: object) -> None:
        self.owner: object = owner
        self.over: bool = False
        self._before: Token[Handling | None] = _current.set(self)

    @property
    def waiters(self) -> "Collection[Handling]":
        """The calls that cannot end before this one has."""
        return ()

    def leave(self) -> None:
        """Note that the call has ended, and let the task be as it was before."""
        self.over = True
        with suppress(ValueError):  # a coroutine that is closed is closed elsewhere
            _current.reset(self._before)


def current() -> Handling | None:
    """Return the call that the running task belongs to, if there is one and it is not over."""
    handling = _current.get()
    return None if handling is None or handling.over else handling


def held_up_by(handling: Handling | None) -> set[object]:
    """Return all that is held up while a call lasts, by itself or by those that wait for it."""
    owners: set[object] = set()
    seen: set[Handling] = set()
    left = [] if handling is None else [handling]
    while left:
        each = left.pop()
        if not each.over and each not in seen:
            seen.add(each)
            owners.add(each.owner)
            left.extend(each.waiters)
    return owners - {None}


def holds_up(owner: object) -> bool:
    """Whether the running task belongs to a call that holds up the owner."""
    return owner in held_up_by(_current.get())


def outside() -> Context | None:
    """Return the context for a task that no hook waits for; None where that is the running one."""
    if _current.get() is None:
        return None
    context = copy_context()
    context.run(_current.set, None)
    return context
