"""What those who record, trace, measure and look at a program are to say of it, worked out from its ledger alone."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, TypeVar

from properties.measured_world import HERE, WITHIN, Asked, Ledger, Passed, Run
from workerbus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    JobStatus,
)
from workerbus.otel import Names

ANSWERS = (BusJobResponseMessage, BusJobResponseUrgentMessage, BusJobStreamEndMessage)
UPDATES = (BusJobUpdateMessage, BusJobUpdateUrgentMessage)
CHUNKS = (BusJobStreamDataMessage, BusJobStreamStartMessage)
STORY = {
    **dict.fromkeys(ANSWERS, "answered"),
    **dict.fromkeys(UPDATES, "update"),
    **dict.fromkeys(CHUNKS, "chunk"),
    BusJobRequestMessage: "asked",
    BusJobCancelMessage: "cancel",
}
Key = tuple[str, str]


T = TypeVar("T")


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Let a function of a ledger work it out once for each look at the program."""

    @wraps(function)
    def known(ledger: Ledger, *args: Any) -> T:
        key = (function, *args)
        if key not in ledger.worked_out:
            ledger.worked_out[key] = function(ledger, *args)
        result: T = ledger.worked_out[key]
        return result

    return known


KINDS = frozenset(STORY.values())


def status_of(message: Any) -> JobStatus:
    """How an answer says that a job ended."""
    return JobStatus(getattr(message, "status", JobStatus.COMPLETED))


def error_of(message: Any) -> str | None:
    """The class of the error that an answer tells of."""
    bad = status_of(message) in (JobStatus.ERROR, JobStatus.FAILED)
    return (message.response or {}).get("type", str(message.status)) if bad else None


def place_of(worker: str) -> str:
    """At which place a worker is, or a member of a pool."""
    return "here" if worker.split("/")[0].split("-")[0] in (*HERE, "fragile") else "there"


def of_jobs(passed: Iterable[Passed]) -> Iterator[tuple[Passed, Any]]:
    """The messages of jobs."""
    for each in passed:
        if type(each.message) in STORY:
            yield each, each.message


def within_of(request: Any) -> str:
    """In which handler a job was asked for, as its header says."""
    return str(dict(request.headers or {}).get(WITHIN, ""))


@once
def all_sent(ledger: Ledger, at: str | None = None) -> list[tuple[Passed, Any]]:
    """The messages of jobs, each where it was sent; of one place, or of all."""
    passed = [each for place, all_of_it in ledger.passed.items() if at in (None, place) for each in all_of_it]
    return [(each, m) for each, m in of_jobs(sorted(passed, key=lambda each: each.time)) if not each.foreign]


@once
def runs_of(ledger: Ledger, place: str) -> dict[Key, Run]:
    """The first run of the handler of each job at a place."""
    found: dict[Key, Run] = {}
    for run in ledger.runs:
        if place_of(run.worker) == place:
            found.setdefault((run.job_id, run.asked), run)
    return found


@once
def jobs_at(ledger: Ledger, place: str) -> dict[Key, dict[str, Any]]:
    """What a recording at a place is to say of each job."""
    jobs: dict[Key, dict[str, Any]] = {}
    for each, message in of_jobs(ledger.passed[place]):
        if isinstance(message, BusJobRequestMessage):
            within = "" if each.foreign else within_of(message)
            parent = tuple(within.rsplit("@", 1)) if within else None
            told = {"name": message.job_name, "requester": message.source, "asked": each.time, "parent": parent}
            empty = {"updates": (), "chunks": (), "cancelled": None, "answered": None, "status": None, "error": None}
            jobs.setdefault((message.job_id, message.target or ""), {**told, **empty})
            continue
        worker = message.target if isinstance(message, BusJobCancelMessage) else message.source
        job = jobs.get((message.job_id, worker or ""))
        if job is None or job["answered"] is not None:
            continue
        if isinstance(message, ANSWERS):
            job["answered"], job["status"] = each.time, status_of(message)
            job["error"] = error_of(message)
        elif isinstance(message, BusJobCancelMessage):
            job["cancelled"] = each.time if job["cancelled"] is None else job["cancelled"]
        elif isinstance(message, UPDATES):
            job["updates"] += (each.time,)
        elif type(message) is BusJobStreamDataMessage:
            job["chunks"] += (each.time,)
    runs = runs_of(ledger, place)
    for key, job in jobs.items():
        run = runs.get(key)
        job["handler"], job["begun"], job["ended"] = (
            (None, None, None) if run is None else (run.worker, run.begun, run.ended)
        )
    return jobs


