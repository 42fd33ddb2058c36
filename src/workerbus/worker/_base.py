"""`BaseWorker`: what users subclass (W1-W7, N4, N6, R2, G1).

What the library needs of a worker is behind one attribute; see `_core`. Most methods here only hand on to it.
"""

from typing import Any, Final

from workerbus._concurrency.own_tasks import TaskHandle, Work, end_task
from workerbus._concurrency.waiting import Wait, waits
from workerbus._order import id_source
from workerbus._registry import WorkerRegistry
from workerbus._slot import set_core
from workerbus._values import name_of
from workerbus.abc import RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, Inbox, InboxHost, Receives, make_inbox
from workerbus.errors import NotRunningError
from workerbus.jobs._answers import JobAnswers
from workerbus.jobs._requests import JobRequests
from workerbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusMessage,
)
from workerbus.supervision._supervisor import Supervisor
from workerbus.worker._activating import arguments_of, reach, so_far
from workerbus.worker._children import start_children
from workerbus.worker._core import WorkerCore, core_of, look_at_class
from workerbus.worker._hooks import WorkerHooks
from workerbus.worker._names import class_name_of
from workerbus.worker._state import until_started
from workerbus.worker._types import Phase, WorkerActivationArgs, WorkerParams, WorkerStatistics

_new_id = id_source()


