"""The messages that travel over a bus (B9, J2, J4, J6, J14, L8, N5, R2, R6, W4, W7).

All are frozen: one object reaches every subscriber. What they have in common, and how to declare one's own, is in
`_message_base`. The class of a message says in which lane it waits, whether it waits for room in a bounded one, and
whether it is an announcement, which is for runners and observers and not for every worker.

A runner and its workers number what they announce, and say in which life of the runner that was: what arrives late or
twice is known by it. Times in messages are for people, and decide nothing.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from attrs import field

from workerbus._message_base import BusDataMessage as BusDataMessage
from workerbus._message_base import BusLocalMessage as BusLocalMessage
from workerbus._message_base import BusMessage as BusMessage
from workerbus._message_base import BusSystemMessage as BusSystemMessage
from workerbus._message_base import bus_message as bus_message
from workerbus._values import IF_SET, JobStatus, Value, WorkerGoneData, value
from workerbus.errors import text_of

# --- of the session and its workers; the library's own, which never wait for room


@bus_message
class BusActivateWorkerMessage(BusDataMessage):
    """Tells a worker to become active.

    Args:
        args: Passed on to `on_activated`.
        after: How far other processes were before this activation, as far as the sender knows: the id of a process to
            the number of an event there. What a worker lets out of its pipeline since an earlier deactivation is not
            for the worker that is activated now. None where all are in one process.
    """

    bounded: ClassVar[bool] = False

    args: dict[str, Any] | None = None
    after: Mapping[str, int] | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusDeactivateWorkerMessage(BusDataMessage):
    """Tells a worker to become inactive.

    Args:
        done: Whether it is inactive already, since it has handed over: then this is for those who watch.
    """

    bounded: ClassVar[bool] = False

    done: bool = field(default=False, metadata={IF_SET: True})


@bus_message
class BusEndMessage(BusDataMessage):
    """Asks a runner for a graceful end; without a target, every runner of this process on the bus.

    Args:
        reason: Why, in words.
        everywhere: Whether it concerns the runners of all processes, where it has no target.

    Guarantees: R2, R6, X9.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    reason: str | None = None
    everywhere: bool = field(default=False, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusEndWorkerMessage(BusDataMessage):
    """Tells a worker to end gracefully.

    Args:
        reason: Why, in words.

    Guarantees: R2.
    """

    bounded: ClassVar[bool] = False

    reason: str | None = None


@bus_message
class BusCancelMessage(BusSystemMessage):
    """Asks a runner for an immediate end; without a target, every runner of this process on the bus.

    Args:
        reason: Why, in words.
        everywhere: Whether it concerns the runners of all processes, where it has no target.

    Guarantees: R2, R6, X9.
    """

    announcement: ClassVar[bool] = True

    reason: str | None = None
    everywhere: bool = field(default=False, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusCancelWorkerMessage(BusSystemMessage):
    """Tells a worker to cancel what it does and to finish.

    Args:
        reason: Why, in words.

    Guarantees: R2.
    """

    reason: str | None = None


@bus_message
class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Asks a runner of this process to add a worker.

    Args:
        worker: The worker object itself, because of which the message cannot cross a network.
    """

    announcement: ClassVar[bool] = True

    worker: object


@bus_message
class BusWorkerErrorMessage(BusSystemMessage):
    """Reports an error of a root worker, or of a plain subscriber, to everybody.

    Args:
        error: What happened, in words.

    Guarantees: W7.
    """

    error: str


@bus_message
class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """Reports an error of a child worker to its parent. The fields are those of `WorkerErrorData`.

    Args:
        error: What happened, in words.
        exception: What was raised, if anything was.
        origin: What has raised it.
        fatal: Whether the worker has ended of it.

    Guarantees: W7, W9.
    """

    error: str
    exception: BaseException | None = field(default=None, eq=False, repr=False)
    origin: str | None = None
    fatal: bool = False


@value
class WorkerRegistryEntry(Value):
    """What a registry snapshot says of one worker.

    Args:
        name: The worker's name.
        parent: The name of its parent; None for a root worker.
        active: Whether the worker is active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When the worker became ready, in seconds since the epoch. For people: it decides nothing.
        pool: The name that it shares with pools in other processes, if it shares one.
        places: How many jobs such a pool does at once.
    """

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    pool: str | None = field(default=None, metadata={IF_SET: True})
    places: int | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusWorkerRegistryMessage(BusSystemMessage):
    """A snapshot of all workers of a runner.

    The runner sends it to all others when it starts and, if it has workers, to each runner that starts later.

    Args:
        runner: The name of the runner.
        workers: One entry for each of its workers that is ready.
        incarnation: In which life of the runner; None where that is not known, and is all one.
        number: The number of the announcement within that life, higher than those before it; None for the last known.
        failed: Its workers that have failed, the last ones of many; None where there are none.
        asks: Whether a snapshot for all asks each runner for its own in return.
        complete: Whether the workers that are not in it have gone; else it is a part of a list that is too long for one
            message.

    Guarantees: J4, L8.
    """

    announcement: ClassVar[bool] = True

    runner: str
    workers: list[WorkerRegistryEntry]
    incarnation: str | None = None
    number: int | None = None
    failed: list[WorkerGoneData] | None = field(default=None, metadata={IF_SET: True})
    asks: bool = field(default=True, kw_only=True, metadata={IF_SET: True})
    complete: bool = field(default=True, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusWorkerReadyMessage(BusDataMessage):
    """Announces that a worker, the message's source, is ready.

    Args:
        runner: The name of the runner that hosts the worker.
        parent: The name of its parent; None for a root worker.
        active: Whether the worker starts active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When the worker became ready, in seconds since the epoch. For people: it decides nothing.
        incarnation: In which life of the runner; None where that is not known, and is all one.
        number: The number of the announcement within that life, higher than those before it; None for the last known.
        pool: The name that it shares with pools in other processes, if it shares one.
        places: How many jobs such a pool does at once.

    Guarantees: L8, S2.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    incarnation: str | None = None
    number: int | None = None
    pool: str | None = field(default=None, kw_only=True, metadata={IF_SET: True})
    places: int | None = field(default=None, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusPoolLoadMessage(BusDataMessage):
    """Announces how busy a pool is, the message's source, that shares its name with pools in other processes.

    Args:
        runner: The name of the runner that hosts the pool.
        places: How many jobs it does at once.
        taken: How many jobs it has, those that wait included.
        incarnation: In which life of the runner; None where that is not known, and is all one.
        number: The number of the announcement within that life, higher than those before it; None for the last known.

    Guarantees: L8, S2.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    places: int
    taken: int
    incarnation: str | None = None
    number: int | None = None


@bus_message
class BusWorkerRestartingMessage(BusDataMessage):
    """Announces that a worker, the message's source, takes no more jobs, and that its supervision makes it anew.

    It may still be answering those under way. When it has finished, a `BusWorkerGoneMessage` follows.

    Args:
        runner: The name of the runner that hosts the worker.
        incarnation: In which life of the runner; None where that is not known, and is all one.
        number: The number of the announcement within that life, higher than those before it; None for the last known.

    Guarantees: J4, L8, S1.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    incarnation: str | None = None
    number: int | None = None


@bus_message
class BusWorkerGoneMessage(BusDataMessage):
    """Announces that a worker, the message's source, has finished: its name is free, its jobs are answered.

    Args:
        runner: The name of the runner that hosted the worker.
        incarnation: In which life of the runner; None where that is not known, and is all one.
        number: The number of the announcement within that life, higher than those before it; None for the last known.
        error: What the worker has failed of, in words; None if it has ended. One that has failed to start has not been
            announced as ready.
        restarting: Whether its supervision makes it anew, so that jobs for it wait.

    Guarantees: J4, L8, S1, W9.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    incarnation: str | None = None
    number: int | None = None
    error: str | None = field(default=None, metadata={IF_SET: True})
    restarting: bool = field(default=False, metadata={IF_SET: True})


# --- of jobs


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
    """What only some requests say of how the job is to be done. A request that says nothing of it has none.

    Args:
        attempt: The how manieth attempt this is, from 1 on: what was asked for before may have run, whole or in part.
        max_buffered_events: How many chunks of a stream may be sent before the requester says more; None for any
            number.
        delay: How many seconds after its arrival the job is to begin, at the earliest; None for at once.
        priority: Among the jobs that wait for a member of a pool, those with a higher one go first.
        asked_as: The name that several pools share, where the target was chosen among these: it answers in that name.

    Raises:
        TypeError: One is of a wrong type.
        ValueError: One is less than it may be, or not finite.

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
        payload: What the handler needs; in a job, empty where nothing was given. It is shared, and read-only.
        seconds_left: How many seconds the requester will wait from now on; None for as long as it takes.
        options: What only some requests say; None where nothing is said of it.

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
        """The how manieth attempt this is, from 1 on: what was asked for before may have run, whole or in part.

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
    """Answers a job request, overtaking the data messages that wait.

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
    """Tells a requester of the progress of a job.

    Args:
        job_id: The job's id.
        update: What there is to tell, as a dict.
    """

    of_a_job: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    job_id: str
    update: dict[str, Any] | None = None


@bus_message
class BusJobUpdateUrgentMessage(BusSystemMessage):
    """Tells a requester of the progress of a job, overtaking the data messages that wait.

    Args:
        job_id: The job's id.
        update: What there is to tell, as a dict.
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
    """Tells a worker that a job is not wanted any more.

    Args:
        job_id: The job's id.
        reason: Why, in words; ``"timeout"`` where time has run out.
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
        number: The how manieth of the job it is, from 1 on; None where none is lost, and none comes twice.

    Guarantees: J19.
    """

    of_a_job: ClassVar[bool] = True
    confirmed: ClassVar[bool] = False

    job_id: str
    data: dict[str, Any] | None = None
    number: int | None = field(default=None, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusJobStreamWaitingMessage(BusDataMessage):
    """Tells a requester that a stream waits for its reader, in case a message was lost; it comes behind the chunks.

    Args:
        job_id: The job's id.
        sent: How many chunks were sent, from the start of the job on.

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
        until: How many chunks may be sent in all, from the start of the job on.

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


# --- for pipelines


@bus_message
class BusFrameMessage(BusDataMessage):
    """Carries a frame from one pipeline to another.

    Args:
        frame: A `workerbus.pipeline.Frame`; the core does not look into it. All receivers get this one, so each takes a
            copy.
        direction: The `workerbus.pipeline.FrameDirection` in which the frame travels there: DOWNSTREAM frames come in
            at the first processor, UPSTREAM frames at the last.
        bridge: The name of the bridge that the frame belongs to, where there are several.
        late_since: The number of its sender's deactivation, for a frame that the sender lets out after that; else
            None. A bridged worker that has become active since then ignores the frame.
        process: The id of the process in whose order that number is; None for that of the receiver.

    Guarantees: L8.
    """

    confirmed: ClassVar[bool] = False

    frame: Any
    direction: Any
    bridge: str | None = None
    late_since: int | None = field(default=None, metadata={IF_SET: True})
    process: str | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusTTSSpeakMessage(BusDataMessage):
    """Asks a pipeline worker to speak.

    Args:
        text: What to say.
        append_to_context: Whether the text becomes part of the conversation; None leaves it to the pipeline.
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
"""The classes of messages that an inactive worker still takes: all but frames, speech and custom messages."""

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
