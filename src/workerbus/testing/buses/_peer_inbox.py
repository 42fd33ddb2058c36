"""What a network of peers has stored for one life of an end, until that end takes it (X3, X4).

Each sender has a queue of its own, in the order of sending. That a peer has joined or is gone stands in it, too, so
that a loss is told behind all that the lost one had sent. Who takes next, and when, is the end's; nothing here reads a
clock.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Literal, NamedTuple

from workerbus._values import Peer
from workerbus.messages import BusMessage


class Sent(NamedTuple):
    """A message, and when it was sent; as bytes, too, where it goes through them."""

    message: BusMessage
    data: bytes | None
    time: float


class Entry(NamedTuple):
    """What stands in an inbox: who has joined, who is gone and why, or a message with its number.

    `home` is the name of the sender's end. What comes once more when its sender is gone is `late`.
    """

    kind: Literal["joined", "gone", "message"]
    peer: Peer
    home: str
    sent: Sent | None = None
    number: int = 0
    reason: str = ""
    late: bool = False


class PeerInbox:
    """The inbox of one life of an end."""

    def __init__(self) -> None:
        self._queues: dict[str, list[tuple[float, int, Entry]]] = {}
        self._last_due: dict[str, float] = {}
        self._order = count()
        self._missing: list[tuple[float, Entry]] = []

    def put(self, entry: Entry, due: float, *, behind: bool = True) -> float:
        """Put an entry in.

        Args:
            entry: The entry.
            due: When it may be taken.
            behind: Whether it is taken after all that its sender has sent before, and before all that comes later.

        Returns:
            When it may be taken, behind the others.
        """
        sender = entry.peer.incarnation
        if behind:
            due = self._last_due[sender] = max(due, self._last_due.get(sender, due))
        heapq.heappush(self._queues.setdefault(sender, []), (due, next(self._order), entry))
        return due

    def told(self, home: str) -> float:
        """Return when all will have been taken that was sent at an end so far, in its earlier lives, too."""
        dues = [due for queue in self._queues.values() for due, _, entry in queue if entry.home == home]
        return max(dues, default=0.0)

    def take_back_loss(self, peer: Peer) -> None:
        """Take out that a peer will be gone, and what comes after that: it is gone by now."""
        queue = [
            each for each in self._queues.get(peer.incarnation, ()) if not (each[2].kind == "gone" or each[2].late)
        ]
        heapq.heapify(queue)
        if queue:
            self._queues[peer.incarnation] = queue
        else:
            self._queues.pop(peer.incarnation, None)
        self._last_due[peer.incarnation] = max((each[0] for each in queue), default=0.0)

    def take(self, now: float, held: Callable[[Entry], bool]) -> Entry | None:
        """Take the entry that is due next.

        Args:
            now: The time.
            held: Says of an entry whether it is held back, and so all that stands behind it.
        """
        due = [queue for queue in self._queues.values() if queue[0][0] <= now and not held(queue[0][2])]
        if not due:
            return None
        queue = min(due)
        entry = heapq.heappop(queue)[2]
        if not queue:
            del self._queues[entry.peer.incarnation]
        return entry

    def next_due(self, held: Callable[[Entry], bool]) -> float:
        """Return when there is something to take; infinite where there is nothing."""
        queues = [queue[0][0] for queue in self._queues.values() if not held(queue[0][2])]
        return min([*queues, *(due for due, entry in self._missing if not self._has(entry.peer))], default=float("inf"))

    def miss(self, entry: Entry, due: float) -> None:
        """Note that a message was lost, which is found out when it is due, if not before."""
        self._missing.append((due, entry))

    def take_missing(self, now: float) -> list[Entry]:
        """Take out the messages of which it can be found out now that they were lost: behind all that had come."""
        found = [each for each in self._missing if each[0] <= now and not self._has(each[1].peer)]
        self._missing = [each for each in self._missing if each not in found]
        return [entry for _, entry in found]

    def _has(self, peer: Peer) -> bool:
        return peer.incarnation in self._queues

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))
