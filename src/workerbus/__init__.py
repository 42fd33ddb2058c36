"""Workers that talk over a bus: hand over, ask for jobs, fan out, stream, and end together. On asyncio and on trio."""

from typing import TYPE_CHECKING, Any

from workerbus._backoff import Backoff
from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._concurrency.own_tasks import TaskHandle
from workerbus._registry import WorkerRegistry
from workerbus._values import JobStatus, WorkerErrorData, WorkerGoneData, WorkerReadyData, WorkerRestartedData
from workerbus.bus import AsyncQueueBus, BusStatistics, BusSubscriber, MemoryBus, SubscriberStatistics, WorkerBus
from workerbus.errors import (
    FactoryError,
    HandlerTypeError,
    JobError,
    JobFailure,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
    MessageTypeError,
    MissingExtraError,
    MisspeltHookError,
    NameTakenError,
    NotInitializedError,
    NotRunningError,
    ParentError,
    PayloadError,
    ReservedNameError,
    RestartLimitError,
    RunCancelled,
    UnknownEventError,
    UnknownJobError,
    UnknownWorkerError,
    WorkerBusError,
    WrongLoopError,
    WrongTaskError,
)
from workerbus.jobs import (
    JobAnswer,
    JobContext,
    JobEvent,
    JobGroup,
    JobGroupContext,
    JobGroupEvent,
    JobGroupParams,
    JobGroupResponse,
    JobGroupSnapshot,
    JobParams,
    JobProgress,
    JobSnapshot,
    JobStreamContext,
    Rate,
    current_job,
    every,
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
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
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
    BusWorkerRestartingMessage,
    JobRequestOptions,
    WorkerRegistryEntry,
    bus_message,
)
from workerbus.runner._outcome import RunOutcome
from workerbus.runner._runner import PipelineRunner, WorkerRunner
from workerbus.runner._statistics import RunnerStatistics, WorkerSnapshot
from workerbus.supervision._supervision import Supervision
from workerbus.worker import BaseWorker
from workerbus.worker._types import WorkerActivationArgs, WorkerParams, WorkerStatistics

if TYPE_CHECKING:
    from workerbus.cli import rich_progress
    from workerbus.pipeline import BusBridgeProcessor, PipelineWorker

__version__ = "0.1.0"

__all__ = [
    "CLEANUP_SECONDS",
    "AsyncQueueBus",
    "Backoff",
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
    "BusJobStreamWaitingMessage",
    "BusJobStreamWindowMessage",
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
    "BusWorkerRestartingMessage",
    "FactoryError",
    "HandlerTypeError",
    "JobAnswer",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobFailure",
    "JobGroup",
    "JobGroupContext",
    "JobGroupError",
    "JobGroupEvent",
    "JobGroupParams",
    "JobGroupResponse",
    "JobGroupSnapshot",
    "JobGroupTimeoutError",
    "JobParams",
    "JobProgress",
    "JobRequestOptions",
    "JobSnapshot",
    "JobStatus",
    "JobStreamContext",
    "JobTimeoutError",
    "MemoryBus",
    "MessageTypeError",
    "MissingExtraError",
    "MisspeltHookError",
    "NameTakenError",
    "NotInitializedError",
    "NotRunningError",
    "ParentError",
    "PayloadError",
    "PipelineRunner",
    "PipelineWorker",
    "Rate",
    "ReservedNameError",
    "RestartLimitError",
    "RunCancelled",
    "RunOutcome",
    "RunnerStatistics",
    "SubscriberStatistics",
    "Supervision",
    "TaskHandle",
    "UnknownEventError",
    "UnknownJobError",
    "UnknownWorkerError",
    "WorkerActivationArgs",
    "WorkerBus",
    "WorkerBusError",
    "WorkerErrorData",
    "WorkerGoneData",
    "WorkerParams",
    "WorkerReadyData",
    "WorkerRegistry",
    "WorkerRegistryEntry",
    "WorkerRestartedData",
    "WorkerRunner",
    "WorkerSnapshot",
    "WorkerStatistics",
    "WrongLoopError",
    "WrongTaskError",
    "bus_message",
    "current_job",
    "every",
    "job",
    "rich_progress",
    "worker_ready",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: programs without pipelines, or without a terminal, need not load them.
    if name == "rich_progress":
        from workerbus.cli import rich_progress  # noqa: PLC0415 - on first use

        return rich_progress
    if name in ("BusBridgeProcessor", "PipelineWorker"):
        from workerbus import pipeline  # noqa: PLC0415 - on first use

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
