"""What a worker does with a message by itself: one table from message class to function (W4).

All of it is synchronous and none of it the user's: states move, jobs are begun or refused, hooks are queued. It is done
in the step of whoever sent the message; see `_worker_inbox`. What counts is the worker's state at this moment, whatever
it is when a hook runs later.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from anyio import Event

from workerbus._events import call_handler
from workerbus._hooks import HookQueue
from workerbus._vocabulary import JobStatus, WorkerErrorData
from workerbus._worker_inbox import WorkerInbox
from workerbus._worker_life import WorkerLife
from workerbus.abc import HookCall
from workerbus.jobs._client import JobClient
from workerbus.jobs._decorators import JobHandler
from workerbus.jobs._limiter import Limiter
from workerbus.jobs._server import JobServer, OpenJob, Route
from workerbus.messages import (
    BUILT_IN,
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
)


class Outcome:
    """The outcome of a hook that somebody waits for."""

    __slots__ = ("_done", "_error")

    def __init__(self) -> None:
        self._done = Event()
        self._error: Exception | None = None

    def set(self, error: Exception | None) -> None:
        """The hook has run."""
        self._error = error
        self._done.set()

    async def result(self) -> None:
        """Wait for the hook, and raise what it raised."""
        await self._done.wait()
        if self._error is not None:
            raise self._error


class DeskUser:
    """What the library's own kinds of worker add to what the desk does.

    Attributes:
        handled_at_once: What is done with a message for everybody or for this worker while it is active, by the
            message's class. Synchronous, in the step of whoever sends it.
    """

    handled_at_once: ClassVar[Mapping[type[BusMessage], Callable[[Any, Any], None]]] = {}

    def active_changed(self, active: bool) -> None:
        """It has become active, or inactive, in this step."""

    def became_ready(self) -> None:
        """It has started, in this step: what came before is being handled."""


class Owner(Protocol):
    """What the desk needs of its worker."""

    hooks: HookQueue
    job_client: JobClient
    job_server: JobServer

    @property
    def handled_at_once(self) -> Mapping[type[BusMessage], Callable[[Any, Any], None]]:
        """See `DeskUser`."""

    @property
    def name(self) -> str:
        """The worker's name."""

    @property
    def life(self) -> WorkerLife:
        """How it ends."""

    @property
    def will_be_active(self) -> bool:
        """Whether it has not started and will be active when it has."""

    @property
    def inbox(self) -> WorkerInbox:
        """Where messages wait."""

    def active_changed(self, active: bool) -> None:
        """It has become active, or inactive."""

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """The hook for jobs without a handler."""

    def event_handlers(self, event_name: str) -> list[Callable[..., Any]]:
        """The handlers of an event."""


