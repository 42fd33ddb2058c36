"""What a worker's life knows of the worker, and of its children: no more than this."""

from collections.abc import Sequence
from typing import Protocol

from workerbus._hooks import HookQueue
from workerbus._lifetime import CleanUp, Mark
from workerbus._registry import WorkerRegistry
from workerbus._worker_inbox import WorkerInbox
from workerbus._worker_types import Phase, WorkerParams
from workerbus.abc import Sender
from workerbus.jobs._client import JobClient
from workerbus.jobs._server import JobServer
from workerbus.messages import BusCancelWorkerMessage


class ChildLife(Protocol):
    """The life of a child."""

    phase: Phase
    finished: Mark

    async def until_attached(self) -> None:
        """Wait until it is on the bus; raise what went wrong."""

    def cancel(self, message: BusCancelWorkerMessage) -> None:
        """Cancel what it does, and let it finish."""


class Child(Protocol):
    """What a parent's life needs of a child."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def life(self) -> ChildLife:
        """Its life."""


class Children(Protocol):
    """A worker's family, as its life sees it."""

    def unfinished(self) -> Sequence[Child]:
        """The children that were started and have not finished."""

    @property
    def has_unfinished(self) -> bool:
        """Whether there are such children."""


class Living(Protocol):
    """What the life needs of its worker."""

    hooks: HookQueue
    job_client: JobClient
    job_server: JobServer

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def registry(self) -> WorkerRegistry:
        """Its registry."""

    @property
    def bus(self) -> Sender:
        """Its bus."""

    @property
    def clean_up(self) -> CleanUp:
        """Its shields."""

    @property
    def inbox(self) -> WorkerInbox:
        """Where its messages wait."""

    @property
    def graces(self) -> tuple[float, float]:
        """Grace period and job grace, in seconds."""

    @property
    def runs_by_default(self) -> bool:
        """Whether ``run`` only waits for the end."""

    @property
    def cleans_up_by_default(self) -> bool:
        """Whether ``cleanup`` does nothing."""

    @property
    def family(self) -> Children:
        """Its children."""

    async def start(self) -> None:
        """Become ready."""

    async def run(self, params: WorkerParams) -> None:
        """Work."""

    async def cleanup(self) -> None:
        """Release what it holds."""

    async def depart(self) -> None:
        """Leave bus and registry."""

    def finished(self) -> None:
        """It has finished."""
