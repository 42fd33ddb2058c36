"""What is wrong with jobs, for who asks and for who answers (J2, J6, J8, J14, J17)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from workerbus.errors._base import WorkerBusError, shown


class UnknownJobError(WorkerBusError, RuntimeError):
    """A worker was asked to send something for a job that it does not have, or no longer has.

    Attributes:
        job_id: The id that was given.
        worker_name: The name of the worker.

    Guarantees: J14.
    """

    def __init__(self, job_id: str, worker_name: str) -> None:
        super().__init__(
            f"worker {worker_name!r} has no open job {job_id!r}: it was never asked for it, or the job is over; a @job "
            "handler that answers after it has returned is declared with deferred=True"
        )
        self.job_id = job_id
        self.worker_name = worker_name


class PayloadError(WorkerBusError, TypeError):
    """The payload of a typed job does not fit its handler, or an answer or chunk does not fit the handler's annotation.

    Attributes:
        handler: The name of the handler, with its class.
        what: ``"payload"``, ``"answer"`` or ``"chunk"``.
        path: Where in it, as in ``words[0].text``; empty if it is the whole, or not known.

    Guarantees: J17.
    """

    def __init__(self, handler: str, what: str, text: str, path: str = "") -> None:
        where = f" at {path!r}" if path else ""
        super().__init__(f"the {what} of {handler} does not fit{where}: {text}")
        self.handler = handler
        self.what = what
        self.path = path


_ENDS: Final = ("raised ", "failed:", "was cancelled:", "answered ")
"""What a worker's end of a job can be: with these words a reason goes on, after the worker's name."""


class _JobOutcomeError(WorkerBusError):
    """What the two errors of a requester have in common."""

    def __init__(
        self,
        reason: str,
        *,
        job_id: str = "",
        job_name: str | None = None,
        worker_names: Sequence[str] = (),
        statuses: Mapping[str, str] | None = None,
        responses: Mapping[str, dict[str, Any]] | None = None,
        seconds: float | None = None,
        detail: str = "",
    ) -> None:
        after = "" if seconds is None else f" after {seconds:g} seconds"
        super().__init__(f"{self._title(job_name, worker_names, reason)}{after}{f' ({detail})' if detail else ''}")
        self.reason = reason
        self.job_id = job_id
        self.job_name = job_name
        self.worker_names: tuple[str, ...] = tuple(worker_names)
        self.seconds = seconds
        self.attempts: int = 1
        self.statuses: dict[str, str] = dict(statuses or {})
        self.responses: dict[str, dict[str, Any]] = dict(responses or {})

    @staticmethod
    def _title(job_name: str | None, worker_names: Sequence[str], reason: str) -> str:
        job = "job" if job_name is None else f"job {job_name!r}"
        if len(worker_names) != 1:
            return f"{job}: {reason}"
        worker = repr(worker_names[0])
        end = reason.removeprefix(f"worker {worker} ")
        if end.startswith(_ENDS):
            return f"{job} at {worker} {end}"
        return f"{job} at {worker}: {reason}"


class JobError(_JobOutcomeError):
    """A job did not complete.

    Attributes:
        reason: Why, in words; ``"timeout"`` if time ran out.
        job_id: The id of the job.
        job_name: The name of the job; None if it was asked for without one.
        worker_names: The names of the workers that were asked.
        seconds: The ``timeout`` that ran out, in seconds; None if that is not the reason.
        attempts: How often the job was asked for.
        statuses: Worker name to `JobStatus`, which is a `str`, of the workers that answered.
        responses: Worker name to the payload of its answer, of the same workers.

    Guarantees: J8.
    """


class JobGroupError(_JobOutcomeError):
    """A job group did not complete. The attributes are those of `JobError`.

    Guarantees: J8.
    """

    @staticmethod
    def _title(job_name: str | None, worker_names: Sequence[str], reason: str) -> str:
        job = "job group" if job_name is None else f"job group {job_name!r}"
        return f"{job}{f' of {shown(worker_names)}' if worker_names else ''}: {reason}"


class JobTimeoutError(JobError, TimeoutError):
    """The job's own ``timeout`` ran out before the answer came, or before the worker was ready.

    Its text says what the time was spent on: waiting for the worker, waiting for its turn there, or the work.

    Guarantees: J6, J8.
    """


class JobGroupTimeoutError(JobGroupError, TimeoutError):
    """The group's own ``timeout`` ran out before all answers came, or before all workers were ready.

    Guarantees: J6, J8.
    """


class JobFailure(WorkerBusError):  # noqa: N818 - the public name: a handler raises it to say FAILED, not "error"
    """Raised by a job handler to answer FAILED: the work could not be done, but not because of a bug.

    The requester gets ``{"error": reason, "type": "JobFailure"}``, plus any keyword arguments.

    Attributes:
        reason: Why, in words.
        data: The keyword arguments, a dict; they are merged into the answer.

    Guarantees: J2.
    """

    def __init__(self, reason: str, **data: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data
