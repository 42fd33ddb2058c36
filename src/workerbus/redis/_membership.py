"""Who is a member of the network, and who has which name: what a member asks of the server (X3-X5).

A member is one life of a runner, known by its incarnation. It holds a lease, which each beat renews. What is to be
decided, the server decides, in one step each and by its own clock (`_scripts`); here are the questions and the answers.

Knows nothing of when to ask, and of sessions. It does not retry: who has lost the connection half-way asks again. All
may be asked twice; `join` within a lease, with the same incarnation.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import field, frozen

from workerbus._values import Peer
from workerbus.redis._connection import Connection
from workerbus.redis._protocol import Command
from workerbus.redis._script import Script
from workerbus.redis._scripts import BEAT, BEATS, CLAIM, JOIN, LEAVE, RELEASE, ROLL_CALL

INBOX_ENTRIES: Final = 100_000
"""About how many entries an inbox keeps; more push out the oldest."""

PREFIX: Final = re.compile(r"[\w.:/-]+", re.ASCII)
"""What a prefix may be: with others, a rule of the server's ACL would mean something else, or a key another slot."""

Kind: TypeAlias = Literal["joined", "left", "lost", "members"]
KINDS: Final[Mapping[bytes, Kind]] = {b"joined": "joined", b"left": "left", b"lost": "lost", b"members": "members"}


@frozen
class Member:
    """Somebody in the network, in one life.

    Args:
        peer: The runner's name, and the incarnation.
        info: What it says about itself; at least ``name``.
    """

    peer: Peer
    info: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class Joined:
    """The server has let a member in.

    Args:
        now: The server's time, in milliseconds.
        position: The id of the entry in its inbox after which to read on.
        members: All others.
    """

    now: int
    position: str
    members: tuple[Member, ...]


@frozen
class Refused:
    """The server has not let a member in: another one has its name.

    Args:
        now: The server's time, in milliseconds.
        owner: Who has the name.
    """

    now: int
    owner: Member


@frozen
class Beat:
    """What a member learns when it renews its lease.

    Args:
        alive: Whether it is a member. If not, nothing was changed, and never will be under this incarnation.
        now: The server's time, in milliseconds.
        members: How many there are.
        lost: How many were found to be lost in this step.
        inbox: How many entries are in its inbox.
    """

    alive: bool
    now: int
    members: int
    lost: int
    inbox: int


@frozen
class Notice:
    """An entry of an inbox that tells of other members.

    Args:
        kind: What has happened to them; ``"members"`` where they are all that there are.
        members: Whom it is about: several where they were lost in one step, else one. There are name and info where it
            has joined; else the name is the incarnation.
        reason: Why they are lost; else empty.
    """

    kind: Kind
    members: tuple[Member, ...]
    reason: str = ""


