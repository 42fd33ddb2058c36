"""Workers that talk over a bus: hand over, ask for jobs, fan out, stream, and end together. On asyncio and on trio."""

from workerbus._lifetime import CLEANUP_SECONDS
from workerbus._registry import WorkerRegistry
from workerbus._runner import PipelineRunner, WorkerRunner
from workerbus._vocabulary import JobStatus, WorkerErrorData, WorkerReadyData
from workerbus._worker import BaseWorker, WorkerActivationArgs, WorkerStatistics
from workerbus._worker_life import WorkerParams
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

__all__ = [name for name in dir() if not name.startswith("_")]
