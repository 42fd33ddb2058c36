"""All that the library needs of a worker, put together from its parts, behind one attribute of the user's object.

It keeps N6 and, in `WorkerCore.start`, W2.

| part | its subject |
|---|---|
| `WorkerState` | what the other parts share |
| `TreeNode` | parent and children; the base class of `WorkerState` |
| `Presence` | how the worker makes itself known, hears of others, and leaves |
| `WorkerLifecycle` | its one task, and the ways to its end |
| `WindDown` | what is done at its end, and in which order |
| `MessageDispatch` | what messages change, by their class |

What the library has to know of a worker's class is found out once for each class: the hooks that it overrides, its jobs
and its watches.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard
from weakref import WeakKeyDictionary

from workerbus import _slot
from workerbus._concurrency.lifetime import CleanUp
from workerbus._concurrency.own_tasks import TaskHandle, Work, discard, work_of
from workerbus._events import EventHandlers
from workerbus._registry import WorkerRegistry
from workerbus.abc import HookCall, RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, InboxHost, accepts_everything
from workerbus.errors import NotRunningError, WrongLoopError
from workerbus.jobs._client import JobClient
from workerbus.jobs._handlers import JobHandler, Periodic, job_handlers, periodic_methods, ready_handlers
from workerbus.jobs._server import JobServer
from workerbus.jobs._typing import signature_of
from workerbus.supervision._supervisor import Supervisions
from workerbus.worker._children import start_child
from workerbus.worker._dispatch import MessageDispatch
from workerbus.worker._hooks import DEFAULTS, HOOK_ARGUMENTS, HOOKS, HookQueue
from workerbus.worker._inbox import WorkerInbox
from workerbus.worker._lifecycle import WorkerLifecycle
from workerbus.worker._names import check_called, check_class, check_handlers, check_object, check_spelling
from workerbus.worker._own_tasks import OwnTasks
from workerbus.worker._parent_host import ParentHost
from workerbus.worker._periodic import call_periodically
from workerbus.worker._presence import Presence
from workerbus.worker._state import WorkerState
from workerbus.worker._types import Phase
from workerbus.worker._wind_down import WindDown

logger = logging.getLogger("workerbus.worker")


class WorkerClass(NamedTuple):
    """What the library knows of a class of workers.

    Attributes:
        overridden: The names of the hooks that the class overrides.
        job_handlers: Its ``@job`` methods, by job name.
        ready_handlers: The names of its ``@worker_ready`` methods, by the name of the worker that they watch for.
        periodic: The names of its ``@every`` methods, and when they are called.
    """

    overridden: frozenset[str]
    job_handlers: Mapping[str, JobHandler]
    ready_handlers: Mapping[str, tuple[str, ...]]
    periodic: Sequence[tuple[str, Periodic]]

    @property
    def handlers(self) -> Mapping[str, int]:
        """The names of all these methods, and how many arguments each gets."""
        jobs = dict.fromkeys((each.attribute for each in self.job_handlers.values()), 1)
        watching = dict.fromkeys((name for names in self.ready_handlers.values() for name in names), 1)
        return {**jobs, **watching, **dict.fromkeys((name for name, _ in self.periodic), 0)}


_made: "WeakKeyDictionary[type, WorkerClass]" = WeakKeyDictionary()
"""What is known of each class from when it was made, before it was decorated."""

_classes: "WeakKeyDictionary[type, WorkerClass]" = WeakKeyDictionary()
"""What is known of each class of which there is a worker."""


def look_at_class(cls: type) -> WorkerClass:
    """Check a class of workers, and return what the library has to know of it.

    Raises:
        ReservedNameError: The class uses a documented name for something else; a `TypeError`.
        HandlerTypeError: One of its hooks or handlers is not async, or does not take what it gets; a `TypeError`.
        MisspeltHookError: It has a method that is nearly called as a hook; a `TypeError`.
        ValueError: Two methods handle the same job.
    """
    check_class(cls)
    overridden = frozenset(name for name in HOOKS if getattr(cls, name) is not DEFAULTS[name])
    earlier = _made.get(cls)
    if earlier is None:
        known = _made[cls] = WorkerClass(overridden, job_handlers(cls), ready_handlers(cls), periodic_methods(cls))
        check_spelling(cls, known.handlers)
    else:
        jobs = job_handlers(cls, earlier.job_handlers.values())
        periodic = periodic_methods(cls, earlier.periodic)
        known = WorkerClass(overridden, jobs, ready_handlers(cls, earlier.ready_handlers), periodic)
    check_handlers(cls, known.handlers, {each.attribute for each in known.job_handlers.values()})
    check_called(cls)
    return known


def known_class(cls: type) -> WorkerClass:
    """Return what is known of a class.

    It is looked up when the first worker of the class is made: by then all class decorators have been applied.
    """
    known = _classes.get(cls)
    if known is None:
        known = look_at_class(cls)
        for handler in known.job_handlers.values():
            signature_of(getattr(cls, handler.attribute))  # for its mistakes: by now all that it names is there
        _classes[cls] = known
    return known


class InWords(Protocol):
    """What a kind of worker of the library's own says of itself."""

    def late(self) -> str | None:
        """Return why a worker that runs is not ready; None where there is nothing special to say."""

    def lines(self) -> Iterable[str]:
        """Return lines on what it does, and what waits there; none where it has nothing to do."""