class Membership:
    """The members of a network, and the names that they have claimed, at the server.

    Args:
        prefix: The network's; all its keys begin with ``{prefix}:``, braces included.
        lease: How long, in seconds, a member may be silent. It has to be the same for all members.
        inbox_entries: About how many entries an inbox keeps when notices are written to it.

    Attributes:
        base: What all keys begin with.
        interval: How long, in seconds, from one beat to the next.

    Raises:
        ValueError: The prefix is empty or has other characters than letters, digits and ``-_.:/``; or the lease is too
            short, or no time.
    """

    def __init__(self, prefix: str, lease: float, *, inbox_entries: int = INBOX_ENTRIES) -> None:
        if PREFIX.fullmatch(prefix) is None:
            raise ValueError(
                f"a prefix is made of letters, digits and any of -_.:/ and is not empty, unlike {prefix!r}"
            )
        if not 0.01 <= lease < math.inf:
            raise ValueError(f"a lease is a time in seconds, from 0.01 on, not {lease!r}")
        self.base: Final = f"{{{prefix}}}:"
        self.interval: Final = lease / BEATS
        self._lease = round(lease * 1000)
        self._timeout = max(lease / 4, 0.5)  # of a connection that hears nothing, so that the next one is in time
        self.inbox_entries: Final = inbox_entries
        self._keys = [self.base + key for key in ("members", "info", "runners", "names")]

    def inbox(self, incarnation: str) -> str:
        """The key of a member's inbox."""
        return f"{self.base}inbox:{incarnation}"

    async def join(
        self, connection: Connection, incarnation: str, name: str, info: Mapping[str, Any], *, supersede: bool = True
    ) -> Joined | Refused:
        """Become a member.

        In the same step, all others find in their inboxes that this one has joined; so they know it before they read
        anything that it writes.

        Args:
            connection: To the server.
            incarnation: A new one.
            name: The runner's name.
            info: What others get to know beside the name; as JSON.
            supersede: Whether a member of the same name is lost at once, as it must be a former life. If not, the
                answer says who it is.
        """
        text = json.dumps({**info, "name": name})
        answer = await self._run(
            connection, JOIN, incarnation, self._lease, self.inbox_entries, name, text, int(supersede)
        )
        if not answer[0]:
            return Refused(answer[1], _member(answer[2], answer[3]))
        entries = answer[3]
        members = (_member(each, about) for each, about in zip(entries[::2], entries[1::2], strict=True))
        others = tuple(member for member in members if member.peer.incarnation != incarnation)
        return Joined(answer[1], answer[2].decode(), others)

    async def beat(self, connection: Connection, incarnation: str) -> Beat:
        """Renew the lease, and declare lost who has not.

        Who is lost is told to all others, with the reason; its inbox and its claims are deleted.
        """
        alive, now, members, lost, inbox = await self._run(
            connection, BEAT, incarnation, self._lease, self.inbox_entries
        )
        return Beat(bool(alive), now, members, lost, inbox)

    async def roll_call(self, connection: Connection, incarnation: str) -> None:
        """Have a list of all members written to one's inbox, behind what was told of them."""
        await self._run(connection, ROLL_CALL, incarnation, self.inbox_entries)

    async def leave(self, connection: Connection, incarnation: str) -> bool:
        """Be a member no more; all others are told. The inbox and all claims are deleted.

        Returns:
            Whether it was one.
        """
        return bool(await self._run(connection, LEAVE, incarnation, self._lease, self.inbox_entries))

    async def claim(self, connection: Connection, incarnation: str, names: Iterable[str]) -> dict[str, Member] | None:
        """Claim names of workers. Those that other members have stay theirs; the rest is this member's now.

        Returns:
            Who has those that are taken. None says that this is no member (any more), and has claimed nothing.
        """
        taken = await self._run(connection, CLAIM, incarnation, *names)
        if taken is None:
            return None
        return {name.decode(): _member(owner, about) for name, owner, about in taken}

    async def release(self, connection: Connection, incarnation: str, names: Iterable[str]) -> None:
        """Give up claims. Those of others stay."""
        await self._run(connection, RELEASE, incarnation, *names)

    def releasing(self, incarnation: str, names: Iterable[str]) -> Command:
        """Return the command that does so, for a transaction."""
        return RELEASE.in_full(self._keys, (self.base, incarnation, *names))

    async def _run(self, connection: Connection, script: Script, *arguments: str | int) -> Any:
        return await script.run(connection, self._keys, (self.base, *arguments), timeout=self._timeout)


def read_notice(fields: Mapping[bytes, bytes]) -> Notice | None:
    """Return what an entry of an inbox says about members; None if it is about none, but a message.

    Args:
        fields: Of the entry: ``k`` the kind, ``p`` the incarnations, with spaces between them, ``i`` the info as JSON,
            ``r`` the reason.
    """
    kind = KINDS.get(fields.get(b"k", b""))
    if kind is None:
        return None
    members = tuple(_member(each, fields.get(b"i")) for each in fields.get(b"p", b"").split())
    return Notice(kind, members, fields.get(b"r", b"").decode(errors="replace"))


def _member(incarnation: bytes, about: bytes | None) -> Member:
    """What others write about themselves has to hold up nobody: where it is unreadable, the name is the incarnation."""
    key = incarnation.decode(errors="replace")
    try:
        info = json.loads(about or b"{}")
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        info = {}
    name = info.get("name")
    return Member(Peer(name if isinstance(name, str) else key, key), info)
