"""Event handlers: the second form of every hook, added from outside the class (N3).

An emitter names its events in ``EVENTS``. Handlers are sync or async functions, called with the emitter first and then
with what the method of the same name gets. Who calls them, and when, is not known here.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, TypeVar

from workerbus.errors import HandlerTypeError, UnknownEventError

Handler = Callable[..., Awaitable[Any] | Any]
H = TypeVar("H", bound=Handler)


class EventEmitter:
    """Something with events that functions can be added to."""

    EVENTS: ClassVar[frozenset[str]] = frozenset()

    _handlers: dict[str, list[Handler]] | None = None

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """Call ``handler`` whenever the event happens (N3).

        Args:
            event_name: One of the class's events, ``"on_job_update"`` for instance.
            handler: A sync or async function; it gets this object, and what the method of the same name gets.

        Raises:
            UnknownEventError: There is no event of that name; a `ValueError`.
            HandlerTypeError: The handler cannot be called; a `TypeError`.
        """
        if event_name not in self.EVENTS:
            raise UnknownEventError(event_name, type(self).__name__, self.EVENTS)
        if not callable(handler):
            raise HandlerTypeError(f"a handler for {event_name!r} must be a function, not {handler!r}")
        if self._handlers is None:  # most objects never get one
            self._handlers = {}
        self._handlers.setdefault(event_name, []).append(handler)

    def event_handler(self, event_name: str) -> Callable[[H], H]:
        """Add the decorated function as a handler of the event; see `add_event_handler`."""

        def add(handler: H) -> H:
            self.add_event_handler(event_name, handler)
            return handler

        return add

    def has_event_handler(self, event_name: str) -> bool:
        """Whether anybody handles the event."""
        return self._handlers is not None and event_name in self._handlers

    @property
    def handled_events(self) -> Iterable[str]:
        """The events that somebody handles."""
        return self._handlers or ()

    def event_handlers(self, event_name: str) -> list[Handler]:
        """Return the handlers of an event, in the order in which they were added."""
        return list(self._handlers.get(event_name, ())) if self._handlers is not None else []


async def call_handler(handler: Handler, *args: Any) -> Any:
    """Call a handler, and await what it returns if it is async."""
    result = handler(*args)
    return await result if inspect.isawaitable(result) else result
