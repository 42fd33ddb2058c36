"""X2, X3, X4: what one peer gets, and what its senders are told, is the same alone as beside others."""

from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from attrs import define, field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.member_model import at_once
from workerbus import BusUnavailable, Peer
from workerbus.bus._peers import Session
from workerbus.redis import _writer
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._outbox import Outbox, SharedReceipt
from workerbus.redis._protocol import Command
from workerbus.redis._writer import TOGETHER_SECONDS, Writer

PEERS = A, A2, B = Peer("a", "a-1"), Peer("a", "a-2"), Peer("b", "b-1")
NOW = 100.0
WRONG_KEY = RedisReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
FULL = RedisReplyError("OOM command not allowed when used memory > 'maxmemory'.")


@frozen
class Step:
    """Something that happens to a line.

    Args:
        deed: What happens.
        whom: The peers that it concerns.
        n: Which message, or what else there is to choose.
        inner: What happens while a batch is under way.
    """

    deed: str
    whom: tuple[Peer, ...] = ()
    n: int = 0
    inner: tuple["Step", ...] = ()


SOME = [(A,), (B,), (A2,), (A, B), (A, A2, B), (B, A2)]
BETWEEN = ("put", "put", "put", "give up", "lose", "mark")
WRITES = ("stored", "stored", "lost", "refused", "gone", "all refused")


def _between(random: Random) -> Step:
    deed = random.choice(BETWEEN)
    whom = random.choice([(A,), (B,)] if deed == "lose" else SOME)
    return Step(deed, whom, random.randrange(8))


def _program(random: Random) -> list[Step]:
    steps: list[Step] = []
    for _ in range(random.randrange(8, 30)):
        deed = random.choice(["between", "between", "between", "write", "write", "life over"])
        if deed == "between":
            steps.append(_between(random))
        elif deed == "write":
            inner = tuple(_between(random) for _ in range(random.randrange(3)))
            steps.append(Step(random.choice(WRITES), random.choice(SOME), inner=inner))
        elif random.random() < 0.3:
            steps.append(Step("life over"))
    return [*steps, Step("stored"), Step("stored")]


@define
class Line:
    """A line, and the inboxes that are written from it; of what happens, only what concerns some peers is done.

    Attributes:
        sees: Those peers.
        sent: The receipt of each message; None where it was for nobody.
        inboxes: What is in the inbox of each, in each life.
    """

    sees: tuple[Peer, ...]
    sent: list[SharedReceipt | None] = field(factory=list)
    inboxes: dict[str, list[dict[str, Any]]] = field(init=False)
    sessions: dict[str, Session] = field(factory=dict)
    outbox: Outbox = field(init=False)
    gaps: set[str] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.inboxes = {f"to {peer.incarnation}": [] for peer in self.sees}
        self.outbox = Outbox("bus", self.sessions.get)
        self._begin()

    def _begin(self) -> None:
        self.sessions.update((peer.incarnation, Session(peer)) for peer in self.sees)
        for each in self.inboxes.values():
            each.append({"life": "begins"})

    def do(self, step: Step) -> None:
        whom = [peer for peer in step.whom if peer in self.sees]
        match step.deed:
            case "put":
                self._put(step.n, [peer for peer in whom if peer.incarnation in self.sessions])
            case "give up":
                receipt = self.sent[step.n % len(self.sent)] if self.sent else None
                if receipt is not None:
                    receipt.withdrawn = True
            case "lose":
                for peer in whom:
                    if self.sessions.pop(peer.incarnation, None) is not None:
                        self.outbox.drop(peer)
            case "mark":
                self.outbox.mark(whom, NOW)
            case "life over":
                self.outbox.drop_all()
                self.sessions.clear()
                self._begin()
            case _:
                self._write(step, {f"to {peer.incarnation}" for peer in whom})

    def _put(self, n: int, whom: Sequence[Peer]) -> None:
        data = b"%d" % len(self.sent) + b"\n" * (n == 1) + b"x" * (4_000 * (n == 2))
        receipt = SharedReceipt(len(whom), target=bool(n % 2)) if whom else None
        self.sent.append(receipt)
        if receipt is not None:
            self.outbox.put(data, whom, receipt, NOW - 1 + n * TOGETHER_SECONDS / 4)

    def _write(self, step: Step, inboxes: set[str]) -> None:
        server = Server(self, step, inboxes)
        writer = Writer(self.outbox, "to {}".format, lambda: "me", inbox_size=100_000, refused=lambda _: None)
        server.inner(step.inner[:1])
        for server.loses in [True, False] if step.deed == "lost" else [False]:
            batch = at_once(self.outbox.next_batch(lambda: True))
            if not batch:
                server.inner(step.inner[1:])
                return
            with suppress(ConnectionLost):
                stored, _ = at_once(writer._write(server, batch, None))  # type: ignore[arg-type]  # all that it uses
                self.outbox.settle(stored)


