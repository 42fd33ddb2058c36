"""What the running backend has at hand, looked up once and not at each use; it is never asked for by its name."""

import sys
from collections.abc import Callable
from typing import Any

import anyio
from anyio import CancelScope, Event
from anyio.lowlevel import current_token


def event_class() -> type[Event]:
    """Return the running backend's class of events: `Event` looks it up each time, which takes longer than the rest."""
    return type(Event())


def scope_class() -> type[CancelScope]:
    """Return the running backend's class of cancel scopes, which `CancelScope` looks up each time."""
    return type(CancelScope())


def running_backend() -> Any:
    """Return an object with the running backend's ``current_time`` and ``current_effective_deadline``.

    Those of anyio look the backend up in each call, for half a microsecond: a thirtieth of a job in all. Where anyio
    has no such object, they are what is returned.
    """
    return getattr(sys.modules[event_class().__module__], "backend_class", anyio)


def task_getter() -> Callable[[], Any]:
    """Return a function that returns the running task, or what is equal for the same task.

    That of the backend, where anyio has it at hand; anyio's own takes four times as long.
    """
    getter: Callable[[], Any] = getattr(sys.modules[event_class().__module__], "current_task", anyio.get_current_task)
    return getter


def caller_from_outside() -> Callable[[Callable[[], object]], object]:
    """Return a function that has the running event loop call something soon, also from a signal handler or a thread.

    It raises `RuntimeError` when the loop is closed.
    """
    token: Any = current_token().native_token
    soon: Callable[[Callable[[], object]], object] = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
    return soon
