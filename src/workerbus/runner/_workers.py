"""The workers of one runner: adding them, running them, and what happens when one fails (B7, L1, R3, R4, W7).

A worker is in the table from when it is added until its name is free again (W6). A run waits for the roots among them.
What is in the tables is the library's part of each worker, its core, which refers to the user's object.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from anyio import get_current_task
from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.failures import sort_failure
from workerbus._failed import REMEMBERED_FAILURES
from workerbus._order import PROCESS
from workerbus._registry import WorkerRegistry
from workerbus._values import Peer, WorkerErrorData, WorkerGoneData, WorkerReadyData, WorkerRestartedData
from workerbus.abc import RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.errors import NameTakenError, NotRunningError, add_note, brief, describe
from workerbus.messages import BusAddWorkerMessage, BusWorkerGoneMessage
from workerbus.runner._run import Run
from workerbus.runner._totals import Totals
from workerbus.supervision._supervisor import Supervisions
from workerbus.worker._core import WorkerCore, core_of, is_worker
from workerbus.worker._state import WorkerState, until_started
from workerbus.worker._types import Phase

logger = logging.getLogger("workerbus.runner")


class HostRunner(RunnerLike, Protocol):
    """What `HostedWorkers` needs of its runner."""

    @property
    def bus(self) -> WorkerBus:
        """The bus that the workers are attached to."""

    @property
    def registry(self) -> WorkerRegistry:
        """The registry that the workers share."""

    @property
    def takes_errors(self) -> bool:
        """Whether somebody has added a handler for ``on_error``, and it still hears of errors."""

    def worker_restarted(self, data: WorkerRestartedData) -> None:
        """Count a restart, and tell of it."""

    def worker_left(self) -> None:
        """Note that a root worker has finished, or could not be started."""


class HostedWorkers:
    """The workers of a runner.

    Args:
        runner: The runner.
        run: The run in whose tasks they run.

    Attributes:
        workers: All workers, by name.
        roots: The workers without a parent, by name.
        ready_listeners: The roots that want to hear when other roots are ready, by name.
        errors: What made workers fail and was not taken by a parent or an ``on_error`` handler.
        gone: The counts of the workers that have gone.
        supervisions: What restarts root workers.
        restarting: The names of the root workers that are being restarted.
        restarts: How many times a worker was restarted.
        given_up: The names of the root workers that have failed and are not restarted; of very many, the last ones.
    """

    def __init__(self, runner: HostRunner, run: Run) -> None:
        self._runner = runner
        self._run = run
        self.workers: dict[str, WorkerCore] = {}
        self.roots: dict[str, WorkerCore] = {}
        self.ready_listeners: dict[str, WorkerCore] = {}
        self.errors: list[BaseException] = []
        self.gone: Totals = Totals()
        self.supervisions: Supervisions = Supervisions(RunnerHost(self))
        self.restarting: set[str] = set()
        self.restarts: int = 0
        self.given_up: OrderedDict[str, None] = OrderedDict()
        self._serving = False

    # --- adding

    def states(self) -> list[WorkerState]:
        """Return the states of all workers."""
        return [core.state for core in self.workers.values()]

    async def add_roots(self, workers: Sequence[Any], *, wait: bool = False) -> None:
        """Attach and admit root workers, all or none, and perhaps wait until they have started."""
        fresh: dict[str, WorkerCore] = {}
        for worker in workers:
            if not is_worker(worker):
                raise TypeError(f"a runner runs workers, not {worker!r}")
            core = core_of(worker)
            name = core.state.name
            if fresh.get(name) not in (None, core):
                raise NameTakenError(name, "this call")
            if self.check_new(worker):
                fresh[name] = core
        self.workers.update(fresh)  # before anything waits, so that each is added once
        for core in fresh.values():
            try:
                await self._attach(core)
                if self.runs and self._runner.is_ending:  # since a network was asked for the worker's name
                    with self._runner.clean_up.shield():
                        await core.lifecycle.stop_unstarted()
                    raise _too_late(self._runner.name, core.state.name)
            except BaseException:
                for other in fresh.values():
                    if not other.state.admitted:
                        self.forget(other.state.worker)
                raise
            self._admit(core)
        if wait:
            await until_started([core_of(worker).state for worker in workers])

    def check_new(self, worker: Any) -> bool:
        """Return whether a worker is new to this runner.

        Raises:
            NameTakenError: Another worker has its name.
            NotRunningError: The runner is ending, or the worker has run already.
        """
        runner, core = self._runner, core_of(worker)
        name = core.state.name
        known = self.workers.get(name)
        if known is core:
            return False
        if runner.is_ending:
            raise _too_late(runner.name, name)
        supervision = core.state.supervision
        brought = supervision is not None and supervision.brings(worker)
        taken = name in runner.registry.restarting and not brought  # it keeps its name meanwhile
        if known is not None or taken or runner.bus.has_subscriber(name):
            raise NameTakenError(name, f"runner {runner.name!r}")
        if core.state.phase is not Phase.NEW:
            raise NotRunningError(f"worker {name!r} is {core.state.phase.value}")
        return True

    def add_sent(self, message: BusAddWorkerMessage) -> None:
        """Admit a worker that came in a message: as a rule, a child of a worker of this runner."""
        worker = message.worker
        if not is_worker(worker):
            error = f"cannot add {worker!r}: it is no worker"
            self._runner.worker_error(WorkerErrorData(message.source, error))
            return
        core = core_of(worker)
        if message.target is not None or not core.state.admitted:  # else another runner on this bus has it
            try:
                if self.check_new(worker):
                    self._admit(core)
            except (ValueError, RuntimeError) as exc:
                core.state.has_attached(exc)
                self._runner.worker_error(WorkerErrorData(core.state.name, str(exc), exc))

    def _admit(self, core: WorkerCore) -> None:
        state = core.state
        self.workers[state.name] = core
        self._runner.registry.failed.forget(state.name)
        if state.parent is None:
            self.given_up.pop(state.name, None)
            self.roots[state.name] = core
            self.add_if_listening(state.worker)
        state.admitted = True
        if self._serving:
            self._start(core)

    def start_all(self) -> list[WorkerCore]:
        """Start the workers that were admitted, and from now on each that is.

        Returns:
            Those that this call has started.
        """
        self._serving = True
        first = [core for core in self.workers.values() if core.state.admitted]
        for core in first:
            self._start(core)
        return first

    def _start(self, core: WorkerCore) -> None:
        if self._run.tasks is not None:
            self._run.tasks.start(self.host, core, name=f"worker {core.state.name}")

    def add_if_listening(self, worker: Any) -> None:
        """Note that a root worker wants to hear of the others, if it does."""
        hooks = core_of(worker).state.hooks
        if hooks.wants("on_worker_ready") or hooks.wants("on_worker_gone"):
            self.add_ready_listener(worker)

    def add_ready_listener(self, worker: Any) -> None:
        """Note that a root worker wants to hear of the others; only those are told, so that a start costs O(1)."""
        core = core_of(worker)
        if self.roots.get(core.state.name) is core:
            self.ready_listeners[core.state.name] = core

    def tell_of(self, data: WorkerReadyData) -> None:
        """Tell the roots that want to hear that a worker is ready, if it is a root of this runner."""
        arrived = self.roots.get(data.worker_name)
        if arrived is None or data.runner != self._runner.name:
            return
        for listener in self.ready_listeners.values():
            if listener is not arrived:
                listener.presence.tell_ready(data)

    def tell_of_others(self, worker: Any) -> None:
        """Tell a root that has just started which other roots are ready, if it wants to hear."""
        self.add_if_listening(worker)  # its hook may have been put there since it was added
        registry, listener = self._runner.registry, self.ready_listeners.get(worker.name)
        if listener is not None:
            for name in registry.local_workers:
                other = registry.get(name)
                if name in self.roots and name != worker.name and other is not None and registry.is_ready(name):
                    listener.presence.tell_ready(other)

    async def _attach(self, core: WorkerCore) -> None:
        runner, state = self._runner, core.state
        state.attaching_in = get_current_task().id
        try:
            await state.worker.attach(registry=runner.registry, bus=runner.bus, worker_runner=runner)
        except BaseException as exc:
            if state.phase is Phase.ATTACHED:  # it is on the bus, and its own attach() failed after that
                with runner.clean_up.shield():
                    await core.lifecycle.stop_unstarted()
            failure = sort_failure(exc)
            if failure.own:
                state.has_attached(failure.error)
            state.attaching_in = None
            raise
        state.has_attached()

    # --- running

    async def host(self, core: WorkerCore) -> None:
        """Run a worker to its end: its one task."""
        if core.state.phase is Phase.NEW and not await self._attach_sent(core):
            return
        crash: BaseException | None = None
        try:
            crash = await core.lifecycle.live()
        except Exception as exc:  # noqa: BLE001 - reported, and raised by run()
            crash = exc
        finally:
            self._finished(core, crash)

    async def _attach_sent(self, core: WorkerCore) -> bool:
        state = core.state
        try:
            await self._attach(core)
        except BaseException as exc:
            self.forget(state.worker)
            self.roots.pop(state.name, None)
            failure = sort_failure(exc)
            if state.parent is None and failure.own:
                self._runner.worker_error(_fatal(state.name, failure.error, "attach"))
            if failure.own and state.supervision is None:
                self._note_failure(core, failure.error)
            core.lifecycle.could_not_be_added()
            if state.supervision is not None:
                state.supervision.could_not_be_attached(state.worker)
            self._runner.worker_left()
            if not failure.own:
                raise
            return False  # whoever adds it gets the error
        return True

    def _finished(self, core: WorkerCore, crash: BaseException | None) -> None:
        # Who hears of a crash:
        # 1. The parent, or for a root the runner and everybody, from the worker's own presence.
        # 2. The runner too, where a parent does not handle it.
        # 3. If the runner has no handler either, who waits for the start of the worker, or else whoever awaits run().
        # Of one that is restarted nobody hears in this way.
        state, failure = core.state, crash
        self.forget(state.worker)
        if self.roots.get(state.name) is core:
            del self.roots[state.name]
        if crash is not None:
            logger.error("worker %r failed", state.name, exc_info=crash, extra=core.state.about)
        if state.supervision is not None:
            crash = state.supervision.gone(state.worker, crash)
        if crash is not None:
            if crash is not failure:
                self._announce_failure(state.name, crash)
            self._note_failure(core, crash)
            data = _fatal(state.name, crash, core.lifecycle.origin_of(crash))
            if not core.presence.report_failure(data):
                if state.parent is not None:
                    self._runner.worker_error(data)
                if not self._runner.takes_errors and not (state.start_waiters and not state.announced):
                    self.not_taken(data)
        if state.announced:
            self._tell_gone(core, failure)
        if state.parent is not None:
            core_of(state.parent.worker).presence.forget_child(state.name)
        self._runner.worker_left()

    def give_up(self, name: str) -> None:
        """Note that a root worker has failed, and will not be restarted."""
        self.given_up[name] = None
        if len(self.given_up) > REMEMBERED_FAILURES:
            self.given_up.popitem(last=False)

    def not_taken(self, data: WorkerErrorData) -> None:
        """Keep what a worker has ended of for whoever awaits `run`: nobody else has heard of it."""
        if data.fatal and data.exception is not None:
            add_note(data.exception, f"raised by worker {data.worker_name!r}")
            self.errors.append(data.exception)

    def note_given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a worker is not restarted any more, and tell other runners."""
        registry = self._runner.registry
        if error is not None and name not in self.workers and name not in registry:
            registry.note_failure(WorkerGoneData(name, registry.runner_name, brief(error)))
        self._announce_failure(name, error)

    def _announce_failure(self, name: str, error: BaseException | None) -> None:
        # They have heard that the worker was being restarted.
        runner, text = self._runner, None if error is None else brief(error)
        stamp = runner.registry.incarnation, PROCESS.next_number()
        if runner.registry.neighbourhood is None:
            runner.bus.post(BusWorkerGoneMessage(runner.name, *stamp, text, source=name))

    def end_restarts(self) -> None:
        """Restart no root worker any more."""
        self.supervisions.end()

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task of the run's, if that still runs."""
        if self._run.tasks is not None:
            self._run.tasks.start(function, name=name)

    @property
    def runs(self) -> bool:
        """Whether the run lasts, in whose tasks the workers run."""
        return self._run.tasks is not None

    @property
    def runner(self) -> HostRunner:
        """The runner."""
        return self._runner

    def _note_failure(self, core: WorkerCore, error: BaseException) -> None:
        name, registry = core.state.name, self._runner.registry
        if core.state.parent is None:
            self.give_up(name)
        if name not in self.workers and name not in registry:  # else another one has its name already
            registry.note_failure(WorkerGoneData(name, self._runner.name, brief(error)))

    def _tell_gone(self, core: WorkerCore, crash: BaseException | None) -> None:
        # Each hears once: who watches for the name, the parent, or for a root the roots that want to hear.
        state, registry = core.state, self._runner.registry
        data = WorkerGoneData(state.name, self._runner.name, None if crash is None else brief(crash))
        registry.tell_gone(data)
        hearers = list(self.ready_listeners.values())
        if state.parent is not None:
            hearers = [core_of(state.parent.worker)] if state.watched else []
        for hearer in hearers:
            if not registry.watches_gone(state.name, hearer.presence.tell_gone):
                hearer.presence.tell_gone(data)

    def forget(self, worker: Any) -> None:
        """Note that a worker has left the bus, and its name is free."""
        core = core_of(worker)
        name = core.state.name
        if self.workers.get(name) is core:
            del self.workers[name]
            if core.state.phase is not Phase.NEW:  # else it was never attached, and has nothing to count
                self.gone.add_worker(core.state)
            self.ready_listeners.pop(name, None)
            if self._run.tasks is None and self.roots.get(name) is core:
                del self.roots[name]
                if core.state.supervision is not None:
                    core.state.supervision.gone(worker, None)

    # --- other processes

    def requester_lost(self, peer: Peer, reason: str) -> None:
        """Cancel the jobs that a peer has asked for, which is gone."""
        for core in list(self.workers.values()):
            if core.job_server.jobs:
                core.job_server.requester_lost(peer, reason)

    def name_lost(self, name: str, owner: str) -> None:
        """Let a worker fail whose name another process has taken."""
        core = self.workers.get(name)
        if core is not None:
            core.lifecycle.fail(NameTakenError(name, f"runner {owner!r}"), "name")

    async def stop_unstarted(self) -> None:
        """Stop the workers that are still attached after a run that could not begin, or that came too late for it.

        Those that have failed are forgotten.
        """
        for core in list(self.workers.values()):
            await core.lifecycle.stop_unstarted()
        self._runner.registry.failed.clear()


