"""Which call of a subscriber's own code the running task belongs to (B9).

Code that waits for room in the lane that it holds up itself waits for ever. A task id does not tell: a hook may have
started others in a task group of its own, and waits for them. Context variables are copied into every task that is
started, so each call of a hook is noted in one: a task counts as the hook's own code as long as the hook runs.
"""

from contextvars import Context, ContextVar, copy_context

_current: "ContextVar[Handling | None]" = ContextVar("workerbus_handling", default=None)


class Handling:
    """One call of a hook or of ``on_bus_message``, from when this is made.

    Args:
        owner: What is held up meanwhile: the subscriber's data lane.

    Attributes:
        owner: As given.
        over: Whether the call has ended; to be set by whoever has begun it.
    """

    __slots__ = ("over", "owner")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.over: bool = False
        _current.set(self)


def holds_up(owner: object) -> bool:
    """Whether the running task belongs to a call that holds up the owner."""
    handling = _current.get()
    return handling is not None and handling.owner is owner and not handling.over


def outside() -> Context | None:
    """Return the context for a task that no hook waits for; None where that is the running one."""
    if _current.get() is None:
        return None
    context = copy_context()
    context.run(_current.set, None)
    return context
