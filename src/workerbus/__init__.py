"""Workers that talk over a bus: hand over, ask for jobs, fan out, stream, and end together. On asyncio and on trio."""

from typing import TYPE_CHECKING, Any

from workerbus._lifetime import CLEANUP_SECONDS
from workerbus._registry import WorkerRegistry
from workerbus._runner import PipelineRunner, WorkerRunner
from workerbus._statistics import RunnerStatistics, WorkerSnapshot
from workerbus._vocabulary import JobStatus, WorkerErrorData, WorkerReadyData
from workerbus._worker import BaseWorker
from workerbus._worker_types import WorkerActivationArgs, WorkerParams, WorkerStatistics
from workerbus.bus import AsyncQueueBus, BusStatistics, BusSubscriber, MemoryBus, SubscriberStatistics, WorkerBus
from workerbus.errors import (
    HandlerTypeError,
    JobError,
    JobFailure,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
    MessageTypeError,
    NameTakenError,
    NotRunningError,
    ParentError,
    ReservedNameError,
    UnknownEventError,
    UnknownJobError,
    UnknownWorkerError,
    WorkerBusError,
)
from workerbus.jobs import (
    JobContext,
    JobEvent,
    JobGroup,
    JobGroupContext,
    JobGroupEvent,
    JobGroupResponse,
    JobGroupSnapshot,
    JobSnapshot,
    job,
    worker_ready,
)
from workerbus.messages import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusFrameMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    BusTTSSpeakMessage,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    WorkerRegistryEntry,
    bus_message,
)

if TYPE_CHECKING:
    from workerbus.pipeline import BusBridgeProcessor, PipelineWorker

__all__ = [
    "CLEANUP_SECONDS",
    "AsyncQueueBus",
    "BaseWorker",
    "BusActivateWorkerMessage",
    "BusAddWorkerMessage",
    "BusBridgeProcessor",
    "BusCancelMessage",
    "BusCancelWorkerMessage",
    "BusDataMessage",
    "BusDeactivateWorkerMessage",
    "BusEndMessage",
    "BusEndWorkerMessage",
    "BusFrameMessage",
    "BusJobCancelMessage",
    "BusJobRequestMessage",
    "BusJobResponseMessage",
    "BusJobResponseUrgentMessage",
    "BusJobStreamDataMessage",
    "BusJobStreamEndMessage",
    "BusJobStreamStartMessage",
    "BusJobUpdateMessage",
    "BusJobUpdateRequestMessage",
    "BusJobUpdateUrgentMessage",
    "BusLocalMessage",
    "BusMessage",
    "BusStatistics",
    "BusSubscriber",
    "BusSystemMessage",
    "BusTTSSpeakMessage",
    "BusWorkerErrorMessage",
    "BusWorkerGoneMessage",
    "BusWorkerLocalErrorMessage",
    "BusWorkerReadyMessage",
    "BusWorkerRegistryMessage",
    "HandlerTypeError",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobFailure",
    "JobGroup",
    "JobGroupContext",
    "JobGroupError",
    "JobGroupEvent",
    "JobGroupResponse",
    "JobGroupSnapshot",
    "JobGroupTimeoutError",
    "JobSnapshot",
    "JobStatus",
    "JobTimeoutError",
    "MemoryBus",
    "MessageTypeError",
    "NameTakenError",
    "NotRunningError",
    "ParentError",
    "PipelineRunner",
    "PipelineWorker",
    "ReservedNameError",
    "RunnerStatistics",
    "SubscriberStatistics",
    "UnknownEventError",
    "UnknownJobError",
    "UnknownWorkerError",
    "WorkerActivationArgs",
    "WorkerBus",
    "WorkerBusError",
    "WorkerErrorData",
    "WorkerParams",
    "WorkerReadyData",
    "WorkerRegistry",
    "WorkerRegistryEntry",
    "WorkerRunner",
    "WorkerSnapshot",
    "WorkerStatistics",
    "bus_message",
    "job",
    "worker_ready",
]


def __getattr__(name: str) -> Any:
    # Who has no pipelines need not import them.
    if name in ("BusBridgeProcessor", "PipelineWorker"):
        from workerbus import pipeline  # noqa: PLC0415 - that is the point

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
