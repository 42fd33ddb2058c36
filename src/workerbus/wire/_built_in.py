"""The tags of the library's own messages (X1).

They are what is written, so they stay as they are. All begin with ``bus.``, and no others do. Local messages have none.
"""

from typing import Any, Final

from workerbus import messages
from workerbus._wire_table import MESSAGES

PREFIX: Final = "bus."
"""What the tags of the library's own classes begin with."""

TAGS: Final[dict[str, type[Any]]] = {
    "bus.activate_worker": messages.BusActivateWorkerMessage,
    "bus.deactivate_worker": messages.BusDeactivateWorkerMessage,
    "bus.end": messages.BusEndMessage,
    "bus.end_worker": messages.BusEndWorkerMessage,
    "bus.cancel": messages.BusCancelMessage,
    "bus.cancel_worker": messages.BusCancelWorkerMessage,
    "bus.worker_error": messages.BusWorkerErrorMessage,
    "bus.worker_registry": messages.BusWorkerRegistryMessage,
    "bus.worker_ready": messages.BusWorkerReadyMessage,
    "bus.worker_restarting": messages.BusWorkerRestartingMessage,
    "bus.worker_gone": messages.BusWorkerGoneMessage,
    "bus.pool_load": messages.BusPoolLoadMessage,
    "bus.job_request": messages.BusJobRequestMessage,
    "bus.job_response": messages.BusJobResponseMessage,
    "bus.job_response_urgent": messages.BusJobResponseUrgentMessage,
    "bus.job_update": messages.BusJobUpdateMessage,
    "bus.job_update_urgent": messages.BusJobUpdateUrgentMessage,
    "bus.job_update_request": messages.BusJobUpdateRequestMessage,
    "bus.job_cancel": messages.BusJobCancelMessage,
    "bus.job_stream_start": messages.BusJobStreamStartMessage,
    "bus.job_stream_data": messages.BusJobStreamDataMessage,
    "bus.job_stream_waiting": messages.BusJobStreamWaitingMessage,
    "bus.job_stream_window": messages.BusJobStreamWindowMessage,
    "bus.job_stream_end": messages.BusJobStreamEndMessage,
    "bus.frame": messages.BusFrameMessage,
    "bus.tts_speak": messages.BusTTSSpeakMessage,
    "bus.observe": messages.BusObserveMessage,
    "bus.observation": messages.BusObservationMessage,
}

for _tag, _cls in TAGS.items():
    MESSAGES.add(_tag, _cls)
