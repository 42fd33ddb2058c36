"""`WorkerRunner`, put together from its parts (R1-R7, N3, N4, G4, J4, W6, W7).

How a run is held together and wound down is in `_run`, how it is asked to end, in `_shutdown`; which workers there are,
in `_workers`; what they, jobs and the registry call on a runner, in `_interfaces`; what runners tell each other, in
`_discovery`, and what that means for jobs, in `_orphans`. What happens inside a worker is the subject of
`workerbus.worker`.
"""

import logging
import signal as signals
import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Literal, Self

from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.waiting import Role, serves, waits
from workerbus._events import EventEmitter, EventHandlers
from workerbus._methods import is_default
from workerbus._order import id_source
from workerbus._registry import WorkerRegistry
from workerbus._slot import set_core
from workerbus._values import check_seconds, name_of
from workerbus.abc import HookSink, OpenAsks
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, Inbox, Receives, accepts_everything
from workerbus.bus._memory import MemoryBus
from workerbus.errors import NotRunningError
from workerbus.jobs._client import JobClient
from workerbus.jobs._requests import JobContexts
from workerbus.messages import BusCancelMessage, BusEndMessage, BusMessage
from workerbus.runner._block import Block
from workerbus.runner._discovery import Discovery
from workerbus.runner._events import RunnerEvents
from workerbus.runner._health import RunnerHealth
from workerbus.runner._inbox import RunnerInbox
from workerbus.runner._interfaces import RunnerCore, RunnerInterfaces
from workerbus.runner._observers import Observers
from workerbus.runner._orphans import OrphanedJobs
from workerbus.runner._outcome import RunOutcome
from workerbus.runner._peers import RunnerPeers
from workerbus.runner._report import RunnerReport
from workerbus.runner._run import Run
from workerbus.runner._shutdown import Asked, Shutdown
from workerbus.runner._slow import SlowJobs
from workerbus.runner._stalls import StallWatch
from workerbus.runner._statistics import RunnerStatistics
from workerbus.runner._totals import snapshot
from workerbus.runner._workers import HostedWorkers
from workerbus.supervision._supervisor import Supervisions, Supervisor
from workerbus.worker._base import BaseWorker
from workerbus.worker._core import WorkerCore
from workerbus.worker._hooks import NoHooks

logger = logging.getLogger("workerbus.runner")
_new_id = id_source()

GRACE_SECONDS: Final = 5.0
"""How long, in seconds, a worker may take to end before it is cancelled."""


