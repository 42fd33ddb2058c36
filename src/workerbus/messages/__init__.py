"""The messages that travel over a bus (B9, J2, J4, J6, J14, L8, N5, R2, R6, W4, W7).

All are frozen: one object reaches every subscriber. What they have in common, and how to declare one's own, is in
`_message_base`. The class of a message says in which lane it waits, whether it waits for room in a bounded one, and
whether it is an announcement, which is for runners and observers and not for every worker.

Times in messages are for people, and decide nothing.
"""

from typing import Final

from workerbus._message_base import BusDataMessage, BusLocalMessage, BusMessage, BusSystemMessage
from workerbus._message_base import bus_message as bus_message
from workerbus._packages import own
from workerbus.messages._frames import BusFrameMessage, BusTTSSpeakMessage
from workerbus.messages._jobs import FROM_JOBS as FROM_JOBS
from workerbus.messages._jobs import Answer as Answer
from workerbus.messages._jobs import (
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
    JobRequestOptions,
)
from workerbus.messages._jobs import error_instead_of as error_instead_of
from workerbus.messages._observing import BusObservationMessage, BusObserveMessage
from workerbus.messages._workers import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusPoolLoadMessage,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    BusWorkerRestartingMessage,
    WorkerRegistryEntry,
)

__all__ = [
    "BusActivateWorkerMessage",
    "BusAddWorkerMessage",
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
    "BusObservationMessage",
    "BusObserveMessage",
    "BusPoolLoadMessage",
    "BusSystemMessage",
    "BusTTSSpeakMessage",
    "BusWorkerErrorMessage",
    "BusWorkerGoneMessage",
    "BusWorkerLocalErrorMessage",
    "BusWorkerReadyMessage",
    "BusWorkerRegistryMessage",
    "BusWorkerRestartingMessage",
    "JobRequestOptions",
    "WorkerRegistryEntry",
]

BUILT_IN: Final = frozenset(
    each
    for each in own(vars())
    if isinstance(each, type) and issubclass(each, BusMessage) and each not in (BusFrameMessage, BusTTSSpeakMessage)
)
"""The classes of messages that an inactive worker still takes: all but frames, speech and custom messages."""
