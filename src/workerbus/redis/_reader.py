"""Reading the inbox of one life, entry by entry, in order (X3, X4).

The inbox holds what peers have sent, and what has become of them, in one order. What was read is trimmed soon after,
so that it takes no memory at the server. Between two reads nothing is waited for but the server;
others get their turns.

Knows nothing of messages: what an entry means is for whoever is called. Nor of time: whoever has given it a
connection closes that when an answer takes too long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anyio import sleep
from anyio.lowlevel import checkpoint

from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._protocol import Command
from workerbus.redis._reconnecting import AGAIN

ENTRIES: Final = 512
"""So many entries are read at once, at most."""
AT_ONCE: Final = 25
"""After so many messages others get a turn, so that answers are on their way while the rest of a batch is taken."""
TURNS: Final = 6
"""So many turns others get before it is read again: an answer takes about as many, and it is to be on its way first."""
TRIM_AT: Final = 64
"""When so many entries were read, they are trimmed; when fewer, once nothing has come for a moment."""
IDLE_SECONDS: Final = 0.1
"""How long that moment is."""
READ_BYTES: Final = 8 << 20
"""So many bytes are to come at once, at most, as far as entries are as large as those before."""
BLOCK_SECONDS: Final = 5.0
"""So long the server waits for an entry before it says that there is none."""


class Reader:
    """What reads for one life of a bus.

    Args:
        inbox: The key of the inbox.
        position: The id of the entry after which to begin.
        take: Called with the id (milliseconds) and the fields of each entry; returns how many messages it had, or 0
            where no more is to be read.
        inbox_size: About so many entries the inbox keeps. With as many, it may have lost the oldest.
        overflowed: Called where it has as many, in the place of reading on.
        refused: Called with the server's word where it refuses to be read from, once until it lets itself be.
    """

    def __init__(
        self,
        inbox: str,
        position: str,
        take: Callable[[int, Mapping[bytes, bytes]], int],
        *,
        inbox_size: int,
        overflowed: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self._inbox = inbox
        self._position = position
        self._untrimmed = 0
        self._idle = False
        self._trim_at = max(1, min(TRIM_AT, inbox_size // 1_000))
        self._count = ENTRIES // 8
        self._take = take
        self._inbox_size = inbox_size
        self._overflowed = overflowed
        self._refused = refused
        self._told = False

    async def run(self, connection: Connection) -> None:
        """Read on one connection, for as long as that lasts, or until ``take`` says to stop, or too much waits.

        Raises:
            ConnectionLost: The connection is of no use any more.
            RedisReplyError: Another connection, perhaps to another server, is needed.
        """
        waits = AGAIN.delays()
        while True:
            trims = self._untrimmed >= self._trim_at or (self._idle and self._untrimmed > 0)
            commands = self._commands(trims=trims)
            *trimmed, streams = await connection.pipeline(commands, timeout=None)
            error = next((each for each in (*trimmed, streams) if isinstance(each, RedisReplyError)), None)
            if error is not None:
                if error.reconnect:
                    raise error
                if not self._told:
                    self._told = True
                    self._refused(str(error))
                if isinstance(streams, RedisReplyError):
                    await sleep(next(waits))
                    continue
            else:
                waits = AGAIN.delays()
                if trims:
                    self._untrimmed = 0
                if not self._untrimmed:  # else what is read may be trimmed or not: that is still to be asked
                    self._told = False
            entries = _entries(streams)
            self._idle = not entries
            self._untrimmed += len(entries)
            if len(entries) >= min(self._count, self._inbox_size) and await self._has_overflowed(connection):
                return
            if entries:
                size = sum(len(value) for _, fields in entries for value in fields.values()) // len(entries)
                self._count = max(1, min(ENTRIES, READ_BYTES // max(1, size)))
            if not await self._take_all(entries):
                return

    async def _take_all(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> bool:
        taken = 0
        for entry_id, fields in entries:
            if taken >= AT_ONCE:
                taken = 0
                await checkpoint()  # what these have caused goes out while the next ones are taken
            self._position = entry_id.decode()
            messages = self._take(int(entry_id.partition(b"-")[0]), fields)
            if not messages:
                return False
            taken += messages
        if entries:
            for _ in range(TURNS):
                await checkpoint()
        return True

    def _commands(self, *, trims: bool) -> list[Command]:
        seconds = BLOCK_SECONDS if trims or not self._untrimmed else IDLE_SECONDS
        read: Command = (
            "XREAD", "COUNT", self._count, "BLOCK", round(seconds * 1000), "STREAMS", self._inbox, self._position
        )  # fmt: skip
        return [("XTRIM", self._inbox, "MINID", _after(self._position)), read] if trims else [read]

    async def _has_overflowed(self, connection: Connection) -> bool:
        # Others push the oldest entries out while there are more than the inbox keeps, and leave as many; only this one
        # takes more away. So there are as many now if some were lost before the last read, which then has got all that
        # it asked for. Numbers that are missing would not tell of notices, nor of the last messages.
        (length,) = await connection.pipeline([("XLEN", self._inbox)], timeout=None)
        if isinstance(length, RedisReplyError) or length < self._inbox_size:
            return False
        self._overflowed()
        return True


def _after(position: str) -> str:
    milliseconds, _, sequence = position.partition("-")
    return f"{milliseconds}-{int(sequence or 0) + 1}"


def _entries(streams: Any) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    if not streams:
        return []
    (entries,) = streams.values() if isinstance(streams, dict) else (streams[0][1],)
    return [(entry_id, dict(zip(flat[::2], flat[1::2], strict=False))) for entry_id, flat in entries]
