"""Writing what waits in the outbox to the inboxes of peers, in batches (X2).

A batch is one transaction: it is stored as a whole or not at all, so that no entry overtakes another one of its sender.
Where the connection is lost half-way nobody knows which; then the batch is written again on the next one. Where the
server refuses it, since it is full, say, it stays first in line and is tried again, later. Names of workers are given
back in the same transaction, so that they are free for whoever hears in it that a worker has gone.

Knows nothing of messages. Nor of time: whoever has given it the connection closes that when an answer takes too long.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from anyio import current_time, sleep

from workerbus._values import Peer
from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._outbox import MARK, Entry, Outbox
from workerbus.redis._protocol import Command
from workerbus.redis._reconnecting import AGAIN

logger = logging.getLogger("workerbus.redis")


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
        self._refused = refused
        self._peers = peers
        self._released: Released = NothingReleased() if released is None else released
        self._told = False
        self._tried: Entry | None = None
        self.retries: int = 0

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
        now = current_time()
        commands: list[Command] = [self._command(entry, now) for entry in batch]
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
        return [_stored(each) for each in outcomes], errors[0] if errors else None

    def _settle_release(self, reply: Any) -> bool:
        """Whether that is settled: else it is tried again."""
        if isinstance(reply, RedisReplyError) and (reply.reconnect or reply.temporary):
            return False
        self._released.settle(reply)
        return True

    def _command(self, entry: Entry, now: float) -> Command:
        waited = round((now - entry.since) * 1000)
        more: tuple[Any, ...] = ("w", waited) if waited > 0 else ()
        what = ("m", entry.data) if entry.data else ("k", MARK)
        return (
            "XADD", self._inbox(entry.peer.incarnation), "NOMKSTREAM", "MAXLEN", "~", self._inbox_size, "*",
            "o", self._incarnation(), "n", entry.number, *what, *more,
        )  # fmt: skip


def _stored(reply: Any) -> bool | None:
    if isinstance(reply, RedisReplyError):
        return False
    return None if reply is None else True