class WorkerCore:
    """All that the library needs of one worker.

    Args:
        worker: The user's object.
        defaults: The library's own methods by name: `run`, `stop`, `cleanup`.
        name: The worker's name.
        active: Whether it is active from its start on.

    Attributes:
        state: What the parts share, with the worker's place in the tree.
        events: The worker's event handlers.
        presence: Makes the worker known, hears of others, and leaves.
        lifecycle: Runs the worker's task, and ends it.
        dispatch: Does what messages ask for.
        job_client: The jobs that the worker has asked for.
        job_server: The jobs that the worker was asked for.
        became_ready: Called in the step in which the worker starts; set by the library's own kinds of worker.
        extension: What such a kind of worker keeps of its own.
        in_words: Says what there is to say of such a kind of worker beside what there is of every worker.
    """

    __slots__ = (
        "became_ready", "dispatch", "events", "extension", "in_words", "job_client", "job_server", "lifecycle",
        "presence", "state", "tree",
    )  # fmt: skip

    def __init__(self, worker: BusSubscriber, defaults: Mapping[str, Any], name: str, *, active: bool) -> None:
        known = known_class(type(worker))
        events = self.events = EventHandlers(type(worker).__name__, HOOKS)
        events.arguments = HOOK_ARGUMENTS
        state = self.state = WorkerState(worker, defaults, name, active=active, events=events)
        presence = self.presence = Presence(state, known.ready_handlers)
        state.hooks = HookQueue(worker, name, known.overridden, events, presence.hook_failed)
        self.job_client = state.job_client = JobClient(state)
        wind_down = WindDown(state, presence.leave, presence.leaves_at_once, presence.end_failed)
        life = self.lifecycle = WorkerLifecycle(state, wind_down=wind_down, announce=presence.announce)
        self.dispatch = MessageDispatch(state, cancel=life.cancel, end=life.end, handlers=known.job_handlers)
        self.job_server = state.job_server = JobServer(
            state, self.dispatch.find_handler, self.dispatch.refusal, life.fail
        )
        self.became_ready: Callable[[], None] | None = None
        self.extension: Any = None
        self.in_words: InWords | None = None
        events.added = self._event_handler_added

    def _event_handler_added(self, event_name: str) -> None:
        self.state.hooks.want(event_name)
        if event_name in ("on_worker_ready", "on_worker_gone") and self.state.runner is not None:
            self.state.runner.add_ready_listener(self.state.worker)

    # --- on a bus

    async def attach(self, registry: WorkerRegistry, bus: WorkerBus, runner: RunnerLike | None) -> None:
        """Attach the worker; what `BaseWorker.attach` does."""
        state = self.state
        check_object(state.worker, known_class(type(state.worker)).handlers)
        if state.phase is not Phase.NEW:
            raise NotRunningError(f"worker {state.name!r} was attached before: a worker object runs once, make another")
        state.connect(bus, registry, runner)
        if runner is not None:
            state.clean_up = CleanUp(runner.clean_up)
        try:
            await bus.subscribe(state.worker)
        except BaseException:
            state.connect(None, None, None)
            raise
        state.phase = Phase.ATTACHED

    def make_inbox(self, bus: InboxHost) -> WorkerInbox:
        """Return the inbox in which the bus leaves this worker's messages."""
        state = self.state
        worker = state.worker
        inbox = state.inbox = WorkerInbox(
            state.name,
            receives=worker.receives,
            handle=self.dispatch.handle,
            accepts=None if accepts_everything(worker) else worker.accepts_bus_message,
            hooks=(state.hooks.data, state.hooks.system),
            hears=lambda: state.hooks.wants("on_bus_message"),
            failed_hooks=lambda: state.hooks.failed,
            max_buffer_size=bus.max_buffer_size,
            early=state.job_server.early,
            end_waits=self.lifecycle.end_waits,
            panicked=self.lifecycle.fail,
            refuse=state.job_server.refuse,
        )
        return inbox

    # --- its start

    async def start(self) -> None:
        """Start the worker; what `BaseWorker.start` does."""
        state, lifecycle = self.state, self.lifecycle
        if state.has_started:
            return
        tasks = state.tasks
        state.has_started = True
        state.started_at = time.time()
        lifecycle.adopt_context()
        # What may still fail comes before the announcement; meanwhile, requesters of this runner find the worker.
        activates = state.starts_active and state.hooks.wants("on_activated")
        begins = (activates or lifecycle.start_is_overridden) and self.presence.begin()
        watchers = None if begins else self.presence.announce_now()
        # Activated first, then the messages that came before the start: one of them may deactivate the worker again.
        activation = self.dispatch.activate(None, first=True) if state.starts_active else None
        state.inbox.start(tasks)
        if self.became_ready is not None:
            self.became_ready()
        if state.runner is not None:
            state.runner.tell_of_others(state.worker)
        state.ready.set()
        if logger.isEnabledFor(logging.INFO):
            logger.info("worker %r has started", state.name, extra=state.about)
        # From here on user code is awaited, which may ask this worker for a job, or have it ask for one.
        if watchers is not None:
            await state.registry.tell(*watchers)
        for watched in self.presence.ready_handlers:
            await self.presence.watch(watched)
        for child in state.children:
            if state.runner is not None and not state.runner.is_ending and state.takes_children:
                await start_child(state, self.presence, child)
        # Last, since the hook may ask a child, or this worker itself, for a job: by now both can answer.
        if activation is not None:
            try:
                await activation.result()
            except BaseException as exc:
                lifecycle.blame(exc, "on_activated")
                raise
        self._start_periodic()
        if not lifecycle.start_is_overridden:
            await lifecycle.has_started()

    # --- supervised children

    def begin_to_supervise(self) -> Supervisions:
        """Return what keeps the supervisions of the worker's children."""
        state = self.state
        state.check_loop()
        if state.supervises is None:
            state.supervises = Supervisions(ParentHost(state, state.worker.add_workers, self.create_task))
        return state.supervises

    # --- tasks of its own

    def create_task(self, function: Work, args: tuple[Any, ...], name: str | None) -> TaskHandle:
        """Start a task; what `BaseWorker.create_task` does."""
        return self._start_task(*work_of(function, args, name))

    def _start_periodic(self) -> None:
        worker = self.state.worker
        for attribute, when in known_class(type(worker)).periodic:
            self._start_task(call_periodically(worker, attribute, when, self._start_task), f"{attribute} timer")

    def _start_task(self, work: Awaitable[Any], label: str) -> TaskHandle:
        state = self.state
        try:
            state.check_loop()
            host = state.tasks
        except (NotRunningError, WrongLoopError):
            discard(work)
            raise
        if state.own_tasks is None:
            state.own_tasks = OwnTasks(state.name, self._task_failed)
            state.own_tasks.closed = state.winding_down
        return state.own_tasks.start(host, work, label)

    def _task_failed(self, label: str, exc: BaseException) -> None:
        self.presence.hook_failed(HookCall(f"task {label!r}", ()), exc)


def is_worker(value: object) -> TypeGuard[_slot.HasCore]:
    """Whether a value is a worker."""
    return isinstance(value, _slot.HasCore) and isinstance(_slot.core_of(value), WorkerCore)


def core_of(worker: _slot.HasCore) -> WorkerCore:
    """Return what the library keeps of a worker."""
    core: WorkerCore = _slot.core_of(worker)
    return core
