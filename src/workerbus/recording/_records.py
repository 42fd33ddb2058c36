"""What is kept of a message that has passed, and of a handler that has begun or ended (O3).

Of its payload only the size is kept, unless the payload itself was asked for. What a record is made of is read off the
message where it passes, so that no message is held.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from attrs import field

from workerbus._values import JobStatus, Value, value
from workerbus.messages import (
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
    BusMessage,
    BusTTSSpeakMessage,
)

BEGINS: Final = "handler begins"
"""The kind of a record that is of no message: a handler begins. Its source runs it, its target is who was asked."""
ENDS: Final = "handler ends"
"""The kind of a record that is of no message: a handler has ended, be it before its answer or after it."""

REQUEST: Final = BusJobRequestMessage.__name__
CANCEL: Final = BusJobCancelMessage.__name__
UPDATES: Final = frozenset({BusJobUpdateMessage.__name__, BusJobUpdateUrgentMessage.__name__})
CHUNK: Final = BusJobStreamDataMessage.__name__
ANSWERS: Final = frozenset(
    {BusJobResponseMessage.__name__, BusJobResponseUrgentMessage.__name__, BusJobStreamEndMessage.__name__}
)
OF_STREAMS: Final = frozenset(
    {
        BusJobStreamStartMessage.__name__,
        BusJobStreamWaitingMessage.__name__,
        BusJobStreamWindowMessage.__name__,
    }
)
"""What a stream needs beside its chunks; in pictures it is left out."""
FROM_REQUESTER: Final = frozenset(
    {REQUEST, CANCEL, BusJobUpdateRequestMessage.__name__, BusJobStreamWindowMessage.__name__}
)


@value
class Record(Value):
    """A message that passed, or a handler that began or ended.

    Args:
        time: When, in seconds, by the clock of the event loop, which never goes back.
        kind: The name of the message's class, or `"handler begins"` or `"handler ends"`.
        source: The name of the sender; for a handler, that of the worker that runs it (in a pool, the member).
        target: The name of the receiver, None for everybody; for a handler, the worker that was asked.
        job_id: The job that it is about.
        name: The name of the job, in a request; the name of the frame's class, in a message that carries one.
        status: How the job ended, in an answer.
        reason: Why, in words, for a cancel and an end; for a failed worker and for an answer that is not COMPLETED, the
            name of the exception's class.
        size: About how many bytes the payload would have as JSON.
        parent: In a request, the job in whose handler it was sent, as job id and worker; None if there is none.
        asked_as: The shared name of pools in which the answer comes, if it is not the target.
        attempt: The number of the attempt at the job, from 1.
        payload: The payload, if payloads were asked for; else None.

    Guarantees: O3.
    """

    time: float
    kind: str
    source: str
    target: str | None = None
    job_id: str | None = None
    name: str | None = None
    status: JobStatus | None = None
    reason: str | None = None
    size: int = 0
    parent: tuple[str, str] | None = None
    asked_as: str | None = None
    attempt: int = 1
    payload: Any = field(default=None, repr=False)


Row = tuple[Any, ...]
"""The fields of a record behind ``time``, ``kind``, ``source`` and ``target``, in their order, without the payload."""

_BAD_ANSWER: Final = re.compile(
    r"(worker .*? (?:raised [\w.]+|failed|was cancelled|answered with an error)): .*", re.DOTALL
)
"""The reason of a cancel because of another worker's answer; what that said is payload."""


def _plain(message: Any) -> tuple[Row, Any]:
    reason = getattr(message, "reason", None)
    job_id = getattr(message, "job_id", None)
    kind: Any = type(message)
    fields = {name: getattr(message, name) for name in _fields(kind)}
    row = (
        job_id if isinstance(job_id, str) else None,
        None,
        None,
        reason if isinstance(reason, str) else None,
        size_of(fields),
        None,
        None,
        1,
    )
    return row, fields


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    every = (each.name for each in kind.__attrs_attrs__)
    return tuple(name for name in every if name not in ("source", "target", "headers", "job_id", "reason"))


