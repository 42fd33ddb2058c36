"""`BaseWorker`: a name, a lifecycle, and a job client and a job server that it is composed of.

This module puts the parts together and holds the table from message class to built-in handling. What a hook is, is in
`_hooks`; how messages get here, in `_worker_inbox`; how a worker ends, in `_worker_life`; jobs, in `jobs`.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from workerbus._events import Handler
from workerbus._hooks import HOOKS, HookQueue, WorkerHooks
from workerbus._lifetime import CleanUp, TaskHost
from workerbus._registry import WorkerRegistry
from workerbus._vocabulary import WorkerErrorData, WorkerReadyData, id_source
from workerbus._worker_calls import WorkerCalls
from workerbus._worker_desk import DeskUser, WorkerDesk
from workerbus._worker_family import Family
from workerbus._worker_inbox import WorkerInbox
from workerbus._worker_life import WorkerLife
from workerbus._worker_types import (
    Phase,
    WorkerParams,
    WorkerStatistics,
    check_handlers,
    check_names,
    check_parts,
)
from workerbus.abc import HookCall, OpenAsks, RunnerLike
from workerbus.bus import BusSubscriber, WorkerBus
from workerbus.bus._subscriber import Inbox, InboxHost, Receives
from workerbus.errors import NotRunningError, text_of
from workerbus.jobs._answers import JobAnswers
from workerbus.jobs._client import JobClient
from workerbus.jobs._decorators import JobHandler, job_handlers, ready_handlers
from workerbus.jobs._requests import JobRequests
from workerbus.jobs._server import JobServer
from workerbus.messages import (
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
)

logger = logging.getLogger("workerbus")
_new_id = id_source()
_TOLD = 256


class BaseWorker(DeskUser, WorkerHooks, WorkerCalls, JobAnswers, JobRequests, BusSubscriber):
    """A worker: it has a name, is active or not, handles messages, asks for jobs and does jobs.

    Subclass it, put `job` over the methods that do the work, override the hooks that you need, and give it to a
    `WorkerRunner`.

    Args:
        name: Unique on the bus; made up by default.
        active: Whether it is active from its start on. An inactive one takes no new jobs and no custom messages (W4).
    """

    receives: Receives = "own"

    _overridden: ClassVar[frozenset[str]] = frozenset()
    _job_handlers: ClassVar[Mapping[str, JobHandler]] = {}
    _ready_handlers: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls, vars(cls))
        cls._overridden = frozenset(name for name in HOOKS if getattr(cls, name) is not getattr(BaseWorker, name))
        cls._job_handlers = job_handlers(cls)
        cls._ready_handlers = ready_handlers(cls)
        check_handlers(cls, [each.attribute for each in cls._job_handlers.values()])
        check_handlers(cls, [name for names in cls._ready_handlers.values() for name in names])

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"a worker's name is a str that is not empty, not {name!r}")
        self._name = name if name is not None else f"{type(self).__name__}-{_new_id()}"
        self._starts_active = active
        self._started_at: float | None = None
        self._bus: WorkerBus | None = None
        self._registry: WorkerRegistry | None = None
        self._runner: RunnerLike | None = None
        self.clean_up: CleanUp = CleanUp()
        self._watched: set[str] | None = None
        self._told: dict[str, WorkerReadyData] = {}
        self._most_told = _TOLD
        self.hooks: HookQueue = HookQueue(self, self._name, self._overridden, self._hook_failed)
        self.job_client: JobClient = JobClient(self)
        self._life = WorkerLife(self)
        self.family: Family = Family(self)
        self._desk = WorkerDesk(self, self._job_handlers)
        self.job_server: JobServer = JobServer(self, self._desk.find_handler, self._desk.refusal)
        self._inbox: WorkerInbox | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}, {self._life.phase.name.lower()}>"

    # --- what it is

    @property
    def name(self) -> str:
        """The worker's name, unique on its bus."""
        return self._name

    @property
    def bus(self) -> WorkerBus:
        """The bus that it is attached to; `RuntimeError` before that (W1)."""
        if self._bus is None:
            raise NotRunningError(f"worker {self._name!r} has no bus yet: it is attached when a runner gets it")
        return self._bus

    @property
    def registry(self) -> WorkerRegistry:
        """Its runner's registry; `RuntimeError` before it is attached (W1)."""
        if self._registry is None:
            raise NotRunningError(f"worker {self._name!r} has no registry yet: it is attached when a runner gets it")
        return self._registry

    @property
    def worker_runner(self) -> RunnerLike:
        """The runner that hosts it; `RuntimeError` before one does (N4)."""
        if self._runner is None:
            raise NotRunningError(f"worker {self._name!r} has no runner yet: add it to one")
        return self._runner

    @property
    def active(self) -> bool:
        """Whether it is active. It is not before it has started."""
        return self._desk.active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """What it was last activated with; None while it is inactive."""
        return self._desk.activation_args

    @property
    def parent(self) -> str | None:
        """Its parent's name; None for a root worker."""
        return None if self.family.parent is None else self.family.parent.name

    @property
    def children(self) -> "list[BaseWorker]":
        """The workers that were added to this one."""
        return [child for child in self.family.children if isinstance(child, BaseWorker)]

    @property
    def will_be_active(self) -> bool:
        """Whether it has not started yet, and will be active when it has."""
        return self._starts_active and self._started_at is None

    @property
    def started_at(self) -> float | None:
        """When it became ready, in seconds since the epoch; None before that."""
        return self._started_at

    @property
    def bridged(self) -> bool:
        """Whether its pipeline exchanges frames with the bus; not for a worker without one."""
        return False

    def statistics(self) -> WorkerStatistics:
        """Return a snapshot of its counts."""
        return WorkerStatistics(
            active_jobs=len(self.job_server.jobs),
            job_groups=len(self.job_client.groups),
            ignored=self.job_client.ignored + self.job_server.ignored,
            failed_hooks=self.hooks.failed,
        )

    # --- what its parts need of it

    @property
    def tasks(self) -> TaskHost:
        """Its tasks; `RuntimeError` while it is not running (J14)."""
        return self._life.tasks

    @property
    def life(self) -> WorkerLife:
        """Its life, for its runner and its parent."""
        return self._life

    @property
    def inbox(self) -> WorkerInbox:
        """Its inbox; `RuntimeError` before it is attached."""
        if self._inbox is None:
            raise NotRunningError(f"worker {self._name!r} is not attached to a bus")
        return self._inbox

    @property
    def graces(self) -> tuple[float, float]:
        """Its runner's grace period and job grace, in seconds (R2)."""
        return (0.0, 0.0) if self._runner is None else (self._runner.grace_period, self._runner.job_grace)

    @property
    def runs_by_default(self) -> bool:
        """Whether `run` only waits for the end."""
        return getattr(self.run, "__func__", None) is BaseWorker.run

    @property
    def cleans_up_by_default(self) -> bool:
        """Whether `cleanup` does nothing."""
        return getattr(self.cleanup, "__func__", None) is BaseWorker.cleanup

    @property
    def runner(self) -> RunnerLike | None:
        """Its runner, if it has one yet."""
        return self._runner

    def check_running(self) -> None:
        """Raise `NotRunningError` unless it has started and not finished: only then are answers received (J14)."""
        if self._life.tasks and self._started_at is None:
            raise NotRunningError(f"worker {self._name!r} is not running yet: it asks for jobs from its start() on")

    @property
    def asking(self) -> OpenAsks:
        """The runner's table of who has been asked."""
        return {} if self._runner is None else self._runner.asking

    # --- its life

    async def attach(
        self, *, registry: WorkerRegistry, bus: WorkerBus, worker_runner: RunnerLike | None = None
    ) -> None:
        """Attach to a bus and a registry. The runner calls it; the worker is subscribed when it returns (W1).

        Args:
            registry: The runner's registry.
            bus: The runner's bus.
            worker_runner: The runner.

        Raises:
            NotRunningError: It is attached, or has run: a worker object runs once (W6).
            NameTakenError: Its name is taken on the bus; a `ValueError` (R3).
        """
        check_parts(self)
        if self._life.phase is not Phase.NEW:
            raise NotRunningError(f"worker {self._name!r} was attached before: a worker object runs once, make another")
        self._bus, self._registry, self._runner = bus, registry, worker_runner
        if worker_runner is not None:
            self.clean_up = CleanUp(worker_runner.clean_up)
        try:
            await bus.subscribe(self)
        except BaseException:
            self._bus = self._registry = self._runner = None
            raise
        self._life.phase = Phase.ATTACHED

    def make_inbox(self, bus: InboxHost) -> Inbox:
        """Return the inbox in which the bus leaves this worker's messages (B6)."""
        asks = type(self).accepts_bus_message is not BusSubscriber.accepts_bus_message
        self._inbox = WorkerInbox(
            self._name,
            receives=self.receives,
            handle=self._desk.handle,
            accepts=self.accepts_bus_message if asks else None,
            hooks=self.hooks,
            max_buffer_size=bus.max_buffer_size,
            early=self.job_server.early,
            end_waits=self._life.end_waits,
            refuse=self.job_server.refuse,
        )
        return self._inbox

    async def run(self, params: WorkerParams) -> None:
        """Run until the worker is to stop. Override it for a worker with work of its own; call `start` in it.

        An error in here ends the worker (W7). When it returns, the worker finishes.

        Args:
            params: What to run in.
        """
        await self.start()
        await self._life.until_stopped()

    async def start(self) -> None:
        """Become ready: announce and register, then activate if so wished, then watch (W2).

        Returns when the first `on_activated` has; raises what that raised.
        """
        if self._started_at is not None:
            return
        tasks = self._life.tasks
        self._started_at = time.time()
        self._life.adopt_context()
        ready = WorkerReadyData(self._name, self.registry.runner_name)
        self.bus.post(
            BusWorkerReadyMessage(
                ready.runner,
                self.parent,
                self._starts_active,
                self.bridged,
                self._started_at,
                source=self._name,
            )
        )
        await self.registry.register(ready)
        activation = self._desk.activate(None, first=True) if self._starts_active else None
        self.inbox.start(tasks)
        self.became_ready()
        if self._runner is not None:
            self._runner.tell_of_others(self)
        self._life.started()
        for watched in self._ready_handlers:
            await self.watch(watched)
        for added in self.family.children:
            if not self.worker_runner.is_ending:
                await self.family.start(added)
        if activation is not None:
            await activation.result()

    async def stop(self) -> None:
        """Stop now: cancel what it does, answer what is open, finish (W6).

        From outside it returns when the worker has finished. From a hook or a job handler of this worker it only asks,
        and returns at once. Again is a no-op.
        """
        await self._life.stop()

    async def cleanup(self) -> None:
        """Release what the worker holds; called once, at its end, when its handlers have unwound.

        Override it for resources of your own. It is given until the deadline of the wind-down (L4).
        """
        if self._life.phase is Phase.ATTACHED:
            await self._life.stop()

    async def depart(self) -> None:
        """Leave bus and registry: the name is free. The last step of the worker's end (W6)."""
        registry, bus = self.registry, self.bus
        for watched in self._watched or ():
            registry.unwatch(watched, self.tell_ready)
        self._desk.active, self._desk.activation_args = False, None
        await bus.unsubscribe(self)
        if self._started_at is not None:
            bus.post(BusWorkerGoneMessage(registry.runner_name, time.time(), source=self._name))
        if self._runner is not None:
            self._runner.forget(self)
        if self._started_at is not None:
            await registry.unregister(self._name)

    async def wait(self) -> None:
        """Wait until the worker has finished."""
        await self._life.finished.wait()

    async def stop_when_done(self) -> None:
        """Stop when the pipeline has done what it was given; a worker without one has nothing to wait for."""

    async def add_workers(self, *workers: "BaseWorker", watch: bool = True) -> None:
        """Make workers the children of this one; they end before it does (W5).

        Children that are added before this worker has started are started with it.

        Args:
            *workers: The children; one that is a child already is skipped.
            watch: Whether `on_worker_ready` tells when they are ready.

        Raises:
            ParentError: A worker has another parent, is this worker, or is above it; a `ValueError`.
            NameTakenError: Another worker has its name; a `ValueError` (R3).
            NotRunningError: The runner is ending, or the child has run already; a `RuntimeError`.
        """
        if strangers := [child for child in workers if not isinstance(child, BaseWorker)]:
            raise TypeError(f"children are workers, not {strangers[0]!r}")
        children = self.family.adopt(workers, watch=watch)
        await self.family.start_new(children if self._started_at is not None else [])

    async def watch_workers(self, *worker_names: str) -> None:
        """Let `on_worker_ready` tell when workers get ready, at once for those that are (G1).

        Args:
            *worker_names: The workers; again, for the same, is a no-op.
        """
        for name in worker_names:
            await self.watch(name)

    async def watch(self, name: str) -> None:
        """See `watch_workers`."""
        if self._watched is None:
            self._watched = set()
        self._watched.add(name)
        await self.registry.watch(name, self.tell_ready)

    def tell_ready(self, data: WorkerReadyData) -> None:
        """Queue the hooks for a worker that is ready, once for each time that it gets ready."""
        if self._told.get(data.worker_name) is data:
            return
        if len(self._told) >= self._most_told:
            self._told = {name: told for name, told in self._told.items() if self.registry.get(name) is told}
            self._most_told = max(_TOLD, 2 * len(self._told))  # so that a look at all comes ever more rarely
        self._told[data.worker_name] = data
        if self.hooks.wants("on_worker_ready"):
            self.hooks.add(HookCall("on_worker_ready", (data,)), system=False)
        for attribute in self._ready_handlers.get(data.worker_name, ()):
            self.hooks.add(HookCall(attribute, (data,)), system=False)

    def _hook_failed(self, call: HookCall, exc: Exception) -> None:
        job_id = getattr(call.cause, "job_id", None)
        of_job = f" (job {job_id})" if job_id else ""
        logger.error("%s of worker %r failed%s", call.name, self._name, of_job, exc_info=exc)
        # What a broadcast error causes is not broadcast again: it would go round for ever.
        if not isinstance(call.cause, BusWorkerErrorMessage):
            self.report_error(f"{call.name}: {type(exc).__name__}: {text_of(exc)}{of_job}")

    def could_not_be_added(self) -> None:
        """Be free again: attaching has failed."""
        self._life.admitted = False
        self.family.disown()

    def finished(self) -> None:
        """This worker has finished: its parent may, too (W5)."""
        self.family.leave()

    def add_event_handler(self, event_name: str, handler: Handler) -> None:
        """See `EventEmitter.add_event_handler`."""
        super().add_event_handler(event_name, handler)
        if "hooks" in vars(self):  # before that, the queue is still to be made, and looks for itself
            self.hooks.want(event_name)
        if event_name == "on_worker_ready" and self._runner is not None:
            self._runner.curious(self)

    def report_failure(self, error: str) -> bool:
        """Report that `run` has failed; returns whether a parent takes care of it, so that nobody else need (R4)."""
        if self._bus is None:
            return False
        self.report_error(error)
        parent = self.family.parent
        return isinstance(parent, BaseWorker) and parent.hooks.wants("on_worker_failed")

    def report_error(self, error: str) -> None:
        """Tell the parent, or the runner and everybody (W7)."""
        if self.parent is not None:
            self.bus.post(BusWorkerLocalErrorMessage(error, source=self._name, target=self.parent))
            return
        self.bus.post(BusWorkerErrorMessage(error, source=self._name))
        if self._runner is not None:
            self._runner.worker_error(WorkerErrorData(self._name, error))
