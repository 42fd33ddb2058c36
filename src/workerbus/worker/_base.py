"""`BaseWorker`: what users subclass. What the library needs of a worker is behind one attribute; see `_core`."""

from typing import Any

from workerbus._registry import WorkerRegistry
from workerbus._slot import set_core
from workerbus._values import id_source
from workerbus.abc import RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, Inbox, InboxHost, Receives, make_inbox
from workerbus.errors import NotRunningError, UnknownWorkerError
from workerbus.jobs._answers import JobAnswers
from workerbus.jobs._requests import JobRequests
from workerbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusMessage,
)
from workerbus.worker._core import WorkerCore, core_of, look_at_class
from workerbus.worker._hooks import WorkerHooks
from workerbus.worker._names import class_name_of
from workerbus.worker._types import Phase, WorkerActivationArgs, WorkerParams, WorkerStatistics

_new_id = id_source()


class BaseWorker(WorkerHooks, JobAnswers, JobRequests, BusSubscriber):
    """A worker: it has a name, is active or not, handles messages, asks for jobs and does jobs.

    Subclass it, put `job` over the methods that do the work, override the hooks that you need, and give it to a
    `WorkerRunner`. Names that are not documented here are free for attributes and methods of your own (N6). A ``name``
    in the class body is the name of its workers.

    Args:
        name: Unique on the bus; by default that of the class body, or made up.
        active: Whether it is active from its start on. An inactive one takes no new jobs and no custom messages (W4).

    Raises:
        ValueError: The name is empty, or another than that of the class body.
    """

    receives: Receives = "own"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        look_at_class(cls, BaseWorker)  # for its mistakes; the class may still be decorated

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"a worker's name is a str that is not empty, not {name!r}")
        kind = type(self)
        in_class = class_name_of(kind)
        if in_class is not None and name not in (None, in_class):
            raise ValueError(f"workers of class {kind.__name__} are called {in_class!r} by the class, not {name!r}")
        set_core(self, WorkerCore(self, BaseWorker, in_class or name or f"{kind.__name__}-{_new_id()}", active=active))

    def __repr__(self) -> str:
        state = core_of(self).state
        return f"<{type(self).__name__} {state.name!r}, {state.phase.name.lower()}>"

    def __str__(self) -> str:
        return core_of(self).state.name

    # --- what it is

    @property
    def name(self) -> str:
        """The worker's name, unique on its bus."""
        return core_of(self).state.name

    @property
    def bus(self) -> WorkerBus:
        """The bus that it is attached to; `RuntimeError` before that (W1)."""
        return core_of(self).state.bus

    @property
    def registry(self) -> WorkerRegistry:
        """Its runner's registry; `RuntimeError` before it is attached (W1)."""
        return core_of(self).state.registry

    @property
    def worker_runner(self) -> RunnerLike:
        """The runner that hosts it; `RuntimeError` before one does (N4)."""
        state = core_of(self).state
        if state.runner is None:
            raise NotRunningError(f"worker {state.name!r} has no runner yet: add it to one")
        return state.runner

    @property
    def active(self) -> bool:
        """Whether it is active. It is not before it has started."""
        return core_of(self).state.active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """What it was last activated with; None while it is inactive."""
        return core_of(self).state.activation_args

    @property
    def parent(self) -> str | None:
        """Its parent's name; None for a root worker."""
        return core_of(self).state.parent_name

    @property
    def children(self) -> "list[BaseWorker]":
        """The workers that were added to this one."""
        return [child.worker for child in core_of(self).state.children]

    @property
    def started_at(self) -> float | None:
        """When it became ready, in seconds since the epoch; None before that."""
        return core_of(self).state.started_at

    @property
    def bridged(self) -> bool:
        """Whether its pipeline exchanges frames with the bus; not for a worker without one."""
        return False

    def statistics(self) -> WorkerStatistics:
        """Return a snapshot of its counts."""
        core = core_of(self)
        return WorkerStatistics(
            active_jobs=len(core.job_server.jobs),
            job_groups=len(core.job_client.groups),
            ignored=core.job_client.ignored + core.job_server.ignored,
            failed_hooks=core.state.hooks.failed,
        )

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
        await core_of(self).attach(registry, bus, worker_runner)

    async def run(self, params: WorkerParams) -> None:
        """Run until the worker is to stop. Override it for a worker with work of its own; call `start` in it.

        An error in here ends the worker (W7). When it returns, the worker finishes.

        Args:
            params: What to run in.
        """
        await self.start()
        await core_of(self).lifecycle.until_stopped()

    async def start(self) -> None:
        """Become ready: announce and register, then activate if so wished, then watch (W2).

        Returns when the first `on_activated` has; raises what that raised.
        """
        await core_of(self).start()

    async def stop(self) -> None:
        """Stop now: cancel what it does, answer what is open, finish (W6).

        From outside it returns when the worker has finished. From a hook or a job handler of this worker it only asks,
        and returns at once. Again is a no-op.
        """
        await core_of(self).lifecycle.stop()

    async def cleanup(self) -> None:
        """Release what the worker holds; called once, at its end, when its handlers have unwound.

        Override it for resources of your own. It is given until the deadline of the wind-down (L4).
        """
        core = core_of(self)
        if core.state.phase is Phase.ATTACHED:
            await core.lifecycle.stop()

    async def wait(self) -> None:
        """Wait until the worker has finished."""
        await core_of(self).state.finished.wait()

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
        core = core_of(self)
        children = core.state.adopt([core_of(child).state for child in workers], watch=watch)
        if core.state.started_at is not None:
            await core.lifecycle.start_children(children)

    async def watch_workers(self, *worker_names: str) -> None:
        """Let `on_worker_ready` tell when workers get ready, at once for those that are (G1).

        Args:
            *worker_names: The workers; again, for the same, is a no-op.
        """
        presence = core_of(self).presence
        for name in worker_names:
            await presence.watch(name)

    # --- what it says to others

    async def end(self, *, reason: str | None = None) -> None:
        """Ask for a graceful end of everything that this worker's runner runs (R2, R6).

        Args:
            reason: Why, in words.
        """
        await self.bus.send(BusEndMessage(reason, source=self.name, target=self.worker_runner.name))

    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask for an immediate end of everything that this worker's runner runs (R2, R6).

        Args:
            reason: Why, in words; it reaches every worker.
        """
        await self.bus.send(BusCancelMessage(reason, source=self.name, target=self.worker_runner.name))

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message; see `WorkerBus.send`.

        Args:
            message: The message.
        """
        await self.bus.send(message)

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: a child's to its parent, a root's to its runner and to everybody (W7).

        Args:
            error: What happened, in words.
        """
        core_of(self).presence.report_error(error)

    async def activate_worker(
        self, worker_name: str, *, args: WorkerActivationArgs | None = None, deactivate_self: bool = False
    ) -> None:
        """Activate a worker (W3).

        Args:
            worker_name: The worker.
            args: Passed to its `on_activated`, as a dict.
            deactivate_self: Whether to hand over: this worker is inactive before the other is active.

        Raises:
            UnknownWorkerError: There is no such worker; nothing was changed. A `LookupError`.
        """
        await _reach(core_of(self), worker_name)
        data = None if args is None else args.to_dict()
        message = BusActivateWorkerMessage(data, source=self.name, target=worker_name)
        if deactivate_self:
            core_of(self).dispatch.deactivate()
            self.bus.post(message)  # without waiting: cancelled in between, it would leave nobody active
        else:
            await self.bus.send(message)

    async def deactivate_worker(self, worker_name: str) -> None:
        """Deactivate a worker.

        Args:
            worker_name: The worker.

        Raises:
            UnknownWorkerError: There is no such worker. A `LookupError` (W3).
        """
        await _reach(core_of(self), worker_name)
        await self.bus.send(BusDeactivateWorkerMessage(source=self.name, target=worker_name))


async def _reach(core: WorkerCore, worker_name: str) -> None:
    """Return when a worker is on the bus; raise `UnknownWorkerError` where nobody knows it."""
    registry, runner = core.state.registry, core.state.runner
    if registry.get(worker_name) is not None:
        return
    worker = None if runner is None else runner.get_worker(worker_name)
    if worker is not None:
        await core_of(worker).state.until_attached()  # its runner knows it: it is on its way to the bus
        return
    known = [] if runner is None else runner.known_workers()
    raise UnknownWorkerError(worker_name, {*known, *registry.local_workers, *registry.remote_workers})


@make_inbox.register
def _(worker: BaseWorker, bus: InboxHost) -> Inbox:
    return core_of(worker).make_inbox(bus)
