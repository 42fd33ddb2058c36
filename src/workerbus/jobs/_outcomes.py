"""What a requester is told: of what a handler has returned or raised, and of a cancellation (J2, J5, J6)."""

from typing import Any, Final

from workerbus._values import JobStatus
from workerbus.errors import JobFailure, text_of
from workerbus.jobs._state import TIMEOUT
from workerbus.messages import BusJobCancelMessage, BusJobRequestMessage

REQUESTER_GONE: Final = "the process of the requester is gone"
"""Why a job is cancelled whose requester cannot say so."""


def error_payload(exc: BaseException) -> dict[str, Any]:
    """Return the payload that tells a requester of an exception."""
    return {"error": text_of(exc), "type": type(exc).__name__}


def _failure_payload(error: JobFailure) -> dict[str, Any]:
    try:
        data, reason = {**error.data}, error.reason
    except Exception:  # noqa: BLE001 - a subclass whose __init__ calls no other one, or that has its own of these names
        data, reason = {}, None
    return {**data, "error": reason if isinstance(reason, str) else text_of(error), "type": "JobFailure"}


def cancelled_payload(reason: str | None) -> dict[str, Any]:
    """Return the payload that tells a requester of a cancellation."""
    return {"error": reason or "cancelled", "type": "TimeoutError" if reason == TIMEOUT else "Cancelled"}


def cancel_of(request: BusJobRequestMessage, reason: str | None) -> BusJobCancelMessage:
    """Return the cancel that the requester of a job would have sent."""
    return BusJobCancelMessage(
        request.job_id, reason, source=request.source, target=request.target, headers=request.headers
    )


def outcome(result: object, error: BaseException | None, job_name: str | None) -> tuple[JobStatus, dict[str, Any]]:
    """Turn what a handler has returned or raised into the status and payload of an answer."""
    if isinstance(error, JobFailure):
        return JobStatus.FAILED, _failure_payload(error)
    if error is not None:
        return JobStatus.ERROR, error_payload(error)
    if result is None:
        return JobStatus.COMPLETED, {}
    if isinstance(result, dict):
        return JobStatus.COMPLETED, result
    return JobStatus.ERROR, error_payload(
        TypeError(f"the handler of job {job_name!r} returned {type(result).__name__}; return a dict, or nothing")
    )
