"""Answers in words, for the errors of those who have asked (J8)."""

from typing import Any, Final

from workerbus._values import JobStatus

_NAMES_ITS_WORKER: Final = frozenset({"Inactive", "PoolFull", "Refused", "WorkerFailed", "WorkerGone"})
"""The types of answers that the library gives in the place of a worker, and whose texts say all."""


def bad_answer(worker: str, status: JobStatus, response: dict[str, Any]) -> str:
    """Return what a requester is told of an answer that is not COMPLETED, in words."""
    text, kind = response.get("error") or response.get("reason") or "no reason given", response.get("type")
    if kind in _NAMES_ITS_WORKER:
        return str(text)
    how = {
        JobStatus.ERROR: f"raised {kind}:" if kind else "answered with an error:",
        JobStatus.FAILED: "failed:",
        JobStatus.CANCELLED: "was cancelled:",
    }[status]
    return f"worker {worker!r} {how} {text}"
