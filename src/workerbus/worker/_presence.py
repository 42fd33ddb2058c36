"""How a worker makes itself known, hears of others, and leaves; who is told of its errors (G1, L8, R4, W2, W6, W7)."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from workerbus._concurrency.failures import is_panic
from workerbus._log import about
from workerbus._order import PROCESS
from workerbus._values import WorkerErrorData, WorkerReadyData
from workerbus.abc import HookCall
from workerbus.bus._bus import WorkerBus
from workerbus.errors import text_of
from workerbus.messages import (
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
)
from workerbus.worker._state import WorkerState

logger = logging.getLogger("workerbus.worker")

_TOLD: Final = 256


class Presence:
    """What one worker and the others know of each other.

    Args:
        state: The worker's state.
        ready_handlers: The names of its ``@worker_ready`` methods, by the name of the worker that they watch for.

    Attributes:
        ready_handlers: As given.
        before_leaving: Functions to await before the worker leaves the bus, in their order.
    """

    __slots__ = ("_most_told", "_state", "_told", "_watched", "before_leaving", "ready_handlers")

    def __init__(self, state: WorkerState, ready_handlers: Mapping[str, tuple[str, ...]]) -> None:
        self._state = state
        self._watched: set[str] | None = None
        self._told: dict[str, WorkerReadyData] = {}
        self._most_told = _TOLD
        self.ready_handlers: Mapping[str, tuple[str, ...]] = ready_handlers
        self.before_leaving: list[Callable[[], Awaitable[None]]] | None = None  # most workers never have one

    async def announce(self) -> None:
        """Say that the worker is ready, and register it."""
        state = self._state
        ready = WorkerReadyData(state.name, state.registry.runner_name)
        self._tell_others(
            BusWorkerReadyMessage(
                ready.runner,
                state.parent_name,
                state.starts_active,
                state.worker.bridged,
                state.started_at,
                state.registry.incarnation,
                PROCESS.next_number(),
                source=state.name,
            )
        )
        await state.registry.register(ready)

    def _tell_others(self, message: BusWorkerReadyMessage | BusWorkerGoneMessage) -> None:
        state = self._state
        if state.registry.neighbourhood is None:
            state.bus.post(message)
        else:
            state.bus.announce(message)  # other runners see it in what the registries share

    def leaves_at_once(self) -> bool:
        """Whether `leave` waits for nobody: no one watches for the departure, and the bus does not override a step."""
        state = self._state
        unsubscribe = type(state.bus).unsubscribe is WorkerBus.unsubscribe
        return unsubscribe and not self.before_leaving and not state.registry.watches_departure(state.name)

    async def leave(self) -> None:
        """Leave bus and registry, the last step of the worker's end; its name is free when this returns."""
        state = self._state
        registry, bus, worker = state.registry, state.bus, state.worker
        try:
            for step in self.before_leaving or ():
                await step()
        finally:
            # Off the bus first, and out of the registry last: whoever watches for the departure can use the name.
            for watched in self._watched or ():
                registry.unwatch(watched, self.tell_ready)
            state.active, state.activation_args = False, None
            await bus.unsubscribe(worker)
            if state.started_at is not None:
                stamp = registry.incarnation, PROCESS.next_number()
                self._tell_others(BusWorkerGoneMessage(registry.runner_name, *stamp, source=state.name))
            if state.runner is not None:
                state.runner.forget(worker)
            if state.started_at is not None:
                await registry.unregister(state.name)

    # --- others

    async def watch(self, name: str) -> None:
        """Have the hooks run when the named worker gets ready, at once if it is ready now."""
        if self._watched is None:
            self._watched = set()
        self._watched.add(name)
        await self._state.registry.watch(name, self.tell_ready)

    def tell_ready(self, data: WorkerReadyData) -> None:
        """Queue the hooks for a worker that is ready, once for each time that it gets ready."""
        hooks, registry = self._state.hooks, self._state.registry
        # The same object is the same occasion: that of a root worker which is watched as well comes twice.
        if self._told.get(data.worker_name) is data:
            return
        if len(self._told) >= self._most_told:
            self._told = {name: told for name, told in self._told.items() if registry.get(name) is told}
            self._most_told = max(_TOLD, 2 * len(self._told))  # so that looking at all costs O(1) for each
        self._told[data.worker_name] = data
        if hooks.wants("on_worker_ready"):
            hooks.add(HookCall("on_worker_ready", (data,)), system=False)
        for attribute in self.ready_handlers.get(data.worker_name, ()):
            hooks.add(HookCall(attribute, (data,)), system=False)

    # --- errors

    def hook_failed(self, call: HookCall, exc: BaseException) -> None:
        """Log and report what a hook has raised; a panic finishes the worker, and is reported with that."""
        job_id = getattr(call.cause, "job_id", None)
        of_job = f" (job {job_id})" if job_id else ""
        logger.error(
            "%s of worker %r failed%s",
            call.name,
            self._state.name,
            of_job,
            exc_info=exc,
            extra=about(**self._state.about, job=job_id),
        )
        if is_panic(exc):
            self._state.fail(exc, call.name)
        # What a broadcast error causes is not broadcast again: it would go round for ever.
        elif not isinstance(call.cause, BusWorkerErrorMessage):
            text = f"{call.name}: {type(exc).__name__}: {text_of(exc)}{of_job}"
            self.report(WorkerErrorData(self._state.name, text, exc, call.name))

    def report_error(self, error: str) -> None:
        """Report an error that the worker tells of in words."""
        self.report(WorkerErrorData(self._state.name, error))

    def report(self, data: WorkerErrorData) -> None:
        """Report an error: to the parent or, for a root worker, to the runner and to everybody."""
        state = self._state
        parent = state.parent_name
        if parent is not None:
            message = BusWorkerLocalErrorMessage(
                data.error, data.exception, data.origin, data.fatal, source=state.name, target=parent
            )
            state.bus.post(message)
            return
        state.bus.post(BusWorkerErrorMessage(data.error, source=state.name))
        if state.runner is not None:
            state.runner.worker_error(data)

    def report_failure(self, data: WorkerErrorData) -> bool:
        """Report what the worker has ended of.

        Returns:
            Whether a parent hears of it and handles it, so that the runner need not raise it.
        """
        if not self._state.is_connected:
            return False
        self.report(data)
        parent = self._state.parent
        return parent is not None and parent.hooks.wants("on_worker_failed")