class RunnerHost:
    """A runner, as the host of supervised root workers.

    Args:
        hosted: The runner's workers.
    """

    def __init__(self, hosted: HostedWorkers) -> None:
        self._hosted = hosted

    @property
    def runner_name(self) -> str:
        """The name of the runner."""
        return self._hosted.runner.name

    @property
    def takes_workers(self) -> bool:
        """Whether the runner runs, and is not ending."""
        return self._hosted.runs and not self._hosted.runner.is_ending

    async def add(self, worker: Any) -> None:
        """Add a root worker."""
        try:
            await self._hosted.add_roots([worker])
        except NotRunningError:
            await checkpoint_if_cancelled()  # whoever asks for it may not have heard that the run is cancelled
            raise

    def start_task(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a task that ends with the run."""
        self._hosted.start_task(function, name)

    def restarting(self, name: str, *, is_so: bool) -> None:
        """Note that a worker is being restarted, or no more: the run goes on meanwhile."""
        (self._hosted.restarting.add if is_so else self._hosted.restarting.discard)(name)
        registry = self._hosted.runner.registry
        if is_so or name not in self._hosted.workers or name in registry:  # else it starts, and others cannot know it
            registry.note_restarting(name, is_so=is_so)

    def restarted(self, data: WorkerRestartedData) -> None:
        """Tell of a restart."""
        self._hosted.runner.worker_restarted(data)

    def given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a worker is not restarted any more."""
        self._hosted.note_given_up(name, error)

    def escalate(self, name: str, error: BaseException) -> None:
        """Report a worker that is given up."""
        data = _fatal(name, error, "restart")
        self._hosted.give_up(name)
        self._hosted.runner.worker_error(data)
        if not self._hosted.runner.takes_errors:
            self._hosted.not_taken(data)
        self._hosted.runner.worker_left()


def _too_late(runner: str, worker: str) -> NotRunningError:
    return NotRunningError(f"runner {runner!r} is ending: worker {worker!r} comes too late")


def _fatal(worker: str, error: BaseException, origin: str) -> WorkerErrorData:
    return WorkerErrorData(worker, describe(error), error, origin, fatal=True)
