"""The window of a stream: how far a handler may be ahead of the reader of its job's context (J19).

Both sides count chunks from the start of the job, each worker of a group for itself. The request says how many may be
sent at first; from then on the requester says up to which number. These are totals: one that comes twice, or late,
changes nothing. While a loop reads, the number moves with what it has taken; while none does, with what has arrived. So
a handler waits for a reader, and for nobody else; over a slow transport no more than a window is under way in any case.

A network may lose chunks, or what the requester says. There, chunks are numbered: the requester knows by the next one
what is lost, counts it as taken, and knows which chunk has come twice. And a handler that has waited for a while says
how many it has sent, so that the last ones count, too, and hears once more how many it may send.

Neither side knows of the other, nor of messages: they are told what arrives, and call what sends.
"""

from collections.abc import Callable
from typing import Final

from anyio import move_on_after
from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.lifetime import LazyEvent

WINDOW: Final = 1024
"""How many chunks of a worker may be on their way to a reader, or wait for it, unless the requester says otherwise."""
REMIND_AFTER: Final = 1.0
"""After so many seconds a handler that waits asks for the first time whether it may go on."""
REMIND_SELDOM: Final = 16.0
"""Each further time it waits twice as long, and at most so many seconds."""
REMEMBERED: Final = 1024
"""So far behind the last one, at least, a chunk that had seemed lost is told from one that comes twice."""


class _Count:
    """What is known of the stream of one worker.

    Attributes:
        arrived: How many chunks have arrived, or were lost before the last that has.
        taken: How many of them a loop has taken, or were lost.
        granted: How many may be sent in all.
        due: When so many are used, it is time to grant more.
        lost: How many have not arrived, though later ones have.
        missing: The numbers of those, as far as they may still come.
    """

    __slots__ = ("arrived", "due", "granted", "lost", "missing", "taken")

    def __init__(self, granted: int, due: int) -> None:
        self.arrived: int = 0
        self.taken: int = 0
        self.granted: int = granted
        self.due: int = due
        self.lost: int = 0
        self.missing: set[int] = set()

    def sent(self, until: int) -> None:
        """Note that so many were sent before what has just come: those that have not arrived are lost."""
        if until > self.arrived:
            self.lost += until - self.arrived
            self.taken += until - self.arrived
            self.missing.update(range(max(self.arrived, until - REMEMBERED) + 1, until + 1))
            if len(self.missing) > 2 * REMEMBERED:
                self.missing = {number for number in self.missing if number > until - REMEMBERED}
            self.arrived = until

    def comes(self, number: int) -> bool:
        """Note that a chunk of this number has arrived; returns False for one that has come before."""
        if number > self.arrived:
            self.sent(number - 1)
            self.arrived = number
        elif number in self.missing:
            self.missing.discard(number)
            self.lost -= 1
            self.taken -= 1
        else:
            return False
        return True


class ReaderWindow:
    """The requester's side, for all workers of a job.

    Args:
        job_id: The id of the job.
        size: How many chunks each worker may be ahead.
        grant: Called with the id of the job, a worker and a number, to tell that worker up to which chunk it may send.

    Attributes:
        readers: How many loops read.
        unlimited: Whether nobody will read any more, so that no worker is to wait.
    """

    __slots__ = ("_counts", "_grant", "_job_id", "_size", "_step", "readers", "unlimited")

    def __init__(self, job_id: str, size: int, grant: Callable[[str, str, int], None]) -> None:
        self._job_id = job_id
        self._size = size
        self._step = max(1, size // 2)
        self._grant = grant
        self._counts: dict[str, _Count] = {}
        self.readers: int = 0
        self.unlimited: bool = False

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

    def arrives(self, worker: str, number: int | None = None) -> bool:
        """Note that a chunk of a worker has arrived.

        Args:
            worker: The worker.
            number: The how manieth of its chunks it is, where that is told.

        Returns:
            Whether it is the first time.
        """
        count = self._counts.get(worker)
        if count is None:
            count = self._count(worker)
        if number is None:
            count.arrived += 1
        elif not count.comes(number):
            return False
        if count.arrived >= count.due and self._unread:
            self._move(worker, count, count.arrived)
        return True

    def takes(self, worker: str) -> None:
        """Note that a loop has taken a chunk of a worker."""
        count = self._counts[worker]
        count.taken += 1
        if count.taken >= count.due:
            self._move(worker, count, count.taken)

    def waits(self, worker: str, sent: int) -> None:
        """Note that a worker waits which has sent so many chunks; tell it again where it need not."""
        count = self._count(worker)
        count.sent(sent)
        used = count.arrived if self._unread else count.taken
        if used + self._size > sent:
            self._move(worker, count, max(used, count.granted - self._size))

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
            count = self._counts[worker] = _Count(self._size, self._step)
        return count

    def _let_go_on(self) -> None:
        if self._unread:
            for worker, count in self._counts.items():
                if count.arrived + self._size > count.granted:
                    self._move(worker, count, count.arrived)

    def _move(self, worker: str, count: _Count, used: int) -> None:
        count.granted = used + self._size
        count.due = used + self._step
        self._grant(self._job_id, worker, count.granted)


class SenderWindow:
    """The worker's side, for one job.

    Args:
        size: How many chunks may be sent before the requester has said more.
        remind: Called now and then with how many were sent, while somebody waits; None where no message can be lost.

    Attributes:
        until: How many chunks may be sent in all.
        sent: How many were sent.
        closed: Whether nobody is to wait any more: the job is being cancelled, or over.
        numbered: Whether chunks carry their numbers, as some may be lost, or come twice.
    """

    __slots__ = ("_moved", "_remind", "closed", "numbered", "sent", "until")

    def __init__(self, size: int, remind: Callable[[int], None] | None = None) -> None:
        self.until: int = size
        self.sent: int = 0
        self.closed: bool = False
        self.numbered: bool = remind is not None
        self._remind = remind
        self._moved: LazyEvent | None = None

    def move(self, until: int) -> None:
        """Let more be sent, up to a number; a smaller one than before changes nothing."""
        if until > self.until:
            self.until = until
            self._wake()

    def close(self) -> None:
        """Let nobody wait any more."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def take(self) -> None:
        """Wait until one more may be sent, and count it."""
        patience = REMIND_AFTER
        while self.sent >= self.until and not self.closed:
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
        if self.closed:
            await checkpoint_if_cancelled()  # sending has no place of its own where a handler could be cancelled
        self.sent += 1
