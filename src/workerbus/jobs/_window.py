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


class ReaderWindow:
    """The requester's side, for all workers of a job.

    Args:
        size: How many chunks each worker may be ahead.
        grant: Called with a worker and a number, to tell that worker up to which chunk it may send.

    Attributes:
        readers: How many loops read.
        unlimited: Whether nobody will read any more, so that no worker is to wait.
    """

    __slots__ = ("_arrived", "_grant", "_granted", "_size", "_step", "_taken", "readers", "unlimited")

    def __init__(self, size: int, grant: Callable[[str, int], None]) -> None:
        self._size = size
        self._step = max(1, size // 2)
        self._grant = grant
        self._arrived: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._granted: dict[str, int] = {}
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
        number = self._arrived[worker] = self._arrived.get(worker, 0) + 1
        if not self.readers or self.unlimited:
            self._move(worker, number, self._step)

    def takes(self, worker: str) -> None:
        """Note that a loop has taken a chunk of a worker."""
        number = self._taken[worker] = self._taken.get(worker, 0) + 1
        self._move(worker, number, self._step)

    def _let_go_on(self) -> None:
        if not self.readers or self.unlimited:
            for worker, number in self._arrived.items():
                self._move(worker, number, 1)

    def _move(self, worker: str, used: int, step: int) -> None:
        until = used + self._size
        if until - self._granted.get(worker, self._size) >= step:
            self._granted[worker] = until
            self._grant(worker, until)


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
