"""The window of a stream: how far a handler may be ahead of the reader of its job's context (J19).

Both sides count chunks from the start of the job, each worker of a group for itself. The request says how many may be
sent at first; from then on the requester says up to which number. These are totals: one that comes twice, or late,
changes nothing. While a loop reads, the number moves with what it has taken; while none does, with what has arrived. So
a handler waits for a reader, and for nobody else; over a slow transport no more than a window is under way in any case.

Neither side knows of the other, nor of messages: they are told what arrives, and call what sends.
"""

from collections.abc import Callable
from typing import Final

from anyio.lowlevel import checkpoint_if_cancelled

from workerbus._concurrency.lifetime import LazyEvent

WINDOW: Final = 1024
"""How many chunks of a worker may be on their way to a reader, or wait for it, unless the requester says otherwise."""


class _Count:
    """What is known of the stream of one worker.

    Attributes:
        arrived: How many chunks have arrived.
        taken: How many a loop has taken.
        granted: How many may be sent in all.
        due: When so many are used, it is time to grant more.
    """

    __slots__ = ("arrived", "due", "granted", "taken")

    def __init__(self, granted: int, due: int) -> None:
        self.arrived: int = 0
        self.taken: int = 0
        self.granted: int = granted
        self.due: int = due


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

    def arrives(self, worker: str) -> None:
        """Note that a chunk of a worker has arrived."""
        count = self._counts.get(worker)
        if count is None:
            count = self._counts[worker] = _Count(self._size, self._step)
        count.arrived += 1
        if count.arrived >= count.due and (not self.readers or self.unlimited):
            self._move(worker, count, count.arrived)

    def takes(self, worker: str) -> None:
        """Note that a loop has taken a chunk of a worker."""
        count = self._counts[worker]
        count.taken += 1
        if count.taken >= count.due:
            self._move(worker, count, count.taken)

    def _let_go_on(self) -> None:
        if not self.readers or self.unlimited:
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

    Attributes:
        until: How many chunks may be sent in all.
        sent: How many were sent.
        closed: Whether nobody is to wait any more: the job is being cancelled, or over.
    """

    __slots__ = ("_moved", "closed", "sent", "until")

    def __init__(self, size: int) -> None:
        self.until: int = size
        self.sent: int = 0
        self.closed: bool = False
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
        while self.sent >= self.until and not self.closed:
            if self._moved is None:
                self._moved = LazyEvent()
            await self._moved.wait()
        if self.closed:
            await checkpoint_if_cancelled()  # sending has no place of its own where a handler could be cancelled
        self.sent += 1
