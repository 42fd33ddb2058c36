"""`WorkerRunner`, put together from its parts.

How a run is held together and wound down is in `_run`, how it is asked to end, in `_ending`; which workers there are,
in `_hosting`; what runners tell each other, in `_neighbours`; what happens inside a worker, in `_worker_life`.
"""

import gc
import logging
import signal as signals
import warnings
from types import TracebackType
from typing import Any, Final, Self

from anyio import CancelScope
from anyio.lowlevel import cancel_shielded_checkpoint

from workerbus._departures import Departures
from workerbus._ending import Asked, Ending
from workerbus._events import EventEmitter, call_handler
from workerbus._hosting import Hosting
from workerbus._lifetime import CleanUp, TaskHost
from workerbus._neighbours import Neighbours
from workerbus._registry import WorkerRegistry
from workerbus._run import Run
from workerbus._runner_inbox import RunnerInbox
from workerbus._signals import report_first_signal
from workerbus._statistics import RunnerStatistics, snapshot
from workerbus._vocabulary import WorkerErrorData, WorkerReadyData, id_source
from workerbus._worker import BaseWorker
from workerbus.abc import Fence, HookCall, HookSink
from workerbus.bus import BusSubscriber, MemoryBus, WorkerBus
from workerbus.bus._core import in_process
from workerbus.bus._lanes import Lane
from workerbus.bus._subscriber import Inbox, InboxHost, Receives
from workerbus.errors import NotRunningError
from workerbus.jobs._client import JobClient
from workerbus.jobs._requests import JobContexts
from workerbus.messages import (
    BusCancelMessage,
    BusEndMessage,
    BusMessage,
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
    started; ``on_error(runner, data)``, with a `WorkerErrorData`, when a root worker reports an error, a worker has
    failed or could not be started, or another runner claims a name (W7, R4, G4).

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
    receives: Receives = "own"

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
        self.job_grace: float = job_grace
        self.grace_period: float = grace_period
        self.signal: signals.Signals | None = None
        self._signals = tuple(
            number for number, wanted in ((signals.SIGINT, handle_sigint), (signals.SIGTERM, handle_sigterm)) if wanted
        )
        self._force_gc = force_gc
        self.clean_up: CleanUp = CleanUp()
        self.hooks: HookSink = _NoHooks()
        self.job_client: JobClient = JobClient(self)
        self._asking: dict[object, JobClient] = {}
        self._departures = Departures(self._name, self._asking)
        self._inbox: RunnerInbox | None = None
        self._events: Lane[tuple[str, tuple[Any, ...]]] = Lane(f"{self._name} events", self._fire)
        self._run = Run(self._name, self._bus, self.clean_up, self._serve, self._cancel)
        self._hosting = Hosting(self, self._run)
        self._neighbours = Neighbours(self._name, self._bus, self._registry, self._hosting.workers.values)
        grace = grace_period + job_grace
        self._ending = Ending(self._name, self._bus, self._run, self.clean_up, self._hosting.roots, grace)
        self._auto_end = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {len(self._hosting.workers)} workers>"

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
        return self._hosting.workers.get(name)

    def statistics(self) -> RunnerStatistics:
        """Return a snapshot of everything that the runner hosts, of its bus, and of its own jobs (O2).

        Call it where the runner runs: ages and deadlines are read off that clock. It shows no payload (O3).
        """
        workers = list(self._hosting.workers.values())
        counts = self._hosting.gone.with_workers(workers, self.job_client.requested)
        return RunnerStatistics(
            name=self._name,
            workers={worker.name: snapshot(worker) for worker in workers},
            bus=self._bus.statistics(),
            job_groups=tuple(group.snapshot() for group in self.job_client.groups.values()),
            jobs_answered=counts.answered,
            jobs_requested=counts.requested,
            hooks_failed=counts.failed,
        )

    # --- workers

    async def add_workers(self, *workers: BaseWorker) -> None:
        """Add root workers. They are attached when this returns, and started as soon as the runner runs.

        Args:
            *workers: The workers; one that was added before is skipped.

        Raises:
            NameTakenError: Another worker has its name; then none of these was added. A `ValueError` (R3).
            NotRunningError: The runner is ending, or the worker has run already; a `RuntimeError`.
        """
        await self._hosting.add_roots(workers)

    def check_new(self, worker: BaseWorker) -> bool:
        """Return whether a worker is new here; raise where it cannot be added (R3)."""
        return self._hosting.check_new(worker)

    def curious(self, worker: BaseWorker) -> None:
        """A worker has got a handler for `on_worker_ready`."""
        self._hosting.make_curious(worker)

    def forget(self, worker: BaseWorker) -> None:
        """A worker has left the bus: its name is free (W6)."""
        self._hosting.forget(worker)

    def worker_left(self) -> None:
        """A root worker has finished, or could not be started."""
        self._ending.check()

    @property
    def is_ending(self) -> bool:
        """Whether no worker is taken any more."""
        return bool(self._ending.asked) or self._ending.all_done.is_set()

    def known_workers(self) -> list[str]:
        """Names of the workers that were added, ready or not."""
        return list(self._hosting.workers)

    # --- jobs of its own (R7)

    @property
    def tasks(self) -> TaskHost:
        """Where the runner's tasks run; `NotRunningError` while it does not."""
        if self._run.tasks is None:
            over = self._run.done.is_set()
            when = "any more: a runner runs once" if over else "yet: enter it with 'async with', or await run()"
            raise NotRunningError(f"runner {self._name!r} is not running {when}")
        return self._run.tasks

    def check_running(self) -> None:
        """Raise `NotRunningError` unless the runner is running."""
        _ = self.tasks

    def asking(self, client: object, open_jobs: bool) -> None:
        """Note who has jobs open, so that a departure concerns nobody else (J4)."""
        assert isinstance(client, JobClient)
        if open_jobs:
            self._asking[client] = client
        else:
            del self._asking[client]

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
        self._auto_end = auto_end
        await self._open()
        outcome: BaseException | None = None
        try:
            await self._run.done.wait()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            outcome = exc
        if not await self._finish(outcome) and outcome is not None:
            raise outcome

    async def __aenter__(self) -> Self:
        """Run the workers while a body runs (R1). A cancel cancels the body; an end lets it finish."""
        await self._open()
        body = self._run.body = CancelScope()
        body.__enter__()
        if self._ending.asked is Asked.CANCEL:
            body.cancel()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End gracefully, or cancel if the body raised; return when everything has ended (R1)."""
        body, self._run.body = self._run.body, None
        assert body is not None
        swallowed = bool(body.__exit__(exc_type, exc, traceback))
        outcome = None if swallowed else exc
        if outcome is None:
            try:
                await self.end()
                await self._run.done.wait()
            except BaseException as caught:  # noqa: BLE001 - raised again below
                outcome = caught
        if await self._finish(outcome) or swallowed:
            return True
        if outcome is not exc and outcome is not None:
            raise outcome
        return None

    async def _open(self) -> None:
        if self._run.opened:
            raise NotRunningError(f"runner {self._name!r} has run: a runner runs once, make another")
        try:
            await self._run.open()
        except BaseException:
            await self._hosting.stop_unstarted()
            raise

    async def _finish(self, exc: BaseException | None) -> bool:
        """Close the run, then raise what made workers fail, unless the run is left with an exception already."""
        try:
            swallowed = await self._run.close(exc)
        finally:
            await self._hosting.stop_unstarted()
            if self._force_gc:
                gc.collect()
        errors = self._hosting.errors
        if errors and (exc is None or swallowed):
            raise errors[0] if len(errors) == 1 else ExceptionGroup("several workers failed", errors)
        return swallowed

    # --- in the core of the run

    async def _serve(self, tasks: TaskHost) -> None:
        await self._bus.subscribe(self)
        try:
            assert self._inbox is not None
            self._inbox.run_in(tasks)
            self._events.open(tasks)
            if self._signals:
                name = f"{self._name} signals"
                await tasks.group.start(report_first_signal, self._signals, self._signalled, name=name)
            self._neighbours.send_snapshot()
            self._start_all(tasks)
            self._run.serving()
            await self._ending.all_done.wait()
        finally:
            self._ending.asked = self._ending.asked or Asked.END
            with self.clean_up.shield(self.clean_up.begin()):
                await self._wind_down()
            self.job_client.close("the runner ended")
            with self.clean_up.shield():
                await self.job_client.quiet()
            await self._close_events()
            await self._bus.unsubscribe(self)

    def _start_all(self, tasks: TaskHost) -> None:
        first = self._hosting.start_all()
        if self.has_event_handler("on_ready"):
            tasks.start(self._tell_ready, first, name=f"{self._name} ready")
        self._ending.begin(auto_end=self._auto_end)

    async def _wind_down(self) -> None:
        assert self._inbox is not None
        await self._departures.quiet()
        await self._inbox.quiet()
        await self._events.quiet()

    async def _close_events(self) -> None:
        self._events.close(cancel=True)
        with self.clean_up.shield() as shield:
            await self._events.quiet()
        if shield.cancelled_caught:
            for _ in range(2):  # it was cancelled in this very step: see whether it goes
                await cancel_shielded_checkpoint()
        if shield.cancelled_caught and self._events.busy:
            logger.warning("runner %r waits for an event handler that refuses cancellation", self._name)

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
        self._ending.end(reason)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask for an immediate end, also of an end that is under way; `run` returns when it is done (R2).

        Args:
            reason: Why, in words; it reaches every worker.
        """
        self._ending.cancel(reason)

    def _cancel(self, reason: str) -> None:
        self._ending.cancel(reason)

    def _signalled(self, number: signals.Signals) -> None:
        self.signal = number
        self.clean_up.interruptible = True
        self._ending.cancel(number.name)

    async def stop_when_done(self) -> None:
        """Let all root pipeline workers stop when they have done what they were given."""
        for worker in list(self._hosting.roots.values()):
            await worker.stop_when_done()

    # --- errors

    def worker_error(self, data: WorkerErrorData) -> None:
        """Let the ``on_error`` handlers know (W7)."""
        if self.has_event_handler("on_error"):
            self._events.put(("on_error", (data,)))

    # --- messages

    def make_inbox(self, bus: InboxHost) -> Inbox:
        """Return the inbox in which the bus leaves this runner's messages."""
        asks = type(self).accepts_bus_message is not BusSubscriber.accepts_bus_message
        self._inbox = RunnerInbox(
            self._name,
            client=self.job_client,
            add=self._hosting.add_sent,
            departed=self._departures.announced,
            handle=self.on_bus_message,
            accepts=self.accepts_bus_message if asks else None,
        )
        return self._inbox

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
        else:
            await self._neighbours.handle(message)

    # --- what the registry tells

    def _worker_arrived(self, data: WorkerReadyData) -> None:
        arrived = self._hosting.roots.get(data.worker_name)
        if arrived is None or data.runner != self._name:
            return
        for worker in self._hosting.curious.values():
            if worker is not arrived:
                worker.tell_ready(data)

    def tell_of_others(self, worker: BaseWorker) -> None:
        """Tell a root worker that has just started of the root workers that are ready."""
        if worker.name in self._hosting.curious:
            for name in self._registry.local_workers:
                other = self._registry.get(name)
                if name in self._hosting.roots and name != worker.name and other is not None:
                    worker.tell_ready(other)

    def _worker_departed(self, data: WorkerReadyData) -> None:
        if self._registry.get(data.worker_name) is None:  # else another runner claims the name, and still has it
            comes_back = data.runner == self._name and not in_process(self._bus)
            self._departures.left(data.worker_name, announcement_in=self._run.tasks if comes_back else None)

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

    wanted: frozenset[str] = frozenset()

    def wants(self, name: str) -> bool:
        """Nobody does."""
        return False

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Never called, since nobody wants any."""

    def add_last(self, call: HookCall, fence: Fence | None, *, system: bool) -> None:
        """Never called, since nobody wants any."""
