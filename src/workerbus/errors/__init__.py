"""Every exception that this library raises of its own, one class per fault (J8, L6, N8, N9).

All of them derive from `WorkerBusError` and, where Python has a name for the fault, from that built-in too, so that
``except ValueError`` and ``except workerbus.NameTakenError`` both do what they say. An error keeps its data as
attributes; the sentence is built here and nowhere else.
"""

from workerbus._packages import own
from workerbus.errors._base import BRIEF as BRIEF
from workerbus.errors._base import (
    MessageTypeError,
    MissingExtraError,
    NameTakenError,
    NotInitializedError,
    NotRunningError,
    WorkerBusError,
    WrongLoopError,
    WrongTaskError,
)
from workerbus.errors._base import _restored as _restored  # by this name errors find back that were pickled
from workerbus.errors._base import add_note as add_note
from workerbus.errors._base import brief as brief
from workerbus.errors._base import describe as describe
from workerbus.errors._base import did_you_mean as did_you_mean
from workerbus.errors._base import encodable as encodable
from workerbus.errors._base import near_names as near_names
from workerbus.errors._base import shown as shown
from workerbus.errors._base import text_of as text_of
from workerbus.errors._jobs import (
    JobError,
    JobFailure,
    JobGroupError,
    JobGroupTimeoutError,
    JobTimeoutError,
    PayloadError,
    UnknownJobError,
)
from workerbus.errors._pipeline import (
    FlushError,
    FlushTimeoutError,
    FrameTypeError,
    PipelineStartTimeoutError,
    ProcessorInUseError,
)
from workerbus.errors._wire import (
    BusUnavailable,
    RecordingError,
    RegistrationError,
    TagTakenError,
    WireError,
)
from workerbus.errors._workers import (
    FactoryError,
    HandlerTypeError,
    MisspeltHookError,
    ParentError,
    ReservedNameError,
    RestartLimitError,
    RunCancelled,
    UnknownEventError,
    UnknownWorkerError,
)

__all__ = [
    "BusUnavailable",
    "FactoryError",
    "FlushError",
    "FlushTimeoutError",
    "FrameTypeError",
    "HandlerTypeError",
    "JobError",
    "JobFailure",
    "JobGroupError",
    "JobGroupTimeoutError",
    "JobTimeoutError",
    "MessageTypeError",
    "MissingExtraError",
    "MisspeltHookError",
    "NameTakenError",
    "NotInitializedError",
    "NotRunningError",
    "ParentError",
    "PayloadError",
    "PipelineStartTimeoutError",
    "ProcessorInUseError",
    "RecordingError",
    "RegistrationError",
    "ReservedNameError",
    "RestartLimitError",
    "RunCancelled",
    "TagTakenError",
    "UnknownEventError",
    "UnknownJobError",
    "UnknownWorkerError",
    "WireError",
    "WorkerBusError",
    "WrongLoopError",
    "WrongTaskError",
]

own(vars())
