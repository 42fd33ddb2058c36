"""`WorkerRunner`: hosts workers, opens the bus, and ends everything in order.

All tasks of a run hang in one task group, in one task (`_core`) inside one shield, so that a cancellation from outside
reaches `run()` alone. `run()` then winds down: workers are cancelled, from the leaves up, then the dispatchers, then the
bus, under one deadline; after it the shield is open and whatever is left is cancelled where it stands. Only then does
the cancellation go on its way (L3, L4).

`run()` and ``async with`` are the same, `_open` and `_close`, around a wait or around a body.
"""

import gc
import logging
import math
import signal as signals
import warnings
from types import TracebackType
from typing import Any, Final, Self

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup

from workerbus._events import EventEmitter, call_handler
from workerbus._lifetime import CLEANUP_SECONDS, CleanUp, TaskHost
from workerbus._registry import WorkerRegistry
from workerbus._runner_inbox import RunnerInbox
from workerbus._signals import report_first_signal
from workerbus._vocabulary import WorkerErrorData, WorkerReadyData, id_source
from workerbus._worker import BaseWorker
from workerbus._worker_life import Phase
from workerbus.abc import Fence, HookCall
from workerbus.bus import BusSubscriber, MemoryBus, WorkerBus
from workerbus.bus._lanes import Lane
from workerbus.bus._subscriber import Inbox, InboxHost
from workerbus.errors import NameTakenError, NotRunningError
from workerbus.jobs._client import JobClient
from workerbus.jobs._requests import JobContexts
from workerbus.messages import (
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
)

logger = logging.getLogger("workerbus")
_new_id = id_source()

GRACE_SECONDS: Final = 5.0
"""How long, in seconds, a worker may take to end before it is cancelled (R2)."""


