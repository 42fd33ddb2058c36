"""Workers: what users subclass, and what the library keeps of each."""

from workerbus.worker._base import BaseWorker
from workerbus.worker._types import WorkerActivationArgs, WorkerParams, WorkerStatistics

__all__ = ["BaseWorker", "WorkerActivationArgs", "WorkerParams", "WorkerStatistics"]
