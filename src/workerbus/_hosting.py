"""The workers of one runner: adding them, running them, and what happens when one fails (R3, R4).

A worker is in the table from the moment when it is admitted until its name is free again (W6). The roots among them are
what a run waits for.
"""

import logging
from typing import Any, Protocol

from workerbus._registry import WorkerRegistry
from workerbus._run import Run
from workerbus._statistics import Totals
from workerbus._vocabulary import WorkerErrorData
from workerbus._worker import BaseWorker
from workerbus._worker_types import Phase
from workerbus.abc import RunnerLike
from workerbus.bus import WorkerBus
from workerbus.errors import NameTakenError, NotRunningError, text_of
from workerbus.messages import BusAddWorkerMessage

logger = logging.getLogger("workerbus")


class HostRunner(RunnerLike, Protocol):
    """What the hosting needs of its runner."""

    @property
    def bus(self) -> WorkerBus:
        """Its bus."""

    @property
    def registry(self) -> WorkerRegistry:
        """Its registry."""

    def has_event_handler(self, event_name: str) -> bool:
        """Whether anybody handles the event."""

    def worker_left(self) -> None:
        """A root worker has finished, or could not be started."""


class Hosting:
    """The workers of a runner.

    Args:
        runner: The runner.
        run: Where they run.

    Attributes:
        workers: All of them, by name.
        roots: Those without a parent.
        curious: The roots that want to hear of the others (B7).
        errors: What made workers fail, as far as nobody took it (R4).
        gone: The counts of the workers that have gone (O2).
    """

    def __init__(self, runner: HostRunner, run: Run) -> None:
        self._runner = runner
        self._run = run
        self.workers: dict[str, BaseWorker] = {}
        self.roots: dict[str, BaseWorker] = {}
        self.curious: dict[str, BaseWorker] = {}
        self.errors: list[Exception] = []
        self.gone: Totals = Totals()
        self._serving = False

    # --- adding

    async def add_roots(self, workers: tuple[BaseWorker, ...]) -> None:
        """Attach and admit root workers, all or none."""
        fresh: dict[str, BaseWorker] = {}
        for worker in workers:
            if not isinstance(worker, BaseWorker):
                raise TypeError(f"a runner runs workers, not {worker!r}")
            if fresh.get(worker.name) not in (None, worker):
                raise NameTakenError(worker.name, "this call")
            if self.check_new(worker):
                fresh[worker.name] = worker
        self.workers.update(fresh)  # before anything waits, so that each is added once
        for worker in fresh.values():
            try:
                await self._attach(worker)
            except BaseException:
                for other in fresh.values():
                    if not other.life.admitted:
                        self.forget(other)
                raise
            self._admit(worker)

    def check_new(self, worker: Any) -> bool:
        """Return whether a worker is new here; raise where it cannot be added (R3)."""
        runner = self._runner
        known = self.workers.get(worker.name)
        if known is worker:
            return False
        if runner.is_ending:
            raise NotRunningError(f"runner {runner.name!r} is ending: worker {worker.name!r} comes too late")
        if known is not None or runner.bus.has_subscriber(worker.name):
            raise NameTakenError(worker.name, f"runner {runner.name!r}")
        if worker.life.phase is not Phase.NEW:
            raise NotRunningError(f"worker {worker.name!r} is {worker.life.phase.value}")
        return True

    def add_sent(self, message: BusAddWorkerMessage) -> None:
        """Admit a worker that was sent over the bus: a child of one of ours, as a rule."""
        worker = message.worker
        if not isinstance(worker, BaseWorker):
            error = f"cannot add {worker!r}: it is no worker"
            self._runner.worker_error(WorkerErrorData(message.source, error))
        elif message.target is not None or not worker.life.admitted:  # else another runner on this bus has it
            try:
                if self.check_new(worker):
                    self._admit(worker)
            except (ValueError, RuntimeError) as exc:
                worker.life.attached(exc)
                self._runner.worker_error(WorkerErrorData(worker.name, str(exc)))

    def _admit(self, worker: BaseWorker) -> None:
        self.workers[worker.name] = worker
        if worker.parent is None:
            self.roots[worker.name] = worker
            if worker.hooks.wants("on_worker_ready"):
                self.make_curious(worker)
        worker.life.admitted = True
        if self._serving:
            self._start(worker)

    def start_all(self) -> list[BaseWorker]:
        """Run the workers that were admitted; the others, when they are. Returns those that it has started."""
        self._serving = True
        first = [worker for worker in self.workers.values() if worker.life.admitted]
        for worker in first:
            self._start(worker)
        return first

    def _start(self, worker: BaseWorker) -> None:
        if self._run.tasks is not None:
            self._run.tasks.start(self.host, worker, name=f"worker {worker.name}")

    def make_curious(self, worker: BaseWorker) -> None:
        """A root worker wants to hear of the others; only those are told, so that a start costs O(1) (B7)."""
        if self.roots.get(worker.name) is worker:
            self.curious[worker.name] = worker

    async def _attach(self, worker: BaseWorker) -> None:
        runner = self._runner
        try:
            await worker.attach(registry=runner.registry, bus=runner.bus, worker_runner=runner)
        except BaseException as exc:
            if worker.life.phase is Phase.ATTACHED:
                with runner.clean_up.shield():
                    await worker.stop()  # it is on the bus already
            if isinstance(exc, Exception):
                worker.life.attached(exc)
            raise
        worker.life.attached()

    # --- running

    async def host(self, worker: BaseWorker) -> None:
        """Run a worker to its end: its one task."""
        if worker.life.phase is Phase.NEW and not await self._attach_sent(worker):
            return
        crash: Exception | None = None
        try:
            crash = await worker.life.live()
        except Exception as exc:  # noqa: BLE001 - reported, and raised by run()
            crash = exc
        finally:
            self._finished(worker, crash)

    async def _attach_sent(self, worker: BaseWorker) -> bool:
        try:
            await self._attach(worker)
        except BaseException as exc:
            self.forget(worker)
            self.roots.pop(worker.name, None)
            if worker.parent is None and isinstance(exc, Exception):
                self._runner.worker_error(WorkerErrorData(worker.name, f"{type(exc).__name__}: {text_of(exc)}"))
            worker.could_not_be_added()
            self._runner.worker_left()
            if not isinstance(exc, Exception):
                raise
            return False  # the one who adds it gets the error
        return True

    def _finished(self, worker: BaseWorker, crash: Exception | None) -> None:
        self.forget(worker)
        if self.roots.get(worker.name) is worker:
            del self.roots[worker.name]
        if crash is not None:
            logger.error("worker %r failed", worker.name, exc_info=crash)
            error = f"{type(crash).__name__}: {text_of(crash)}"
            if not worker.report_failure(error):
                if worker.parent is not None:
                    self._runner.worker_error(WorkerErrorData(worker.name, error))
                if not self._runner.has_event_handler("on_error"):
                    crash.add_note(f"raised by worker {worker.name!r}")
                    self.errors.append(crash)
        self._runner.worker_left()

    def forget(self, worker: BaseWorker) -> None:
        """A worker has left the bus: its name is free (W6)."""
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
            if worker.life.phase is not Phase.NEW:  # else it was never attached, and has nothing to count
                self.gone.add_worker(worker)
            self.curious.pop(worker.name, None)
            if self._run.tasks is None and self.roots.get(worker.name) is worker:
                del self.roots[worker.name]

    async def stop_unstarted(self) -> None:
        """Let go of workers that a run which could not begin has left attached (L1)."""
        for worker in list(self.workers.values()):
            await worker.stop()
