"""What the notes mean: jobs and what became of them, how long they took, and what to draw of that (O3, O4, O7).

Knows neither the bus nor the clock: it is given notes, and the time with them. All that it keeps has a bound: the last
jobs, those still open, and of each second of the last minute those that took longest or did not complete.

A message that goes from one process to another passes in both. It is told of as it was sent; of its arrival it is only
taken that the job has come, since what the two processes tell may come here in any order: an answer before its request,
say. In what one process tells, causes are before their effects, and whose job a request was asked for in is told by
the requester's process alone.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from itertools import count
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from workerbus._values import JobStatus
from workerbus.runner._notes import ANSWERED, ASKED, CANCEL, CHUNK, RESTART, UPDATE, Note

LAST: Final = 500
"""How many jobs are remembered after they are over."""
OPEN: Final = 2000
"""How many open jobs are followed."""
STEPS: Final = 200
"""How many steps of one job are kept: the first half, and the last."""
MINUTE: Final = 60
"""For how many seconds there is a timeline."""
FAMILY: Final = 50
"""How many nested jobs are told of in the story of one."""
LONGEST: Final = 12
"""How many jobs of each second are drawn: the longest."""


class Step(NamedTuple):
    """A message of a job, as one process has told of it.

    Attributes:
        number: The number among all: those of one process are in the order in which they happened there.
        place: Which process has told of it.
        note: What it has told.
    """

    number: int
    place: str
    note: Note


class Leg:
    """What one worker has done for a job.

    Attributes:
        worker: Its name.
        begun: When it was asked.
        ended: When it has answered; None before.
        status: How; None before.
        updates: How many updates and chunks it has sent.
        told: Whether who has asked has told of it, and not only where the request has arrived.
    """

    def __init__(self, worker: str, begun: float, *, told: bool) -> None:
        self.worker: str = worker
        self.begun: float = begun
        self.told: bool = told
        self.ended: float | None = None
        self.status: str | None = None
        self.updates: int = 0


class Story:
    """What became of a job.

    Attributes:
        job_id: Its id.
        name: Which handler was meant.
        requester: Who asked.
        parent: The job that the requester was at work on, if that is known.
        legs: Worker to what it has done.
        steps: The first messages of the job; `last` are the last ones, and between them some are left out.
        arrivals: The last ones that have arrived in another process, as that has told of them.
    """

    def __init__(self, job_id: str, name: str | None, requester: str, parent: str | None) -> None:
        self.job_id: str = job_id
        self.name: str | None = name
        self.requester: str = requester
        self.parent: str | None = parent
        self.legs: dict[str, Leg] = {}
        self.steps: list[Step] = []
        self.last: deque[Step] = deque(maxlen=STEPS // 2)
        self.arrivals: deque[Step] = deque(maxlen=STEPS)
        self.left_out: int = 0

    @property
    def open(self) -> bool:
        """Whether somebody has not answered."""
        return any(leg.ended is None for leg in self.legs.values())

    def add(self, step: Step) -> None:
        """Add a step."""
        if len(self.steps) < STEPS // 2:
            self.steps.append(step)
            return
        self.left_out += len(self.last) == self.last.maxlen
        self.last.append(step)


class Stories:
    """The jobs that have passed on a bus lately.

    Attributes:
        restarts: Worker to how many times its restart was announced.
        latencies: How long jobs took, in seconds, since somebody has taken the list.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Story] = WeakValueDictionary()
        self._open: OrderedDict[str, Story] = OrderedDict()
        self._last: deque[Story] = deque(maxlen=LAST)
        self._at_work: dict[str, dict[str, None]] = {}
        self._longest: OrderedDict[int, list[tuple[float, int, Story, Leg]]] = OrderedDict()
        self._numbers = count()
        self.restarts: dict[str, int] = {}
        self.latencies: list[float] = []

    def __len__(self) -> int:
        return len(self._known)

    def get(self, job_id: str) -> Story | None:
        """Return a job; None if it is not remembered."""
        return self._known.get(job_id)

    def family(self, story: Story) -> list[Story]:
        """Return a job, and those that were asked for in it, and in those, as far as they are remembered."""
        below: dict[str | None, list[Story]] = {}
        for each in self._known.values():
            below.setdefault(each.parent, []).append(each)
        found, ids = [story], {story.job_id}
        for each in found:
            if len(found) < FAMILY:
                found += [child for child in sorted(below.get(each.job_id, ()), key=_begun) if child.job_id not in ids]
                ids |= {child.job_id for child in found}
        return found[:FAMILY]

    def add(self, notes: Iterable[Note], elsewhere: Container[str] = (), place: str = "") -> None:
        """Learn what has passed.

        Args:
            notes: What was noted.
            elsewhere: The incarnations of the peers that tell of what they have sent themselves.
            place: The process that tells of it.
        """
        for note in notes:
            told = note.origin is None or note.origin not in elsewhere
            if note.kind == ASKED:
                self._asked(Step(next(self._numbers), place, note), told=told)
            elif note.kind == RESTART:
                self.restarts[note.source] = self.restarts.get(note.source, 0) + told
            else:
                story = self._known.get(note.job_id)
                if story is not None:
                    self._goes_on(story, Step(next(self._numbers), place, note), told=told)

    def forget_before(self, time: float) -> None:
        """Forget what the timeline does not show any more."""
        while self._longest and next(iter(self._longest)) < time - MINUTE:
            self._longest.popitem(last=False)

    def drawn(self) -> Iterable[tuple[Story, Leg]]:
        """Return what the timeline shows of jobs that are over."""
        return ((story, leg) for heap in self._longest.values() for _, _, story, leg in heap)

    def _asked(self, step: Step, *, told: bool) -> None:
        note = step.note
        story = self._known.get(note.job_id)
        if story is None:
            story = Story(note.job_id, note.text, note.source, self._parent(note) if told else None)
            self._known[note.job_id] = self._open[note.job_id] = story
            if len(self._open) > OPEN:
                self._close(next(iter(self._open.values())))
        elif told and story.parent is None:
            story.parent = self._parent(note)
        worker = note.target or ""
        leg = story.legs.get(worker)
        if told:
            story.add(step)
        else:
            story.arrivals.append(step)
        if leg is not None and told and not leg.told:
            leg.told, leg.begun = True, note.at
            if leg.ended is not None:  # who answered has told first, and its clock may be behind
                leg.ended = max(leg.ended, leg.begun)
        elif told or leg is None:
            leg = story.legs[worker] = Leg(worker, note.at, told=told)
        if leg.ended is None:
            self._at_work.setdefault(worker, {})[story.job_id] = None

    def _parent(self, note: Note) -> str | None:
        """Return the job that another one is asked for in, as far as that is known."""
        at_work = self._at_work.get(note.source, {})
        if note.parent is not None or len(at_work) != 1 or note.job_id in at_work:
            return note.parent or None
        return next(iter(at_work))  # its handler began before anybody looked: known where it had only that one

    def _goes_on(self, story: Story, step: Step, *, told: bool) -> None:
        note = step.note
        if not told:
            if note.kind not in (UPDATE, CHUNK):
                story.arrivals.append(step)
            return
        story.add(step)
        leg = story.legs.get(note.source)
        if leg is None or note.kind == CANCEL:
            return
        if note.kind in (UPDATE, CHUNK):
            leg.updates += 1
        elif note.kind == ANSWERED and leg.ended is None:
            leg.ended, leg.status = max(note.at, leg.begun), note.text or JobStatus.COMPLETED.value
            self.latencies.append(leg.ended - leg.begun)
            self._leaves(leg.worker, story.job_id)
            self._draw(story, leg)
            if not story.open:
                self._close(story)

    def _draw(self, story: Story, leg: Leg) -> None:
        assert leg.ended is not None
        heap = self._longest.setdefault(int(leg.ended), [])
        weight = leg.ended - leg.begun + (0 if leg.status == JobStatus.COMPLETED else 1e6)
        entry = (weight, next(self._numbers), story, leg)
        if len(heap) < LONGEST:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def _leaves(self, worker: str, job_id: str) -> None:
        at_work = self._at_work.get(worker, {})
        at_work.pop(job_id, None)
        if not at_work:
            self._at_work.pop(worker, None)

    def _close(self, story: Story) -> None:
        self._open.pop(story.job_id, None)
        for worker in story.legs:
            self._leaves(worker, story.job_id)
        self._last.append(story)


def _begun(story: Story) -> float:
    return min(leg.begun for leg in story.legs.values())