@once
def answered_by(ledger: Ledger) -> dict[str, Counter[JobStatus]]:
    """How many jobs each worker has answered, and how."""
    counts: dict[str, Counter[JobStatus]] = {}
    for _, message in all_sent(ledger):
        if isinstance(message, ANSWERS):
            counts.setdefault(message.source, Counter())[status_of(message)] += 1
    return counts


@once
def requested_by(ledger: Ledger) -> Counter[str]:
    """How many requests each has sent."""
    return Counter(m.source for _, m in all_sent(ledger) if isinstance(m, BusJobRequestMessage))


def delivered_to(ledger: Ledger, runner: str, place: str, *, told_of_others: bool) -> int:
    """Return how many messages came for a runner, or for all, besides what it has announced itself.

    What others announce is told to it where they may be in another process.
    """
    announced_by = [
        getattr(each.message, "runner", None) for each in ledger.passed[place] if each.message.target in (None, runner)
    ]
    return sum(who is None or (told_of_others and who != runner) for who in announced_by)


def open_at(ledger: Ledger, worker: str) -> set[str]:
    """The jobs that a worker has not answered."""
    passed = [message for _, message in of_jobs(ledger.passed[place_of(worker)])]
    asked = {m.job_id for m in passed if isinstance(m, BusJobRequestMessage) and m.target == worker}
    return asked - {m.job_id for m in passed if isinstance(m, ANSWERS) and m.source == worker}


def asked_by_id(ledger: Ledger) -> dict[str, Asked]:
    """Who has asked for what, by the job's id."""
    return {each.job_id: each for each in ledger.asked}


@once
def requests(ledger: Ledger) -> dict[Key, tuple[float, Any]]:
    """The requests that were sent, by job and worker, and when."""
    sent = ((each, m) for each, m in all_sent(ledger) if isinstance(m, BusJobRequestMessage))
    return {(m.job_id, m.target or ""): (each.time, m) for each, m in sent}


@once
def names(ledger: Ledger) -> dict[str, str | None]:
    """The names of all jobs that were sent for."""
    return {job_id: m.job_name for (job_id, _), (_, m) in requests(ledger).items()}


def name_of(ledger: Ledger, job_id: str) -> str | None:
    """The name of a job."""
    return names(ledger)[job_id]


@once
def children(ledger: Ledger) -> dict[str, set[str]]:
    """The jobs that were asked for in each job."""
    found: dict[str, set[str]] = {}
    for (job_id, _), (_, m) in requests(ledger).items():
        found.setdefault(within_of(m).rsplit("@", 1)[0], set()).add(job_id)
    return found


def family(ledger: Ledger, job_id: str) -> set[str]:
    """A job, and those that were asked for in it, and in those."""
    found = {job_id}
    while more := {child for job in found for child in children(ledger).get(job, ())} - found:
        found |= more
    return found


def steps_of(
    ledger: Ledger, jobs: set[str], place: str | None = None
) -> list[tuple[float, str, str, str | None, str | None, str]]:
    """The steps of the stories of some jobs."""
    steps = []
    for each, m in all_sent(ledger, place):
        if m.job_id in jobs:
            kind = STORY[type(m)]
            text = {"asked": "job_name", "cancel": "reason", "answered": "status"}.get(kind, "")
            steps.append((each.time, kind, m.source, m.target, getattr(m, text, None), m.job_id))
    return steps


Leg = tuple[float, float | None, str | None, int]


@once
def legs(ledger: Ledger) -> dict[str, dict[str, Leg]]:
    """What each worker has done for each job: from when to when, how it ended, and how many updates there were."""
    found: dict[str, dict[str, Leg]] = {}
    for each, m in all_sent(ledger):
        legs = found.setdefault(m.job_id, {})
        if isinstance(m, BusJobRequestMessage):
            legs[m.target or ""] = (each.time, None, None, 0)
        elif isinstance(m, ANSWERS) and legs[m.source][1] is None:
            legs[m.source] = (legs[m.source][0], each.time, status_of(m).value, legs[m.source][3])
        elif isinstance(m, (*UPDATES, *CHUNKS)):
            legs[m.source] = (*legs[m.source][:3], legs[m.source][3] + 1)
    return found


def legs_of(ledger: Ledger, job_id: str) -> dict[str, Leg]:
    """What each worker has done for a job."""
    return legs(ledger)[job_id]


def updates_of(ledger: Ledger, job_id: str, worker: str) -> int:
    """How many updates and chunks a worker has sent for a job."""
    return legs_of(ledger, job_id)[worker][3]


@once
def answered_by_member(ledger: Ledger, member: str) -> Counter[JobStatus]:
    """How the jobs ended that a member of a pool has done."""
    jobs = jobs_at(ledger, "here")
    done = [each for each in jobs.values() if each["handler"] == member and each["status"] is not None]
    return Counter(each["status"] for each in done)


