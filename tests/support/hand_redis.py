"""A Redis server that is in the test's own hands: in memory, on the test's clock, and unwell whenever a test wants it.

It knows what a bus asks of a server, and nothing else. Its scripts do what `member_model` says of the real ones,
but for what those do about outages of the server. All above the socket is the library's own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import hiredis
import pytest
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    Event,
    create_task_group,
    current_time,
    move_on_after,
    sleep,
)
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from workerbus.redis import _handshake
from workerbus.redis._scripts import BEAT, CLAIM, JOIN, LEAVE, RELEASE, RESTARTED, ROLL_CALL, SILENT

Id: TypeAlias = tuple[int, int]
Fields: TypeAlias = list[bytes]
OK: Final = b"OK"
LONG_AGO: Final = 1_000_000.0
"""What the server's clock shows, in seconds, when the test's shows 0."""
WELL: Final = {
    "memory": "maxmemory:0\r\nmaxmemory_policy:noeviction\r\n",
    "persistence": "aof_enabled:1\r\naof_last_write_status:ok\r\n",
    "cluster": "cluster_enabled:0\r\n",
}

_SCRIPTS: Final = {
    script.digest: name
    for name, script in (
        ("JOIN", JOIN), ("BEAT", BEAT), ("LEAVE", LEAVE),
        ("ROLL_CALL", ROLL_CALL), ("CLAIM", CLAIM), ("RELEASE", RELEASE),
    )
}  # fmt: skip
_RELEASE_TEXT: Final = RELEASE.in_full()[1]


class HandRedis:
    """The server.

    Args:
        lease: Of its members, in seconds.
        prefix: Of their network.

    Attributes:
        latency: How many seconds a command needs to the server, and the answer back.
        members: When each has renewed its lease last, on the test's clock.
        names: A worker's name to who has claimed it.
        claims: The names that each member has claimed.
        inboxes: The entries that were not trimmed.
        links: The connections that are there.
        done: What was done, each with the time, the purpose of its connection, and its name.
        about: What it says of its settings, by section of INFO.
    """

    def __init__(self, lease: float, prefix: str = "workerbus") -> None:
        self._lease = lease
        self._base = f"{{{prefix}}}:"
        self.latency = 0.0
        self.members: dict[str, float] = {}
        self.infos: dict[str, bytes] = {}
        self.runners: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.claims: dict[str, set[str]] = {}
        self.inboxes: dict[str, list[tuple[Id, Fields]]] = {}
        self.refused: list[Fields] = []
        self.links: list[Link] = []
        self.done: list[tuple[float, str, str]] = []
        self.about: dict[str, str] = dict(WELL)
        self._clock = LONG_AGO
        self._last: dict[str, Id] = {}
        self._changed = Event()
        self._away = False
        self._frozen: Event | None = None
        self._refusals: dict[str, str] = {}
        self._lost_answers: list[tuple[str, bool]] = []
        self._spoils: list[tuple[str, Callable[[Fields], Fields | None]]] = []

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Let whoever opens a connection to any address reach this server."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_handshake, "open_tcp", self._open)
            yield

    async def _open(self, host: str, port: int) -> ByteStream:
        await sleep(self.latency)
        await self._thawed()
        if self._away:
            raise ConnectionRefusedError(111, "Connection refused")
        link = Link(self)
        self.links.append(link)
        return link

    @property
    def now(self) -> int:
        """Its own time, in milliseconds."""
        return round((self._clock + current_time()) * 1000)

    def times(self, name: str, purpose: str = "") -> list[float]:
        """When a command was done, by connections of one purpose or of all."""
        return [at for at, whose, what in self.done if what == name and whose.endswith(purpose)]

    # --- what may befall it

    def go_away(self) -> None:
        """End, with everything stored; until `come_back`."""
        self._away = True
        self.cut_off("")

    def come_back(self) -> None:
        self._away = False

    def freeze(self) -> None:
        """Answer nobody; until `thaw`."""
        if self._frozen is None:
            self._frozen = Event()

    def thaw(self) -> None:
        if self._frozen is not None:
            self._frozen.set()
            self._frozen = None

    def cut_off(self, purpose: str) -> None:
        """Break the connections of one purpose, as in ``"left:writer"``; of all, for an empty one."""
        for link in [link for link in self.links if purpose in link.purpose]:
            link.break_it()

    def hang(self, purpose: str) -> None:
        """Answer the connections of one purpose no more that are there now."""
        for link in self.links:
            link.hangs |= link.purpose == purpose

    def refuse(self, command: str, text: str | None) -> None:
        """Answer a command with an error, from now on; None for no more."""
        if text is None:
            self._refusals.pop(command, None)
        else:
            self._refusals[command] = text

    def lose_answer(self, command: str, *, done: bool = True) -> None:
        """Break the connection over which a command comes next, when it is done, or before that."""
        self._lost_answers.append((command, done))

    def spoil(self, member: str, how: Callable[[Fields], Fields | None]) -> None:
        """Change the next message that is written to a member's inbox; None for one that gets lost."""
        self._spoils.append((member, how))

    def well(self) -> None:
        """Be well again, whatever was wrong, and whatever was still to go wrong."""
        self.come_back()
        self.thaw()
        self._refusals.clear()
        self._lost_answers.clear()
        self._spoils.clear()

    def set_clock(self, seconds: float) -> None:
        """Set its clock forward, or back."""
        self._clock += seconds

    def forget(self, member: str) -> None:
        """Declare a member lost."""
        if member in self.members:
            self._lose([member], SILENT)

    # --- what it does

    async def _thawed(self) -> None:
        while self._frozen is not None:
            await self._frozen.wait()

    async def do(self, link: "Link", command: Sequence[bytes]) -> Any:
        """Do one command, and return the reply."""
        name = self._name_of(command)
        if name == "MULTI":
            link.queue = []
            return OK
        if link.queue is not None and name != "EXEC":
            if name in self._refusals:
                link.queue_refused = True
                return hiredis.ReplyError(self._refusals[name])
            link.queue.append(command)
            return b"QUEUED"
        for lost in self._lost_answers:
            if lost[0] == name:
                self._lost_answers.remove(lost)
                if lost[1]:
                    await self._answer(link, name, command)
                link.break_it()
                raise BrokenResourceError from ConnectionResetError(104, "Connection reset by peer")
        return await self._answer(link, name, command)

    def _name_of(self, command: Sequence[bytes]) -> str:
        name = command[0].decode().upper()
        if name == "EVALSHA":
            return _SCRIPTS[command[1].decode()]
        if name == "EVAL":
            assert command[1].decode() == _RELEASE_TEXT
            return "RELEASE"
        return name

    async def _answer(self, link: "Link", name: str, command: Sequence[bytes]) -> Any:
        self.done.append((current_time(), link.purpose, name))
        if name in self._refusals:
            if name == "EXEC":
                link.queue = None
            return hiredis.ReplyError(self._refusals[name])
        if name == "EXEC":
            queue, refused = link.queue or [], link.queue_refused
            link.queue, link.queue_refused = None, False
            if refused:
                return hiredis.ReplyError("EXECABORT Transaction discarded because of previous errors.")
            return [self._do_now(self._name_of(each), each) for each in queue]
        if name == "XREAD":
            return await self._read(link, command)
        if name == "HELLO":
            link.greet([each.decode() for each in command])
        return self._do_now(name, command)

    def _do_now(self, name: str, command: Sequence[bytes]) -> Any:
        if name in _SCRIPTS.values():
            _, me, *rest = [each.decode() for each in command[3 + int(command[2]) :]]
            return getattr(self, f"_{name.lower()}")(me, *rest)
        return getattr(self, f"_do_{name.lower()}")(*command[1:])

    def _do_hello(self, *_: bytes) -> Any:
        return [
            b"server",
            b"redis",
            b"version",
            b"7.2.4",
            b"id",
            len(self.links),
            b"mode",
            b"standalone",
            b"role",
            b"master",
        ]

    def _do_ping(self) -> Any:
        return b"PONG"

    def _do_info(self, section: bytes) -> Any:
        return self.about[section.decode()].encode()

    def _do_config(self, *_: bytes) -> Any:
        return [b"appendfsync", b"everysec"]

    def _do_xlen(self, key: bytes) -> Any:
        return len(self._inbox(key) or ())

    def _do_xtrim(self, key: bytes, _how: bytes, least: bytes) -> Any:
        inbox = self._inbox(key)
        if inbox is not None:
            inbox[:] = [entry for entry in inbox if entry[0] >= _id(least)]
        return 0

    def _do_xadd(self, key: bytes, *rest: bytes) -> Any:
        fields = list(rest[rest.index(b"*") + 1 :])
        if key.decode() == f"{self._base}refused":
            self.refused.append(fields)
            return b"0-0"
        if self._inbox(key) is None:
            return None
        member = key.decode().removeprefix(f"{self._base}inbox:")
        for spoil in self._spoils:
            if spoil[0] == member and fields[4] == b"m":
                self._spoils.remove(spoil)
                changed = spoil[1](fields)
                return b"0-0" if changed is None else self._store(member, changed)
        return self._store(member, fields)

    def _inbox(self, key: bytes) -> list[tuple[Id, Fields]] | None:
        return self.inboxes.get(key.decode().removeprefix(f"{self._base}inbox:"))

    def _store(self, member: str, fields: Fields) -> bytes:
        milliseconds, number = self._last.get(member, (0, 0))
        last = self._last[member] = (self.now, 0) if self.now > milliseconds else (milliseconds, number + 1)
        self.inboxes[member].append((last, fields))
        self._changed.set()
        self._changed = Event()
        return b"%d-%d" % last

    async def _read(self, link: "Link", command: Sequence[bytes]) -> Any:
        options = dict(zip(command[1:5:2], command[2:5:2], strict=True))
        key, after = command[-2], _id(command[-1])
        until = current_time() + int(options.get(b"BLOCK", 0)) / 1000
        while True:
            found = [entry for entry in self._inbox(key) or () if entry[0] > after][: int(options[b"COUNT"])]
            if found:
                return [[key, [[b"%d-%d" % at, fields] for at, fields in found]]]
            if current_time() >= until:
                return None
            changed = self._changed
            with move_on_after(until - current_time()):
                await link.unless_broken(changed)

    # --- its scripts

    def _tell(self, *fields: str) -> None:
        for each in self.members:
            if each in self.inboxes:
                self._store(each, [field.encode() for field in fields])

    def _drop(self, member: str) -> None:
        del self.members[member]
        name = json.loads(self.infos.pop(member))["name"]
        if self.runners.get(name) == member:
            del self.runners[name]
        for name in self.claims.pop(member, set()):
            if self.names.get(name) == member:
                del self.names[name]
        self.inboxes.pop(member, None)

    def _lose(self, lost: list[str], reason: str) -> int:
        for member in lost:
            self._drop(member)
        if lost:
            self._tell("k", "lost", "p", " ".join(lost), "r", reason)
        return len(lost)

    def _reap(self) -> int:
        return self._lose([each for each, at in self.members.items() if at < current_time() - self._lease], SILENT)

    def _join(self, me: str, _lease: str, _cap: str, name: str, info: str, supersede: str) -> Any:
        self._reap()
        former = self.runners.get(name)
        if me not in self.members and former in self.members:
            assert former is not None
            if supersede != "1":
                return [0, self.now, former.encode(), self.infos[former]]
            self._lose([former], RESTARTED)
        others = [part for each, text in self.infos.items() for part in (each.encode(), text)]
        if me not in self.members:
            self._tell("k", "joined", "p", me, "i", info)
            self.infos[me], self.runners[name] = info.encode(), me
        self.members[me] = current_time()
        if me not in self.inboxes:
            self.inboxes[me] = []
            self._store(me, [b"k", b"joined", b"p", me.encode(), b"i", info.encode()])
        return [1, self.now, b"%d-%d" % self.inboxes[me][0][0] if self.inboxes[me] else b"0-0", others]

    def _beat(self, me: str, *_: str) -> Any:
        lost, alive = 0, 0
        if me in self.members:
            lost = self._reap()
            if me in self.members:
                self.members[me], alive = current_time(), 1
        return [alive, self.now, len(self.members), lost, len(self.inboxes.get(me, ())) if alive else 0]

    def _leave(self, me: str, *_: str) -> Any:
        if me not in self.members:
            return 0
        self._drop(me)
        self._tell("k", "left", "p", me)
        return 1

    def _roll_call(self, me: str, *_: str) -> Any:
        if me in self.members:
            self._store(me, [b"k", b"members", b"p", " ".join(self.members).encode()])
        return 0

    def _claim(self, me: str, *names: str) -> Any:
        if me not in self.members:
            return None
        taken = []
        for name in names:
            owner = self.names.get(name, me)
            if owner != me and owner in self.members:
                taken.append([name.encode(), owner.encode(), self.infos[owner]])
            else:
                self.names[name] = me
                self.claims.setdefault(me, set()).add(name)
        return taken

    def _release(self, me: str, *names: str) -> Any:
        for name in names:
            if self.names.get(name) == me:
                del self.names[name]
                self.claims.get(me, set()).discard(name)
        return 0


