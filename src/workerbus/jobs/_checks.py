"""Checks of arguments and of answers, made before any table is touched (J1, J6, J12).

Knows nothing of jobs that are open.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from workerbus._values import JobStatus
from workerbus.errors import near_names
from workerbus.messages import BusJobResponseMessage, BusJobResponseUrgentMessage

Response = BusJobResponseMessage | BusJobResponseUrgentMessage


def check_request(worker_names: Sequence[str], name: object, payload: object, timeout: object, headers: object) -> None:
    """Check the arguments of a request.

    Raises:
        TypeError: A worker name or the job's is not a str, the payload neither a dict nor None, the timeout neither a
            number nor None, or the headers are not str by str.
        ValueError: A worker is named twice, or the timeout is negative or not a number.
    """
    for each in worker_names:
        if not isinstance(each, str):
            raise TypeError(f"workers are asked by name, a str, not {each!r}")
    if len(worker_names) > 1 and len(set(worker_names)) != len(worker_names):
        twice = sorted({each for each in worker_names if list(worker_names).count(each) > 1})
        raise ValueError(f"a job group asks each worker once, but has {', '.join(map(repr, twice))} more than once")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a job's name is a str, not {name!r}; a handler is passed without name=, as in job('w', W.do)")
    if payload is not None and type(payload) is not dict and not isinstance(payload, Mapping):
        raise TypeError(f"a job's payload is a dict or None, not {payload!r}")
    if headers is not None and not (isinstance(headers, Mapping) and all(map(_is_text, headers.items()))):
        raise TypeError(f"a job's headers are str by str, or None, not {headers!r}")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
        if not timeout >= 0:
            raise ValueError(f"timeout is a number of seconds, not less than 0, not {timeout!r}")


N = TypeVar("N", tuple[str, ...], list[str])


def asked(worker_names: N, payloads: object) -> N:
    """Return the names of the workers to ask: those that were given, or else those that have a payload of their own.

    Raises:
        TypeError: The payloads are not dicts by worker name.
        ValueError: One is for a worker that is not asked.
    """
    if payloads is None:
        return worker_names
    if not isinstance(payloads, Mapping):
        raise TypeError(f"payloads are dicts by worker name, not {payloads!r}")
    for worker, payload in payloads.items():
        if not isinstance(worker, str) or not (payload is None or isinstance(payload, Mapping)):
            raise TypeError(f"payloads are dicts by worker name; that of {worker!r} is {payload!r}")
        if worker_names and worker not in worker_names:
            raise ValueError(f"there is a payload for {worker!r}, who is not asked; {near_names(worker, worker_names)}")
    return worker_names or type(worker_names)(payloads)


def _is_text(header: tuple[object, object]) -> bool:
    return isinstance(header[0], str) and isinstance(header[1], str)


def check_seconds_left(seconds: object) -> None:
    """Check the ``seconds_left`` of a request that has arrived; negative and infinite ones are fine.

    Raises:
        TypeError: It is neither an int nor a float.
        ValueError: It is the float ``nan``.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"seconds_left is a number of seconds or None, not {seconds!r}")
    if math.isnan(seconds):
        raise ValueError("seconds_left is a number of seconds or None, not nan")


def answered(message: Response) -> dict[str, Any]:
    """Return what an answer says: its own dict, whatever its truth is."""
    return {} if message.response is None else message.response


def repaired(message: Response) -> Response:
    """Return an answer with an unknown status, or with a payload that is no dict, as an ERROR.

    This library makes no such answers. Dropped, one would leave its requester without an outcome.
    """
    status: Any = message.status
    try:
        status = JobStatus(status)
    except ValueError:
        status = JobStatus.ERROR
    response: Any = message.response
    if response is not None and not isinstance(response, dict):
        text = f"worker {message.source!r} answered with {type(response).__name__}, not with a dict"
        status, response = JobStatus.ERROR, {"error": text, "type": "TypeError"}
    return type(message)(
        message.job_id, status, response, source=message.source, target=message.target, headers=message.headers
    )