class WorkerRunner(EventEmitter, JobContexts, BusSubscriber):
    """Runs workers until they have finished, or until it is told to end.

    ::

        runner = WorkerRunner()
        await runner.add_workers(Greeter("greeter"))
        await runner.run()

    or, for code that does something itself meanwhile (R1)::

        async with WorkerRunner() as runner:
            await runner.add_workers(Greeter("greeter"))
            print(await runner.job("greeter", name="greet", payload={"whom": "world"}))

    Events, for `add_event_handler` (N3): ``on_ready(runner)``, when the workers that were added before the run have
    started; ``on_error(runner, data)``, with a `WorkerErrorData`, when a root worker reports an error, a worker fails or
    could not be started, or another runner claims a name (W7, R4, G4).

    Args:
        name: Unique among the runners on the bus; made up by default.
        bus: The bus; by default a `MemoryBus` of its own. If the program has opened it, it is shared (R6).
        handle_sigint: Whether SIGINT cancels the run (R5).
        handle_sigterm: Whether SIGTERM does.
        force_gc: Whether to collect garbage after the run.
        job_grace: How many seconds jobs under way may go on after an end (R2).
        grace_period: How many seconds a worker may take to end before it is cancelled (R2).

    Attributes:
        signal: The signal that ended the run, if one did (R5).
    """

    EVENTS = frozenset({"on_ready", "on_error"})
    receives = "own"

    def __init__(
        self,
        *,
        name: str | None = None,
        bus: WorkerBus | None = None,
        handle_sigint: bool = True,
        handle_sigterm: bool = False,
        force_gc: bool = False,
        job_grace: float = 0.0,
        grace_period: float = GRACE_SECONDS,
    ) -> None:
        for what, seconds in (("job_grace", job_grace), ("grace_period", grace_period)):
            if not seconds >= 0:
                raise ValueError(f"{what} is a number of seconds, not less than 0, not {seconds!r}")
        if bus is not None and not isinstance(bus, WorkerBus):
            raise TypeError(f"bus is a WorkerBus, not {bus!r}")
        self._name = name if name is not None else f"runner-{_new_id()}"
        self._bus = bus if bus is not None else MemoryBus()
        self._registry = WorkerRegistry(self._name)
        self._registry.on_arrival = self._worker_arrived
        self._registry.on_departure = self._worker_departed
        self._registry.on_conflict = self._name_claimed_twice
        self.job_grace = job_grace
        self.grace_period = grace_period
        self.signal: signals.Signals | None = None
        self._signals = tuple(
            number for number, wanted in ((signals.SIGINT, handle_sigint), (signals.SIGTERM, handle_sigterm)) if wanted
        )
        self._force_gc = force_gc
        self.clean_up = CleanUp()
        self.hooks = _NoHooks()
        self.job_client = JobClient(self)
        self._asking: dict[object, JobClient] = {}
        self._workers: dict[str, BaseWorker] = {}
        self._roots: dict[str, BaseWorker] = {}
        self._curious: dict[str, BaseWorker] = {}
        self._runners: set[str] = set()
        self._inbox: RunnerInbox | None = None
        self._events: Lane[tuple[str, tuple[Any, ...]]] = Lane(f"{self._name} events", self._fire)
        self._tasks: TaskHost | None = None
        self._group: TaskGroup | None = None
        self._body: CancelScope | None = None
        self._core_scope: CancelScope | None = None
        self._core_ready = Event()
        self._core_done = Event()
        self._all_done = Event()
        self._auto_end = False
        self._opened = False
        self._ending: str | None = None  # "end", then perhaps "cancel"
        self._reason: str | None = None
        self._failure: BaseException | None = None
        self._errors: list[Exception] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {len(self._workers)} workers>"

    # --- what it is

    @property
    def name(self) -> str:
        """The runner's name, unique on its bus."""
        return self._name

    @property
    def bus(self) -> WorkerBus:
        """The bus that its workers are on."""
        return self._bus

    @property
    def registry(self) -> WorkerRegistry:
        """The registry that its workers share."""
        return self._registry

    def get_worker(self, name: str) -> BaseWorker | None:
        """Return the worker of that name, root or child, if this runner hosts it (N4).

        Args:
            name: The worker's name.
        """
        return self._workers.get(name)

    # --- workers

    async def add_workers(self, *workers: BaseWorker) -> None:
        """Add root workers. They are attached when this returns, and started as soon as the runner runs.

        Args:
            *workers: The workers; one that was added before is skipped.

        Raises:
            NameTakenError: Another worker has its name; then none of these was added. A `ValueError` (R3).
            NotRunningError: The runner is ending, or the worker has run already; a `RuntimeError`.
        """
        fresh: dict[str, BaseWorker] = {}
        for worker in workers:
            if not isinstance(worker, BaseWorker):
                raise TypeError(f"a runner runs workers, not {worker!r}")
            if fresh.get(worker.name) not in (None, worker):
                raise NameTakenError(worker.name, "this call")
            if self.check_new(worker):
                fresh[worker.name] = worker
        for worker in fresh.values():
            await worker.attach(registry=self._registry, bus=self._bus, worker_runner=self)
            worker.life.attached()
            self._admit(worker)

    def check_new(self, worker: BaseWorker) -> bool:
        """Return whether a worker is new here; raise where it cannot be added (R3)."""
        known = self._workers.get(worker.name)
        if known is worker:
            return False
        if self._ending is not None or self._all_done.is_set():
            raise NotRunningError(f"runner {self._name!r} is ending: worker {worker.name!r} comes too late")
        if known is not None or self._bus.has_subscriber(worker.name):
            raise NameTakenError(worker.name, f"runner {self._name!r}")
        if worker.life.phase is not Phase.NEW:
            raise NotRunningError(f"worker {worker.name!r} is {worker.life.phase.value}")
        return True

    def _add_child(self, message: BusAddWorkerMessage) -> None:
        worker = message.worker
        if not isinstance(worker, BaseWorker):
            self.worker_error(WorkerErrorData(message.source, f"cannot add {worker!r}: it is no worker"))
            return
        try:
            if self.check_new(worker):
                self._admit(worker)
        except (ValueError, RuntimeError) as exc:
            worker.life.attached(exc)
            self.worker_error(WorkerErrorData(worker.name, str(exc)))

    def _admit(self, worker: BaseWorker) -> None:
        self._workers[worker.name] = worker
        if worker.parent is None:
            self._roots[worker.name] = worker
            if worker.hooks.wants("on_worker_ready"):
                self._curious[worker.name] = worker
        if self._tasks is not None:
            self._tasks.start(self._host, worker, name=f"worker {worker.name}")

    async def _host(self, worker: BaseWorker) -> None:
        crash: Exception | None = None
        try:
            if worker.life.phase is Phase.NEW:
                await self._attach(worker)
            crash = await worker.life.live()
        except Exception as exc:
            crash = exc
        finally:
            self._worker_finished(worker, crash)

    async def _attach(self, worker: BaseWorker) -> None:
        try:
            await worker.attach(registry=self._registry, bus=self._bus, worker_runner=self)
        except Exception as exc:
            worker.life.attached(exc)
            raise
        worker.life.attached()

    def _worker_finished(self, worker: BaseWorker, crash: Exception | None) -> None:
        self._workers.pop(worker.name, None)
        self._roots.pop(worker.name, None)
        self._curious.pop(worker.name, None)
        if crash is not None:
            logger.error("worker %r failed", worker.name, exc_info=crash)
            taken = worker.failed(crash) or self.has_event_handler("on_error")
            if not taken:
                crash.add_note(f"raised by worker {worker.name!r}")
                self._errors.append(crash)
        if not self._roots and (self._auto_end or self._ending is not None):
            self._all_done.set()

    def known_workers(self) -> list[str]:
        """Names of the workers that were added, ready or not."""
        return list(self._workers)

    # --- jobs of its own (R7)

    @property
    def tasks(self) -> TaskHost:
        """Where the runner's tasks run; `NotRunningError` while it does not."""
        if self._tasks is None:
            when = "no more" if self._core_done.is_set() else "yet: enter it with 'async with', or await run()"
            raise NotRunningError(f"runner {self._name!r} is not running {when}")
        return self._tasks

    def asking(self, client: object, open_jobs: bool) -> None:
        """Note who has jobs open, so that a departure concerns nobody else (J4)."""
        assert isinstance(client, JobClient)
        if open_jobs:
            self._asking[client] = client
        else:
            self._asking.pop(client, None)

    # --- the run

    async def run(self, worker: BaseWorker | None = None, *, auto_end: bool = True) -> None:
        """Run the workers until the runner has ended (R1).

        Args:
            worker: Deprecated: a worker to add first.
            auto_end: Whether to end when every root worker has finished, at once if there is none. Otherwise only
                `end`, `cancel` or a signal ends the run; they count also when they came before it.

        Raises:
            NotRunningError: It has run before, or its bus is another runner's own; a `RuntimeError`.
            Exception: What made a worker fail, unless an ``on_error`` handler took it; an `ExceptionGroup` of several
                (R4, L6).
        """
        if worker is not None:
            warnings.warn("run(worker) is deprecated: use add_workers(worker)", DeprecationWarning, stacklevel=2)
            await self.add_workers(worker)
        await self._open(auto_end=auto_end)
        outcome: BaseException | None = None
        try:
            await self._core_done.wait()
        except BaseException as exc:
            outcome = exc
        if await self._close(outcome) or outcome is None:
            return
        raise outcome

    async def __aenter__(self) -> Self:
        """Run the workers while a body runs (R1). A cancel cancels the body; an end lets it finish."""
        await self._open(auto_end=False)
        self._body = CancelScope()
        self._body.__enter__()
        if self._ending == "cancel":
            self._body.cancel()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End gracefully, or cancel if the body raised; return when everything has ended (R1)."""
        body, self._body = self._body, None
        assert body is not None
        if body.__exit__(exc_type, exc, traceback):
            exc, swallowed = None, True
        else:
            swallowed = False
        raised_here: BaseException | None = None
        if exc is None:
            try:
                await self.end()
                await self._core_done.wait()
            except BaseException as caught:
                exc = raised_here = caught
        if await self._close(exc) or swallowed:
            return True
        if raised_here is not None:
            raise raised_here
        return None

    async def _open(self, *, auto_end: bool) -> None:
        if self._opened:
            raise NotRunningError(f"runner {self._name!r} has run: a runner runs once, make another")
        if self._bus.is_open and self._bus.opened_by is not None:
            raise NotRunningError(
                f"bus {self._bus.name!r} is open for runner {self._bus.opened_by!r} alone: "
                "to share it, open it around both, with 'async with bus:'"
            )
        self._opened = True
        self._auto_end = auto_end
        group = self._group = create_task_group()
        await group.__aenter__()
        group.start_soon(self._core, name=f"runner {self._name}")
        try:
            await self._core_ready.wait()
        except BaseException as exc:
            await self._close(exc)
            raise
        if self._failure is not None:
            await self._close(None)

    async def _close(self, exc: BaseException | None) -> bool:
        """Wait for the core, winding it down if an exception has come; raise what the run has to raise.

        Returns whether the exception was one that the run itself has caused.
        """
        if exc is not None:
            self._begin_cancel(
                f"the runner failed: {exc!r}" if isinstance(exc, Exception) else "the runner was cancelled"
            )
        while not self._core_done.is_set():
            try:
                # A wind-down that a signal began can be cut short by the next one, which arrives as a cancellation.
                with CancelScope(shield=self.signal is None):
                    await self._core_done.wait()
            except BaseException as late:
                if exc is None or not isinstance(late, get_cancelled_exc_class()):
                    exc = late
                if self.signal is not None or not isinstance(late, get_cancelled_exc_class()):
                    self._abandon()
                    with CancelScope(shield=True):  # by now only the user's own clean-up can take time
                        await self._core_done.wait()
        swallowed = await self._close_group(exc)
        if self._force_gc:
            gc.collect()
        if self._failure is not None:
            raise self._failure
        if exc is not None and not swallowed:
            return False
        if self._errors:
            raise self._errors[0] if len(self._errors) == 1 else ExceptionGroup("several workers failed", self._errors)
        return swallowed

    async def _close_group(self, exc: BaseException | None) -> bool:
        group, self._group = self._group, None
        assert group is not None
        if isinstance(exc, get_cancelled_exc_class()):
            return bool(await group.__aexit__(type(exc), exc, exc.__traceback__))
        await group.__aexit__(None, None, None)
        return False

    def _abandon(self) -> None:
        self.clean_up.abandon()
        if self._core_scope is not None:
            self._core_scope.cancel()

    # --- the core: one task, one shield, everything in it

    async def _core(self) -> None:
        try:
            with CancelScope(shield=True) as self._core_scope:
                if self._bus.is_open:
                    await self._run_core()
                else:
                    self._bus.opened_by = self._name
                    try:
                        async with self._bus:
                            await self._run_core()
                    finally:
                        self._bus.opened_by = None
        except BaseException as exc:
            if isinstance(exc, get_cancelled_exc_class()):
                raise
            self._failure = _plain(exc)
        finally:
            self._tasks = None
            self._core_ready.set()
            self._core_done.set()
            if self._body is not None and (self._failure is not None or self._ending == "cancel"):
                self._body.cancel()

    async def _run_core(self) -> None:
        tasks: TaskHost | None = None
        await self._bus.subscribe(self)
        try:
            async with create_task_group() as group:
                tasks = self._tasks = TaskHost(group)
                try:
                    await self._run_workers(tasks)
                finally:
                    await self._wind_down()
                    group.cancel_scope.cancel()
        finally:
            await self._bus.unsubscribe(self)
        if tasks is not None and tasks.fatal is not None:
            raise tasks.fatal

    async def _run_workers(self, tasks: TaskHost) -> None:
        assert self._inbox is not None
        self._inbox.run_in(tasks)
        self._events.open(tasks)
        if self._signals:
            tasks.start(report_first_signal, self._signals, self._signalled, name=f"{self._name} signals")
        self._send_snapshot(None)
        first = list(self._workers.values())
        for worker in first:
            tasks.start(self._host, worker, name=f"worker {worker.name}")
        if self.has_event_handler("on_ready"):
            tasks.start(self._tell_ready, first, name=f"{self._name} ready")
        self._core_ready.set()
        if self._ending == "cancel":
            self._send_cancels()
        elif self._ending == "end":
            self._send_ends()
        if not self._roots and (self._auto_end or self._ending is not None):
            self._all_done.set()
        await self._all_done.wait()

    async def _wind_down(self) -> None:
        self._ending = self._ending or "end"
        with self.clean_up.shield():
            if self._inbox is not None:
                await self._inbox.quiet()
            await self._events.quiet()
        self.job_client.cancel_all("the runner ended")
        if self._inbox is not None:
            self._inbox.close()
        self._events.close()

    async def _tell_ready(self, workers: list[BaseWorker]) -> None:
        for worker in workers:
            await worker.life.until_started()
        self._events.put(("on_ready", ()))

    async def _fire(self, event: tuple[str, tuple[Any, ...]]) -> None:
        name, args = event
        for handler in self.event_handlers(name):
            try:
                await call_handler(handler, self, *args)
            except Exception:
                logger.exception("a handler of %s of runner %r failed", name, self._name)

    # --- ending

    async def end(self, reason: str | None = None) -> None:
        """Ask for a graceful end; `run` returns when it is done (R2). Again is a no-op.

        Args:
            reason: Why, in words; it reaches every worker.
        """
        if self._ending is None:
            self._ending, self._reason = "end", reason
            if self._tasks is not None:
                self._send_ends()

    async def cancel(self, reason: str | None = None) -> None:
        """Ask for an immediate end, also of an end that is under way; `run` returns when it is done (R2).

        Args:
            reason: Why, in words; it reaches every worker.
        """
        self._begin_cancel(reason)

    def _begin_cancel(self, reason: str | None) -> None:
        if self._ending == "cancel":
            return
        self._ending, self._reason = "cancel", reason
        if self._body is not None:
            self._body.cancel()
        if self._tasks is not None:
            self._send_cancels()

    def _send_ends(self) -> None:
        for name in list(self._roots):
            self._bus.post(BusEndWorkerMessage(self._reason, source=self._name, target=name))
        if not self._roots:
            self._all_done.set()
        else:
            self.tasks.start(self._cancel_late, name=f"{self._name} grace period")

    async def _cancel_late(self) -> None:
        # Those that started in time cancel themselves; this is for those that never got so far.
        with move_on_after(self.grace_period + self.job_grace):
            await self._all_done.wait()
            return
        for name in list(self._roots):
            self._bus.post(BusCancelWorkerMessage(self._reason, source=self._name, target=name))

    def _send_cancels(self) -> None:
        deadline = self.clean_up.begin()
        if self._core_scope is not None and self._core_scope.deadline == math.inf:
            self._core_scope.deadline = deadline
            self.tasks.start(self._name_the_late, deadline, name=f"{self._name} watch")
        for name in list(self._roots):
            self._bus.post(BusCancelWorkerMessage(self._reason, source=self._name, target=name))
        if not self._roots:
            self._all_done.set()

    async def _name_the_late(self, deadline: float) -> None:
        try:
            await self._all_done.wait()
        finally:
            if self._workers and not self._all_done.is_set():
                logger.warning(
                    "runner %r has waited %g seconds and still waits for %s",
                    self._name, CLEANUP_SECONDS, ", ".join(f"worker {name!r}" for name in self._workers),
                )  # fmt: skip

    def _signalled(self, number: signals.Signals) -> None:
        self.signal = number
        self._begin_cancel(number.name)

    async def stop_when_done(self) -> None:
        """Let all root pipeline workers stop when they have done what they were given."""
        for worker in list(self._roots.values()):
            await worker.stop_when_done()

    # --- errors

    def worker_error(self, data: WorkerErrorData) -> None:
        """Let the ``on_error`` handlers know (W7)."""
        if self.has_event_handler("on_error"):
            self._events.put(("on_error", (data,)))

    # --- messages

    def make_inbox(self, bus: InboxHost) -> Inbox:
        """Return the inbox in which the bus leaves this runner's messages."""
        self._inbox = RunnerInbox(self._name, client=self.job_client, add=self._add_child, handle=self._handle_message)
        return self._inbox

    async def _handle_message(self, message: BusMessage) -> None:
        try:
            await self.on_bus_message(message)
        except Exception:
            logger.exception("runner %r failed to handle %s", self._name, type(message).__name__)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle what concerns a runner: ends, cancels, and the workers of other runners.

        Args:
            message: The message.
        """
        if message.target not in (None, self._name):
            return
        if isinstance(message, BusEndMessage):
            await self.end(message.reason)
        elif isinstance(message, BusCancelMessage):
            await self.cancel(message.reason)
        elif isinstance(message, BusWorkerReadyMessage):
            await self._registry.register(WorkerReadyData(message.source, message.runner))
        elif isinstance(message, BusWorkerGoneMessage):
            await self._registry.unregister(message.source, message.runner)
        elif isinstance(message, BusWorkerRegistryMessage):
            await self._merge(message)

    async def _merge(self, message: BusWorkerRegistryMessage) -> None:
        if message.runner not in self._runners:
            self._runners.add(message.runner)
            self._send_snapshot(message.runner)
        there = {entry.name for entry in message.workers}
        for name in set(self._registry.workers_of(message.runner)) - there:
            await self._registry.unregister(name, message.runner)
        for entry in message.workers:
            await self._registry.register(WorkerReadyData(entry.name, message.runner))

    def _send_snapshot(self, target: str | None) -> None:
        entries = [
            WorkerRegistryEntry(worker.name, worker.parent, worker.active, worker.bridged, worker.started_at)
            for worker in self._workers.values()
            if worker.started_at is not None
        ]
        self._bus.post(BusWorkerRegistryMessage(self._name, entries, source=self._name, target=target))

    # --- what the registry tells

    def _worker_arrived(self, data: WorkerReadyData) -> None:
        arrived = self._roots.get(data.worker_name)
        if arrived is None or data.runner != self._name:
            return
        for worker in self._curious.values():
            if worker is not arrived:
                worker.tell_ready(data)
        if data.worker_name in self._curious:
            for name in self._registry.local_workers:
                other = self._registry.get(name)
                if name in self._roots and name != data.worker_name and other is not None:
                    arrived.tell_ready(other)

    def _worker_departed(self, data: WorkerReadyData) -> None:
        for client in list(self._asking.values()):
            client.worker_departed(data.worker_name)

    def _name_claimed_twice(self, data: WorkerReadyData) -> None:
        text = f"runner {data.runner!r} has a worker {data.worker_name!r} too: names are unique on a bus"
        logger.error("%s (seen by runner %r)", text, self._name)
        self.worker_error(WorkerErrorData(data.worker_name, text))


class PipelineRunner(WorkerRunner):
    """Deprecated name of `WorkerRunner`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn("PipelineRunner is deprecated: use WorkerRunner", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


class _NoHooks:
    """A runner has no job hooks."""

    def wants(self, name: str) -> bool:
        """Nobody does."""
        return False

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Never called, since nobody wants any."""

    def add_last(self, call: HookCall, fence: Fence, *, system: bool) -> None:
        """Never called, since nobody wants any."""


def _plain(exc: BaseException) -> BaseException:
    """Take one cause out of its exception groups; of several, one that ends programs comes first (L6)."""
    while isinstance(exc, BaseExceptionGroup):
        ending = exc.subgroup((KeyboardInterrupt, SystemExit))
        if ending is not None and len(exc.exceptions) > 1:
            exc = ending
        elif len(exc.exceptions) == 1:
            exc = exc.exceptions[0]
        else:
            break
    return exc