class WorkerRunner(RunnerInterfaces[HostedWorkers], EventEmitter, JobContexts, Supervisor, BusSubscriber):
    """Runs workers until they have finished, or until the runner is told to end.

    ::

        runner = WorkerRunner()
        await runner.add_workers(Greeter("greeter"))
        await runner.run()

    or, to do something yourself while they run::

        async with WorkerRunner() as runner:
            await runner.add_workers(Greeter("greeter"))
            print(await runner.job("greeter", name="greet", payload={"whom": "world"}))

    Events, for `add_event_handler`: ``on_ready(runner)``, when the workers that were added before the run have started;
    ``on_error(runner, data)``, with a `WorkerErrorData`, when a root worker reports an error, a worker has failed or
    could not be started, another runner claims a name, or (in the runner's own name) the network has lost messages;
    ``on_worker_restarted(runner, data)``, with a `WorkerRestartedData`, when a supervised worker was restarted.

    Args:
        name: The runner's name, unique on its bus; by default one is made up.
        bus: The bus; by default its own `MemoryBus`. Several runners may share one that the program has opened.
        handle_sigint: Whether SIGINT cancels the run, unless the program or a server in it handles it; ``"always"``:
            even then.
        handle_sigterm: Whether SIGTERM cancels the run; with ``"end"``, it ends the run.
        force_gc: Whether to collect garbage after the run.
        job_grace: How many seconds jobs under way may go on after an end: those that workers do or have asked for, with
            the hooks of their answers.
        grace_period: How many seconds a worker may take to end before it is cancelled.
        stall_seconds: After how many seconds without progress of the event loop a warning says what holds it up; 0.1 is
            a good value. A thread watches it, in real time. By default nothing does.
        slow_seconds: After how many seconds a warning says that a job's handler was slow. These are counted, and so are
            jobs that have waited for longer than they have run. By default this is not measured.
        observable: Whether other processes may observe the runner (`workerbus.observing`); with ``"payloads"``,
            including payloads.
        dump_signal: A signal, such as ``"SIGUSR1"``, on which the program writes the result of `dump` to standard
            error. By default there is none.

    Raises:
        ValueError: The name is empty, ``job_grace`` or ``grace_period`` is less than 0, ``stall_seconds`` less than
            0.01, ``slow_seconds`` less than 0, ``observable`` or one of the ``handle_…`` neither a bool nor its allowed
            word, or ``dump_signal`` cannot be used on this platform.
        TypeError: ``bus`` is not a `WorkerBus`, or ``dump_signal`` is neither the name nor the number of a signal.

    Guarantees: G4, N3, O6, R1, R2, R4, R5, R6, W7.
    """

    receives: Receives = "own"

    def __init__(
        self,
        *,
        name: str | None = None,
        bus: WorkerBus | None = None,
        handle_sigint: bool | Literal["always"] = True,
        handle_sigterm: bool | Literal["end"] = False,
        force_gc: bool = False,
        job_grace: float = 0.0,
        grace_period: float = GRACE_SECONDS,
        stall_seconds: float | None = None,
        slow_seconds: float | None = None,
        observable: bool | Literal["payloads"] = True,
        dump_signal: str | int | None = None,
    ) -> None:
        for what, seconds in (("job_grace", job_grace), ("grace_period", grace_period)):
            check_seconds(what, seconds)
        if bus is not None and not isinstance(bus, WorkerBus):
            raise TypeError(f"bus is a WorkerBus, not {bus!r}")
        self._name = f"runner-{_new_id()}" if name is None else name_of("a runner's name", name)
        self._bus = bus if bus is not None else MemoryBus()
        self._registry = WorkerRegistry(self._name)
        self._registry.on_departure = self._worker_departed
        self._registry.check_loop = self._bus.check_loop
        self._registry.on_conflict = self._name_claimed_twice
        self.job_grace: float = job_grace
        self.grace_period: float = grace_period
        self.clean_up: CleanUp = CleanUp()
        self.hooks: HookSink = NoHooks()
        self.job_client: JobClient = JobClient(self)
        self._handlers = EventHandlers(type(self).__name__, frozenset({"on_ready", "on_error", "on_worker_restarted"}))
        self._handlers.arguments = {"on_ready": 0, "on_error": 1, "on_worker_restarted": 1}
        set_core(self, RunnerCore(self._handlers, self.job_client, self._make_inbox, self._begin_to_supervise))
        self._asking: OpenAsks = {}
        self._orphans = OrphanedJobs(self._name, self._asking)
        self._inbox: RunnerInbox | None = None
        self._events = RunnerEvents(self, self._name, self._handlers, self.clean_up)
        self._run = Run(self._name, self._bus, self.clean_up, self._serve, self._cancel)
        self._hosted = HostedWorkers(self, self._run)
        self._registry.later = self._call_later
        self._registry.on_restart_over = self._bus.free_name
        self._registry.on_arrival = self._hosted.tell_of
        self._discovery = Discovery(self._name, self._bus, self._registry, self._hosted.states)
        self._observers = Observers(self, observable)
        self._peers = RunnerPeers(self._name, self._bus, self._discovery, self._hosted, self, self._observers)
        grace, hosted = grace_period + job_grace, self._hosted
        self._shutdown = Shutdown(
            self._name, self._bus, self._run, self.clean_up, hosted.roots, grace, hosted.restarting, hosted.end_restarts
        )
        told = self._name, self._bus, self._registry, self._hosted, self.job_client, self._run
        self._block = Block(
            self._name,
            self._bus,
            self._run,
            self._shutdown,
            self._hosted.workers,
            self._hosted.errors,
            self._hosted.stop_unstarted,
            self.clean_up,
            RunnerReport(*told, dump_signal),
            handle_sigint=handle_sigint,
            handle_sigterm=handle_sigterm,
            force_gc=force_gc,
        )
        self._auto_end = False
        self._slow = None if slow_seconds is None else SlowJobs(self._name, slow_seconds, self._hosted.workers)
        self._stalls = None if stall_seconds is None else StallWatch(self._name, stall_seconds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {len(self._hosted.workers)} workers>"

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

    @property
    def signal(self) -> signals.Signals | None:
        """The signal that ended the run, if one did.

        Guarantees: R5.
        """
        return self._block.signal

    @property
    def outcome(self) -> RunOutcome | None:
        """How the run ended, why, and by which signal; None until it has ended.

        Guarantees: R5.
        """
        return self._block.outcome

    def get_worker(self, name: str) -> BaseWorker | None:
        """Return a worker of this runner, root or child; None if there is none of that name.

        Args:
            name: The worker's name.

        Guarantees: N4.
        """
        core = self._hosted.workers.get(name)
        return None if core is None else core.state.worker

    def statistics(self, *, jobs: bool = True) -> RunnerStatistics:
        """Return a snapshot of everything that the runner hosts, of its bus, and of its own jobs.

        Call it in the runner's event loop, whose clock gives ages and deadlines. It shows no payloads.

        Args:
            jobs: Whether the jobs in flight and the runner's own job groups are in it. Without them it may also be
                called in another thread; a `RuntimeError` there means that a worker has just come or gone: try again.

        Guarantees: O2, O3.
        """
        workers = [core.state for core in list(self._hosted.workers.values())]
        counts = self._hosted.gone.with_workers(workers, self.job_client.requested)
        return RunnerStatistics(
            name=self._name,
            workers={state.name: snapshot(state, jobs=jobs) for state in workers},
            bus=self._bus.statistics(),
            job_groups=tuple(group.snapshot() for group in self.job_client.groups.values()) if jobs else (),
            jobs_answered=counts.answered,
            jobs_requested=counts.requested,
            hooks_failed=counts.failed,
            restarts=self._hosted.restarts,
            slow_handlers=None if self._slow is None else self._slow.slow,
            jobs_waited_longer=None if self._slow is None else self._slow.waited,
            loop=None if self._stalls is None else self._stalls.statistics(),
        )

    def health(self) -> RunnerHealth:
        """Return whether the runner is alive and can take work, for health probes.

        It may be called in any thread, even while the event loop stands still.

        Guarantees: O2.
        """
        roots = [core.state for core in list(self._hosted.roots.values())]
        return RunnerHealth(
            name=self._name,
            started=self._run.tasks is not None,
            ending=self.is_ending or self._run.done.is_set(),
            ended=self._run.done.is_set(),
            bus=self._bus.connection,
            starting=tuple(state.name for state in roots if not state.started.is_set()),
            failed=tuple(self._hosted.given_up),
            stalled=0.0 if self._stalls is None else self._stalls.stands_still,
        )

    # --- workers

    async def add_workers(self, *workers: BaseWorker, wait: bool = False) -> None:
        """Add root workers. They are attached when this returns, and started as soon as the runner runs.

        Args:
            *workers: The workers; one that was added before is skipped.
            wait: Whether to return only when they have started, including the first `on_activated` of each. The runner
                has to be running for that.

        Raises:
            NameTakenError: Another worker has the name of one of them; none was added. A `ValueError`.
            NotRunningError: The runner is ending, or one of them has already run; with ``wait``, the runner is not
                running yet, or one of them was stopped before it had started. A `RuntimeError`.
            TypeError: One of them is not a worker.
            Exception: With ``wait``, the error that kept one of them from starting; an exception group of several. The
                run does not raise it again.

        Guarantees: R3, W9.
        """
        self._bus.check_loop(f"runner {self._name!r}")
        try:
            if wait:
                self.check_running()
            await self._hosted.add_roots(workers, wait=wait)
        except NotRunningError:
            await checkpoint_if_cancelled()  # the body may not have heard of it
            raise

    def _begin_to_supervise(self) -> Supervisions:
        self._bus.check_loop(f"runner {self._name!r}")
        return self._hosted.supervisions

    # --- the run

    async def run(self, worker: BaseWorker | None = None, *, auto_end: bool = True) -> None:
        """Run the workers until the runner has ended.

        Args:
            worker: Deprecated: a worker to add first.
            auto_end: Whether to end when every root worker has finished, at once if there is none. Otherwise only
                `end`, `cancel` or a signal ends the run. An `end` or `cancel` before the run counts, too.

        Raises:
            NotRunningError: It has run before, or another runner has opened the bus for itself; a `RuntimeError`.
            Exception: The error of a failed worker, unless an ``on_error`` handler took it; an `ExceptionGroup` of
                several.

        Guarantees: L6, R1, R4.
        """
        if worker is not None:
            warnings.warn("run(worker) is deprecated: use add_workers(worker)", DeprecationWarning, stacklevel=2)
            await self.add_workers(worker)
        self._auto_end = auto_end
        await self._block.run()

    async def __aenter__(self) -> Self:
        """Run the workers while a body runs. A cancel cancels the body; an end lets it finish."""
        await self._block.enter()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """End gracefully, or cancel if the body has raised; return when everything has ended.

        Raises:
            KeyboardInterrupt: A SIGINT has cut the run short.
            SystemExit: A SIGTERM has, with 143.
            RunCancelled: A `cancel` has cut the body short.
            Exception: The error of a failed worker, unless an ``on_error`` handler took it; an `ExceptionGroup` of
                several.
            WrongTaskError: It was entered in another task; a `RuntimeError`. The run is over all the same.

        Guarantees: L7, R1, R4, R5.
        """
        return await self._block.leave(exc_type, exc, traceback)

    waits(run, lambda its: its["self"].end_in_words())
    waits(__aexit__, lambda its: its["self"].end_in_words())

    # --- in the core of the run

    async def _serve(self, tasks: TaskHost) -> None:
        await self._bus.subscribe(self)
        try:
            assert self._inbox is not None
            if self._slow is not None:
                self._bus.add_tap(self._slow)
            if self._stalls is not None:
                await self._stalls.open(tasks)  # before any worker starts
            self._inbox.run_in(tasks)
            self._events.open(tasks)
            self._peers.begin()
            self._discovery.begin()
            self._start_all(tasks)
            self._run.serving()
            logger.info("runner %r has started", self._name, extra=self.about)
            await self._shutdown.all_done.wait()
        finally:
            # After the workers, under the same deadline: what still waits here, which may answer a job of the runner's
            # own; then its open jobs, which are cancelled; last the event handlers, which hear of all of it.
            self._shutdown.asked = self._shutdown.asked or Asked.END
            with self.clean_up.shield(self.clean_up.begin()):
                await self._wind_down()
            self.job_client.close("the runner ended")
            with self.clean_up.shield():
                await self.job_client.quiet()
            for event, args in await self._events.close():
                if event == "on_error":
                    self._hosted.not_taken(args[0])
            if self._slow is not None:
                self._bus.remove_tap(self._slow)
            self._observers.close()
            self._peers.end()
            self._discovery.end()
            await self._bus.unsubscribe(self)
            logger.info("runner %r has ended", self._name, extra=self.about)

    serves(_serve, lambda its: Role(whose=f"runner {its['self'].name!r}"))

    def _start_all(self, tasks: TaskHost) -> None:
        first = self._hosted.start_all()
        if self._events.wanted("on_ready"):
            tasks.start(self._tell_ready, first, name=f"{self._name} ready")
        self._shutdown.begin(auto_end=self._auto_end)

    async def _wind_down(self) -> None:
        assert self._inbox is not None
        await self._orphans.quiet()
        await self._inbox.quiet()
        await self._events.quiet()

    async def _tell_ready(self, workers: list[WorkerCore]) -> None:
        for worker in workers:
            await worker.state.ready.wait()
        self._events.emit("on_ready")

    # --- ending

    async def end(self, reason: str | None = None, *, everywhere: bool = False) -> None:
        """Ask for a graceful end, which `run` waits for. A second call changes nothing.

        Args:
            reason: Why, in words; it reaches every worker.
            everywhere: Whether the other runners on the bus should end, too, in this process and in all others. Runners
                that are not connected at the moment are not reached.

        Guarantees: R2, X9.
        """
        self._bus.check_loop(f"runner {self._name!r}")
        if everywhere:
            self._bus.post(BusEndMessage(reason, everywhere=True, source=self._name))
        self._shutdown.end(reason)

    async def cancel(self, reason: str | None = None, *, everywhere: bool = False) -> None:
        """Ask for an immediate end, even during a graceful one. `run` waits for it. A second call changes nothing.

        Args:
            reason: Why, in words; it reaches every worker.
            everywhere: Whether the other runners on the bus should end, too, in this process and in all others. Runners
                that are not connected at the moment are not reached.

        Guarantees: R2, X9.
        """
        self._bus.check_loop(f"runner {self._name!r}")
        if everywhere:
            self._bus.post(BusCancelMessage(reason, everywhere=True, source=self._name))
        self._shutdown.cancel(reason)

    def _cancel(self, reason: str) -> None:
        self._shutdown.cancel(reason)

    async def stop_when_done(self) -> None:
        """Let each root worker with a pipeline stop when its pipeline has handled what was queued; the others go on."""
        for hosted in list(self._hosted.roots.values()):
            worker = hosted.state.worker
            if not is_default(worker, "stop_when_done", BaseWorker.stop_when_done):  # as a PipelineWorker's is
                await worker.stop_when_done()

    # --- messages

    def _make_inbox(self) -> Inbox:
        """Return the inbox in which the bus leaves this runner's messages."""
        self._inbox = RunnerInbox(
            self._name,
            client=self.job_client,
            add=self._hosted.add_sent,
            departed=self._orphans.announced,
            discovery=self._discovery,
            handle=self.on_bus_message,
            observe=self._observers.ask,
            watched=not is_default(self, "on_bus_message", _HANDLES),
            accepts=None if accepts_everything(self) else self.accepts_bus_message,
        )
        return self._inbox

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function behind what waits in the inbox."""
        assert self._inbox is not None
        self._inbox.call_behind(function)

    def _call_later(self, function: Callable[[], Awaitable[None]]) -> None:
        if self._inbox is not None:
            self._inbox.calls.put(function)

    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle what concerns a runner: ends and cancels.

        Announcements of other runners, and answers to the runner's own jobs, have already been handled. So an override
        may await a job of the runner.

        Args:
            message: The message; one for another target is ignored.

        Guarantees: R6, R7.
        """
        if message.target not in (None, self._name):
            return
        if isinstance(message, BusEndMessage):
            await self.end(message.reason)
        elif isinstance(message, BusCancelMessage):
            await self.cancel(message.reason)


_HANDLES: Final = WorkerRunner.on_bus_message
