"""The methods by which a worker tells others something: end, cancel, an error, who is to be active, or a message."""

from workerbus._registry import WorkerRegistry
from workerbus._worker_desk import WorkerDesk
from workerbus._worker_types import WorkerActivationArgs
from workerbus.abc import RunnerLike
from workerbus.bus import WorkerBus
from workerbus.errors import UnknownWorkerError
from workerbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusMessage,
)


class WorkerCalls:
    """What a worker says to others."""

    _desk: WorkerDesk

    @property
    def name(self) -> str:
        """Its name."""
        raise NotImplementedError

    @property
    def bus(self) -> WorkerBus:
        """Its bus."""
        raise NotImplementedError

    @property
    def registry(self) -> WorkerRegistry:
        """Its registry."""
        raise NotImplementedError

    @property
    def runner(self) -> RunnerLike | None:
        """Its runner, if it has one yet."""
        raise NotImplementedError

    @property
    def worker_runner(self) -> RunnerLike:
        """Its runner."""
        raise NotImplementedError

    def report_error(self, error: str) -> None:
        """Tell the parent, or the runner and everybody (W7)."""
        raise NotImplementedError

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
        self.report_error(error)

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
        await self._reach(worker_name)
        data = None if args is None else args.to_dict()
        message = BusActivateWorkerMessage(data, source=self.name, target=worker_name)
        if deactivate_self:
            self._desk.deactivate()
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
        await self._reach(worker_name)
        await self.bus.send(BusDeactivateWorkerMessage(source=self.name, target=worker_name))

    async def _reach(self, worker_name: str) -> None:
        if self.registry.get(worker_name) is not None:
            return
        worker = None if self.runner is None else self.runner.get_worker(worker_name)
        if worker is not None:
            await worker.life.until_attached()  # its runner knows it: it is on its way to the bus
            return
        known = [] if self.runner is None else self.runner.known_workers()
        raise UnknownWorkerError(worker_name, {*known, *self.registry.local_workers, *self.registry.remote_workers})
