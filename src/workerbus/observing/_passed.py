"""Messages as they have passed, for who wants to see them go by (O3, O7)."""

from collections import deque
from collections.abc import AsyncIterator, Container, Iterable
from typing import Final, NamedTuple
from weakref import WeakSet

from anyio import Event

from workerbus.runner._notes import Note

KEPT: Final = 20_000
"""How many messages are kept for who reads them; of more, the first are left out."""


class PassedMessage(NamedTuple):
    """A message that has passed on a bus somewhere.

    Attributes:
        at: When it was sent, in seconds by this process's monotonic clock.
        runner: The name of the runner that reported it.
        kind: ``"asked"``, ``"answered"``, ``"update"``, ``"chunk"`` or ``"cancel"`` for messages of jobs, ``"restart"``
            if a worker is being restarted; else the name of its class.
        source: The name of the sender.
        target: The name of the receiver; None for all.
        job_id: The id of its job; empty if it belongs to none.
        text: The name of the job that is asked for, the status of an answer, or the reason of a cancel; else None.
        payload: Its payload as JSON text, cut if it is long; None if it has none, or if payloads were not asked for or
            are not allowed.

    Guarantees: O3, O7.
    """

    at: float
    runner: str
    kind: str
    source: str
    target: str | None
    job_id: str
    text: str | None
    payload: str | None


class PassingMessages(AsyncIterator[PassedMessage]):
    """Messages as they pass; made by `ObservedCluster.messages`. It ends when the cluster is no longer observed."""

    def __init__(self) -> None:
        self._waiting: deque[PassedMessage] = deque()
        self._news = Event()
        self._over = False

    def add(self, messages: list[PassedMessage]) -> int:
        """Add messages; returns how many had to be left out."""
        self._waiting.extend(messages)
        left_out = max(0, len(self._waiting) - KEPT)
        for _ in range(left_out):
            self._waiting.popleft()
        self._news.set()
        return left_out

    def end(self) -> None:
        """End once everything that waits has been read."""
        self._over = True
        self._news.set()

    def take(self) -> list[PassedMessage]:
        """Return all waiting messages, without waiting for more."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def __anext__(self) -> PassedMessage:
        """Return the next one."""
        while not self._waiting:
            if self._over:
                raise StopAsyncIteration
            self._news = Event()
            await self._news.wait()
        return self._waiting.popleft()


class Passing:
    """Those who read messages as they pass.

    Attributes:
        missed: How many messages were not seen, or left out.
    """

    def __init__(self) -> None:
        self._readers: WeakSet[PassingMessages] = WeakSet()
        self.missed: int = 0

    def begin(self) -> PassingMessages:
        """Return the messages that pass from now on."""
        reader = PassingMessages()
        self._readers.add(reader)
        return reader

    def add(self, runner: str, notes: Iterable[Note], elsewhere: Container[str] = ()) -> None:
        """Pass messages on that a runner has noted, but for those that others have told of where they were sent."""
        if self._readers:
            passed = [
                PassedMessage(
                    each.at, runner, each.kind, each.source, each.target, each.job_id, each.text, each.payload
                )
                for each in notes
                if each.origin is None or each.origin not in elsewhere
            ]
            self.missed += sum(reader.add(passed) for reader in self._readers)

    def end(self) -> None:
        """End for all who read."""
        for reader in self._readers:
            reader.end()
