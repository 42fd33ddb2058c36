"""What a message changes at a worker at once, by its class: a table, and what it needs (J3, W2, W4, W6).

Handling a message here is synchronous: state moves, jobs are started or refused, hooks are queued, never run. It is
done in the step of whoever sent the message; see `_inbox`. What counts is the worker's state at this moment, whatever
it is when a hook runs later.
"""

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import CoroutineType
from typing import Any, ClassVar

from anyio import Event, current_time

from workerbus._events import call_handler
from workerbus._methods import awaitable
from workerbus._order import merged
from workerbus._values import JobStatus, WorkerErrorData
from workerbus.abc import ChildReport, HookCall
from workerbus.errors import did_you_mean
from workerbus.jobs._client import JobClient
from workerbus.jobs._handlers import JobHandler
from workerbus.jobs._limiter import Limiter, PacedLimiter
from workerbus.jobs._open_job import OpenJob, Route
from workerbus.jobs._outcomes import error_payload
from workerbus.jobs._streaming import streamed
from workerbus.jobs._typing import Signature, signature_of, working_on
from workerbus.messages import (
    BUILT_IN,
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobStreamWindowMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
)
from workerbus.worker._hooks import ON_BUS_MESSAGE
from workerbus.worker._state import WorkerState

logger = logging.getLogger("workerbus.worker")


class Outcome:
    """The outcome of a hook that somebody waits for: nothing, or the error that it raised."""

    __slots__ = ("_done", "_error")

    def __init__(self) -> None:
        self._done = Event()
        self._error: BaseException | None = None

    def set(self, error: BaseException | None) -> None:
        """Note that the hook has run, and what it raised, if anything."""
        self._error = error
        self._done.set()

    async def result(self) -> None:
        """Wait for the hook, and raise what it raised."""
        await self._done.wait()
        if self._error is not None:
            raise self._error


def _limiter(handler: JobHandler) -> Limiter[OpenJob] | None:
    if handler.rate is not None:
        return PacedLimiter(handler.limit or math.inf, handler.rate, current_time)
    return None if handler.limit is None else Limiter(handler.limit)


def _looked_up(worker: Any, attribute: str) -> Callable[[BusJobRequestMessage], Awaitable[Any]]:
    def run(message: BusJobRequestMessage) -> Awaitable[Any]:
        returned: Any = getattr(worker, attribute)(message)
        if type(returned) is CoroutineType:
            return returned
        if isinstance(returned, AsyncGenerator):
            return streamed(worker, message, returned)
        return awaitable(returned, worker, attribute)

    return run


def _converting(worker: Any, attribute: str, signature: Signature) -> Callable[[BusJobRequestMessage], Awaitable[Any]]:
    async def run(message: BusJobRequestMessage) -> Any:
        with working_on(message):
            returned: Any = getattr(worker, attribute)(signature.made_payload(message))
            if isinstance(returned, AsyncGenerator):
                return await streamed(worker, message, returned, signature.plain_chunk)
            return signature.plain_answer(await awaitable(returned, worker, attribute))

    return run


