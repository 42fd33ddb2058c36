"""What the registries of several runners share where all of these are in one process (G1, R6, R9)."""

from typing import Any, Generic, Protocol, TypeVar

from workerbus._failed import FailedWorkers
from workerbus._shared_pools import SharedPools
from workerbus._values import WorkerReadyData


class Neighbour(Protocol):
    """A registry, as the others that share with it see it."""

    neighbourhood: Any
    shared_pools: SharedPools

    @property
    def runner_name(self) -> str:
        """The name of its runner."""

    @property
    def wanted(self) -> set[str]:
        """The names of the workers that somebody waits or watches for."""

    def neighbour_came(self, data: WorkerReadyData) -> None:
        """Let those who wait for a worker of another runner go on, and have those told who watch for it."""

    def neighbour_left(self, data: WorkerReadyData) -> None:
        """Have those told who watch for the departure of a worker of another runner."""


N = TypeVar("N", bound=Neighbour)


class Neighbourhood(Generic[N]):
    """The workers that are ready on a bus all of whose runners are in this process.

    The registries of these runners share it. So each worker is entered once, however many runners there are, and a
    runner that comes is told of nothing: it looks here.

    Attributes:
        restarting: The workers that are being restarted, each with the name of its runner.
        workers: The workers, by name: names are unique on a bus.
        registries: The registries that share it, by the name of their runner.
        failed: The workers that have failed.
        sharing: Those of the workers that are pools and share a name.
    """

    __slots__ = ("failed", "registries", "restarting", "sharing", "workers")

    def __init__(self) -> None:
        self.restarting: dict[str, str] = {}
        self.failed: FailedWorkers = FailedWorkers()
        self.workers: dict[str, WorkerReadyData] = {}
        self.registries: dict[str, N] = {}
        self.sharing: dict[str, WorkerReadyData] = {}

    def join(self, registry: N) -> None:
        """Let a registry share what is here. Those who wait or watch there for somebody who is here are told."""
        self.registries[registry.runner_name] = registry
        registry.neighbourhood = self
        for data in self.sharing.values():
            registry.neighbour_came(data)
        for name in registry.wanted & (self.workers.keys() - self.sharing.keys()):
            registry.neighbour_came(self.workers[name])

    def leave(self, registry: N) -> None:
        """Let a registry, whose workers have all gone, share no more."""
        self.registries.pop(registry.runner_name, None)
        registry.neighbourhood = None
        self.failed.forget_runner(registry.runner_name)
        forget_runner(self.restarting, registry.runner_name)

    def enter(self, data: WorkerReadyData) -> None:
        """Note a worker that is ready, and have those told who wait or watch for it."""
        self.workers[data.worker_name] = data
        if data.pool is not None:
            self.sharing[data.worker_name] = data
        for registry in self.registries.values():
            if registry.runner_name != data.runner:
                registry.neighbour_came(data)

    def withdraw(self, data: WorkerReadyData) -> None:
        """Let a worker be found no more."""
        if self.workers.get(data.worker_name) is data:
            del self.workers[data.worker_name]
        if data.pool is not None and self.sharing.pop(data.worker_name, None) is not None:
            for registry in self.registries.values():
                registry.shared_pools.remove(data)

    def remove(self, data: WorkerReadyData) -> None:
        """Note that a worker has gone, and have those told whom it concerns."""
        self.withdraw(data)
        for registry in self.registries.values():
            if registry.runner_name != data.runner:
                registry.neighbour_left(data)


def forget_runner(restarting: dict[str, str], runner: str) -> list[str]:
    """Forget which workers of a runner are being restarted, and return them."""
    names = [name for name, of in restarting.items() if of == runner]
    for name in names:
        del restarting[name]
    return names
