"""What became of each job, worked out from a recording (J1, J2, O2).

Nothing but records goes in, and nothing but values comes out: pictures are drawn from these.
"""

from collections.abc import Iterable

from attrs import define, field, frozen

from workerbus._values import JobStatus
from workerbus.recording._records import ANSWERS, BEGINS, CANCEL, CHUNK, ENDS, REQUEST, UPDATES, Record


@frozen
class RecordedJob:
    """A job that one worker was asked for. The jobs of a group have one id.

    All times are in seconds, by the clock of the recording.

    Args:
        job_id: The job's id.
        worker: The name of the worker, or the pool, that was asked.
        name: The job's name.
        requester: The name of the requester.
        asked: When the request passed.
        parent: The job in whose handler that was, as job id and worker; None if there is none.
        attempt: The number of the attempt at the job, from 1.
        handler: The name of the worker that ran its handler (in a pool, the member); None if none began.
        begun: When its handler began; None if it did not, or this was not recorded.
        ended: When its handler had ended; None if it did not.
        updates: When updates passed.
        chunks: When chunks of its stream passed.
        cancelled: When the requester told the worker to stop; None if it did not.
        reason: Why it was cancelled, in words; for a job that was not completed, the name of the exception's class.
        answered: When the answer passed; None if none did.
        status: How the job ended; None if it has no answer.
        size: About how many bytes its payload has.
        answer_size: About how many bytes its answer has.

    Guarantees: J1, J2.
    """

    job_id: str
    worker: str
    name: str | None
    requester: str
    asked: float
    parent: tuple[str, str] | None = None
    attempt: int = 1
    handler: str | None = None
    begun: float | None = None
    ended: float | None = None
    updates: tuple[float, ...] = ()
    chunks: tuple[float, ...] = ()
    cancelled: float | None = None
    reason: str | None = None
    answered: float | None = None
    status: JobStatus | None = None
    size: int = 0
    answer_size: int = 0

    @property
    def outcome(self) -> str:
        """How it ended, in one word: its status, or ``"open"``."""
        return "open" if self.status is None else self.status.value


@define
class _Job:
    request: Record
    handler: str | None = None
    begun: float | None = None
    ended: float | None = None
    updates: list[float] = field(factory=list)
    chunks: list[float] = field(factory=list)
    cancel: Record | None = None
    answer: Record | None = None

    def take(self, record: Record) -> None:
        # What comes after the answer changes nothing, as for the requester; only its handler may still run.
        kind = record.kind
        if kind == ENDS:
            self.ended = record.time if self.ended is None else self.ended
        elif kind == BEGINS:
            if self.begun is None:
                self.handler, self.begun = record.source, record.time
        elif self.answer is not None:
            return
        elif kind in ANSWERS:
            self.answer = record
        elif kind == CANCEL:
            self.cancel = self.cancel or record
        elif kind in UPDATES:
            self.updates.append(record.time)
        elif kind == CHUNK:
            self.chunks.append(record.time)

    def done(self) -> RecordedJob:
        request, answer, cancel = self.request, self.answer, self.cancel
        reason = None if answer is None else answer.reason
        assert request.job_id is not None
        return RecordedJob(
            job_id=request.job_id,
            worker=_asked(request),
            name=request.name,
            requester=request.source,
            asked=request.time,
            parent=request.parent,
            attempt=request.attempt,
            handler=self.handler,
            begun=self.begun,
            ended=self.ended,
            updates=tuple(self.updates),
            chunks=tuple(self.chunks),
            cancelled=None if cancel is None else cancel.time,
            reason=reason if cancel is None or cancel.reason is None else cancel.reason,
            answered=None if answer is None else answer.time,
            status=None if answer is None else answer.status,
            size=request.size,
            answer_size=0 if answer is None else answer.size,
        )


def _asked(request: Record) -> str:
    return request.asked_as or request.target or "?"


def jobs_of(records: Iterable[Record]) -> list[RecordedJob]:
    """Return the jobs whose requests were recorded, in the order of asking.

    A request that passes a second time is the same job; records of a job whose request was not recorded are left out.
    """
    jobs: dict[tuple[str, str], _Job] = {}
    by_target: dict[tuple[str, str], tuple[str, str]] = {}
    for record in records:
        if record.job_id is None:
            continue
        if record.kind == REQUEST:
            key = record.job_id, _asked(record)
            jobs.setdefault(key, _Job(record))
            by_target[record.job_id, record.target or "?"] = key
            continue
        worker = record.target if record.kind in (CANCEL, BEGINS, ENDS) else record.source
        key = record.job_id, worker or "?"
        job = jobs.get(key) or jobs.get(by_target.get(key, key))
        if job is not None:
            job.take(record)
    return [job.done() for job in jobs.values()]
