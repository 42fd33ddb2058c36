"""What a timeline shows: rows of workers, in each the jobs that it did and the waits of those who asked, by time.

Pure: records go in, and bars with their places come out. `_timeline_svg` draws them, and `_chrome` writes them down.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from attrs import frozen

from workerbus.recording._jobs import RecordedJob, jobs_of
from workerbus.recording._naming import Naming, naming_of
from workerbus.recording._records import Record

MOST_JOBS: Final = 2_000
"""How many jobs a timeline has at most by default."""

_WORST: Final = ("open", "error", "failed", "cancelled", "completed")

T = TypeVar("T")


@frozen
class Bar:
    """A job in the row of the worker that did it.

    Args:
        job: The job; names and ids are those of the picture, times count from the first record on.
        place: In which line of its row, from 0 on: bars in one line do not overlap.
        end: When it was answered, and its handler had ended; of one that is open, the end of the recording.
        number: A number of its own, from 1 on.
    """

    job: RecordedJob
    place: int
    end: float
    number: int


@frozen
class Wait:
    """The time in which a requester waited for a job, or for all jobs of a group.

    Args:
        jobs: The jobs, one for each worker.
        place: In which line of its row, from 0 on.
        begin: When the first was asked for.
        end: When the last was answered.
        outcome: How they ended, in one word: the worst of them.
    """

    jobs: tuple[RecordedJob, ...]
    place: int
    begin: float
    end: float
    outcome: str

    @property
    def label(self) -> str:
        """What was waited for: ``count``, or ``count`` and the number for a group of three."""
        name = self.jobs[0].name or "a job"
        return f"{name} \N{MULTIPLICATION SIGN}{len(self.jobs)}" if len(self.jobs) > 1 else name


@frozen
class Lane:
    """What there is to say of one worker or requester.

    Args:
        name: Its name.
        waits: What it has asked for, and how long that took.
        bars: The jobs that it did.
    """

    name: str
    waits: tuple[Wait, ...]
    bars: tuple[Bar, ...]

    @property
    def wait_places(self) -> int:
        """How many lines its waits take."""
        return max((each.place + 1 for each in self.waits), default=0)

    @property
    def bar_places(self) -> int:
        """How many lines its jobs take."""
        return max((each.place + 1 for each in self.bars), default=0)


@frozen
class Timeline:
    """What a timeline shows.

    Args:
        lanes: The workers and requesters, in the order in which they are met.
        length: How long it is, in seconds.
        left_out: How many jobs come behind these, and are not shown.
    """

    lanes: tuple[Lane, ...]
    length: float
    left_out: int


def timeline_of(records: Sequence[Record], most: int | None = MOST_JOBS, shortest: float = 0.0) -> Timeline:
    """Return the timeline of some records.

    Args:
        records: The records.
        most: How many jobs there are at most; None for all.
        shortest: How many seconds a bar takes at least of its line.
    """
    if most is not None and most < 1:
        raise ValueError(f"most is at least 1, not {most!r}")
    naming = naming_of(records)
    begun = records[0].time if records else 0.0
    everything = [_told(job, naming, begun) for job in jobs_of(records)]
    shown = everything if most is None else everything[:most]
    length = (records[-1].time - begun) if records else 0.0
    if len(shown) < len(everything):
        length = max((_end(job, length) for job in shown), default=length)
    return Timeline(_lanes(shown, length, shortest), length, len(everything) - len(shown))


def _told(job: RecordedJob, naming: Naming, begun: float) -> RecordedJob:
    def since(time: float | None) -> float | None:
        return None if time is None else time - begun

    parent = None if job.parent is None else (naming.job_id(job.parent[0], None), naming.name(job.parent[1]))
    return RecordedJob(
        job_id=naming.job_id(job.job_id, job.requester),
        worker=naming.name(job.worker),
        name=job.name,
        requester=naming.name(job.requester),
        asked=job.asked - begun,
        parent=parent,
        attempt=job.attempt,
        handler=None if job.handler is None else naming.name(job.handler),
        begun=since(job.begun),
        ended=since(job.ended),
        updates=tuple(time - begun for time in job.updates),
        chunks=tuple(time - begun for time in job.chunks),
        cancelled=since(job.cancelled),
        reason=None if job.reason is None else naming.text(job.reason),
        answered=since(job.answered),
        status=job.status,
        size=job.size,
        answer_size=job.answer_size,
    )


def _end(job: RecordedJob, length: float) -> float:
    if job.answered is None:
        return length
    return max(job.answered, job.ended or 0.0)


def _lanes(jobs: Sequence[RecordedJob], length: float, shortest: float) -> tuple[Lane, ...]:
    names: dict[str, None] = {}
    groups: dict[tuple[str, str], list[RecordedJob]] = {}
    done: dict[str, list[tuple[int, RecordedJob]]] = {}
    for number, job in enumerate(jobs, 1):
        worker = job.handler or job.worker
        names[job.requester] = names[worker] = None
        groups.setdefault((job.requester, job.job_id), []).append(job)
        done.setdefault(worker, []).append((number, job))
    lanes: list[Lane] = []
    for name in names:
        waiting = [tuple(group) for (requester, _), group in groups.items() if requester == name]
        waits = _placed(waiting, lambda group: group[0].asked, lambda group: _answered(group, length), shortest)
        bars = _placed(done.get(name, ()), lambda each: each[1].asked, lambda each: _end(each[1], length), shortest)
        lanes.append(
            Lane(
                name,
                tuple(
                    Wait(group, place, group[0].asked, _answered(group, length), _outcome(group))
                    for group, place in waits
                ),
                tuple(Bar(job, place, _end(job, length), number) for (number, job), place in bars),
            )
        )
    return tuple(lanes)


def _answered(group: Iterable[RecordedJob], length: float) -> float:
    return max(length if job.answered is None else job.answered for job in group)


def _outcome(group: Iterable[RecordedJob]) -> str:
    return min((job.outcome for job in group), key=_WORST.index)


def _placed(
    things: Iterable[T], begin: Callable[[T], float], end: Callable[[T], float], shortest: float
) -> list[tuple[T, int]]:
    """Give each the first line that is free by then."""
    free: list[float] = []
    placed: list[tuple[T, Any]] = []
    for thing in sorted(things, key=begin):
        start = begin(thing)
        place = next((line for line, until in enumerate(free) if until <= start), len(free))
        if place == len(free):
            free.append(0.0)
        free[place] = max(end(thing), start + shortest)
        placed.append((thing, place))
    return placed
