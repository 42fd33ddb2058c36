"""Members of a network at a real server, without any bus; time passes by changing what the server knows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from support.redis_servers import RedisServer
from workerbus.redis._connection import Connection
from workerbus.redis._membership import Joined, Member, Membership, read_notice

PREFIX = "wb"
LEASE = 10.0
"""Seconds; no test waits for them."""


class Told(NamedTuple):
    """What is told of one member."""

    kind: str
    member: Member
    reason: str


class Members:
    """Asks the server for members, all over one connection, and looks at what is in their inboxes.

    Args:
        server: The server.
        connection: To it.
        lease: In seconds.
        inbox_entries: How many entries an inbox keeps.
    """

    def __init__(
        self, server: RedisServer, connection: Connection, lease: float = LEASE, inbox_entries: int = 1000
    ) -> None:
        self.server = server
        self.connection = connection
        self.membership = Membership(PREFIX, lease, inbox_entries=inbox_entries)

    async def join(self, incarnation: str, name: str | None = None, info: Mapping[str, Any] | None = None) -> Joined:
        """Join; of ``a1``, the name is ``a`` if nothing else is said."""
        answer = await self.membership.join(self.connection, incarnation, name or incarnation[:1], info or {})
        assert isinstance(answer, Joined)
        return answer

    async def alive(self, incarnation: str) -> bool:
        return (await self.membership.beat(self.connection, incarnation)).alive

    async def leave(self, incarnation: str) -> bool:
        return await self.membership.leave(self.connection, incarnation)

    async def claim(self, incarnation: str, *names: str) -> dict[str, str] | None:
        """Claim names; return who has those that are taken, by the incarnation."""
        taken = await self.membership.claim(self.connection, incarnation, names)
        return None if taken is None else {name: owner.peer.incarnation for name, owner in taken.items()}

    async def release(self, incarnation: str, *names: str) -> None:
        await self.membership.release(self.connection, incarnation, names)

    def notices(self, incarnation: str) -> list[Told]:
        """All that a member is told of others, one by one, in order."""
        entries = self.server.call("XRANGE", self.membership.inbox(incarnation), "-", "+")
        fields = (dict(zip(each[::2], each[1::2], strict=True)) for _, each in entries)
        found = [notice for each in fields if (notice := read_notice(each)) is not None]
        told = [Told(each.kind, member, each.reason) for each in found for member in each.members]
        return [each for each in told if each.member.peer.incarnation != incarnation]

    def news(self, incarnation: str) -> list[str]:
        """The same in short, as in ``joined b1``."""
        return [f"{told.kind} {told.member.peer.incarnation}" for told in self.notices(incarnation)]

    def now(self) -> int:
        """The server's time, in milliseconds."""
        seconds, microseconds = self.server.call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    def has_been_silent(self, incarnation: str, seconds: float) -> None:
        """Let it be so long since a member's last beat; less than nothing is in the future."""
        since = self.now() - round(seconds * 1000)
        self.server.call("ZADD", f"{{{PREFIX}}}:members", "XX", since, incarnation)

    def silence(self, incarnation: str) -> float:
        """How long it is, for the server, since a member's last beat, in seconds."""
        return (self.now() - float(self.server.call("ZSCORE", f"{{{PREFIX}}}:members", incarnation))) / 1000

    def present(self) -> set[str]:
        return {each.decode() for each in self.server.call("ZRANGE", f"{{{PREFIX}}}:members", 0, -1)}

    def all_keys(self) -> set[str]:
        return {each.decode() for each in self.server.call("KEYS", "*")}
