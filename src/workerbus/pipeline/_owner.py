"""What a processor knows of its worker: how it is set up with one, and what it may ask of it (N4, R2, W3, W7).

A processor needs no more of a worker than this, so that `_processor` need not know `_worker`.
"""

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
    """A worker with a pipeline, as its processors see it; every `PipelineWorker` is one.

    Frames can be queued at it, and it asks for jobs and answers them like any worker. Its start, children and hooks are
    not part of this interface.
    """

    # --- what it is

    @property
    @abstractmethod
    def name(self) -> str:
        """The worker's name, unique on its bus."""

    @property
    @abstractmethod
    def bus(self) -> WorkerBus:
        """The bus that the worker is attached to."""

    @property
    @abstractmethod
    def registry(self) -> WorkerRegistry:
        """The registry of the worker's runner."""

    @property
    @abstractmethod
    def worker_runner(self) -> RunnerLike:
        """The runner that hosts the worker.

        Raises:
            RuntimeError: No runner does.

        Guarantees: N4.
        """

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether the worker is active; False before it has started."""

    @property
    @abstractmethod
    def activation_args(self) -> dict[str, Any] | None:
        """What the worker was last activated with, as a dict; None while it is inactive."""

    @property
    @abstractmethod
    def parent(self) -> str | None:
        """The name of the worker's parent; None for a root worker."""

    @property
    @abstractmethod
    def started_at(self) -> float | None:
        """When the worker became ready, in seconds since the epoch; None before that."""

    @property
    @abstractmethod
    def bridged(self) -> bool:
        """Whether the worker's pipeline exchanges frames with the bus at its ends."""

    # --- frames

    @abstractmethod
    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Put a frame into the pipeline; see `PipelineWorker.queue_frame`.

        Args:
            frame: The frame.
            direction: DOWNSTREAM frames enter at the first processor, UPSTREAM frames at the last.
        """

    @abstractmethod
    async def queue_frames(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Put frames into the pipeline, one after the other.

        Args:
            frames: The frames; those of an async iterable are queued as they come.
            direction: The way in which they travel.
        """

    @abstractmethod
    async def stop_when_done(self) -> None:
        """Ask the worker to end when every frame that was queued so far has been handled, and return at once.

        A second call does nothing.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Stop now; see `BaseWorker.stop`. In a processor's handler it only asks, and returns at once."""

    # --- what it says to others

    @abstractmethod
    async def end(self, *, reason: str | None = None) -> None:
        """Ask for a graceful end of everything that the worker's runner runs.

        Args:
            reason: Why, in words.

        Guarantees: R2, R6.
        """

    @abstractmethod
    async def cancel(self, *, reason: str | None = None) -> None:
        """Ask for an immediate end of everything that the worker's runner runs.

        Args:
            reason: Why, in words; it reaches every worker.

        Guarantees: R2, R6.
        """

    @abstractmethod
    async def send_bus_message(self, message: BusMessage) -> None:
        """Send a message; see `WorkerBus.send`.

        Args:
            message: The message.
        """

    @abstractmethod
    async def send_bus_error_message(self, error: str) -> None:
        """Report an error: a child's to its parent, a root's to its runner and to everybody.

        Args:
            error: What happened, in words.

        Guarantees: W7.
        """

    @abstractmethod
    async def activate_worker(
        self, worker_name: str, *, args: WorkerActivationArgs | None = None, deactivate_self: bool = False
    ) -> None:
        """Activate a worker.

        Args:
            worker_name: The worker.
            args: Passed to the worker's `on_activated`, as a dict.
            deactivate_self: Whether to hand over: this worker is inactive before the other is active.

        Raises:
            UnknownWorkerError: There is no such worker; nothing has changed. A `LookupError`.

        Guarantees: W3.
        """

    @abstractmethod
    async def deactivate_worker(self, worker_name: str) -> None:
        """Deactivate a worker.

        Args:
            worker_name: The worker.

        Raises:
            UnknownWorkerError: There is no such worker. A `LookupError`.

        Guarantees: W3.
        """


@frozen
class FrameProcessorSetup:
    """What a processor's `setup` gets.

    Args:
        worker: The worker whose pipeline the processor is in.
    """

    worker: FrameWorker
