"""What the parts of one worker share: what it is, where it is in its life, and what it asks and answers with.

Nothing here decides anything. Each field is changed by one part: the phase by the lifecycle and the wind-down, activity
by the dispatch. The parts do not know each other: `WorkerCore` puts them together. It is where W1 is kept, and, for
what is asked of a worker that is not running, J14.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from workerbus._concurrency.lifetime import CleanUp, LazyEvent, TaskHost
from workerbus._concurrency.waiting import Role
from workerbus._events import EventHandlers
from workerbus._log import about
from workerbus._methods import is_default
from workerbus._registry import WorkerRegistry
from workerbus.abc import OpenAsks, RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.errors import NotRunningError
from workerbus.jobs._client import JobClient
from workerbus.jobs._server import JobServer
from workerbus.messages import BusCancelWorkerMessage, BusMessage
from workerbus.supervision._supervision import Supervision
from workerbus.supervision._supervisor import Supervisions
from workerbus.worker._hooks import HookQueue
from workerbus.worker._inbox import WorkerInbox
from workerbus.worker._own_tasks import OwnTasks
from workerbus.worker._tree import TreeNode
from workerbus.worker._types import Phase


class WorkerState(TreeNode):
    """The state of one worker, and its place in the tree of workers.

    Args:
        worker: The user's object.
        defaults: The library's own methods by name: `run`, `stop`, `cleanup`.
        name: The worker's name.
        active: Whether it is active from its start on.
        events: Its event handlers.

    Attributes:
        worker: The user's object.
        starts_active: Whether the worker is active from its start on.
        events: Its event handlers.
        runner: The runner that hosts it, once one does.
        has_started: Whether it has become ready.
        started_at: When that was, in seconds since the epoch; None before that. For people: it decides nothing.
        active: Whether it is active.
        activation_args: The arguments of its last activation; None while it is inactive.
        after: How far other processes were before its last activation, as far as it knows.
        phase: Where it is in its life.
        admitted: Whether a runner hosts it and it has its name there.
        closing: Whether it is stopping, and takes no more jobs and children.
        ends_children: Whether its children are told to end, or have been: it takes no others.
        crash: What it has failed of, if it has.
        speak: Called before it says something itself: it is announced then, if it still starts.
        fail: Finishes it as if `run` had raised: called with the exception, and with the name of what has raised it.
        reason: Why it ends, in words, if somebody has said so.
        final_message: The cancel that ends it, if one does.
        attach_error: What kept it from being attached, if anything did.
        attached: Set when it is on the bus, or could not be attached.
        attaching_in: The task in which its runner attaches it, by anyio's number; None before that.
        announced: Whether it was announced as ready.
        ready: Set when it takes jobs, or has finished without having started.
        started: Set when its start is over, or it has finished without having started.
        start_waiters: How many wait for its start, and get what it fails of until then.
        finished: Set when it and its children have finished.
        clean_up: The clock of its wind-down.
        hooks: The hooks that wait to be run.
        job_client: The jobs that it has asked for.
        job_server: The jobs that it was asked for.
        own_tasks: The tasks that its own code has started; None before the first.
        winding_down: Whether its wind-down has come to what it does.
        stop_called: Whether `stop()` has been called, by the library or by others.
        cleanup_called: Whether `cleanup()` has been called for its end.
        supervision: What restarts it, if anything does.
        supervises: What restarts children of its own; None for most.
        going: Called when it begins to take no more jobs, since it ends; None for most.
        shares: The name that it shares with pools in other processes, and how many jobs it does at once; None for most.
    """

    __slots__ = (
        "_bus", "_default_send", "_defaults", "_inbox", "_registry", "_tasks", "activation_args", "active",
        "admitted", "after", "announced", "attach_error", "attached", "attaching_in", "clean_up", "cleanup_called",
        "closing", "crash", "ends_children", "events", "fail", "final_message", "finished", "going", "has_started",
        "hooks", "job_client", "job_server", "own_tasks", "phase", "ready", "reason", "runner", "shares", "speak",
        "start_waiters", "started", "started_at", "starts_active", "stop_called", "supervises", "supervision",
        "winding_down", "worker",
    )  # fmt: skip

    hooks: HookQueue
    job_client: JobClient
    job_server: JobServer
    fail: Callable[[BaseException, str], None]
    speak: Callable[[], None]

    def __init__(
        self, worker: Any, defaults: Mapping[str, Any], name: str, *, active: bool, events: EventHandlers
    ) -> None:
        super().__init__(name)
        self.worker: Any = worker
        self._defaults = defaults
        self._default_send = defaults["send_bus_message"]
        self.starts_active: bool = active
        self.events: EventHandlers = events
        self._bus: WorkerBus | None = None
        self._registry: WorkerRegistry | None = None
        self._inbox: WorkerInbox | None = None
        self._tasks: TaskHost | None = None
        self.runner: RunnerLike | None = None
        self.has_started: bool = False
        self.started_at: float | None = None
        self.shares: tuple[str, int] | None = None
        self.going: Callable[[], None] | None = None
        self.active: bool = False
        self.activation_args: dict[str, Any] | None = None
        self.after: Mapping[str, int] = {}
        self.phase: Phase = Phase.NEW
        self.admitted: bool = False
        self.closing: bool = False
        self.ends_children: bool = False
        self.crash: BaseException | None = None
        self.reason: str | None = None
        self.final_message: BusCancelWorkerMessage | None = None
        self.attach_error: BaseException | None = None
        self.attached: LazyEvent = LazyEvent()
        self.attaching_in: int | None = None
        self.announced: bool = False
        self.ready: LazyEvent = LazyEvent()
        self.started: LazyEvent = LazyEvent()
        self.start_waiters: int = 0
        self.finished: LazyEvent = LazyEvent()
        self.clean_up: CleanUp = CleanUp()
        self.own_tasks: OwnTasks | None = None  # most workers never have any
        self.winding_down: bool = False
        self.stop_called: bool = False
        self.cleanup_called: bool = False
        self.supervision: Supervision | None = None
        self.supervises: Supervisions | None = None

    # --- what it is attached to

    def connect(self, bus: WorkerBus | None, registry: WorkerRegistry | None, runner: RunnerLike | None) -> None:
        """Note what the worker is attached to; None, three times, if it could not be attached."""
        self._bus, self._registry, self.runner = bus, registry, runner

    @property
    def is_connected(self) -> bool:
        """Whether the worker has a bus."""
        return self._bus is not None

    @property
    def bus(self) -> WorkerBus:
        """The worker's bus; raises `NotRunningError` before it is attached."""
        if self._bus is None:
            raise NotRunningError(f"worker {self.name!r} has no bus yet: it is attached when a runner gets it")
        return self._bus

    @property
    def sends_by_bus(self) -> bool:
        """Whether nobody has put something in the place of the worker's ``send_bus_message``."""
        hooks = self.hooks
        return "send_bus_message" not in hooks.own and hooks.kind.send_bus_message is self._default_send

    @property
    def send(self) -> Callable[[BusMessage], Awaitable[None]]:
        """What sends a message as the worker's own code does."""
        hooks = self.hooks  # as `sends_by_bus` has it: a call less for each job
        if "send_bus_message" not in hooks.own and hooks.kind.send_bus_message is self._default_send:
            return self.bus.send
        send: Callable[[BusMessage], Awaitable[None]] = self.worker.send_bus_message
        return send

    @property
    def registry(self) -> WorkerRegistry:
        """Its runner's registry; raises `NotRunningError` before it is attached."""
        if self._registry is None:
            raise NotRunningError(f"worker {self.name!r} has no registry yet: it is attached when a runner gets it")
        return self._registry

    @property
    def inbox(self) -> WorkerInbox:
        """The worker's inbox; raises `NotRunningError` before it is attached."""
        if self._inbox is None:
            raise NotRunningError(f"worker {self.name!r} is not attached to a bus yet: give it to a runner")
        return self._inbox

    @inbox.setter
    def inbox(self, inbox: WorkerInbox) -> None:
        self._inbox = inbox

    @property
    def about(self) -> dict[str, str]:
        """What a log record says that is about this worker."""
        return about(runner=None if self.runner is None else self.runner.name, worker=self.name)

    @property
    def graces(self) -> tuple[float, float]:
        """Its runner's grace period and job grace, in seconds."""
        return (0.0, 0.0) if self.runner is None else (self.runner.grace_period, self.runner.job_grace)

    # --- where it is in its life

    @property
    def has_begun(self) -> bool:
        """Whether its task has begun."""
        return self._tasks is not None

    @property
    def tasks(self) -> TaskHost:
        """Where its tasks run; raises `NotRunningError` while the worker is not running."""
        if self._tasks is None or self._tasks.over or self.phase is Phase.FINISHED:
            raise NotRunningError(f"worker {self.name!r} is {self.phase.value}")
        return self._tasks

    @tasks.setter
    def tasks(self, tasks: TaskHost) -> None:
        self._tasks = tasks

    @property
    def takes_children(self) -> bool:
        """Whether children that are added now could still finish before this worker does."""
        ends = self.closing or self.ends_children
        return not ends and self.phase not in (Phase.STOPPING, Phase.FINISHED)

    @property
    def is_unstarted(self) -> bool:
        """Whether nobody has begun to start the worker."""
        return self.phase is Phase.NEW and not self.admitted

    @property
    def is_on_its_way(self) -> bool:
        """Whether a runner is about to attach the worker."""
        return self.phase is Phase.NEW and (self.admitted or self.attaching_in is not None)

    @property
    def is_unfinished(self) -> bool:
        """Whether the worker was started and has not finished."""
        return self.admitted and self.phase is not Phase.FINISHED

    def check_name(self, child: Self) -> None:
        """Raise if this worker's runner cannot host a child."""
        if self.runner is not None:
            self.runner.check_new(child.worker)

    @property
    def parent_name(self) -> str | None:
        """The name of its parent; None for a root worker."""
        return None if self.parent is None else self.parent.name

    @property
    def takes_jobs(self) -> bool:
        """Whether the worker is in a phase in which it accepts new jobs."""
        return not self.closing and self.phase in (Phase.RUNNING, Phase.ATTACHED)

    @property
    def will_be_active(self) -> bool:
        """Whether the worker has not started yet, and will be active when it has."""
        return self.starts_active and not self.has_started

    @property
    def runs_by_default(self) -> bool:
        """Whether `run` is the library's own, which only waits for the end."""
        return is_default(self.worker, "run", self._defaults["run"])

    @property
    def starts_by_default(self) -> bool:
        """Whether the class leaves `start` as it is."""
        return is_default(self.worker, "start", self._defaults["start"])

    @property
    def stop_is_due(self) -> bool:
        """Whether somebody has overridden `stop`, and nobody has called it yet."""
        return not (self.stop_called or is_default(self.worker, "stop", self._defaults["stop"]))

    @property
    def cleans_up_by_default(self) -> bool:
        """Whether `cleanup` is the library's own, which does nothing."""
        return is_default(self.worker, "cleanup", self._defaults["cleanup"])

    @property
    def has_own_tasks(self) -> bool:
        """Whether tasks of the worker's own run."""
        return self.own_tasks is not None and not self.own_tasks.idle

    def attaching(self) -> None:
        """Note that the worker is being attached, perhaps after an attempt that failed."""
        if self.attached.is_set():
            self.attached, self.attach_error = LazyEvent(), None

    def has_attached(self, error: BaseException | None = None) -> None:
        """Note that the worker was attached, or why it could not be."""
        self.attach_error, self.attaching_in = error, None
        if error is not None:
            self.closing = False  # another runner or parent may have it
        self.attached.set()

    def stopped_payload(self) -> dict[str, Any]:
        """Return what requesters are told whose jobs the worker's end has cancelled."""
        return {"error": self.reason or f"worker {self.name!r} stopped", "type": "Cancelled"}

    async def until_attached(self) -> None:
        """Wait until the runner has attached the worker; raise what has kept it from doing so."""
        await self.attached.wait()
        if self.attach_error is not None:
            raise self.attach_error

    async def until_finished(self) -> None:
        """Wait until the worker has finished, or could not be attached and so has never begun."""
        await self.attached.wait()
        if self.attach_error is None:
            await self.finished.wait()

    def begins_to_go(self) -> None:
        """Have it decided, by its supervision, whether there will be another one: from now on it takes no more jobs."""
        if self.going is not None:
            self.going()
        if self.supervision is not None:
            self.supervision.goes(self.worker, self.crash)

    def end_restarts(self) -> None:
        """Restart no children any more: the worker ends."""
        if self.supervises is not None:
            self.supervises.end()

    def check_loop(self) -> None:
        """Raise `WrongLoopError` in another thread or event loop than the one that its bus is open in."""
        if self._bus is not None:
            self._bus.check_loop(f"worker {self.name!r}")

    def role(self) -> Role:
        """Return what its task is for, and what waits here without one."""
        inactive = " (inactive)" if self.has_started and not self.active else ""
        return Role(whose=f"worker {self.name!r}{inactive}", held=self.job_server.held)

    # --- as the one that asks for jobs and answers them; see `JobPeer`

    def check_running(self) -> None:
        """Raise `NotRunningError` unless the worker has started and not finished: only then can answers reach it."""
        if self.tasks and not self.has_started:
            raise NotRunningError(f"worker {self.name!r} is not running yet: it asks for jobs from its start() on")

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function behind what waits in the inbox."""
        self.inbox.call_behind(function)

    @property
    def asking(self) -> OpenAsks:
        """The runner's table of which groups have asked which worker."""
        return {} if self.runner is None else self.runner.asking


async def until_started(workers: Sequence[WorkerState]) -> None:
    """Wait until workers have started.

    Raises:
        BaseException: What has kept one from it, an exception group of several.
        NotRunningError: One was stopped before it had started.
    """
    for state in workers:
        state.start_waiters += 1
    try:
        for state in workers:
            await state.started.wait()
    finally:
        for state in workers:
            state.start_waiters -= 1
    errors = [
        state.crash or NotRunningError(f"worker {state.name!r} was stopped before it had started")
        for state in workers
        if not state.announced
    ]
    if errors:
        raise errors[0] if len(errors) == 1 else BaseExceptionGroup("several workers could not be started", errors)