def _of_request(message: BusJobRequestMessage) -> tuple[Row, Any]:
    payload, options = message.payload, message.options
    asked_as, attempt = (None, 1) if options is None else (options.asked_as, options.attempt)
    return (message.job_id, message.job_name, None, None, size_of(payload), None, asked_as, attempt), payload


def _of_answer(message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> tuple[Row, Any]:
    response = message.response
    reason = None
    if response is not None and message.status != JobStatus.COMPLETED:
        kind = response.get("type")
        reason = kind if isinstance(kind, str) else None
    return (message.job_id, None, message.status, reason, size_of(response), None, None, 1), response


def _of_stream_end(message: BusJobStreamEndMessage) -> tuple[Row, Any]:
    data = message.data
    return (message.job_id, None, JobStatus.COMPLETED, None, size_of(data), None, None, 1), data


def _of_data(message: BusJobStreamDataMessage | BusJobStreamStartMessage) -> tuple[Row, Any]:
    return (message.job_id, None, None, None, size_of(message.data), None, None, 1), message.data


def _of_update(message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> tuple[Row, Any]:
    return (message.job_id, None, None, None, size_of(message.update), None, None, 1), message.update


def _of_cancel(message: BusJobCancelMessage) -> tuple[Row, Any]:
    reason = message.reason
    if reason is not None and reason.startswith("worker "):
        reason = _BAD_ANSWER.sub(r"\1", reason)
    return (message.job_id, None, None, reason, 0, None, None, 1), message.reason


def _of_frame(message: BusFrameMessage) -> tuple[Row, Any]:
    return (None, type(message.frame).__name__, None, None, 0, None, None, 1), message.frame


def _of_speech(message: BusTTSSpeakMessage) -> tuple[Row, Any]:
    return (None, None, None, None, size_of(message.text), None, None, 1), message.text


_READERS: Final[dict[type, Callable[[Any], tuple[Row, Any]]]] = {
    BusJobRequestMessage: _of_request,
    BusJobResponseMessage: _of_answer,
    BusJobResponseUrgentMessage: _of_answer,
    BusJobStreamEndMessage: _of_stream_end,
    BusJobStreamDataMessage: _of_data,
    BusJobStreamStartMessage: _of_data,
    BusJobUpdateMessage: _of_update,
    BusJobUpdateUrgentMessage: _of_update,
    BusJobCancelMessage: _of_cancel,
    BusFrameMessage: _of_frame,
    BusTTSSpeakMessage: _of_speech,
}


def read(message: BusMessage) -> tuple[Row, Any]:
    """Return what is kept of a message, and its payload."""
    return _READERS.get(type(message), _plain)(message)


_TEXT: Final = (str, bytes, bytearray)
_PLAIN: Final = (int, float, type(None))
MOST_ITEMS: Final = 1_000
"""So many items of a payload are looked at for its size; beyond that it is larger than what is said."""


def size_of(payload: object) -> int:
    """Return about how many bytes a payload would have as JSON.

    It is looked at in its sender's step, so a long one is not looked at whole: the size is then less than the true one.
    """
    if not payload:
        return 0
    size, looked_at = 0, 0
    stack = [payload]
    while stack and looked_at < MOST_ITEMS:
        looked_at += 1
        item = stack.pop()
        if isinstance(item, _TEXT):
            size += len(item) + 2
        elif isinstance(item, _PLAIN):  # before the classes that take longer to ask for
            size += 8
        elif isinstance(item, (dict, Mapping)):
            size += 2
            for key, held in item.items():
                size += len(key) + 4 if isinstance(key, str) else 8
                stack.append(held)
                if len(stack) > MOST_ITEMS:
                    break
        elif isinstance(item, (list, tuple, Sequence)):
            size += 2
            stack += item[:MOST_ITEMS]
        else:
            size += 8
    return size
