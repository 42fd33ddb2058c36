"""The messages of jobs: asking for them, cancelling them, and how they go on (J2, J4, J6, J14, J19, J20)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from attrs import field

from workerbus._message_base import BusDataMessage, BusSystemMessage, bus_message
from workerbus._values import IF_SET, JobStatus, Value, value
from workerbus.errors import text_of


def _check_attempt(_options: "JobRequestOptions", _attribute: object, attempt: Any) -> None:
    if isinstance(attempt, bool) or not isinstance(attempt, int):
        raise TypeError(f"attempt is a whole number, not {attempt!r}")
    if attempt < 1:
        raise ValueError(f"attempt is at least 1, not {attempt}")


def _check_window(_options: "JobRequestOptions", _attribute: object, chunks: Any) -> None:
    if chunks is None:
        return
    if isinstance(chunks, bool) or not isinstance(chunks, int):
        raise TypeError(f"max_buffered_events is a whole number, not {chunks!r}")
    if chunks < 1:
        raise ValueError(f"max_buffered_events is at least 1, not {chunks}")


def _check_delay(_options: "JobRequestOptions", _attribute: object, delay: Any) -> None:
    if delay is None:
        return
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise TypeError(f"delay is a number of seconds or None, not {delay!r}")
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay is a finite number of seconds, not less than 0, not {delay!r}")


def _check_priority(_options: "JobRequestOptions", _attribute: object, priority: Any) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority is a whole number, not {priority!r}")


@value
class JobRequestOptions(Value):
    """How a job is to be done, for requests that say so. Other requests have none.

    Args:
        attempt: The number of this attempt, from 1. Earlier attempts may have run, in whole or in part.
        max_buffered_events: How many chunks of a stream may be sent before the requester allows more; None for any
            number.
        delay: How many seconds after its arrival the job is to begin, at the earliest; None for at once.
        priority: For a pool: of the jobs that wait for a member, those with a higher priority go first.
        asked_as: The name that several pools share, if the target was chosen among them: it answers in that name.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is too small, or not finite.

    Guarantees: J19, J20, S2.
    """

    attempt: int = field(default=1, validator=_check_attempt, metadata={IF_SET: True})
    max_buffered_events: int | None = field(default=None, validator=_check_window, metadata={IF_SET: True})
    delay: float | None = field(default=None, validator=_check_delay, metadata={IF_SET: True})
    priority: int = field(default=0, validator=_check_priority, metadata={IF_SET: True})
    asked_as: str | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusJobRequestMessage(BusDataMessage):
    """Asks a worker for a job.

    Args:
        job_id: The job's id; all workers of a group get the same.
        job_name: The job's name, by which its `@job` handler is found; None for a job without a name.
        payload: What the handler needs; empty if nothing was given. It is shared: treat it as read-only.
        seconds_left: How many seconds the requester will wait from now on; None for no limit.
        options: Further options; None if there are none.

    Guarantees: J6, J19, J20.
    """

    confirmed: ClassVar[bool] = False

    job_id: str
    job_name: str | None = None
    if TYPE_CHECKING:  # as in the seeds; no job is asked for with None
        payload: Mapping[str, Any] = None  # type: ignore[assignment]  # as in the seeds
    else:  # what is built by hand without one travels all the same
        payload: Mapping[str, Any] | None = None
    seconds_left: float | None = None
    options: JobRequestOptions | None = field(default=None, kw_only=True, metadata={IF_SET: True})

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1. Earlier attempts may have run, in whole or in part.

        Guarantees: J20.
        """
        return 1 if self.options is None else self.options.attempt


@bus_message
class BusJobResponseMessage(BusDataMessage):
    """Answers a job request.

    Args:
        job_id: The job's id.
        status: How it ended.
        response: The result, as a dict; for an error ``{"error": text, "type": class name}``.

    Guarantees: J2.
    """

    bounded: ClassVar[bool] = False
    of_a_job: ClassVar[bool] = True

    job_id: str
    status: JobStatus
    response: dict[str, Any] | None = None


@bus_message
class BusJobResponseUrgentMessage(BusSystemMessage):
    """Answers a job request, overtaking waiting data messages.

    Args:
        job_id: The job's id.
        status: How it ended.
        response: The result, as a dict; for an error ``{"error": text, "type": class name}``.

    Guarantees: J2, J7.
    """

    job_id: str
    status: JobStatus
    response: dict[str, Any] | None = None