@define
class Server:
    """Stands for a connection: takes what is written to inboxes, and says what the program says."""

    line: Line
    step: Step
    inboxes: set[str]
    loses: bool = False

    def inner(self, steps: Sequence[Step]) -> None:
        for each in steps:
            self.line.do(each)

    async def pipeline(self, commands: Sequence[Command], **_: Any) -> list[Any]:
        if self.loses or self.step.deed != "lost":  # else it has happened before
            self.inner(self.step.inner[1:])
        if self.step.deed == "all refused":
            return [FULL] * len(commands)
        replies = [self._reply(each) for each in commands if each[0] == "XADD"]
        if self.loses:
            raise ConnectionLost("here", "it was lost", sent=True)
        if len(commands) == 1:
            return replies
        assert commands[0] == ("MULTI",)
        assert commands[-1] == ("EXEC",)
        return [b"OK", *[b"QUEUED"] * len(replies), replies]

    def _reply(self, command: Command) -> Any:
        _, inbox, *limits = command[:7]
        assert limits == ["NOMKSTREAM", "MAXLEN", "~", 100_000, "*"]
        assert isinstance(inbox, str)
        if inbox in self.inboxes and self.step.deed in ("refused", "gone"):
            self.line.gaps |= {inbox} if self.step.deed == "gone" else set()
            return WRONG_KEY if self.step.deed == "refused" else None
        fields: list[Any] = list(command[7:])
        self.line.inboxes[inbox].append(dict(zip(fields[::2], fields[1::2], strict=True)))
        return b"1-1"


def told(receipt: SharedReceipt | None) -> Any:
    """What a sender is told; each is told something in the end."""
    assert receipt is not None
    assert receipt.settled
    error = receipt.error
    return (str(error), error.maybe_stored) if isinstance(error, BusUnavailable) else "stored"


def messages(fields: dict[str, Any]) -> list[bytes]:
    """The messages of an entry; nothing for a mark."""
    lines: list[bytes] = fields["l"].split(b"\n") if "l" in fields else [fields.get("m", b"")]
    return lines


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_what_a_peer_gets_is_the_same_alone_as_beside_others(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """X2, X3, X4: whatever becomes of the others' inboxes, sessions and messages; and each has all, once, in order."""
    monkeypatch.setattr(_writer, "current_time", lambda: NOW)
    beside, *alone = lines = [Line(PEERS), *(Line((peer,)) for peer in PEERS)]
    for step in _program(Random(seed)):
        for line in lines:
            line.do(step)
        assert beside.outbox.entries == sum(line.outbox.entries for line in alone)
        assert beside.outbox.size == sum(line.outbox.size for line in alone)
    assert beside.outbox.entries == 0
    for line in alone:
        for inbox, entries in line.inboxes.items():
            assert beside.inboxes[inbox] == entries
            if inbox not in line.gaps:
                _whole(entries)
    for number, receipt in enumerate(beside.sent):
        if receipt is None or receipt.withdrawn:  # what is given up before it is written is not told of
            continue
        errors = {told(line.sent[number]) for line in alone if line.sent[number] is not None} - {"stored"}
        assert told(receipt) in (errors or {"stored"})


def _whole(entries: list[dict[str, Any]]) -> None:
    """Numbers go on from 1 in each life, but for what comes again; and what was put first comes first."""
    last, before = 0, b"-1"
    for fields in entries:
        if "life" in fields:
            last = 0
            continue
        assert fields["o"] == "me"
        for number, data in enumerate(messages(fields), fields["n"]):
            assert number <= last + 1
            if number == last + 1:
                last = number
                text = data.partition(b"\n")[0].rstrip(b"x")
                if text:
                    assert int(text) > int(before)
                    before = text
        assert 0 < fields.get("w", 1) <= 1_000
