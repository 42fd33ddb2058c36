"""What the server knows of the members of a network, and what it should know: a model of the scripts, step by step."""

import json
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

import hiredis

from support.redis_servers import RedisServer
from workerbus.redis._errors import RedisReplyError
from workerbus.redis._membership import Joined, Member, Membership
from workerbus.redis._scripts import LOST_AT_ONCE, NO_INBOX, RESTARTED, SILENT

T = TypeVar("T")
LEASE = 1000
"""Seconds; no test waits for them."""
UNREADABLE = "no json"

Entry = dict[str, str]


def name_of(incarnation: str) -> str:
    """The runner whose life that is, as in ``a1``."""
    return incarnation[0]


class Direct:
    """Stands for a connection whose commands are done at once, in the test's own step."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def execute(self, *command: Any, **_: Any) -> Any:
        try:
            return self._server.call(*command)
        except hiredis.ReplyError as exc:
            raise RedisReplyError(str(exc)) from exc


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing."""
    try:
        call.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("it has waited")


class Known:
    """What a server should know, moved by the same steps; the time of each is the one that the server has told.

    Attributes:
        beats: When each member has renewed its lease last, in milliseconds.
        infos: What each says about itself, as text.
        runners: A runner's name to its incarnation.
        names: A worker's name to who has it.
        claims: The names that each has claimed.
        inboxes: What each finds in its inbox.
        seen: The run id of the server, as it was seen last.
    """

    def __init__(self, base: str, run: str) -> None:
        self._base = base
        self._run = run
        self.beats: dict[str, int] = {}
        self.infos: dict[str, str] = {}
        self.runners: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.claims: dict[str, set[str]] = {}
        self.inboxes: dict[str, list[Entry]] = {}
        self.seen: str | None = None

    def members(self) -> list[str]:
        """All members, who has been silent for longest first."""
        return sorted(self.beats, key=lambda each: (self.beats[each], each))

    def keys(self) -> set[str]:
        """All keys that there are."""
        tables = {"members": self.beats, "info": self.infos, "runners": self.runners, "names": self.names}
        kept = {name for name, table in tables.items() if table} | ({"server"} if self.seen is not None else set())
        kept |= {f"claims:{each}" for each, names in self.claims.items() if names}
        return {self._base + each for each in kept | {f"inbox:{each}" for each in self.inboxes}}

    # --- what the scripts are made of

    def _tell(self, **entry: str) -> None:
        for each in self.beats:
            if each in self.inboxes:
                self.inboxes[each].append(entry)

    def _drop(self, member: str) -> None:
        del self.beats[member]
        info = self.infos.pop(member, UNREADABLE)
        if info != UNREADABLE and self.runners.get(json.loads(info)["name"]) == member:
            del self.runners[json.loads(info)["name"]]
        for name in self.claims.pop(member, set()):
            if self.names.get(name) == member:
                del self.names[name]
        self.inboxes.pop(member, None)
        if not self.beats:
            self.seen = None

    def _lose(self, lost: list[str], reason: str) -> int:
        for member in lost:
            self._drop(member)
        if lost:
            self._tell(k="lost", p=" ".join(lost), r=reason)
        return len(lost)

    def _reap(self, now: int) -> int:
        lease, beat = LEASE * 1000, LEASE * 200
        pause = now - max(self.beats.values()) if self.beats else 0
        another, self.seen = self.seen != self._run, self._run
        if another or abs(pause) > lease / 2:
            self.beats = dict.fromkeys(self.beats, now)
        elif pause > 1.5 * beat:
            self.beats = {each: at + math.floor(pause - beat) for each, at in self.beats.items()}
        overdue = [each for each in self.members() if self.beats[each] < now - lease]
        return self._lose(overdue[:LOST_AT_ONCE], SILENT)

    # --- the scripts

    def join(self, me: str, info: str, now: int, *, supersede: bool) -> str | dict[str, str]:
        """Who joins learns of all others; or who has its name."""
        self._reap(now)
        known, former = me in self.beats, self.runners.get(name_of(me))
        if not known and former in self.beats:
            assert former is not None
            if not supersede:
                return former
            self._lose([former], RESTARTED)
        others = {each: text for each, text in self.infos.items() if each != me}
        if not known:
            self._tell(k="joined", p=me, i=info)
            self.infos[me], self.runners[name_of(me)] = info, me
        self.beats[me] = now
        self.inboxes.setdefault(me, [{"k": "joined", "p": me, "i": info}])
        return others

    def beat(self, me: str, now: int) -> tuple[bool, int, int, int]:
        """Whether it is a member, how many there are, how many were lost, and how long its inbox is."""
        lost, alive = 0, False
        if me in self.beats:
            lost = self._reap(now)
            if me in self.beats and now - self.beats[me] > LEASE * 1000:  # so many were lost that its turn has not come
                lost += self._lose([me], SILENT)
            elif me in self.beats and me not in self.inboxes:
                lost += self._lose([me], NO_INBOX)
            elif me in self.beats:
                self.beats[me], alive = now, True
        return alive, len(self.beats), lost, len(self.inboxes.get(me, ())) if alive else 0

    def leave(self, me: str) -> bool:
        if me not in self.beats:
            return False
        self._drop(me)
        self._tell(k="left", p=me)
        return True

    def roll_call(self, me: str) -> None:
        if me in self.beats and me in self.inboxes:
            self.inboxes[me].append({"k": "members", "p": " ".join(self.members())})

    def claim(self, me: str, names: list[str]) -> dict[str, str] | None:
        if me not in self.beats:
            return None
        taken: dict[str, str] = {}
        for name in names:
            owner = self.names.get(name, me)
            if owner != me and owner in self.beats:
                taken[name] = owner
            else:
                self.names[name] = me
                self.claims.setdefault(me, set()).add(name)
        return taken

    def release(self, me: str, names: list[str]) -> None:
        for name in names:
            if self.names.get(name) == me:
                del self.names[name]
                self.claims.get(me, set()).discard(name)


