"""A bus with two peers, each with names, messages, claims and subscribers of its own; and one that has only one."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from anyio import CancelScope, Event, create_task_group, current_time, sleep
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from support.hand_buses import HandBus
from support.messages import Alarm, Note
from support.subscribers import Plain
from workerbus import (
    BusEndMessage,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusUnavailable,
    Peer,
    Receipt,
    WireError,
)
from workerbus.bus._inbox import InboxHost, PlainInbox, make_inbox
from workerbus.testing import settle

SIDES = (0, 1)
SEND_TIMEOUT = 4.0
MOST = 2
"""So many messages of one peer may wait for room."""


@frozen
class Step:
    """Something that happens, on one side or, where that is None, on both."""

    side: int | None
    deed: str
    n: int


ON_A_SIDE = {
    "meet": 3, "lose": 2, "locate": 3, "unlocate": 1, "arrive": 6, "again": 1, "skip": 1, "send": 6, "post": 3,
    "post to": 1, "update": 2, "settle": 6, "fail": 1, "give up": 1, "claim": 3, "answer": 4, "leave": 2, "keep": 1,
    "free": 1, "name lost": 2, "block": 1, "let go": 2, "cannot travel": 1, "end": 1,
    "live again": 1, "lose former": 1, "unlocate former": 1,
}  # fmt: skip
ON_BOTH = {"broadcast": 3, "time": 2, "life over": 2, "join": 4, "listen": 1}


RARE = [
    ("claim", "answer", "name lost", "leave", "listen"),
    ("claim", "answer", "name lost", "life over", "join", "listen"),
    ("claim", "life over", "answer", "time", "time", "time", "join"),
    ("claim", "life over", "join", "answer", "life over", "join", "answer"),
    ("claim", "life over", "join", "life over", "answer", "time", "time", "time", "join"),
    ("claim", "answer", "keep", "leave", "name lost", "join"),
    ("locate", "live again", "locate", "lose former", "unlocate former", "send", "update"),
    ("locate", "live again", "unlocate", "unlocate former", "lose", "send", "lose former"),
    ("claim", "keep", "give up", "answer", "free"),
    ("claim", "answer", "keep", "leave", "claim", "give up", "free"),
    ("claim", "answer", "keep", "leave", "life over", "join", "claim", "answer"),
    ("send", "life over", "send", "time", "join", "settle", "settle"),
    ("life over", "send", "send", "give up", "join", "settle"),
    ("life over", "cannot travel", "send", "send", "join", "settle"),
    ("block", "arrive", "arrive", "arrive", "arrive", "let go"),
    ("locate", "lose", "update", "meet", "update", "send", "settle"),
]
"""What is seldom drawn step by step; other steps come in between."""


def program(random: Random) -> list[Step]:
    steps = [Step(side, deed, n) for side in SIDES for n, deed in enumerate(("meet", "locate"))]
    for _ in range(random.randint(4, 16)):
        side, n = random.choice(SIDES), random.randrange(4)
        for deed in random.choice(RARE) if random.random() < 0.4 else ():
            steps.append(Step(None if deed in ON_BOTH else side, deed, n))
            if random.random() < 0.3:
                steps.append(_any_step(random))
        steps += [_any_step(random) for _ in range(random.randrange(4))]
    return steps


def _any_step(random: Random) -> Step:
    if random.random() < 0.2:
        return Step(None, random.choices(list(ON_BOTH), list(ON_BOTH.values()))[0], random.randrange(4))
    deed = random.choices(list(ON_A_SIDE), list(ON_A_SIDE.values()))[0]
    return Step(random.choice(SIDES), deed, random.randrange(4))


class Owner(Plain):
    """A plain subscriber whose name is unique among all processes, as that of a worker is."""


class _OwnerInbox(PlainInbox):
    claims = True


@make_inbox.register
def _(owner: Owner, bus: InboxHost) -> PlainInbox:
    return _OwnerInbox(owner, bus)


class SidesBus(HandBus):
    """A bus whose receipts and claims are those of a side; each claim is answered by itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(joins=False, settles=False, send_timeout=SEND_TIMEOUT, max_arrivals=MOST, **options)
        self.of_message: list[tuple[BusMessage, Receipt]] = []
        self.asked: dict[str, list[Event]] = {}
        self.sided: list[tuple[int, Any]] = []
        self.travels = [True, True]
        self.claimed_in: dict[str, str] = {}

    def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
        side = side_of(message)
        if side is not None and not self.travels[side]:
            self.travels[side] = True
            raise WireError("it cannot travel", class_name=type(message).__name__)
        for peer in peers:
            to = int(peer.name[-1])
            if side in (None, to):
                self.sided.append((to, ("to", peer, shown(message))))
        receipt = Receipt()
        self.of_message.append((message, receipt))
        return receipt

    async def claim(self, name: str) -> None:
        assert self.is_alive
        self.sided.append((int(name[-1]), ("claims", name)))
        answer = Event()
        self.asked.setdefault(name, []).append(answer)
        incarnation = self.incarnation
        try:
            await answer.wait()
            self.claimed_in[name] = incarnation
        finally:
            self.asked[name].remove(answer)

    def release(self, name: str) -> None:
        self.claimed_in.pop(name, None)
        self.sided.append((int(name[-1]), ("releases", name)))

    def lost(self, peer: Peer) -> None:
        self.sided.append((int(peer.name[-1]), ("drops", peer)))


