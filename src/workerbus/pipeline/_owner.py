"""What a processor knows of its worker: how it is set up with one, and what it may ask of it."""

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable
from typing import Any

from attrs import frozen

from workerbus._registry import WorkerRegistry
from workerbus.abc import RunnerLike
from workerbus.bus._bus import WorkerBus
from workerbus.jobs._answers import JobAnswers
from workerbus.jobs._requests import JobRequests
from workerbus.messages import BusMessage
from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.worker._types import WorkerActivationArgs


class FrameWorker(JobAnswers, JobRequests):
    """A worker that frames can be queued at, as its processors see it; every `PipelineWorker` is one.

    It asks for jobs and answers them like any worker. What it is beyond that, its start and its end, its children and
    its hooks, does not concern a processor.
    """

    # --- what it is

    @property
    @abstractmethod
    def name(self) -> str:
        """The worker's name, unique on its bus."""

    @property
    @abstractmethod
    def bus(self) -> WorkerBus:
        """The bus that it is attached to."""

    @property
    @abstractmethod
    def registry(self) -> WorkerRegistry:
        """Its runner's registry."""

    @property
    @abstractmethod
    def worker_runner(self) -> RunnerLike:
        """The runner that hosts it; `RuntimeError` if none does (N4)."""

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether it is active. It is not before it has started."""

    @property
    @abstractmethod
    def activation_args(self) -> dict[str, Any] | None:
        """What it was last activated with; None while it is inactive."""

    @property
    @abstractmethod
    def parent(self) -> str | None:
        """Its parent's name; None for a root worker."""

    @property
    @abstractmethod
    def started_at(self) -> float | None:
        """When it became ready, in seconds since the epoch; None before that."""

    @property
    @abstractmethod
    def bridged(self) -> bool:
        """Whether its pipeline exchanges frames with the bus."""

    # --- frames

    @abstractmethod
    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Let a frame into the pipeline.

        Args:
            frame: The frame.
            direction: DOWNSTREAM frames enter at the first processor, UPSTREAM frames at the last.
        """

    @abstractmethod
    async def queue_frames(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Let frames into the pipeline, one after the other.

        Args:
            frames: The frames.
            direction: The way in which they travel.
        """

    @abstractmethod
    async def stop_when_done(self) -> None:
        """End when everything that was queued so far has been handled. Does not wait for that; again is a no-op."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop now; see `BaseWorker.stop`. From a processor's handler it only asks, and returns at once."""

    # --- what it says to others

    @abstractmethod
    async def end(self, *, reason: str | None = None) -> None:
        """Ask for a graceful end of everything that its runner runs (R2, R6).

        Args:
            reason: Why, in words.
        """

    @abstractmethod
    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask for an immediate end of everything that its runner runs (R2, R6).

        Args:
            reason: Why, in words; it reaches every worker.
        """

    @abstractmethod
    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message; see `WorkerBus.send`.

        Args:
            message: The message.
        """

    @abstractmethod
    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: a child's to its parent, a root's to its runner and to everybody (W7).

        Args:
            error: What happened, in words.
        """

    @abstractmethod
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

    @abstractmethod
    async def deactivate_worker(self, worker_name: str) -> None:
        """Deactivate a worker (W3).

        Args:
            worker_name: The worker.

        Raises:
            UnknownWorkerError: There is no such worker. A `LookupError`.
        """


@frozen
class FrameProcessorSetup:
    """What a processor is set up with.

    Args:
        worker: The worker whose pipeline it stands in.
    """

    worker: FrameWorker