@bus_message
class BusJobUpdateMessage(BusDataMessage):
    """Tells a requester about the progress of a job.

    Args:
        job_id: The job's id.
        update: The update, as a dict.
    """

    of_a_job: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    job_id: str
    update: dict[str, Any] | None = None


@bus_message
class BusJobUpdateUrgentMessage(BusSystemMessage):
    """Tells a requester about the progress of a job, overtaking waiting data messages.

    Args:
        job_id: The job's id.
        update: The update, as a dict.
    """

    confirmed: ClassVar[bool] = False

    job_id: str
    update: dict[str, Any] | None = None


@bus_message
class BusJobUpdateRequestMessage(BusDataMessage):
    """Asks a worker how a job is getting on.

    Args:
        job_id: The job's id.
    """

    bounded: ClassVar[bool] = False
    confirmed: ClassVar[bool] = False

    job_id: str


@bus_message
class BusJobCancelMessage(BusSystemMessage):
    """Tells a worker that a job is no longer wanted.

    Args:
        job_id: The job's id.
        reason: Why, in words; ``"timeout"`` if time has run out.
    """

    job_id: str
    reason: str | None = None


@bus_message
class BusJobStreamStartMessage(BusDataMessage):
    """Opens a stream of partial results of a job.

    Args:
        job_id: The job's id.
        data: What the worker says about the stream, as a dict.
    """

    of_a_job: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    job_id: str
    data: dict[str, Any] | None = None


@bus_message
class BusJobStreamDataMessage(BusDataMessage):
    """Carries a partial result of a job.

    Args:
        job_id: The job's id.
        data: The partial result, as a dict.
        number: The number of the chunk within the job, from 1; None if no message can be lost or come twice.

    Guarantees: J19.
    """

    of_a_job: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    job_id: str
    data: dict[str, Any] | None = None
    number: int | None = field(default=None, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusJobStreamWaitingMessage(BusDataMessage):
    """Tells a requester that a stream waits for its reader, in case a message was lost; it comes after the chunks.

    Args:
        job_id: The job's id.
        sent: How many chunks were sent since the start of the job.

    Guarantees: J19.
    """

    bounded: ClassVar[bool] = False
    of_a_job: ClassVar[bool] = True

    job_id: str
    sent: int


@bus_message
class BusJobStreamWindowMessage(BusSystemMessage):
    """Tells a worker how much of a stream it may send: the reader has taken some of it.

    Args:
        job_id: The job's id.
        until: How many chunks may be sent in all since the start of the job.

    Guarantees: J19.
    """

    job_id: str
    until: int


@bus_message
class BusJobStreamEndMessage(BusDataMessage):
    """Closes a stream, and with it the job, as COMPLETED.

    Args:
        job_id: The job's id.
        data: The result of the job, as a dict.

    Guarantees: J14.
    """

    bounded: ClassVar[bool] = False
    of_a_job: ClassVar[bool] = True

    job_id: str
    data: dict[str, Any] | None = None


FROM_JOBS: Final = frozenset(
    {
        BusJobResponseMessage,
        BusJobResponseUrgentMessage,
        BusJobUpdateMessage,
        BusJobUpdateUrgentMessage,
        BusJobStreamStartMessage,
        BusJobStreamDataMessage,
        BusJobStreamWaitingMessage,
        BusJobStreamEndMessage,
    }
)
"""The classes of messages by which a job tells whoever has asked for it how it goes on."""

Answer = BusJobResponseMessage | BusJobResponseUrgentMessage | BusJobStreamEndMessage
"""The messages that end a job for whoever has asked for it."""


def error_instead_of(answer: Answer, error: Exception) -> BusJobResponseMessage | BusJobResponseUrgentMessage:
    """Return the answer that tells a requester why it does not get the one that there was."""
    kind = BusJobResponseUrgentMessage if isinstance(answer, BusJobResponseUrgentMessage) else BusJobResponseMessage
    payload = {"error": text_of(error), "type": type(error).__name__}
    return kind(
        answer.job_id, JobStatus.ERROR, payload, source=answer.source, target=answer.target, headers=answer.headers
    )