class Compared:
    """A server, and what it should know; each step is done at both, and all that they know is compared.

    Args:
        server: The server, where nothing of the network is left.
        prefix: Of the network.
        incarnations: All that there may be.
    """

    def __init__(self, server: RedisServer, prefix: str, incarnations: tuple[str, ...]) -> None:
        self._server = server
        self._base = f"{{{prefix}}}:"
        self._incarnations = incarnations
        self._connection: Any = Direct(server)
        self._membership = Membership(prefix, LEASE, inbox_entries=100_000)
        run = server.call("INFO", "server").decode().partition("run_id:")[2].partition("\r")[0]
        self.known = Known(self._base, run)

    # --- steps

    def join(self, me: str, *, supersede: bool, pid: int) -> None:
        call = self._membership.join(self._connection, me, name_of(me), {"pid": pid}, supersede=supersede)
        answer = at_once(call)
        text = json.dumps({"pid": pid, "name": name_of(me)})
        expected = self.known.join(me, text, answer.now, supersede=supersede)
        if isinstance(answer, Joined):
            assert isinstance(expected, dict)
            assert {each.peer.incarnation: each.info for each in answer.members} == _read(expected)
            first = self._server.call("XRANGE", self._membership.inbox(me), "-", "+", "COUNT", 1)[0][0]
            assert answer.position == first.decode()
        else:
            assert answer.owner.peer.incarnation == expected

    def beat(self, me: str) -> None:
        beat = at_once(self._membership.beat(self._connection, me))
        assert (beat.alive, beat.members, beat.lost, beat.inbox) == self.known.beat(me, beat.now)

    def leave(self, me: str) -> None:
        assert at_once(self._membership.leave(self._connection, me)) == self.known.leave(me)

    def roll_call(self, me: str) -> None:
        at_once(self._membership.roll_call(self._connection, me))
        self.known.roll_call(me)

    def claim(self, me: str, names: list[str]) -> None:
        taken = at_once(self._membership.claim(self._connection, me, names))
        expected = self.known.claim(me, names)
        assert (None if taken is None else _by_incarnation(taken)) == expected
        if taken is not None:
            infos = {owner: self.known.infos.get(owner, UNREADABLE) for owner in (expected or {}).values()}
            assert {each.peer.incarnation: each.info for each in taken.values()} == _read(infos)

    def release(self, me: str, names: list[str]) -> None:
        at_once(self._membership.release(self._connection, me, names))
        self.known.release(me, names)

    def time_passes(self, seconds: int) -> None:
        """Let it be so much later; less than nothing sets the server's clock back."""
        for each in self.known.beats:
            self.known.beats[each] -= seconds * 1000
            self._server.call("ZINCRBY", f"{self._base}members", -seconds * 1000, each)

    def is_silent(self, me: str, seconds: int) -> None:
        """Let it be so much longer since a member's last beat, and no later for the others."""
        if me in self.known.beats:
            self.known.beats[me] -= seconds * 1000
            self._server.call("ZINCRBY", f"{self._base}members", -seconds * 1000, me)

    def crowd(self) -> None:
        """Let as many have been silent for longest as are lost in one step."""
        if self.known.beats:
            at = min(self.known.beats.values()) - 3 * LEASE * 1000
            dead = [f"z{number}" for number in range(LOST_AT_ONCE)]
            self.known.beats.update(dict.fromkeys(dead, at))
            flat = [each for member in dead for each in (at, member)]
            self._server.call("ZADD", f"{self._base}members", *flat)

    def is_late_in_a_crowd(self, me: str, *, with_inbox: bool) -> None:
        """Let a member be late, too, so that in the step in which it beats its turn to be lost has not come."""
        self.crowd()
        self.is_silent(me, LEASE + 100)
        if not with_inbox:
            self.spoil("inbox", me)
        self.beat(me)

    def spoil(self, what: str, me: str) -> None:
        """Let something of a member be lost, or unreadable."""
        if what == "inbox":
            self.known.inboxes.pop(me, None)
            self._server.call("DEL", f"{self._base}inbox:{me}")
        elif what == "claims":
            self.known.claims.pop(me, None)
            self._server.call("DEL", f"{self._base}claims:{me}")
        elif what == "names":
            self.known.names.clear()
            self._server.call("DEL", f"{self._base}names")
        elif what == "server":
            self.known.seen = "another"
            self._server.call("SET", f"{self._base}server", "another")
        elif me in self.known.infos:
            self.known.infos[me] = UNREADABLE
            self._server.call("HSET", f"{self._base}info", me, UNREADABLE)

    # --- what they know

    def compare(self) -> None:
        tables = [("HGETALL", self._base + table) for table in ("info", "runners", "names")]
        whose = [("SMEMBERS", f"{self._base}claims:{each}") for each in self._incarnations]
        inboxes = [("XRANGE", f"{self._base}inbox:{each}", "-", "+") for each in self._incarnations]
        beats, seen, keys, *rest = self._server.calls(
            ("ZRANGE", f"{self._base}members", 0, -1, "WITHSCORES"),
            ("GET", f"{self._base}server"),
            ("KEYS", f"{self._base}*"),
            *tables,
            *whose,
            *inboxes,
        )
        known, count = self.known, len(self._incarnations)
        assert {member: int(at) for member, at in _pairs(beats).items()} == known.beats
        assert (None if seen is None else seen.decode()) == known.seen
        assert {each.decode() for each in keys} == known.keys()
        assert [_pairs(table) for table in rest[:3]] == [known.infos, known.runners, known.names]
        for me, names, entries in zip(self._incarnations, rest[3 : 3 + count], rest[3 + count :], strict=True):
            assert {each.decode() for each in names} == known.claims.get(me, set())
            assert [_pairs(fields) for _, fields in entries] == known.inboxes.get(me, [])


def _pairs(flat: list[bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _read(infos: dict[str, str]) -> dict[str, Any]:
    return {each: {} if text == UNREADABLE else json.loads(text) for each, text in infos.items()}


def _by_incarnation(owners: dict[str, Member]) -> dict[str, str]:
    return {name: owner.peer.incarnation for name, owner in owners.items()}