BY = {
    Names.PROCESS_DURATION: (Names.DESTINATION, Names.JOB, Names.STATUS, Names.ERROR),
    Names.QUEUE_DURATION: (Names.DESTINATION, Names.JOB),
    Names.SEND_DURATION: (Names.DESTINATION, Names.JOB),
    Names.JOB_DURATION: (Names.DESTINATION, Names.JOB, Names.STATUS, Names.ERROR),
}
"""By what the durations are told apart here."""


@once
def durations(ledger: Ledger, place: str) -> dict[str, dict[tuple[Any, ...], list[float]]]:
    """The durations of a place, by name and attributes."""
    found: dict[str, dict[tuple[Any, ...], list[float]]] = {name: {} for name in BY}
    jobs = jobs_at(ledger, place)
    for run in ledger.runs:
        if place_of(run.worker) != place or run.ended is None:
            continue
        job = jobs[run.job_id, run.asked]
        answered = job["answered"] is not None and job["answered"] <= run.ended
        told = (job["status"].value, job["error"]) if answered else (None, None)
        key = (run.asked, run.name, *told)
        found[Names.PROCESS_DURATION].setdefault(key, []).append(run.ended - run.begun)
    for run in ledger.runs:
        if place_of(run.worker) == place:
            waited = run.begun - jobs[run.job_id, run.asked]["asked"]
            found[Names.QUEUE_DURATION].setdefault((run.asked, run.name), []).append(waited)
    for asked in ledger.asked:
        over = over_of(ledger, asked)
        if over is not None and place_of_requester(asked.requester) == place:
            key = (
                asked.workers[0] if asked.single else None,
                name_of(ledger, asked.job_id),
                over[0],
                why(ledger, asked, *over),
            )
            found[Names.JOB_DURATION].setdefault(key, []).append(over[1] - asked.begun)
    for (_, worker), (_, m) in requests(ledger).items():
        if place_of_requester(m.source) == place:
            found[Names.SEND_DURATION].setdefault((worker, m.job_name), []).append(0.0)
    return found


def place_of_requester(name: str) -> str:
    """At which place a runner or a worker is."""
    return {"a": "here", "b": "here", "c": "there"}.get(name) or place_of(name)


@once
def all_known(ledger: Ledger) -> bool:
    """Whether it is known of all jobs how they were over, and when: nobody was cut short while asking."""
    return not ledger.cut and all(over_of(ledger, each) is not None for each in ledger.asked)


@once
def answers_at(ledger: Ledger, place: str) -> dict[str, dict[str, tuple[float, JobStatus, Any]]]:
    """The first answers of each job that have passed at a place: worker to when, how it ended, and the response."""
    found: dict[str, dict[str, tuple[float, JobStatus, Any]]] = {}
    for each, m in of_jobs(ledger.passed[place]):
        if isinstance(m, ANSWERS):
            found.setdefault(m.job_id, {}).setdefault(m.source, (each.time, status_of(m), getattr(m, "response", None)))
    return found


def why(ledger: Ledger, asked: Asked, state: str, time: float) -> str | None:
    """Why a job or group did not complete: the error of the first bad answer by then, or else its state."""
    if state != "failed":
        return state if state == "timed_out" else None
    answers = answers_at(ledger, place_of_requester(asked.requester)).get(asked.job_id, {})
    bad = [response for at, status, response in answers.values() if status is not JobStatus.COMPLETED and at <= time]
    return str((bad[0] or {}).get("type", state)) if bad else state


def over_of(ledger: Ledger, asked: Asked) -> tuple[str, float] | None:
    """How a job or group was over, and when; None if it is not."""
    answers = answers_at(ledger, place_of_requester(asked.requester)).get(asked.job_id, {})
    all_in = max((time for time, _, _ in answers.values()), default=0.0) if len(answers) == len(asked.workers) else None
    if asked.outcome == "completed":
        if all_in is None:  # one that was asked has gone before it has answered, which its requester knows by itself
            assert asked.ended is not None
            return "completed", asked.ended
        return "completed", all_in
    if asked.outcome == "timed_out":
        assert asked.timeout is not None
        return "timed_out", asked.begun + asked.timeout
    if asked.outcome == "failed":
        bad = [time for time, status, _ in answers.values() if status is not JobStatus.COMPLETED]
        return ("failed", min(bad)) if bad else None  # else its worker has gone before it has answered
    if asked.left is not None and asked.left != all_in:
        return ("completed", all_in) if all_in is not None and all_in < asked.left else ("cancelled", asked.left)
    return None
