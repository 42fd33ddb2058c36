"""The messages that travel over a bus. All are frozen: one object reaches every subscriber (N5).

What they have in common, and how to declare one's own, is in `_message`.
"""

from typing import Any, ClassVar, Final

from workerbus._message_base import BusDataMessage as BusDataMessage
from workerbus._message_base import BusLocalMessage as BusLocalMessage
from workerbus._message_base import BusMessage as BusMessage
from workerbus._message_base import BusSystemMessage as BusSystemMessage
from workerbus._message_base import bus_message as bus_message
from workerbus._values import JobStatus, Value, value

# --- of the session and its workers; the library's own, which never wait for room (B9)


@bus_message
class BusActivateWorkerMessage(BusDataMessage):
    """Tells a worker to become active.

    Args:
        args: Forwarded to `on_activated`.
    """

    bounded: ClassVar[bool] = False

    args: dict[str, Any] | None = None


@bus_message
class BusDeactivateWorkerMessage(BusDataMessage):
    """Tells a worker to become inactive."""

    bounded: ClassVar[bool] = False


@bus_message
class BusEndMessage(BusDataMessage):
    """Asks a runner for a graceful end; without a target, every runner on the bus (R6).

    Args:
        reason: Why, in words.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    reason: str | None = None


@bus_message
class BusEndWorkerMessage(BusDataMessage):
    """Tells a worker to end gracefully (R2).

    Args:
        reason: Why, in words.
    """

    bounded: ClassVar[bool] = False

    reason: str | None = None


@bus_message
class BusCancelMessage(BusSystemMessage):
    """Asks a runner for an immediate end; without a target, every runner on the bus (R6).

    Args:
        reason: Why, in words.
    """

    announcement: ClassVar[bool] = True

    reason: str | None = None


@bus_message
class BusCancelWorkerMessage(BusSystemMessage):
    """Tells a worker to cancel what it does and to finish (R2).

    Args:
        reason: Why, in words.
    """

    reason: str | None = None


@bus_message
class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Asks a runner of this process to add a worker.

    Args:
        worker: The worker object itself, which is why the message cannot cross a network.
    """

    announcement: ClassVar[bool] = True

    worker: object


@bus_message
class BusWorkerErrorMessage(BusSystemMessage):
    """Reports an error of a root worker, or of a plain subscriber, to everybody (W7).

    Args:
        error: What happened, in words.
    """

    error: str


@bus_message
class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """Reports an error of a child worker to its parent (W7).

    Args:
        error: What happened, in words.
    """

    error: str


@value
class WorkerRegistryEntry(Value):
    """What a registry snapshot says of one worker.

    Args:
        name: The worker's name.
        parent: Its parent's name; None for a root worker.
        active: Whether it is active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When it became ready, in seconds since the epoch.
    """

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None


@bus_message
class BusWorkerRegistryMessage(BusSystemMessage):
    """A snapshot of all workers of a runner: sent to all when it starts, and to each that starts later, if it has any.

    Args:
        runner: The runner that has them.
        workers: One entry per worker.
        taken_at: When the snapshot was taken, in seconds since the epoch, by the runner's clock.
    """

    announcement: ClassVar[bool] = True

    runner: str
    workers: list[WorkerRegistryEntry]
    taken_at: float | None = None


@bus_message
class BusWorkerReadyMessage(BusDataMessage):
    """Announces that a worker, the message's source, is ready.

    Args:
        runner: The runner that hosts it.
        parent: Its parent's name; None for a root worker.
        active: Whether it starts active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When it became ready, in seconds since the epoch.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None


@bus_message
class BusWorkerGoneMessage(BusDataMessage):
    """Announces that a worker, the message's source, has finished: its name is free, its jobs are answered (J4).

    Args:
        runner: The runner that hosted it.
        finished_at: When it finished, in seconds since the epoch, by the runner's clock.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    finished_at: float | None = None


# --- of jobs


@bus_message
class BusJobRequestMessage(BusDataMessage):
    """Asks a worker for a job.

    Args:
        job_id: The job; the members of a group share one.
        job_name: Which `@job` handler is meant.
        payload: What the handler needs. Shared, to be treated as read-only.
        seconds_left: How long the requester will wait from now on, in seconds; None for as long as it takes (J6).
    """

    job_id: str
    job_name: str | None = None
    payload: dict[str, Any] | None = None
    seconds_left: float | None = None


