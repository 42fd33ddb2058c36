"""Event handlers: the second form of every hook, added from outside the class (N3).

Handlers are sync or async functions, called with the emitter first and then
with what the method of the same name gets. Who calls them, and when, is not known here.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from workerbus._slot import HasCore, core_of
from workerbus.errors import HandlerTypeError, UnknownEventError

Handler = Callable[..., Awaitable[Any] | Any]
H = TypeVar("H", bound=Handler)


class EventHandlers:
    """The handlers that were added to one object.

    Args:
        owner: Whose they are, in an error: the name of its class.
        names: The events that it has.

    Attributes:
        added: Called with the name of an event that has got a handler.
    """

    __slots__ = ("_handlers", "_owner", "added", "names")

    def __init__(self, owner: str, names: frozenset[str]) -> None:
        self._owner = owner
        self._handlers: dict[str, list[Handler]] | None = None  # most objects never get one
        self.names: frozenset[str] = names
        self.added: Callable[[str], None] | None = None

    def add(self, event_name: str, handler: Handler) -> None:
        """Add a handler; see `EventEmitter.add_event_handler`."""
        if event_name not in self.names:
            raise UnknownEventError(event_name, self._owner, self.names)
        if not callable(handler):
            raise HandlerTypeError(f"a handler for {event_name!r} must be a function, not {handler!r}")
        if self._handlers is None:
            self._handlers = {}
        self._handlers.setdefault(event_name, []).append(handler)
        if self.added is not None:
            self.added(event_name)

    def __contains__(self, event_name: str) -> bool:
        return self._handlers is not None and event_name in self._handlers

    def of(self, event_name: str) -> list[Handler]:
        """Return the handlers of an event, in the order in which they were added."""
        return list(self._handlers.get(event_name, ())) if self._handlers is not None else []


class EventEmitter(HasCore):
    """Something with events that functions can be added to. Its core has its `EventHandlers` as ``events``."""

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """Call ``handler`` whenever the event happens (N3).

        Args:
            event_name: One of the class's events, ``"on_job_update"`` for instance.
            handler: A sync or async function; it gets this object, and what the method of the same name gets.

        Raises:
            UnknownEventError: There is no event of that name; a `ValueError`.
            HandlerTypeError: The handler cannot be called; a `TypeError`.
        """
        _events_of(self).add(event_name, handler)

    def event_handler(self, event_name: str) -> Callable[[H], H]:
        """Add the decorated function as a handler of the event; see `add_event_handler`."""

        def add(handler: H) -> H:
            self.add_event_handler(event_name, handler)
            return handler

        return add


def _events_of(emitter: EventEmitter) -> EventHandlers:
    events: EventHandlers = core_of(emitter).events
    return events


async def call_handler(handler: Handler, *args: Any) -> Any:
    """Call a handler, and await what it returns if it is async."""
    result = handler(*args)
    return await result if inspect.isawaitable(result) else result