class BaseWorker(WorkerHooks, JobAnswers, JobRequests, Supervisor, BusSubscriber):
    """A worker: it has a name, is active or not, handles messages, asks for jobs and does jobs.

    Subclass it, decorate the methods that do the work with `job`, override the hooks that you need, and add it to a
    `WorkerRunner`. Names that are not documented here are free for your own attributes and methods. A ``name`` in the
    class body is the name of its workers.

    Args:
        name: The worker's name, unique on the bus. By default it is the one in the class body; if there is none, one is
            made up.
        active: Whether the worker is active from its start on. An inactive worker takes no new jobs and no custom
            messages.

    Raises:
        ReservedNameError: The class uses a documented name for something else; a `TypeError`, as are the next two. They
            are raised where the class is made or, for a decorated class, with its first worker.
        HandlerTypeError: One of its hooks or handlers is not async, or does not take its arguments.
        MisspeltHookError: It has an async ``on_…`` method with nearly the name of a hook.
        ValueError: The name is empty, or differs from the one in the class body.

    Guarantees: N6, N7, N8, W4.
    """

    receives: Receives = "own"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        look_at_class(cls)  # for its mistakes; the class may still be decorated

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        kind = type(self)
        in_class, name = class_name_of(kind), None if name is None else name_of("a worker's name", name)
        if in_class is not None and name not in (None, in_class):
            raise ValueError(f"workers of class {kind.__name__} are called {in_class!r} by the class, not {name!r}")
        set_core(self, WorkerCore(self, _DEFAULTS, in_class or name or f"{kind.__name__}-{_new_id()}", active=active))

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
        """The bus that the worker is attached to.

        Raises:
            NotRunningError: The worker is not attached yet; a `RuntimeError`.

        Guarantees: W1.
        """
        return core_of(self).state.bus

    @property
    def registry(self) -> WorkerRegistry:
        """The registry of its runner.

        Raises:
            NotRunningError: The worker is not attached yet; a `RuntimeError`.

        Guarantees: W1.
        """
        return core_of(self).state.registry

    @property
    def worker_runner(self) -> RunnerLike:
        """The runner that hosts the worker.

        Raises:
            NotRunningError: No runner hosts it yet; a `RuntimeError`.

        Guarantees: N4.
        """
        state = core_of(self).state
        if state.runner is None:
            raise NotRunningError(f"worker {state.name!r} has no runner yet: add it to one")
        return state.runner

    @property
    def active(self) -> bool:
        """Whether the worker is active; False before its start and after its end."""
        return core_of(self).state.active

    @property
    def activation_args(self) -> dict[str, Any] | None:
        """The arguments of its last activation, as a dict; None while it is inactive."""
        return core_of(self).state.activation_args

    @property
    def parent(self) -> str | None:
        """The name of its parent; None for a root worker."""
        return core_of(self).state.parent_name

    @property
    def children(self) -> "list[BaseWorker]":
        """The workers that were added to this one and have not finished, the first added first."""
        return [child.worker for child in core_of(self).state.children]

    @property
    def started_at(self) -> float | None:
        """When the worker became ready, in seconds since the epoch; None before that."""
        return core_of(self).state.started_at

    @property
    def bridged(self) -> bool:
        """Whether its pipeline exchanges frames with the bus; False for a worker without a pipeline."""
        return False

    def statistics(self) -> WorkerStatistics:
        """Return a snapshot of the worker's counts."""
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
        """Attach the worker to a bus and a registry. The runner calls this.

        The worker is subscribed to the bus when it returns.

        Args:
            registry: The runner's registry.
            bus: The runner's bus.
            worker_runner: The runner.

        Raises:
            NotRunningError: The worker is attached, or has run: a worker object runs once. A `RuntimeError`.
            NameTakenError: Its name is taken on the bus; a `ValueError`.

        Guarantees: R3, W1, W6.
        """
        await core_of(self).attach(registry, bus, worker_runner)

    async def run(self, params: WorkerParams) -> None:
        """Run until the worker should end.

        Override it for a worker with work of its own. When it returns, the worker finishes; an exception that it raises
        ends the worker as failed. Three things to know:

        * Call `start` in it, or ``await super().run(params)``, which does: until then the worker is not announced.
        * To return by itself when the worker should end, ``await super().run(params)`` or ``await
          params.wait_for_end()``, or check ``params.ending`` now and then. A `run` that has done none of these when an
          end is due is cancelled, without a grace period, and named in the log.
        * Start work that runs beside it with `create_task`, or in ``params.task_group``.

        Args:
            params: What the worker runs in: its own task group, and whether it should end.

        Guarantees: W7, W10.
        """
        core_of(self).lifecycle.heed_end()
        await self.start()
        await core_of(self).lifecycle.until_stopped()

    async def start(self) -> None:
        """Start the worker: announce and register it, activate it if it starts active, then begin its watches.

        Returns when the first `on_activated` has returned, and raises what that raised. A second call does nothing.

        Guarantees: W2.
        """
        await core_of(self).start()

    async def stop(self) -> None:
        """Stop now: cancel what the worker is doing, answer its open jobs CANCELLED, and finish.

        Called from outside, it returns when the worker has finished. Called from a hook or a job handler of this
        worker, it only asks, and returns at once. A second call changes nothing. A worker that is just being attached
        leaves as soon as it is attached, without having started.

        Override it for work at the worker's end, and call ``super().stop()`` in it: the library calls it once at every
        end of the worker, unless it was called before. The worker can still ask for jobs in it. At a graceful end it
        runs before `run` may return, within the grace period. After a cancel or an error it runs when `run` is over,
        until the deadline of the wind-down, `CLEANUP_SECONDS` after its beginning.

        Guarantees: N7, W6.
        """
        core_of(self).state.check_loop()
        await core_of(self).lifecycle.stop()

    async def cleanup(self) -> None:
        """Release what the worker holds. The library calls this once, when the worker's handlers have unwound.

        It is called at every end of the worker, even if the worker was never started.

        Override it for your own resources. It is cancelled at the deadline of the wind-down, `CLEANUP_SECONDS` after
        its beginning.

        Guarantees: L4.
        """
        core = core_of(self)
        if core.state.phase is Phase.ATTACHED:
            core.state.cleanup_called = True
            await core.lifecycle.stop_unstarted()

    async def wait(self) -> None:
        """Wait until the worker and its children have finished."""
        state = core_of(self).state
        state.check_loop()
        await state.finished.wait()

    waits(wait, lambda its: Wait(2, f"for worker {its['self'].name!r} to finish"))

    def create_task(self, function: Work, *args: Any, name: str | None = None) -> TaskHandle:
        """Start a task that ends with the worker at the latest: it is cancelled together with the worker's handlers.

        An end does not wait for it. An exception is logged and reported like that of a hook, and ends nothing else. The
        task has the worker's context variables, not those of the code that starts it.

        ::

            self.create_task(self.poll, 0.5)
            self.create_task(self.poll(0.5), "polling")

        Args:
            function: An async function, or a coroutine.
            *args: The function's arguments; with a coroutine, the name of the task.
            name: The name of the task, for logs; by default that of the function.

        Returns:
            A handle with ``cancel()``, ``done()`` and an async ``wait()``.

        Raises:
            NotRunningError: The worker is not running yet, or has ended; a `RuntimeError`.
            HandlerTypeError: ``function`` is neither; a `TypeError`.

        Guarantees: L1, N1, W7, W10.
        """
        return core_of(self).create_task(function, args, name)

    async def cancel_task(self, task: TaskHandle, timeout: float | None = None) -> None:
        """Cancel a task of `create_task`, and wait until it has ended.

        Args:
            task: The task.
            timeout: How long to wait, in seconds, before giving up with a warning in the log; by default,
                `CLEANUP_SECONDS`.

        Guarantees: L4, W10.
        """
        core_of(self).state.check_loop()
        await end_task(task, timeout, f"worker {self.name!r}", core_of(self).state.about)

    async def stop_when_done(self) -> None:
        """Ask this worker to end when its jobs are done, and return at once; `wait` waits for the end.

        From now on it refuses new jobs. Jobs that it has begun, that wait for their turn, or that it has asked for,
        take as long as they need. Then it ends gracefully, as at the end of its runner: queued hooks run, and its
        children end before it does. `stop`, and an end or a cancel of the runner, do not wait for the jobs. A worker
        that has not started yet ends when it has. A second call does nothing.

        `PipelineWorker.stop_when_done` waits for frames instead.

        Guarantees: R2, W6.
        """
        core = core_of(self)
        core.state.check_loop()
        core.lifecycle.end_when_done()

    async def add_workers(self, *workers: "BaseWorker", watch: bool = True, wait: bool = False) -> None:
        """Make workers the children of this one; they finish before it does.

        Children that are added before this worker has started are started with it.

        Args:
            *workers: The children; one that is already a child is skipped.
            watch: Whether this worker's `on_worker_ready` runs when they are ready, and `on_worker_gone` when they have
                gone.
            wait: Whether to return only when they have started, including the first `on_activated` of each.

        Raises:
            ParentError: A worker has another parent, is this worker or an ancestor of it, or was started before; a
                `ValueError`.
            NameTakenError: Another worker has its name; a `ValueError`.
            NotRunningError: This worker or its runner is ending; with ``wait``, this worker has not started, or one of
                them was stopped first; a `RuntimeError`.
            TypeError: One of them is not a worker.
            Exception: With ``wait``, the error that kept one of them from starting; an exception group of several. The
                run of the runner does not raise it again.

        Guarantees: R3, W5, W9.
        """
        if strangers := [child for child in workers if not isinstance(child, BaseWorker)]:
            raise TypeError(f"children are workers, not {strangers[0]!r}")
        core = core_of(self)
        core.state.check_loop()
        states = [core_of(child).state for child in workers]
        if wait and not core.state.has_started:
            name = core.state.name
            raise NotRunningError(
                f"worker {name!r} has not started, and its children start with it: do not wait for them"
            )
        children = core.state.adopt(states, watch=watch)
        if core.state.has_started:
            await start_children(core.state, core.presence, children)
        if wait:
            await until_started(states)

    async def watch_workers(self, *worker_names: str) -> None:
        """Run `on_worker_ready` when the named workers become ready, and at once for those that are.

        When they have gone, `on_worker_gone` runs.

        Args:
            *worker_names: The names of the workers; one that is already watched is skipped.

        Guarantees: G1, W9.
        """
        presence = core_of(self).presence
        for name in worker_names:
            await presence.watch(name)

    # --- what it says to others

    async def end(self, *, reason: str | None = None) -> None:
        """Ask the runner to end gracefully, with all its workers. To end this worker alone, see `stop_when_done`.

        Args:
            reason: Why, in words; it reaches every worker of the runner.

        Guarantees: R2, R6.
        """
        await self.send_bus_message(BusEndMessage(reason, source=self.name, target=_runner_of(core_of(self))))

    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask the runner to end at once, with all its workers. To end this worker alone, see `stop`.

        Args:
            reason: Why, in words; it reaches every worker of the runner.

        Guarantees: R2, R6.
        """
        await self.send_bus_message(BusCancelMessage(reason, source=self.name, target=_runner_of(core_of(self))))

    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message over the bus; see `WorkerBus.send`.

        Override it to see, change or hold back what this worker sends by one of its methods: requests,
        `send_job_response` and the like, activations, ends. Messages that the library sends in its name do not go
        through it, since they must neither wait nor be lost: announcements, cancels of jobs, and the answer at the end
        of a handler.

        Args:
            message: The message, with or without a target.
        """
        state = core_of(self).state
        if not state.announced:
            state.speak()
        await state.bus.send(message)

    async def send_bus_error_message(self, error: str) -> None:
        """Report an error of this worker.

        A child's error goes to its parent; a root worker's goes to its runner and to everybody on the bus.

        Args:
            error: What happened, in words.

        Guarantees: W7.
        """
        core = core_of(self)
        if core.state.sends_by_bus:
            core.presence.report_error(error)
        else:
            reports: list[BusMessage] = []
            core.presence.report_error(error, post=reports.append)
            for message in reports:
                await self.send_bus_message(message)

    async def activate_worker(
        self, worker_name: str, *, args: WorkerActivationArgs | None = None, deactivate_self: bool = False
    ) -> None:
        """Activate a worker. If it is being restarted, wait for the new one first.

        Args:
            worker_name: The name of the worker to activate.
            args: Passed to its `on_activated`, as a dict.
            deactivate_self: Whether to hand over: this worker becomes inactive before the other becomes active.

        Raises:
            TypeError: The name is not a str, or the args are not `WorkerActivationArgs`.
            UnknownWorkerError: Neither runner nor registry knows the name, or it is not restarted after all; nothing
                has changed. A `LookupError`.
            WireError: The worker is in another process, and the args cannot travel there; nothing has changed. A
                `ValueError`.

        Guarantees: S1, W3, X1.
        """
        core_of(self).state.check_loop()
        await reach(core_of(self).state, worker_name)
        data = arguments_of(args)
        if deactivate_self:
            if args is not None and not self.bus.has_subscriber(worker_name):
                self.bus.check_travels(BusActivateWorkerMessage(data, source=self.name, target=worker_name))
            core_of(self).dispatch.deactivate()
        message = BusActivateWorkerMessage(data, so_far(core_of(self).state), source=self.name, target=worker_name)
        if deactivate_self:
            news = BusDeactivateWorkerMessage(True, source=self.name, target=self.name)  # for those who watch
            if core_of(self).state.sends_by_bus:
                self.bus.post(news)
                self.bus.post(message)  # without waiting: cancelled in between, it would leave nobody active
            else:
                with core_of(self).state.clean_up.shield():  # for the same reason
                    await self.send_bus_message(news)
                    await self.send_bus_message(message)
        else:
            await self.send_bus_message(message)

    async def deactivate_worker(self, worker_name: str) -> None:
        """Deactivate a worker. If it is being restarted, wait for the new one first.

        Args:
            worker_name: The name of the worker to deactivate.

        Raises:
            UnknownWorkerError: Neither runner nor registry knows the name, or it is not restarted after all; a
                `LookupError`.

        Guarantees: S1, W3.
        """
        await reach(core_of(self).state, worker_name)
        await self.send_bus_message(BusDeactivateWorkerMessage(source=self.name, target=worker_name))


_DEFAULTS: Final = {
    "start": BaseWorker.start,
    "run": BaseWorker.run,
    "stop": BaseWorker.stop,
    "cleanup": BaseWorker.cleanup,
    "send_bus_message": BaseWorker.send_bus_message,
}


def _runner_of(core: WorkerCore) -> str:
    """Return the name of the worker's runner; of one that was attached by hand, that of the registry's."""
    state = core.state
    attached_by_hand = state.runner is None and state.is_connected
    name: str = state.registry.runner_name if attached_by_hand else state.worker.worker_runner.name
    return name


@make_inbox.register
def _(worker: BaseWorker, bus: InboxHost) -> Inbox:
    return core_of(worker).make_inbox(bus)