@bus_message
class BusJobResponseMessage(BusDataMessage):
    """The answer to a job request.

    Args:
        job_id: The job.
        status: How it ended.
        response: The result; for an error ``{"error": text, "type": class name}`` (J2).
    """

    bounded: ClassVar[bool] = False
    of_a_job: ClassVar[bool] = True

    job_id: str
    status: JobStatus
    response: dict[str, Any] | None = None


@bus_message
class BusJobResponseUrgentMessage(BusSystemMessage):
    """The answer to a job request, overtaking the data messages that wait.

    Args:
        job_id: The job.
        status: How it ended.
        response: The result.
    """

    job_id: str
    status: JobStatus
    response: dict[str, Any] | None = None


@bus_message
class BusJobUpdateMessage(BusDataMessage):
    """Progress of a job.

    Args:
        job_id: The job.
        update: What there is to tell.
    """

    of_a_job: ClassVar[bool] = True

    job_id: str
    update: dict[str, Any] | None = None


@bus_message
class BusJobUpdateUrgentMessage(BusSystemMessage):
    """Progress of a job, overtaking the data messages that wait.

    Args:
        job_id: The job.
        update: What there is to tell.
    """

    job_id: str
    update: dict[str, Any] | None = None


@bus_message
class BusJobUpdateRequestMessage(BusDataMessage):
    """Asks a worker how a job is getting on.

    Args:
        job_id: The job.
    """

    bounded: ClassVar[bool] = False

    job_id: str


@bus_message
class BusJobCancelMessage(BusSystemMessage):
    """Tells a worker that its requester wants a job no more.

    Args:
        job_id: The job.
        reason: Why, in words; ``"timeout"`` where time ran out.
    """

    job_id: str
    reason: str | None = None


@bus_message
class BusJobStreamStartMessage(BusDataMessage):
    """Opens a stream of partial results.

    Args:
        job_id: The job.
        data: About the stream.
    """

    of_a_job: ClassVar[bool] = True

    job_id: str
    data: dict[str, Any] | None = None


@bus_message
class BusJobStreamDataMessage(BusDataMessage):
    """A partial result.

    Args:
        job_id: The job.
        data: The result.
    """

    of_a_job: ClassVar[bool] = True

    job_id: str
    data: dict[str, Any] | None = None


@bus_message
class BusJobStreamEndMessage(BusDataMessage):
    """Closes a stream, and with it the job, as COMPLETED (J14).

    Args:
        job_id: The job.
        data: The job's result.
    """

    bounded: ClassVar[bool] = False
    of_a_job: ClassVar[bool] = True

    job_id: str
    data: dict[str, Any] | None = None


# --- for pipelines


@bus_message
class BusFrameMessage(BusDataMessage):
    """Carries a frame from one pipeline to another.

    Args:
        frame: A `workerbus.pipeline.Frame`; the core does not look into it. Each receiver takes a copy, since all get
            this one.
        direction: The `workerbus.pipeline.FrameDirection` in which it shall travel there: DOWNSTREAM frames come in at
            the first processor, UPSTREAM frames at the last.
        bridge: The name of the bridge that it belongs to, where there are several.
        late_since: Not None in what a worker that has been deactivated still had to let out: when it was, in seconds
            since the epoch. A bridged worker that has become active since then leaves it alone.
    """

    frame: Any
    direction: Any
    bridge: str | None = None
    late_since: float | None = None


@bus_message
class BusTTSSpeakMessage(BusDataMessage):
    """Asks a pipeline worker to speak.

    Args:
        text: What to say.
        append_to_context: Whether it becomes part of the conversation.
    """

    text: str
    append_to_context: bool | None = None


BUILT_IN: Final = frozenset(
    value
    for value in list(vars().values())
    if isinstance(value, type)
    and issubclass(value, BusMessage)
    and value not in (BusMessage, BusDataMessage, BusSystemMessage, BusFrameMessage, BusTTSSpeakMessage)
)
"""What an inactive worker still takes, as far as it is its business: everything but frames and custom messages (W4)."""
