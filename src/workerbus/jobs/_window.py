"""The window of a stream: how far a handler may be ahead of the reader of its job's context (J19).

Both sides count chunks from the start of the job, each worker of a group for itself. The request says how many may be
sent at first; from then on the requester says up to which number. These are totals: one that comes twice, or late,
changes nothing. While a loop reads, the number moves with what it has taken; while none does, with what has arrived. So
a handler waits for a reader, and for nobody else; over a slow transport no more than a window is under way in any case.

A chunk is counted once on either side: a mark goes into the queue before the one with which it is time to grant more,
so that a loop need not count.

A network may lose chunks, or what the requester says. There, chunks are numbered: the requester knows by the next one
what is lost, counts it as taken, and knows which chunk has come twice. And a handler that has waited for a while says
how many it has sent, so that the last ones count, too, and hears once more how many it may send.

Neither side knows of the other, nor of messages: they are told what arrives, and call what sends.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from anyio import move_on_after
from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.lifetime import LazyEvent

WINDOW: Final = 1024
"""How many chunks of a worker may be on their way to a reader, or wait for it, unless the requester says otherwise."""
REMIND_AFTER: Final = 1.0
"""After so many seconds a handler that waits asks for the first time whether it may go on."""
REMIND_SELDOM: Final = 16.0
"""Each further time it waits twice as long, and at most so many seconds."""
MARK: Final = "mark"
"""The kind of what lies in the queue and is no event: a loop takes it with the chunk behind it, and says so."""
REMEMBERED: Final = 1024
"""So far behind the last one, at least, a chunk that had seemed lost is told from one that comes twice."""

_CHUNK: Final = "stream_data"  # `JobEvent.STREAM_DATA`, which those know who read


class _Count:
    """What is known of the stream of one worker.

    Attributes:
        arrived: How many chunks have arrived, or were lost before the last that has.
        granted: How many may be sent in all.
        due: When so many have arrived, it is time to grant more.
        numbered: Whether chunks carry their numbers, so that they may come late.
        lost: How many have not arrived, though later ones have.
        missing: The numbers of those, as far as they may still come.
    """

    __slots__ = ("arrived", "due", "granted", "lost", "missing", "numbered")

    def __init__(self, granted: float, due: float) -> None:
        self.arrived: int = 0
        self.granted: float = granted
        self.due: float = due
        self.numbered: bool = False
        self.lost: int = 0
        self.missing: set[int] = set()

    def sent(self, until: int) -> None:
        """Note that so many were sent before what has just come: those that have not arrived are lost."""
        if until > self.arrived:
            self.lost += until - self.arrived
            self.missing.update(range(max(self.arrived, until - REMEMBERED) + 1, until + 1))
            if len(self.missing) > 2 * REMEMBERED:
                self.missing = {number for number in self.missing if number > until - REMEMBERED}
            self.arrived = until

    def comes(self, number: int) -> bool:
        """Note that a chunk of this number has arrived; returns False for one that has come before."""
        self.numbered = True
        if number > self.arrived:
            self.sent(number - 1)
            self.arrived = number
        elif number in self.missing:
            self.missing.discard(number)
            self.lost -= 1
        else:
            return False
        return True


class EventQueue:
    """The events of a job that no loop has taken yet, and how far its workers are ahead of the loops.

    Args:
        job_id: The id of the job.
        window: How many chunks each worker may be ahead; None for any number.
        grant: Called with the id of the job, a worker and a number, to tell that worker up to which chunk it may send.

    Attributes:
        events: Kind, worker and payload of each, the oldest first, and marks between them.
        readers: How many loops read.
        unlimited: Whether nobody will read any more, so that no worker is to wait.
        watched: Whether somebody wants to know of the last event, whoever takes it.
        last: That event; None before the first.
    """

    __slots__ = (
        "_counts",
        "_grant",
        "_job_id",
        "_step",
        "_window",
        "events",
        "last",
        "readers",
        "unlimited",
        "watched",
    )

    def __init__(self, job_id: str, window: int | None, grant: Callable[[str, str, int], None]) -> None:
        self._job_id = job_id
        self._window: float = math.inf if window is None else window
        self._step: float = math.inf if window is None else window // 2
        self._grant = grant
        self._counts: dict[str, _Count] = {}
        self.events: deque[tuple[str, str, Any]] = deque()
        self.readers: int = 0
        self.unlimited: bool = False
        self.watched: bool = False
        self.last: tuple[str, str, dict[str, Any] | None] | None = None

    def begins(self) -> None:
        """Note that a loop begins to read."""
        self.readers += 1

    def ends(self) -> None:
        """Note that a loop reads no more."""
        self.readers -= 1
        self._let_go_on()

    def closes(self) -> None:
        """Note that nobody reads any more."""
        self.unlimited = True
        self._let_go_on()

    def add(self, event: tuple[str, str, dict[str, Any] | None]) -> None:
        """Take in an event that is no chunk of a stream."""
        self.events.append(event)
        if self.watched:
            self.last = event

    def add_chunk(self, worker: str, data: dict[str, Any] | None, number: int | None = None) -> bool:
        """Take in a chunk of a worker's stream.

        Args:
            worker: The worker.
            data: The chunk.
            number: The number of the worker's chunk, if it has one.

        Returns:
            Whether it is the first time; otherwise it is left out.
        """
        try:
            count = self._counts[worker]
        except KeyError:
            count = self._count(worker)
        if number is None:
            count.arrived += 1
        elif not count.comes(number):
            return False
        if count.arrived >= count.due:
            if self._unread:
                self._move(worker, count, count.arrived)
            else:
                self.events.append((MARK, worker, count.arrived))
                count.due = count.arrived + self._step
        self.events.append((_CHUNK, worker, data))
        if self.watched:
            self.last = self.events[-1]
        return True

    def took(self, worker: str, number: int) -> None:
        """Note that a loop has taken the chunk behind a mark, whose number the mark has."""
        count = self._counts[worker]
        self._move(worker, count, self._taken(worker, count) if count.numbered else number)

    def waits(self, worker: str, sent: int) -> None:
        """Note that a worker waits which has sent so many chunks; tell it again where it need not."""
        count = self._count(worker)
        count.sent(sent)
        used = count.arrived if self._unread else self._taken(worker, count)
        until = max(used + self._window, count.granted)
        if until > sent:
            self._tell(worker, count, until)
        else:  # more than a window of its chunks lies here: it is told when the last of them is taken, if not before
            place = max(place for place, event in enumerate(self.events) if event[:2] == (_CHUNK, worker))
            if place == 0 or self.events[place - 1][0] is not MARK:
                self.events.insert(place, (MARK, worker, count.arrived))

    def lost(self, worker: str) -> int:
        """How many chunks of a worker have not arrived, though later ones have."""
        count = self._counts.get(worker)
        return 0 if count is None else count.lost

    @property
    def _unread(self) -> bool:
        return not self.readers or self.unlimited

    def _count(self, worker: str) -> _Count:
        count = self._counts.get(worker)
        if count is None:
            count = self._counts[worker] = _Count(self._window, self._step)
        return count

    def _taken(self, worker: str, count: _Count) -> int:
        return count.arrived - sum(event[:2] == (_CHUNK, worker) for event in self.events)

    def _let_go_on(self) -> None:
        if self._unread:
            for worker, count in self._counts.items():
                self._move(worker, count, count.arrived)

    def _move(self, worker: str, count: _Count, used: int) -> None:
        if used + self._window > count.granted:
            self._tell(worker, count, used + self._window)
            count.due = max(count.due, used + self._step)

    def _tell(self, worker: str, count: _Count, until: float) -> None:
        count.granted = until
        self._grant(self._job_id, worker, int(until))


class SenderWindow:
    """The worker's side, for one job.

    Args:
        size: How many chunks may be sent before the requester has said more; None for any number.
        remind: Called now and then with how many were sent, while somebody waits; None where no message can be lost.

    Attributes:
        until: How many chunks may be sent in all without a `take`, which waits where it has to.
        sent: How many were sent.
        numbered: Whether chunks carry their numbers, as some may be lost, or come twice.
    """

    __slots__ = ("_closed", "_moved", "_remind", "numbered", "sent", "until")

    def __init__(self, size: int | None, remind: Callable[[int], None] | None = None) -> None:
        self.until: float = math.inf if size is None else size
        self.sent: int = 0
        self._closed = False
        self.numbered: bool = remind is not None
        self._remind = remind
        self._moved: LazyEvent | None = None

    def move(self, until: int) -> None:
        """Let more be sent, up to a number; a smaller one than before changes nothing."""
        if until > self.until and not self._closed:
            self.until = until
            self._wake()

    def close(self) -> None:
        """Let nobody wait any more: the job is being cancelled, or over."""
        self._closed = True
        self.until = 0
        self._wake()

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def take(self) -> None:
        """Wait until one more may be sent, and count it."""
        patience = REMIND_AFTER
        while self.sent >= self.until and not self._closed:
            if self._moved is None:
                self._moved = LazyEvent()
            if self._remind is None:
                await self._moved.wait()
                continue
            with move_on_after(patience) as scope:
                await self._moved.wait()
            if scope.cancelled_caught:
                self._remind(self.sent)
                patience = min(2 * patience, REMIND_SELDOM)
        if self._closed:
            await checkpoint_if_cancelled()  # sending has no place of its own where a handler could be cancelled
        self.sent += 1
