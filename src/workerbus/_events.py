"""Event handlers: the second form of every hook, added from outside the class (N3).

Handlers are sync or async functions, called with the emitter first and then with what the method of the same name gets.
Who calls them, and when, is not known here.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from workerbus._methods import takes
from workerbus._slot import HasCore, core_of
from workerbus.errors import HandlerTypeError, UnknownEventError

Handler = Callable[..., Awaitable[Any] | Any]
H = TypeVar("H", bound=Handler)


class EventHandlers:
    """The event handlers that were added to one object.

    Args:
        owner: The name of the object's class, for errors.
        names: The names of the events that the object has.

    Attributes:
        names: As given.
        arguments: How many arguments a handler gets after the object, by event, as far as that is known.
        added: Called with the name of an event to which a handler was added.
    """

    __slots__ = ("_handlers", "_owner", "added", "arguments", "names")

    def __init__(self, owner: str, names: frozenset[str]) -> None:
        self._owner = owner
        self._handlers: dict[str, list[Handler]] | None = None  # most objects never get one
        self.names: frozenset[str] = names
        self.arguments: Mapping[str, int] = {}
        self.added: Callable[[str], None] | None = None

    def add(self, event_name: str, handler: Handler) -> None:
        """Add a handler; see `EventEmitter.add_event_handler`."""
        if event_name not in self.names:
            raise UnknownEventError(event_name, self._owner, self.names)
        if not callable(handler):
            raise HandlerTypeError(f"a handler for {event_name!r} must be a function, not {handler!r}")
        count = self.arguments.get(event_name)
        if count is not None and not takes(handler, *[None] * (count + 1)):
            shown = getattr(handler, "__qualname__", repr(handler))
            gets = f"the {self._owner} and {count or 'no'} more argument{'' if count == 1 else 's'}"
            raise HandlerTypeError(f"{shown} cannot handle {event_name!r}: a handler of that gets {gets}")
        if self._handlers is None:
            self._handlers = {}
        self._handlers.setdefault(event_name, []).append(handler)
        if self.added is not None:
            self.added(event_name)

    def __contains__(self, event_name: str) -> bool:
        return self._handlers is not None and event_name in self._handlers

    def of(self, event_name: str) -> list[Handler]:
        """Return the handlers of an event, the first added first."""
        return list(self._handlers.get(event_name, ())) if self._handlers is not None else []


class EventEmitter(HasCore):
    """An object with events, to which functions can be added as handlers."""

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """Call a function whenever an event happens.

        Args:
            event_name: The name of one of the class's events, ``"on_job_update"`` for instance.
            handler: A sync or async function; it gets this object, then the arguments of the method of the same name.

        Raises:
            UnknownEventError: There is no event of that name; a `ValueError`.
            HandlerTypeError: The handler cannot be called, or does not take its arguments; a `TypeError`.

        Guarantees: N3, N8.
        """
        _events_of(self).add(event_name, handler)

    def event_handler(self, event_name: str) -> Callable[[H], H]:
        """Return a decorator that adds a function as a handler of an event; see `add_event_handler`.

        Args:
            event_name: The name of one of the class's events.

        Raises:
            UnknownEventError: There is no event of that name; a `ValueError`. Raised when the function is decorated.
            HandlerTypeError: It was written without parentheses and a name; or the function does not take its
                arguments, which is raised when the function is decorated. A `TypeError`.

        Guarantees: N3, N8.
        """
        if callable(event_name):
            raise HandlerTypeError('event_handler is written @worker.event_handler("on_…"), with the name of an event')

        def add(handler: H) -> H:
            self.add_event_handler(event_name, handler)
            return handler

        return add


def _events_of(emitter: EventEmitter) -> EventHandlers:
    # The core of every class that has events keeps them under this name.
    events: EventHandlers = core_of(emitter).events
    return events


async def call_handler(handler: Handler, *args: Any) -> Any:
    """Call a handler and, if it is async, await what it returns."""
    result = handler(*args)
    return await result if inspect.isawaitable(result) else result
