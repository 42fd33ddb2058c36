"""The messages that travel over a bus. All are frozen: one object reaches every subscriber (N5).

A class chooses its lane by its base: `BusSystemMessage` overtakes `BusDataMessage`. What the bus must know to route a
message is a class variable here, set once per class, so that sending looks nothing up.

Own messages are declared with `bus_message`. A subclass with fields of its own but without the decorator would get no
constructor for them, so building one is refused with an error that names the decorator.
"""

from inspect import get_annotations
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform

from attrs import field, frozen

from workerbus._vocabulary import JobStatus
from workerbus.errors import MessageTypeError

T = TypeVar("T")


def _refuse_undecorated(cls: type[Any], *_args: Any, **_kwargs: Any) -> Any:
    name = next(base.__name__ for base in cls.__mro__ if base.__dict__.get("__new__") is _REFUSAL)
    raise MessageTypeError(
        f"{name} has fields of its own but no constructor for them: put @bus_message over class {name}"
    )


_REFUSAL: Final = staticmethod(_refuse_undecorated)


def _own_fields(cls: type[Any]) -> list[str]:
    return [name for name, kind in get_annotations(cls).items() if "ClassVar" not in str(kind)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _keywords_only(cls: type[T]) -> type[T]:
    return frozen(cls, kw_only=True)


@_keywords_only
class BusMessage:
    """The base of all messages. Send a `BusDataMessage` or a `BusSystemMessage`, which say how it travels.

    Args:
        source: The name of the sender.
        target: The name of the one it is meant for; None is everybody.
    """

    system: ClassVar[bool | None] = None
    local: ClassVar[bool] = False
    announcement: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    of_a_job: ClassVar[bool] = False

    source: str
    target: str | None = None

    def __init_subclass__(cls) -> None:
        """Settle how the class travels, and refuse fields that nothing would set (N5)."""
        super().__init_subclass__()
        cls.local = issubclass(cls, BusLocalMessage)
        if "__attrs_attrs__" not in cls.__dict__ and _own_fields(cls):
            cls.__new__ = _REFUSAL  # type: ignore[method-assign]  # taken back by bus_message


class BusLocalMessage:
    """A mixin: the message stays on this bus and never reaches a network (B8)."""

    __slots__ = ()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def bus_message(cls: type[T]) -> type[T]:
    """Make a message of a class with annotated fields: frozen, with a constructor (N5).

    The fields come positionally in their order, ``source`` and ``target`` by keyword::

        @bus_message
        class Reading(BusDataMessage):
            celsius: float


        await worker.send_bus_message(Reading(21.5, source=worker.name))

    Raises:
        MessageTypeError: The class derives neither from `BusDataMessage` nor from `BusSystemMessage`, or from both.
    """
    if not (isinstance(cls, type) and issubclass(cls, BusMessage)) or cls.system is None:
        raise MessageTypeError(
            f"@bus_message is for subclasses of BusDataMessage or BusSystemMessage, which say the lane, not for {cls!r}"
        )
    if issubclass(cls, BusDataMessage) and issubclass(cls, BusSystemMessage):
        raise MessageTypeError(f"{cls.__name__} derives from both BusDataMessage and BusSystemMessage: choose one lane")
    if cls.__dict__.get("__new__") is not None:
        del cls.__new__
    return frozen(cls)


@_keywords_only
class BusDataMessage(BusMessage):
    """A message of normal priority, handled in the order in which it was sent."""

    system: ClassVar[bool | None] = False


@_keywords_only
class BusSystemMessage(BusMessage):
    """A message that is handled before data messages that wait."""

    system: ClassVar[bool | None] = True


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


@frozen
class WorkerRegistryEntry:
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
    """A snapshot of all workers of a runner, sent when it starts and to every runner that it meets.

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
        frame: The frame; the core does not look into it.
        direction: The way in which it shall travel there.
        bridge: The bridge that it belongs to, where there are several.
    """

    frame: Any
    direction: Any
    bridge: str | None = None


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
