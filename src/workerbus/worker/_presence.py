"""How a worker makes itself known, hears of others, and leaves; who is told of its errors (G1, L8, R4, W2, W6, W7)."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from workerbus._concurrency.failures import is_panic
from workerbus._log import about
from workerbus._order import PROCESS
from workerbus._values import WorkerErrorData, WorkerGoneData, WorkerReadyData, check_worker_name
from workerbus._watchers import Watcher
from workerbus.abc import ChildReport, HookCall
from workerbus.bus._bus import WorkerBus
from workerbus.errors import brief, describe
from workerbus.messages import (
    BusMessage,
    BusPoolLoadMessage,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRestartingMessage,
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
        before_leaving: Awaited before the worker leaves the bus; None for most.
    """

    __slots__ = (
        "_most_told", "_own", "_state", "_told", "_watched", "_withdrawn", "before_leaving",
        "ready_handlers",
    )  # fmt: skip

    def __init__(self, state: WorkerState, ready_handlers: Mapping[str, tuple[str, ...]]) -> None:
        self._state = state
        state.speak = self.speak
        self._withdrawn = False
        self._own: WorkerReadyData | None = None
        self._watched: dict[str, bool] | None = None  # whether it is a child, by name
        self._told: dict[str, WorkerReadyData] = {}
        self._most_told = _TOLD
        self.ready_handlers: Mapping[str, tuple[str, ...]] = ready_handlers
        self.before_leaving: Callable[[], Awaitable[None]] | None = None

    def begin(self) -> bool:
        """Let requesters of this runner find the worker while it starts; returns whether its name is free for that."""
        registry = self._state.registry
        self._own = self._ready_data()
        return not self._withdrawn and registry.begin(self._own)

    def _ready_data(self) -> WorkerReadyData:
        state = self._state
        if state.shares is None:
            return WorkerReadyData(state.name, state.registry.runner_name)
        return WorkerReadyData(state.name, state.registry.runner_name, *state.shares)

    async def announce(self) -> None:
        """Say that the worker is ready, and register it; nothing happens the second time."""
        if not self._state.announced:
            await self._state.registry.tell(*self.announce_now())

    def speak(self) -> None:
        """Announce the worker because it says something itself: nobody is to hear of it before it is ready."""
        state = self._state
        if state.has_started and not state.announced:
            state.registry.tell_later(*self.announce_now())

    def announce_now(self) -> tuple[Collection[Watcher], WorkerReadyData]:
        """Say that the worker is ready, and register it, in one step; returns what is left for the registry to tell."""
        state = self._state
        ready = self._own or self._ready_data()
        if self._withdrawn:
            return (), ready
        state.announced = True
        self._tell_others(
            BusWorkerReadyMessage(
                ready.runner,
                state.parent_name,
                state.starts_active,
                state.worker.bridged,
                state.started_at,
                state.registry.incarnation,
                PROCESS.next_number(),
                pool=ready.pool,
                places=ready.places,
                source=state.name,
            )
        )
        return state.registry.enter(ready) or (), ready

    def announce_load(self, taken: int) -> None:
        """Say how busy a pool is that shares its name, here and under other runners."""
        state = self._state
        if state.shares is None or not state.announced:
            return
        registry, places = state.registry, state.shares[1]
        registry.note_load(state.name, places, taken)
        stamp = registry.incarnation, PROCESS.next_number()
        self._tell_others(BusPoolLoadMessage(registry.runner_name, places, taken, *stamp, source=state.name))

    def withdraw(self) -> None:
        """Let nobody find the worker any more who asks for jobs, here and under other runners; it has not left yet."""
        state, self._withdrawn = self._state, True
        if state.is_connected and state.registry.withdraw(state.name) and state.announced:
            stamp = state.registry.incarnation, PROCESS.next_number()
            self._tell_others(BusWorkerRestartingMessage(state.registry.runner_name, *stamp, source=state.name))

    def _tell_others(
        self,
        message: BusWorkerReadyMessage | BusWorkerRestartingMessage | BusWorkerGoneMessage | BusPoolLoadMessage,
    ) -> None:
        state = self._state
        if state.registry.neighbourhood is None:
            state.bus.post(message)
        else:
            state.bus.announce(message)  # other runners see it in what the registries share

    def leaves_at_once(self) -> bool:
        """Whether `leave` waits for nobody: no one watches for the departure, and the bus does not override a step."""
        state = self._state
        unsubscribe = type(state.bus).unsubscribe is WorkerBus.unsubscribe
        return unsubscribe and self.before_leaving is None and not state.registry.watches_departure(state.name)

    async def leave(self) -> None:
        """Leave bus and registry, the last step of the worker's end; its name is free when this returns."""
        state = self._state
        registry, bus, worker = state.registry, state.bus, state.worker
        try:
            if self.before_leaving is not None:
                await self.before_leaving()
        finally:
            # Off the bus first, and out of the registry last: whoever watches for the departure can use the name.
            for watched in self._watched or ():
                registry.unwatch(watched, self.tell_ready)
                registry.unwatch_gone(watched, self.tell_gone)
            state.active, state.activation_args = False, None
            if registry.restarting.get(state.name) == registry.runner_name:
                bus.keep_name(state.name)
            await bus.unsubscribe(worker)
            try:
                if state.announced or state.crash is not None:
                    error = None if state.crash is None else brief(state.crash)
                    stamp = registry.incarnation, PROCESS.next_number()
                    gone = BusWorkerGoneMessage(registry.runner_name, *stamp, error, self._withdrawn, source=state.name)
                    self._tell_others(gone)
            finally:  # a tap may end the program here
                if state.runner is not None:
                    state.runner.forget(worker)
                if state.has_started:
                    await registry.unregister(state.name)

    # --- others

    async def watch(self, name: str, *, child: bool = False) -> None:
        """Have the hooks run when the named worker gets ready, at once if it is ready now, and when it has gone.

        Args:
            name: The name of the worker.
            child: Whether it is a child of this worker, which hears without this when it has gone.
        """
        check_worker_name(name)
        if self._watched is None:
            self._watched = {}
        self._watched[name] = child or self._watched.get(name, False)
        if not child:
            self._state.registry.watch_gone(name, self.tell_gone)
        await self._state.registry.watch(name, self.tell_ready)

    def forget_child(self, name: str) -> None:
        """Watch no more for a child that has gone, or was not added; one that is watched by its name still is."""
        state = self._state
        by_name = not state.is_connected or state.registry.watches_gone(name, self.tell_gone)
        if self._watched and name in self._watched and not by_name and not state.has_child(name):
            del self._watched[name]
            state.registry.unwatch(name, self.tell_ready)

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

    def tell_gone(self, data: WorkerGoneData) -> None:
        """Queue the hook for a worker that has gone."""
        if self._state.hooks.wants("on_worker_gone"):
            child = self._watched is not None and self._watched.get(data.worker_name)
            kind = ChildReport if child else HookCall
            self._state.hooks.add(kind("on_worker_gone", (data,)), system=False)

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
            text = f"{call.name}: {describe(exc)}{of_job}"
            self.report(WorkerErrorData(self._state.name, text, exc, call.name))

    def end_failed(self, what: str, exc: BaseException) -> None:
        """Report what the worker's `stop` or `cleanup` has raised, by the name of the two; it has been logged."""
        self.report(WorkerErrorData(self._state.name, f"{what}: {describe(exc)}", exc, what))

    def report_error(self, error: str, *, post: Callable[[BusMessage], None] | None = None) -> None:
        """Report an error that the worker tells of in words; the message goes to ``post``, by default to the bus."""
        self.report(WorkerErrorData(self._state.name, error), post=post)

    def report(self, data: WorkerErrorData, *, post: Callable[[BusMessage], None] | None = None) -> None:
        """Report an error: to the parent or, for a root worker, to the runner and to everybody."""
        state = self._state
        post = post or state.bus.post
        parent = state.parent_name
        if parent is not None:
            message = BusWorkerLocalErrorMessage(
                data.error, data.exception, data.origin, data.fatal, source=state.name, target=parent
            )
            post(message)
            return
        post(BusWorkerErrorMessage(data.error, source=state.name))
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
        return parent is not None and parent.hooks.takes_reports and parent.hooks.wants("on_worker_failed")