class WorkerDesk:
    """A worker's state as others can change it, and the table of what changes it.

    Args:
        owner: The worker.
        handlers: Its ``@job`` methods.
    """

    __slots__ = ("_handlers", "_name", "_owner", "_routes", "activation_args", "active")

    def __init__(self, owner: Owner, handlers: Mapping[str, JobHandler]) -> None:
        self._owner = owner
        self._name = owner.name
        self._handlers = handlers
        self._routes: dict[str, Route] = {}
        self.active = False
        self.activation_args: dict[str, Any] | None = None

    def handle(self, message: BusMessage) -> None:
        """Do what the library has to do with a message, and queue what the user wants to."""
        kind, owner = type(message), self._owner
        mine = message.target == self._name
        by_client = JobClient.HANDLERS.get(kind)
        if by_client is not None:
            if mine:
                by_client(owner.job_client, message)
            if "on_bus_message" in owner.hooks.wanted:
                self._tell(message, mine)
            return
        if kind is BusCancelWorkerMessage and mine:
            owner.life.cancel(message)  # type: ignore[arg-type]  # just looked
            return  # its on_bus_message comes last of all, in the wind-down
        handle = self.TABLE.get(kind)
        if handle is not None:
            if mine:
                handle(self, message)
        elif not self.active and kind not in BUILT_IN and not owner.will_be_active:
            return
        elif kind in owner.handled_at_once and self.active and message.target in (None, owner.name):
            owner.handled_at_once[kind](owner, message)
        if "on_bus_message" in owner.hooks.wanted:
            self._tell(message, mine)
        if kind is BusEndWorkerMessage and mine:
            owner.life.end(message)  # type: ignore[arg-type]  # just looked

    def _tell(self, message: BusMessage, mine: bool) -> None:
        counted = message.bounded and not (message.of_a_job and mine)
        call = HookCall("on_bus_message", (message,), message)
        self._owner.hooks.add(call, system=bool(message.system), counted=counted)

    # --- activation

    def activate(self, args: dict[str, Any] | None, *, first: bool = False) -> Outcome | None:
        """Become active; returns what to wait for at the start, if there is a hook to run (W2)."""
        self.active = True
        self.activation_args = args
        self._owner.active_changed(True)
        if not self._owner.hooks.wants("on_activated"):
            return None
        outcome = Outcome() if first else None
        done = None if outcome is None else outcome.set
        self._owner.hooks.add(HookCall("on_activated", (args,), done=done), system=False)
        return outcome

    def deactivate(self) -> None:
        """Become inactive."""
        if self.active:
            self.active = False
            self.activation_args = None
            self._owner.active_changed(False)
            self._queue("on_deactivated", (), None)

    def _queue(self, hook: str, args: tuple[Any, ...], cause: BusMessage | None) -> None:
        if self._owner.hooks.wants(hook):
            self._owner.hooks.add(HookCall(hook, args, cause), system=bool(cause is not None and cause.system))

    # --- jobs

    def refusal(self) -> tuple[JobStatus, dict[str, Any]] | None:
        """Return how a new job is answered where none is taken (W4, W6)."""
        name = self._owner.name
        if not self._owner.life.takes_jobs:
            return JobStatus.CANCELLED, {"error": f"worker {name!r} is stopping", "type": "Cancelled"}
        if not self.active:
            return JobStatus.FAILED, {"error": f"worker {name!r} is inactive", "type": "Inactive"}
        return None

    def find_handler(self, message: BusJobRequestMessage) -> Route:
        """Return what to run for a request; raises `LookupError` where there is nothing (J3)."""
        name = message.job_name
        if name is not None:
            route = self._routes.get(name)
            if route is not None:
                return route
            handler = self._handlers.get(name)
            if handler is not None:
                limiter: Limiter[OpenJob] | None = None if handler.limit is None else Limiter(handler.limit)
                route = self._routes[name] = Route(getattr(self._owner, handler.attribute), handler.deferred, limiter)
                return route
        if self._owner.hooks.wants("on_job_request"):
            return Route(self._on_job_request, deferred=True)
        has = ", ".join(map(repr, sorted(self._handlers))) or "none"
        what = "jobs without a name" if name is None else f"job {name!r}"
        raise LookupError(f"worker {self._owner.name!r} has no handler for {what}; the jobs that it has: {has}")

    async def _on_job_request(self, message: BusJobRequestMessage) -> Any:
        result = await self._owner.on_job_request(message)
        for handler in self._owner.event_handlers("on_job_request"):
            returned = await call_handler(handler, self._owner, message)
            result = returned if result is None else result
        return result

    # --- the table's functions

    def _activation(self, message: BusActivateWorkerMessage) -> None:
        self.activate(message.args)

    def _deactivation(self, _message: BusDeactivateWorkerMessage) -> None:
        self.deactivate()

    def _end(self, _message: BusEndWorkerMessage) -> None:
        """After the hook for it has been queued; see `handle`."""

    def _request(self, message: BusJobRequestMessage) -> None:
        self._owner.job_server.request(message)

    def _job_cancel(self, message: BusJobCancelMessage) -> None:
        self._owner.job_server.cancel(message, self._owner.inbox.last_waiting(message))

    def _update_request(self, message: BusJobUpdateRequestMessage) -> None:
        self._owner.job_server.update_requested(message)

    def _child_error(self, message: BusWorkerLocalErrorMessage) -> None:
        self._queue("on_worker_failed", (WorkerErrorData(message.source, message.error),), message)

    TABLE: ClassVar[Mapping[type[BusMessage], Callable[["WorkerDesk", Any], None]]] = {
        BusActivateWorkerMessage: _activation,
        BusDeactivateWorkerMessage: _deactivation,
        BusEndWorkerMessage: _end,
        BusJobRequestMessage: _request,
        BusJobCancelMessage: _job_cancel,
        BusJobUpdateRequestMessage: _update_request,
        BusWorkerLocalErrorMessage: _child_error,
    }
