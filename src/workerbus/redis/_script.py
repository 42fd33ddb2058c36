"""Scripts in Lua that run on the server, by the digest of their text."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from workerbus.redis._connection import CALL_SECONDS, Connection
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._protocol import Argument, Command


class Script:
    """A script. A server that does not know it, as after a restart, is given its text.

    Args:
        text: In Lua. Redis 6.2 needs ``redis.replicate_commands()`` in it before it writes what depends on the time.

    Attributes:
        digest: By which servers know it.
    """

    def __init__(self, text: str) -> None:
        self.digest: str = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._text = text

    async def run(
        self,
        connection: Connection,
        keys: Sequence[Argument] = (),
        arguments: Sequence[Argument] = (),
        *,
        timeout: float | None = CALL_SECONDS,
    ) -> Any:
        """Run it, and return its reply.

        Args:
            connection: To the server.
            keys: What it finds in ``KEYS``.
            arguments: What it finds in ``ARGV``.
            timeout: How long it may take, in seconds; twice where the server does not know it.

        Raises:
            RedisReplyError: It has failed, or the user may not run it.
            ConnectionLost: There is no reply; it may have run.
        """
        try:
            return await connection.execute(*self.command(keys, arguments), timeout=timeout)
        except RedisReplyError as exc:
            if exc.code != "NOSCRIPT":
                raise
        return await connection.execute(*self.in_full(keys, arguments), timeout=timeout)

    def command(self, keys: Sequence[Argument] = (), arguments: Sequence[Argument] = ()) -> Command:
        """Return the command that runs it, for a pipeline; a server that does not know it answers NOSCRIPT.

        Args:
            keys: What it finds in ``KEYS``.
            arguments: What it finds in ``ARGV``.
        """
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)

    def in_full(self, keys: Sequence[Argument] = (), arguments: Sequence[Argument] = ()) -> Command:
        """Return the command that runs it on any server, for a transaction.

        Args:
            keys: What it finds in ``KEYS``.
            arguments: What it finds in ``ARGV``.
        """
        return ("EVAL", self._text, len(keys), *keys, *arguments)

    def load(self) -> Command:
        """Return the command that makes it known to the server, for a pipeline."""
        return ("SCRIPT", "LOAD", self._text)