class Link(ByteStream):
    """A connection to the server, as its client has it.

    Attributes:
        purpose: What the client calls it.
        queue: The commands since MULTI.
        queue_refused: Whether one of them was refused.
        hangs: Whether it is answered no more.
    """

    def __init__(self, server: HandRedis) -> None:
        self._server = server
        self._commands = hiredis.Reader(notEnoughData=None)
        self._broken = Event()
        self._closed = False
        self.purpose = ""
        self.queue: list[Sequence[bytes]] | None = None
        self.queue_refused = False
        self.hangs = False

    def greet(self, command: Sequence[str]) -> None:
        self.purpose = command[command.index("SETNAME") + 1] if "SETNAME" in command else "?"

    def break_it(self) -> None:
        if self in self._server.links:
            self._server.links.remove(self)
        self._broken.set()

    def _check(self) -> None:
        if self._closed:
            raise ClosedResourceError
        if self._broken.is_set():
            raise BrokenResourceError from ConnectionResetError(104, "Connection reset by peer")

    async def unless_broken(self, event: Event) -> None:
        """Wait for an event, or until the connection is broken or closed; that is an error."""
        async with create_task_group() as group:

            async def wait(one: Event) -> None:
                await one.wait()
                group.cancel_scope.cancel()

            group.start_soon(wait, event)
            group.start_soon(wait, self._broken)
        self._check()

    async def _frozen(self) -> None:
        while self._server._frozen is not None:
            await self.unless_broken(self._server._frozen)

    async def _travel(self) -> None:
        with move_on_after(self._server.latency):
            await self.unless_broken(Event())
        self._check()

    async def send(self, item: bytes) -> None:
        self._check()
        self._commands.feed(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        await self._travel()
        replies = b""
        while (command := self._commands.gets()) is not None:
            await self._frozen()
            self._check()
            replies += _packed(await self._server.do(self, command))
        if self.hangs or not replies:
            await self.unless_broken(Event())
        await self._travel()
        return replies

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._closed = True
        if self in self._server.links:
            self._server.links.remove(self)
        self._broken.set()
        await checkpoint()


def _id(text: bytes) -> Id:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number or 0)


def _packed(reply: Any) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, hiredis.ReplyError):
        return b"-%s\r\n" % str(reply).encode()
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
