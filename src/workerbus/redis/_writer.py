"""Writing what waits in the outbox to the inboxes of peers, in batches (X2).

A batch is one transaction: it is stored as a whole or not at all, so that no entry overtakes another one of its sender.
Where the connection is lost half-way nobody knows which; then the batch is written again on the next one. Where the
server refuses it, since it is full, say, it stays first in line and is tried again, later. Names of workers are given
back in the same transaction, so that they are free for whoever hears in it that a worker has gone.

Small messages that go out to the same peer in one batch share entries of its inbox: an entry costs the server, and
whoever reads it, more than a message does. These are the fields of an entry:

| field | |
|---|---|
| ``o`` | the incarnation of the sender |
| ``n`` | the number of the message; of several, that of the first |
| ``m`` | the message, if it is one |
| ``l`` | the messages, if they are several, one in each line |
| ``k`` | ``mark``, if there is none |
| ``w`` | for how many milliseconds they have waited here, at least; nothing for none |

Knows nothing of messages. Nor of time: whoever has given it the connection closes that when an answer takes too long.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from anyio import current_time, sleep

from workerbus._values import Peer
from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._outbox import MARK, Entry, Outbox
from workerbus.redis._protocol import Command
from workerbus.redis._reconnecting import AGAIN

logger = logging.getLogger("workerbus.redis")

TOGETHER: Final = 25
"""So many messages share an entry, at most."""
TOGETHER_BYTES: Final = 8192
"""So many bytes they have, at most: an inbox is bounded by the number of its entries."""
TOGETHER_SECONDS: Final = 0.005
"""So much later than the first of them each was sent, at most: how long they have waited is said once for all."""
PER_TOGETHER: Final = 1_000
"""An inbox keeps at least so many entries for each message that shares one: a small inbox counts messages."""


class Released(Protocol):
    """What is given back with the next batch, in the same transaction; see `Names`."""

    def begin(self) -> None:
        """Called when a connection is there."""

    def waits(self) -> bool:
        """Whether there is something."""

    def take(self) -> Command | None:
        """Return the command for the next batch: the same one as before, until it is settled."""

    def settle(self, reply: Any) -> None:
        """Note what the server says to it."""


class NothingReleased:
    """Where there is nothing of the kind."""

    def begin(self) -> None:
        """Do nothing."""

    def waits(self) -> bool:
        """Return that there is nothing."""
        return False

    def take(self) -> None:
        """Return nothing."""

    def settle(self, reply: Any) -> None:
        """Do nothing."""


class _Shared:
    """One or several messages for one peer that share an entry of its inbox.

    Attributes:
        first: The first of them.
        last: The last of them.
        messages: All of them.
        room: How many bytes more there is room for.
    """

    __slots__ = ("first", "last", "messages", "room")

    def __init__(self, first: Entry) -> None:
        self.first = self.last = first
        self.messages = [first.data]
        self.room = TOGETHER_BYTES - len(first.data) if _is_line(first.data) else 0

    def takes(self, entry: Entry) -> bool:
        """Take one more, if it may share the entry; returns whether it does."""
        data = entry.data
        if len(data) > self.room or entry.since - self.first.since > TOGETHER_SECONDS or not _is_line(data):
            return False
        self.last = entry
        self.messages.append(data)
        self.room -= len(data)
        return True


def _is_line(data: bytes) -> bool:
    return b"\n" not in data and data != b""


class Writer:
    """What writes for one life of a bus.

    Args:
        outbox: What is to be written.
        inbox: Returns the key of the inbox of an incarnation.
        incarnation: Returns the incarnation of this life.
        inbox_size: About how many entries an inbox keeps; more push out the oldest.
        refused: Called with the server's word where it refuses a batch, once until one is stored.
        peers: Returns who is there.
        released: What is given back with the batches.

    Attributes:
        retries: How many times a batch was written again.
    """

    def __init__(
        self,
        outbox: Outbox,
        inbox: Callable[[str], str],
        incarnation: Callable[[], str],
        *,
        inbox_size: int,
        refused: Callable[[str], None],
        peers: Callable[[], Sequence[Peer]] = tuple,
        released: Released | None = None,
    ) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._incarnation = incarnation
        self._inbox_size = inbox_size
        self._together = max(1, min(TOGETHER, inbox_size // PER_TOGETHER))
        self._refused = refused
        self._peers = peers
        self._released: Released = NothingReleased() if released is None else released
        self._told = False
        self._tried: Entry | None = None
        self.retries: int = 0

    def begin(self) -> None:
        """Begin anew, since the bus is opened: what is refused then is told, also if it was the last time."""
        self._told = False

    async def run(self, connection: Connection) -> None:
        """Write what there is to write, on one connection, for as long as that lasts.

        Raises:
            ConnectionLost: The connection is of no use any more.
            RedisReplyError: Another connection, perhaps to another server, is needed.
        """
        waits = AGAIN.delays()
        self._released.begin()
        self._outbox.mark(self._peers(), current_time())
        while True:
            batch = await self._outbox.next_batch(self._released.waits)
            release = self._released.take()
            if batch:
                self.retries += batch[0] is self._tried
                self._tried = batch[0]
            elif release is None:  # it was taken back
                continue
            stored, error = await self._write(connection, batch, release)
            self._outbox.settle(stored)
            if error is None:
                waits = AGAIN.delays()
                self._told = False
                continue
            if error.reconnect:
                raise error
            if not self._told:
                self._told = True
                self._refused(str(error))
            await sleep(next(waits))

    async def _write(
        self, connection: Connection, batch: Sequence[Entry], release: Command | None
    ) -> tuple[list[bool | None], RedisReplyError | None]:
        entries, places = self._share(batch)
        now = current_time()
        commands: list[Command] = [self._command(entry, now) for entry in entries]
        if release is not None:
            commands.insert(0, release)
        if len(commands) == 1:
            replies = await connection.pipeline(commands, timeout=None)
        else:
            commands = [("MULTI",), *commands, ("EXEC",)]
            *_, done = queued = await connection.pipeline(commands, timeout=None)
            if isinstance(done, RedisReplyError):  # it says only that a command was refused: that one says why
                if release is not None and isinstance(queued[1], RedisReplyError):
                    self._settle_release(queued[1])
                error = next((each for each in queued if isinstance(each, RedisReplyError)), done)
                return [False] * len(batch), error
            replies = done
        outcomes = replies if release is None else replies[1:]
        if release is not None and self._settle_release(replies[0]):
            replies = outcomes
        errors = [each for each in replies if isinstance(each, RedisReplyError)]
        stored = [_stored(each) for each in outcomes]
        return [stored[place] for place in places], errors[0] if errors else None

    def _settle_release(self, reply: Any) -> bool:
        """Whether that is settled: else it is tried again."""
        if isinstance(reply, RedisReplyError) and (reply.reconnect or reply.temporary):
            return False
        self._released.settle(reply)
        return True

    def _share(self, batch: Sequence[Entry]) -> tuple[list[_Shared], list[int]]:
        """Return what is written to inboxes, and for each message of a batch in which entry of these it is."""
        entries: list[_Shared] = []
        places: list[int] = []
        last: dict[str, int] = {}  # of each peer
        for each in batch:
            place = last.get(each.peer.incarnation)
            if place is None or not entries[place].takes(each):
                place = last[each.peer.incarnation] = len(entries)
                entries.append(_Shared(each))
            if len(entries[place].messages) == self._together:
                del last[each.peer.incarnation]
            places.append(place)
        return entries, places

    def _command(self, entry: _Shared, now: float) -> Command:
        first, waited = entry.first, round((now - entry.last.since) * 1000)
        what: tuple[Any, ...]
        if len(entry.messages) > 1:
            what = "l", b"\n".join(entry.messages)
        else:
            what = ("m", first.data) if first.data else ("k", MARK)
        more: tuple[Any, ...] = ("w", waited) if waited > 0 else ()
        return (
            "XADD", self._inbox(first.peer.incarnation), "NOMKSTREAM", "MAXLEN", "~", self._inbox_size, "*",
            "o", self._incarnation(), "n", first.number, *what, *more,
        )  # fmt: skip


def _stored(reply: Any) -> bool | None:
    if isinstance(reply, RedisReplyError):
        return False
    return None if reply is None else True