class MessageDispatch:
    """Does what messages ask of a worker.

    Args:
        state: The worker's state.
        cancel: Cancels the worker.
        end: Ends the worker gracefully.
        handlers: Its ``@job`` methods, by job name.

    Attributes:
        handled_at_once: Message class to a function that is called with each message of that class that is for this
            worker or for everybody, while the worker is active; synchronous, in the step of whoever sends it. Set by
            the library's own kinds of worker.
        active_changed: Called with True or False in the step in which the worker becomes active or inactive.
    """

    __slots__ = (
        "_cancel",
        "_end_worker",
        "_handlers",
        "_name",
        "_routes",
        "_state",
        "active_changed",
        "handled_at_once",
    )

    def __init__(
        self,
        state: WorkerState,
        *,
        cancel: Callable[[BusCancelWorkerMessage], None],
        end: Callable[[BusEndWorkerMessage], None],
        handlers: Mapping[str, JobHandler],
    ) -> None:
        self._state = state
        self._name = state.name
        self._cancel = cancel
        self._end_worker = end
        self._handlers = handlers
        self._routes: dict[str, Route] = {}
        self.handled_at_once: Mapping[type[BusMessage], Callable[[Any], None]] = {}
        self.active_changed: Callable[[bool], None] | None = None

    def handle(self, message: BusMessage) -> None:
        """Do what the library has to do with a message, and queue what the user wants to."""
        kind, state = type(message), self._state
        mine = message.target == self._name
        # What comes back from a worker that was asked is taken whether this worker is active or not.
        by_client = JobClient.HANDLERS.get(kind)
        if by_client is not None:
            if mine:
                by_client(state.job_client, message)
        elif kind is BusCancelWorkerMessage and mine:
            self._cancel(message)  # type: ignore[arg-type]  # just looked
            return  # its on_bus_message comes last of all, in the wind-down
        elif (handle := self.TABLE.get(kind)) is not None:
            if mine:
                handle(self, message)
        # Only system messages get here before the start; a worker that will be active then hears of them.
        elif not state.active and kind not in BUILT_IN and not state.will_be_active:
            return
        elif kind in self.handled_at_once and state.active and message.target in (None, self._name):
            self.handled_at_once[kind](message)
        # As `wants` does it: the call would cost every message a twelfth of its time.
        hooks, name = state.hooks, "on_bus_message"
        if name in hooks.wanted or name in hooks.own or hooks.kind.on_bus_message is not ON_BUS_MESSAGE:
            self._tell(message, mine)
        if kind is BusEndWorkerMessage and mine:  # behind its own hook, which is among those that still run
            self._end_worker(message)  # type: ignore[arg-type]  # just looked

    def _tell(self, message: BusMessage, mine: bool) -> None:
        counted = message.bounded and not (message.of_a_job and mine)
        call = HookCall("on_bus_message", (message,), message)
        self._state.hooks.add(call, system=bool(message.system), counted=counted)

    # --- activation

    def activate(self, args: dict[str, Any] | None, *, first: bool = False) -> Outcome | None:
        """Become active.

        Args:
            args: What the hook gets.
            first: Whether this is the activation at the start, whose hook the start waits for.

        Returns:
            What to wait for, if this is the first activation and there is a hook to run.
        """
        state = self._state
        state.active = True
        state.activation_args = args
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("worker %r is active", state.name, extra=state.about)
        if self.active_changed is not None:
            self.active_changed(True)
        if not state.hooks.wants("on_activated"):
            return None
        outcome = Outcome() if first else None
        done = None if outcome is None else outcome.set
        state.hooks.add(HookCall("on_activated", (args,), done=done), system=False)
        return outcome

    def deactivate(self) -> None:
        """Become inactive."""
        state = self._state
        if state.active:
            state.active = False
            state.activation_args = None
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("worker %r is inactive", state.name, extra=state.about)
            if self.active_changed is not None:
                self.active_changed(False)
            self._queue("on_deactivated", (), None)

    def _queue(self, hook: str, args: tuple[Any, ...], cause: BusMessage | None) -> None:
        hooks = self._state.hooks
        if hooks.wants(hook):
            hooks.add(HookCall(hook, args, cause), system=bool(cause is not None and cause.system))

    # --- jobs

    def refusal(self) -> tuple[JobStatus, dict[str, Any]] | None:
        """Return the status and payload with which a new job is refused; None where jobs are taken."""
        if self._state.crash is not None:
            return JobStatus.ERROR, error_payload(self._state.crash)
        if not self._state.takes_jobs:
            return JobStatus.CANCELLED, {"error": f"worker {self._name!r} is stopping", "type": "Cancelled"}
        if not self._state.active:
            return JobStatus.FAILED, {"error": f"worker {self._name!r} is inactive", "type": "Inactive"}
        return None

    def find_handler(self, message: BusJobRequestMessage) -> Route:
        """Return what to run for a request.

        Raises:
            LookupError: The worker has nothing for it; the text names the jobs that it has.
        """
        state, name = self._state, message.job_name
        if name is not None:
            route = self._routes.get(name)
            if route is not None:
                return route
            handler = self._handlers.get(name)
            if handler is not None:
                limiter = _limiter(handler)
                signature = signature_of(getattr(type(state.worker), handler.attribute))
                if signature.is_plain:
                    run = _looked_up(state.worker, handler.attribute)
                else:
                    run = _converting(state.worker, handler.attribute, signature)
                route = self._routes[name] = Route(run, handler.attribute, handler.deferred, limiter)
                return route
        if state.hooks.wants("on_job_request"):
            return Route(self._on_job_request, "on_job_request", deferred=True)
        has = ", ".join(map(repr, sorted(self._handlers))) or "none"
        what = "jobs without a name" if name is None else f"job {name!r}"
        near = did_you_mean(name or "", self._handlers)
        raise LookupError(
            f"worker {self._name!r} has no handler for {what}; the jobs that it has: {has}{near and f'; {near}'}"
        )

    async def _on_job_request(self, message: BusJobRequestMessage) -> Any:
        worker = self._state.worker
        result = await awaitable(worker.on_job_request(message), worker, "on_job_request")
        for handler in self._state.events.of("on_job_request"):
            returned = await call_handler(handler, worker, message)
            result = returned if result is None else result
        return result

    # --- the table's functions

    def _activation(self, message: BusActivateWorkerMessage) -> None:
        self._state.after = merged(self._state.after, message.after)
        self.activate(message.args)

    def _deactivation(self, message: BusDeactivateWorkerMessage) -> None:
        if not message.done:
            self.deactivate()

    def _end(self, _message: BusEndWorkerMessage) -> None:
        """Do nothing yet: the worker ends when the hook for the message has been queued; see `handle`."""

    def _request(self, message: BusJobRequestMessage) -> None:
        self._state.job_server.request(message)

    def _job_cancel(self, message: BusJobCancelMessage) -> None:
        self._state.job_server.cancel(message, self._state.inbox.last_waiting(message))

    def _window(self, message: BusJobStreamWindowMessage) -> None:
        self._state.job_server.window_moved(message)

    def _update_request(self, message: BusJobUpdateRequestMessage) -> None:
        self._state.job_server.update_requested(message)

    def _child_error(self, message: BusWorkerLocalErrorMessage) -> None:
        data = WorkerErrorData(message.source, message.error, message.exception, message.origin, message.fatal)
        if self._state.hooks.wants("on_worker_failed"):
            self._state.hooks.add(ChildReport("on_worker_failed", (data,), message), system=True)

    TABLE: ClassVar[Mapping[type[BusMessage], Callable[["MessageDispatch", Any], None]]] = {
        BusActivateWorkerMessage: _activation,
        BusDeactivateWorkerMessage: _deactivation,
        BusEndWorkerMessage: _end,
        BusJobRequestMessage: _request,
        BusJobCancelMessage: _job_cancel,
        BusJobStreamWindowMessage: _window,
        BusJobUpdateRequestMessage: _update_request,
        BusWorkerLocalErrorMessage: _child_error,
    }