class Names:
    """Somebody who listens for the names that are lost already."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def met(self, peer: Peer) -> None: ...

    def lost(self, peer: Peer, reason: str) -> None: ...

    def report(self, text: str) -> None: ...

    def name_lost(self, name: str, owner: str) -> None:
        self.names[name] = owner


def side_of(message: BusMessage) -> int | None:
    """To which side a message belongs; None for a broadcast."""
    return None if message.source[-1] not in "01" else int(message.source[-1])


def shown(message: BusMessage) -> Any:
    what = getattr(message, "n", None)
    left = getattr(message, "seconds_left", None)
    return type(message).__name__, message.source, message.target, what, left if left is None else round(left, 6)


@define
class Sides:
    """A bus with the peers of some sides, and all that is seen there.

    Attributes:
        sees: The sides that there are.
        seen: What was seen on each side, in order; what tasks were told in one step, sorted.
        told: What tasks were told in this step.
        heard: What subscribers have heard in this step.
    """

    sees: tuple[int, ...]
    size: float
    seen: dict[int, list[Any]] = field(factory=lambda: {side: [] for side in SIDES})
    told: dict[int, list[Any]] = field(factory=lambda: {side: [] for side in SIDES})
    heard: dict[int, list[Any]] = field(factory=lambda: {side: [] for side in SIDES})
    bus: SidesBus = field(init=False)
    group: TaskGroup = field(init=False)
    lives: dict[int, int] = field(factory=lambda: dict.fromkeys(SIDES, 0))
    numbers: dict[str, int] = field(factory=dict)
    scopes: dict[int, list[CancelScope]] = field(factory=lambda: {side: [] for side in SIDES})
    ears: dict[int, Plain] = field(factory=dict)
    owners: dict[str, Owner] = field(factory=dict)
    gates: dict[int, Event | None] = field(factory=dict)
    names_lost: dict[str, str] = field(factory=dict)
    claiming: set[str] = field(factory=set)
    count: int = 0

    async def play(self, steps: Sequence[Step]) -> dict[int, list[Any]]:
        self.bus = SidesBus(max_buffer_size=self.size)
        self.bus.add_listener(self)
        for side in self.sees:
            self.ears[side] = Plain(f"ear {side}", receives="own", on=self._hears(side))
            self.gates[side] = None
            await self.bus.subscribe(self.ears[side])
        async with create_task_group() as self.group:
            async with self.bus:
                for step in steps:
                    self.count += 1
                    await self._happen(step)
                    await settle()
                    self._look()
                for side in self.sees:
                    self._open(side)
                for scope in [*self.scopes[0], *self.scopes[1]]:
                    scope.cancel()
                await settle()
            self._look()
        for side in self.sees:
            self._check(self.seen[side])
        return self.seen

    def _check(self, seen: list[Any]) -> None:
        """What goes to a peer goes in the order in which it was sent, and once."""
        last: dict[Peer, int] = {}
        over: set[int] = set()
        for what in seen:
            if what[0] == "to" and what[2][3] is not None:
                assert last.get(what[1], -1) < what[2][3]
                assert what[2][3] not in over  # what its sender waits for no more is not sent
                last[what[1]] = what[2][3]
            elif what[0] == "outcome":
                over.add(what[1])

    def _look(self) -> None:
        # Of what happens in one step, the order between tasks is nobody's promise; that of each destination is.
        claims = [each for each in self.bus.sided if each[1][0] in ("claims", "releases")]
        others = [each for each in self.bus.sided if each not in claims]
        for side, what in [*others, *sorted(claims, key=lambda each: str(each[1][1]))]:
            self.seen[side].append(what)
        self.bus.sided.clear()
        assert list(self.bus.peers) == [session.peer for session in self.bus._sessions.values()]
        for side in self.sees:
            by_lane = sorted(self.heard[side], key=lambda each: each[1][0] == "Alarm")  # the order holds in each
            self.seen[side] += [*sorted(self.told[side], key=repr), *by_lane]
            self.told[side].clear()
            self.heard[side].clear()
            session = self.bus.session(self._peer(side).incarnation)
            names = sorted(name for name in self.bus.claimed_names if name[-1] == str(side))
            where = self.bus._routes.get(f"far {side}")
            gone = self.bus._routes.is_gone(f"far {side}")
            waiting = None if session is None else (session.received, session.waiting)
            self.seen[side].append(("is", waiting, names, where, gone, len(self.ears[side].got)))

    # --- listening

    def met(self, peer: Peer) -> None:
        self.bus.sided.append((int(peer.name[-1]), ("met", peer)))

    def lost(self, peer: Peer, reason: str) -> None:
        assert self.bus.is_alive == reason.startswith(("reason", "more than"))  # else all sessions are over
        self.bus.sided.append((int(peer.name[-1]), ("lost", peer, reason)))

    def report(self, text: str) -> None:
        for side in SIDES:
            if f"peer {side}" in text:
                self.bus.sided.append((side, ("report", text)))

    def name_lost(self, name: str, owner: str) -> None:
        self.bus.sided.append((int(name[-1]), ("name lost", name, owner)))

    def _hears(self, side: int) -> Callable[[BusMessage], Any]:
        async def hear(message: BusMessage) -> None:
            peer = message.peer if isinstance(message, Note | Alarm | BusJobRequestMessage) else None
            if isinstance(message, BusJobRequestMessage):
                assert message.seconds_left == 7.0  # ten, less three on its way
            self.heard[side].append(("hears", shown(message), peer))
            gate = self.gates[side]
            if gate is not None:
                await gate.wait()

        return hear

    # --- what happens

    def _peer(self, side: int) -> Peer:
        return Peer(f"peer {side}", f"peer {side} in life {self.lives[side]}")

    async def _happen(self, step: Step) -> None:
        if step.side is None:
            await self._on_both(step)
        elif step.side in self.sees:
            await getattr(self, "_" + step.deed.replace(" ", "_"))(step.side, step.n)

    async def _on_both(self, step: Step) -> None:
        alive = self.bus.is_alive
        if step.deed == "time":
            await sleep(step.n + 0.5)
        elif step.deed == "broadcast":
            self.bus.post((Alarm if step.n % 2 else Note)(self.count, source="all"))
        elif step.deed == "life over" and alive:
            self.bus.end_life("fenced")
        elif step.deed == "listen":
            told = Names()
            self.bus.add_listener(told)
            self.bus.remove_listener(told)
            self.bus.remove_listener(told)  # nothing happens
            assert told.names == self.names_lost
        elif step.deed == "join":
            if alive and step.n:
                return
            self.names_lost.clear()
            for side in SIDES:
                self.lives[side] += 1
            self.bus.join(*(self._peer(side) for side in self.sees))

    async def _meet(self, side: int, n: int) -> None:
        if self.bus.session(self._peer(side).incarnation) is None:
            self.lives[side] += 1
        self.bus.meet(self._peer(side))

    async def _lose(self, side: int, n: int) -> None:
        self.bus.lose(self._peer(side), f"reason {n}")

    def _former(self, side: int) -> Peer:
        return Peer(f"peer {side}", f"peer {side} in life {self.lives[side] - 1}")

    async def _live_again(self, side: int, n: int) -> None:
        if self.bus.session(self._peer(side).incarnation) is not None:
            self.lives[side] += 1
            self.bus.meet(self._peer(side))  # while the former life is not known to be over

    async def _lose_former(self, side: int, n: int) -> None:
        self.bus.lose(self._former(side), f"reason {n}")

    async def _unlocate_former(self, side: int, n: int) -> None:
        at = self.bus._routes.get(f"far {side}")
        self.bus.unlocate(f"far {side}", self._former(side))
        assert self.bus._routes.get(f"far {side}") == (None if at == self._former(side) else at)

    async def _locate(self, side: int, n: int) -> None:
        self.bus.locate(f"far {side}", self._peer(side))

    async def _unlocate(self, side: int, n: int) -> None:
        self.bus.unlocate(f"far {side}", self._peer(side))

    async def _arrive(self, side: int, n: int) -> None:
        self._arrives(side, n, 1)

    async def _again(self, side: int, n: int) -> None:
        self._arrives(side, n, 0)

    async def _skip(self, side: int, n: int) -> None:
        self._arrives(side, n, 2)

    def _arrives(self, side: int, n: int, more: int) -> None:
        peer, source = self._peer(side), f"far {side}"
        number = self.numbers.get(peer.incarnation, 0) + more
        message: BusMessage = [
            Note(self.count, source=source, target=f"ear {side}"),
            Alarm(self.count, source=source, target=f"ear {side}"),
            BusJobRequestMessage(str(self.count), "do", {}, seconds_left=10.0, source=source, target=f"ear {side}"),
            Note(self.count, source=source, target=f"nobody {side}"),
        ][n]
        known = self.bus.session(peer.incarnation) is not None
        verdict = self.bus.arrive(message, peer, number=number, delay=n * 1.5)
        fits = ("DELIVERED", "OVERFLOW") if more == 1 else ("REPEATED", "GAP")[more // 2 :][:1]
        assert verdict.name in (fits if known else ("LATE",))
        if more == 1 and known:
            self.numbers[peer.incarnation] = number
        self.bus.sided.append((side, ("arrives", number, verdict.name)))

    async def _end(self, side: int, n: int) -> None:
        peer = self._peer(side)
        number = self.numbers.get(peer.incarnation, 0) + 1
        verdict = self.bus.arrive(BusEndMessage(source=f"far {side}"), peer, number=number)
        if verdict.name != "LATE":
            self.numbers[peer.incarnation] = number
        self.bus.sided.append((side, ("arrives", verdict.name)))

    # --- what is sent

    def _may_send(self, side: int) -> bool:
        # Without its own peer, a message for a name that nobody knows would be the other one's alone.
        return not self.bus.is_alive or self.bus.session(self._peer(side).incarnation) is not None

    async def _send(self, side: int, n: int) -> None:
        if not self._may_send(side):
            return
        scope, number, target = (
            CancelScope(),
            self.count,
            [f"far {side}", f"far {side}", f"new {side}", f"ear {side}"][n],
        )
        if target[0] == "e" and self.gates[side] is not None:
            return
        self.scopes[side].append(scope)

        async def send() -> None:
            outcome: Any = "given up"
            began = current_time()
            with scope:
                try:
                    await self.bus.send((Alarm if n else Note)(number, source=f"near {side}", target=target))
                    outcome = "sent"
                except (BusUnavailable, WireError) as error:
                    outcome = str(error), getattr(error, "maybe_stored", None)
            assert current_time() <= began + SEND_TIMEOUT
            self.told[side].append(("outcome", number, outcome, current_time()))

        self.group.start_soon(send)

    async def _post(self, side: int, n: int) -> None:
        if self._may_send(side):
            self.bus.post(Note(self.count, source=f"near {side}", target=f"far {side}"))

    async def _post_to(self, side: int, n: int) -> None:
        self.bus.post_to(Note(self.count, source=f"near {side}", target="who"), self._peer(side))

    async def _update(self, side: int, n: int) -> None:
        if self._may_send(side):
            self.bus.post(BusJobUpdateMessage(str(self.count), {}, source=f"near {side}", target=f"far {side}"))

    async def _cannot_travel(self, side: int, n: int) -> None:
        self.bus.travels[side] = False

    def _receipts(self, side: int) -> list[Receipt]:
        return [receipt for message, receipt in self.bus.of_message if side_of(message) == side and not receipt.settled]

    async def _settle(self, side: int, n: int) -> None:
        for receipt in self._receipts(side)[: n + 1]:
            receipt.written = True
            receipt.settle()

    async def _fail(self, side: int, n: int) -> None:
        for receipt in self._receipts(side)[:1]:
            receipt.settle(BusUnavailable("bus", f"failed {n}", maybe_stored=bool(n % 2)))

    async def _give_up(self, side: int, n: int) -> None:
        if self.scopes[side]:
            self.scopes[side][n % len(self.scopes[side])].cancel()

    # --- names

    async def _claim(self, side: int, n: int) -> None:
        name = f"w{n % 2} {side}"
        if self.bus.has_subscriber(name) or name in self.claiming:
            return  # of two tasks that claim it, nobody promises which comes first
        self.claiming.add(name)
        owner, number, scope = Owner(name), self.count, CancelScope()
        self.scopes[side].append(scope)

        async def claim() -> None:
            outcome: Any = "given up"
            with scope:
                try:
                    await self.bus.subscribe(owner)
                    outcome = "claimed"
                    assert self.bus.claimed_in[name] == self.bus.incarnation
                    self.owners[name] = owner
                except (BusUnavailable, ValueError) as error:
                    outcome = str(error)
            self.claiming.discard(name)
            if outcome != "claimed" and self.bus.is_alive and name not in self.bus.claimed_names:
                assert self.bus.claimed_in.get(name) != self.bus.incarnation
            self.told[side].append(("claim", number, outcome, current_time()))

        self.group.start_soon(claim)

    async def _answer(self, side: int, n: int) -> None:
        for answer in list(self.bus.asked.get(f"w{n % 2} {side}", ())):
            answer.set()

    async def _leave(self, side: int, n: int) -> None:
        owner = self.owners.pop(f"w{n % 2} {side}", None)
        if owner is not None:
            await self.bus.unsubscribe(owner)
            self.names_lost.pop(owner.name, None)

    async def _keep(self, side: int, n: int) -> None:
        self.bus.keep_name(f"w{n % 2} {side}")

    async def _free(self, side: int, n: int) -> None:
        self.bus.free_name(f"w{n % 2} {side}")

    async def _name_lost(self, side: int, n: int) -> None:
        name = f"w{n % 2} {side}"
        if self.bus.has_subscriber(name):
            self.names_lost[name] = f"owner {n}"
        self.bus.name_lost(name, f"owner {n}")
        assert (name in self.bus.claimed_names) == self.bus.has_subscriber(name)

    # --- a subscriber that does not go on

    async def _block(self, side: int, n: int) -> None:
        if self.gates[side] is None:
            self.gates[side] = Event()

    def _open(self, side: int) -> None:
        gate, self.gates[side] = self.gates[side], None
        if gate is not None:
            gate.set()

    async def _let_go(self, side: int, n: int) -> None:
        self._open(side)
