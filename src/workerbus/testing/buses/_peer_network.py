"""A network of buses with peers, in one process and in virtual time, on which they are lost, fenced and killed (X2-X5).

It is what a server would be: it keeps who is a member, in which life, what is stored for whom, and whose a name is. It
decides what happens to a message, and tells the story. Its ends do the rest, as the transports of the library do.
"""

import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from random import Random
from typing import Protocol, TypeVar

from anyio import CancelScope, current_time

from workerbus._order import new_incarnation
from workerbus._values import Peer
from workerbus.bus._peer_bus import PeerBus
from workerbus.bus._peers import Receipt
from workerbus.errors import NameTakenError, near_names
from workerbus.messages import BusMessage
from workerbus.testing.buses._deciding import current_decider
from workerbus.testing.buses._network import Split, sides_of
from workerbus.testing.buses._peer_end import Joined, PeerEnd, Unstored
from workerbus.testing.buses._peer_faults import PeerFaults
from workerbus.testing.buses._peer_inbox import Entry, PeerInbox, Sent
from workerbus.testing.buses._story import Fault, Story
from workerbus.testing.buses._telling import in_seconds

T = TypeVar("T")


class Codec(Protocol):
    """What makes messages bytes, and bytes messages: a `workerbus.wire.Wire`."""

    def encode(self, message: BusMessage) -> bytes:
        """Return a message as bytes."""

    def decode(self, data: bytes) -> BusMessage:
        """Return the message of some bytes."""


class _Life:
    """A life of an end.

    Attributes:
        peer: The end in this life.
        end: The end.
        inbox: What is stored for it.
        over_at: When its lease is over, where its process is gone; infinite else.
        late: What comes once more when it is over, and for whom.
    """

    def __init__(self, peer: Peer, end: PeerEnd) -> None:
        self.peer: Peer = peer
        self.end: PeerEnd = end
        self.inbox: PeerInbox = PeerInbox()
        self.over_at: float = float("inf")
        self.late: list[tuple[str, Entry]] = []


class PeerNetwork:
    """A network of processes that may lose each other, according to a plan (`PeerFaults`) and a seed, or on command.

    Each end of it is a bus with peers. Give each to its own runner, and they behave like separate machines::

        network = PeerNetwork(seed=7, faults=PeerFaults(delay=0.05, duplicate=0.1))
        left, right = network.end("left"), network.end("right")
        ...  # WorkerRunner(bus=left), WorkerRunner(bus=right)
        network.split("left", "right", seconds=2.0)
        network.fence("left")
        print(network)

    A process that is to be killed and started again runs in `run`::

        async def host(end):
            async with WorkerRunner(bus=end, name="host") as runner:
                ...


        group.start_soon(network.run, "right", host)
        network.kill("right")
        await network.run("right", host)

    The same seed and the same program in virtual time give the same story. A message is copied for each peer that it
    goes to, and its payload is shared; with ``wire`` all of it goes through bytes.

    Args:
        seed: The seed that faults are drawn from.
        faults: The plan of faults; by default there are none.
        lease: Seconds after which the others learn that a process is gone.
        beat: Seconds within which an end learns that it was declared lost, or finds out that it has lost a message.
        wire: What messages go through, a ``workerbus.wire.Wire()``; by default they are copied.

    Raises:
        TypeError: ``faults`` is not a `PeerFaults`.
        ValueError: ``beat`` is not more than 0, or ``lease`` not more than ``beat``.

    Guarantees: X2, X3, X4, X5.
    """

    def __init__(
        self,
        *,
        seed: int | str = 0,
        faults: PeerFaults | None = None,
        lease: float = 10.0,
        beat: float = 2.0,
        wire: Codec | None = None,
    ) -> None:
        if not 0 < beat < lease < float("inf"):
            raise ValueError(f"lease must be longer than beat, and that more than 0, not {lease!r} and {beat!r}")
        self.seed: int | str = seed
        self.faults = faults if faults is not None else PeerFaults()
        self.lease: float = lease
        self.beat: float = beat
        self._wire = wire
        self._ends: dict[str, PeerEnd] = {}
        self._lives: dict[str, _Life] = {}
        self._names: dict[str, str] = {}
        self._splits: list[Split] = []
        self._counts: Counter[str] = Counter()
        self._to_lose: Counter[str] = Counter()
        self._story = Story(lambda: [name for name, end in self._ends.items() if end.is_open])

    # --- what it is

    @property
    def faults(self) -> PeerFaults:
        """The plan; it may be set at any time, and applies to messages sent from then on."""
        return self._faults

    @faults.setter
    def faults(self, faults: PeerFaults) -> None:
        if not isinstance(faults, PeerFaults):
            raise TypeError(f"faults is a PeerFaults, not {faults!r}")
        self._faults = faults

    @property
    def records(self) -> list[Fault]:
        """All events so far, in order."""
        return list(self._story.records)

    def story(self) -> str:
        """Return a line for each event so far: seconds since the first end opened, and what happened."""
        return self._story.tell()

    def __str__(self) -> str:
        return self.story()

    @property
    def claims(self) -> dict[str, str]:
        """The names of workers that are claimed, each with the name of the runner, or bus, that has it."""
        lives = self._living()
        return {name: lives[owner].peer.name for name, owner in self._names.items() if owner in lives}

    # --- ends

    def end(
        self,
        name: str,
        *,
        max_buffer_size: float = float("inf"),
        max_arrivals: int = 10_000,
        send_timeout: float = 10.0,
    ) -> PeerBus:
        """Return a new end: the bus of a process of that name.

        Args:
            name: The name of the end. If an earlier process of this name was killed, or has closed, this is its
                successor: when it joins, the others learn at once that the earlier one is gone.
            max_buffer_size: See `PeerBus`, as the others.
            max_arrivals: See `PeerBus`.
            send_timeout: See `PeerBus`.

        Raises:
            NameTakenError: There is an end of that name, whose process lives; a `ValueError`.
        """
        return self._new_end(name, max_buffer_size, max_arrivals, send_timeout)

    def _new_end(self, name: str, max_buffer_size: float, max_arrivals: int, send_timeout: float) -> PeerEnd:
        before = self._ends.get(name)
        if before is not None and not (before.dead or before.closed):
            raise NameTakenError(name, "the network")
        end = self._ends[name] = PeerEnd(self, name, max_buffer_size, max_arrivals, send_timeout)
        return end

    async def run(
        self,
        name: str,
        main: Callable[[PeerBus], Awaitable[T]],
        *,
        max_buffer_size: float = float("inf"),
        max_arrivals: int = 10_000,
        send_timeout: float = 10.0,
    ) -> T | None:
        """Run a process: call ``main`` with a new end of that name, until it is done, or killed.

        Args:
            name: The name of the end.
            main: What the process does.
            max_buffer_size: See `PeerBus`, as the others.
            max_arrivals: See `PeerBus`.
            send_timeout: See `PeerBus`.

        Returns:
            The result of ``main``; None if it was killed.

        Raises:
            NameTakenError: There is an end of that name, whose process lives; a `ValueError`.
        """
        end = self._new_end(name, max_buffer_size, max_arrivals, send_timeout)
        with CancelScope() as end.scope:
            return await main(end)
        return None

    def _end(self, name: str) -> PeerEnd:
        end = self._ends.get(name)
        if end is None:
            raise ValueError(f"the network has no end {name!r}; {near_names(name, self._ends)}")
        return end

    # --- faults that you tell it

    def split(self, *sides: str | Collection[str], seconds: float | None = None) -> None:
        """Cut ends off from each other, from now on. Nobody is lost by it, and everything arrives when it is over.

        Args:
            sides: For each side the name of an end, or several names. One side alone is cut off from all other ends;
                without any, each end is cut off from each other.
            seconds: How many seconds the split lasts; None until `heal` is called.

        Raises:
            ValueError: There is no end of a name, a name comes twice, there are no two sides, or the seconds are
                negative.
        """
        if seconds is not None and not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds must be a number, finite and not less than 0, or None, not {seconds!r}")
        until = None if seconds is None else current_time() + seconds
        split = Split(sides_of(sides, self._ends), until, loses=False)
        self._splits.append(split)
        lasting = "" if seconds is None else f" for {in_seconds(seconds)}"
        self._story.note("split", f"{split} are split{lasting}", seconds=seconds)
        self._wake()

    def heal(self) -> None:
        """End every split, and lose no message that was still to be lost."""
        for split in self._splits:
            self._story.note("healed", f"{split} are together again")
        self._splits.clear()
        self._to_lose.clear()
        self._wake()

    def fence(self, name: str) -> None:
        """Declare an end lost, though its process lives, as if it had been silent for a lease.

        The others lose it, after everything that it has sent until now; what it sends from now on is late. It learns so
        within a beat, ends its life, begins another one, and meets the others again.

        Args:
            name: The name of the end; nothing happens where it has no life.

        Raises:
            ValueError: There is no end of that name.
        """
        life = self._life_of(self._end(name))
        if life is None or life.end.dead:
            return
        self._story.note("lease over", f"{name} is declared lost")
        self._over(life, "its lease is over")
        life.end.fenced_at = current_time() + self._part(f"{name} is fenced") * self.beat
        life.end.wake()

    def kill(self, name: str) -> None:
        """Kill a process without notice.

        Nothing that its end sends from now on gets out. If it runs in `run`, it is cancelled. The others learn of it
        within a beat after its lease is over, or when the next process of its name joins.

        Args:
            name: The name of the end; nothing happens where its process is gone already.

        Raises:
            ValueError: There is no end of that name.
        """
        end = self._end(name)
        if end.dead or end.closed:
            return
        life = self._life_of(end)
        if life is not None:
            life.over_at = current_time() + self.lease + self._part(f"{name} is killed") * self.beat
            for other in self._lives.values():
                if other is not life:
                    self._tell_gone(life, other, "its lease is over", life.over_at)
        self._story.note("killed", f"{name} is killed")
        end.die()
        self._wake()

    def lose(self, source: str, destination: str) -> None:
        """Lose the next message that goes from one end to another: a gap.

        The receiver finds that out with the next message, or within a beat. It ends its life and begins another one.

        Args:
            source: The name of the sender's end.
            destination: The name of the receiver's end.

        Raises:
            ValueError: There is no end of that name.
        """
        self._to_lose[f"{self._end(source).name} -> {self._end(destination).name}"] += 1

    # --- lives

    def _living(self) -> dict[str, _Life]:
        now = current_time()
        for life in [life for life in self._lives.values() if life.over_at <= now]:
            self._over(life, None)
        return self._lives

    def _life_of(self, end: PeerEnd) -> _Life | None:
        return next((life for life in self._living().values() if life.end is end), None)

    def join(self, end: PeerEnd) -> Joined:
        """Begin a life of an end; called by it."""
        self._story.begin()
        for life in list(self._living().values()):
            if life.end.name == end.name:
                self._story.note("restarted", f"{end.name} was started again")
                self._over(life, "restarted")
        now, me = current_time(), _Life(Peer(end.opened_by or end.name, new_incarnation()), end)
        for other in self._lives.values():
            other.inbox.put(Entry("joined", me.peer, end.name), max(now, other.inbox.told(end.name)))
            if other.over_at < float("inf"):
                self._tell_gone(other, me, "its lease is over", other.over_at)
        self._story.note("joined", f"{end.name} joins")
        peers = [other.peer for other in self._lives.values()]
        self._lives[me.peer.incarnation] = me
        self._wake()
        taken = {name: self._names[name] for name in end.claimed_names if self._names.get(name) in self._lives}
        self._names.update({name: me.peer.incarnation for name in end.claimed_names if name not in taken})
        lost = [(name, self._lives[owner].peer.name) for name, owner in taken.items()]
        return Joined(me.peer, me.inbox, peers, lost)

    def leave(self, end: PeerEnd, reason: str) -> None:
        """End a life of an end; called by it."""
        life = self._life_of(end)
        if life is not None and not end.dead:
            if end.closed:
                self._story.note("left", f"{end.name} leaves")
            self._over(life, reason)

    def _over(self, life: _Life, reason: str | None) -> None:
        """End a life; the others are told, unless they have been."""
        incarnation = life.peer.incarnation
        self._lives.pop(incarnation, None)
        self._names = {name: owner for name, owner in self._names.items() if owner != incarnation}
        if reason is None:
            return
        for other in self._lives.values():
            other.inbox.take_back_loss(life.peer)
            self._tell_gone(life, other, reason, current_time())
        self._wake()

    def _tell_gone(self, life: _Life, other: _Life, reason: str, due: float) -> None:
        due = other.inbox.put(Entry("gone", life.peer, life.end.name, reason=reason), due)
        for to, entry in life.late:
            if to == other.peer.incarnation:
                other.inbox.put(entry, due)

    def note(self, end: PeerEnd, event: str, text: str) -> None:
        """Add to the story what has happened to an end; called by it."""
        self._story.note("fenced" if event == "on_fenced" else "gap", f"{end.name} {text}")

    # --- messages

    def accept(self, end: PeerEnd, message: BusMessage, peers: Sequence[Peer]) -> Unstored:
        """Take a message, and decide when it is stored; called by an end."""
        data = None if self._wire is None else self._wire.encode(message)
        self._counts[end.name] += 1
        number, decider = self._counts[end.name], current_decider()
        if decider is None:
            fate = self._faults.draw_storing(message, self.seed, end.name, number)
        else:
            words = partial(self._story.teller.calls, message)
            fate = self._faults.decide_storing(message, decider, f"{end.name}/{number}", words)
        self._story.teller.job(message)  # so that jobs are numbered as they are asked for, faults or not
        now = current_time()
        if fate.delay:
            delayed = f"is stored {in_seconds(fate.delay)} late"
            self._story.befalls("delayed", message, delayed, seconds=fate.delay)
        if not fate.confirmed:
            self._story.befalls("unconfirmed", message, "is stored, and its sender does not learn that")
        if fate.split is not None and len(self._ends) > 1 and not self._is_split(end):
            self.split(end.name, seconds=fate.split)
        if fate.loses_lease:
            self.fence(end.name)
        sent = Sent(message, data, now)
        return Unstored(now + fate.delay, sent, list(peers), Receipt(), fate.confirmed, fate.killed)

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` where a message cannot travel; called by an end."""
        if self._wire is not None:
            self._wire.encode(message)

    def store(self, end: PeerEnd, sent: Sent, to: Peer, number: int) -> None:
        """Store a message for a peer; called by an end."""
        message, life = sent.message, self._living().get(to.incarnation)
        if life is None or life.end.dead:
            return
        way, now = f"{end.name} -> {life.end.name}", current_time()
        self._counts[way] += 1
        drawn, decider = self._counts[way], current_decider()
        if decider is None:
            fate = self._faults.draw(message, self.seed, way, drawn)
        else:
            words = partial(self._story.teller.calls, message)
            fate = self._faults.decide(message, decider, f"{way}/{drawn}", words)
        entry = Entry("message", end.me, end.name, sent, number)
        if fate.lost or self._to_lose[way]:
            self._to_lose[way] -= not fate.lost
            self._story.befalls("lost", message, f"is lost on its way to {life.end.name}")
            life.inbox.miss(entry, now + self._part(f"{way} is lost") * self.beat)
            life.end.wake()
            return
        due = life.inbox.put(entry, now + fate.delay)
        if due > now:
            delayed = f"is {in_seconds(due - now)} on its way to {life.end.name}"
            self._story.befalls("delayed", message, delayed, seconds=due - now)
        if fate.again is not None:
            self._story.befalls("duplicated", message, f"arrives twice at {life.end.name}")
            life.inbox.put(entry, due + fate.again, behind=False)
        if fate.late:
            self._keep_late(end, life, entry, message)
        life.end.wake()

    def _keep_late(self, end: PeerEnd, to: _Life, entry: Entry, message: BusMessage) -> None:
        life = self._life_of(end)
        if life is not None:
            text = f"will arrive at {to.end.name} once more when its sender's life is over"
            self._story.befalls("late", message, text)
            life.late.append((to.peer.incarnation, entry._replace(late=True)))

    def copy(self, sent: Sent) -> BusMessage:
        """Return a message as its receiver sees it; called by an end."""
        if self._wire is not None and sent.data is not None:
            return self._wire.decode(sent.data)
        return copy.copy(sent.message)

    # --- splits

    def _is_split(self, end: PeerEnd) -> bool:
        return any(end.name in side for split in self._current_splits() for side in split.sides)

    def _current_splits(self) -> list[Split]:
        now = current_time()
        for split in list(self._splits):
            if split.until is not None and split.until <= now:
                self._splits.remove(split)
                self._story.note("healed", f"{split} are together again")
        return self._splits

    def cuts(self, home: str, end: str) -> bool:
        """Whether a split keeps what is sent at an end from arriving at another; called by ends."""
        return any(split.parts(home, end) for split in self._current_splits())

    def next_heal(self) -> float:
        """Return when the next split is over; called by ends."""
        return min((split.until for split in self._current_splits() if split.until is not None), default=float("inf"))

    # --- names

    def claim(self, end: PeerEnd, name: str) -> None:
        """Claim a name; called by an end."""
        lives, me = self._living(), self._life_of(end)
        if me is None or end.dead:
            return  # it is declared lost, and does not know it yet
        owner = self._names.get(name)
        if owner in lives and owner != me.peer.incarnation:
            raise NameTakenError(name, f"the network: {lives[owner].peer.name!r} has it")
        self._names[name] = me.peer.incarnation

    def release(self, end: PeerEnd, name: str) -> None:
        """Give a name back; called by an end."""
        life = self._life_of(end)
        if life is not None and not end.dead and self._names.get(name) == life.peer.incarnation:
            del self._names[name]

    def _part(self, what: str) -> float:
        self._counts[what] += 1
        return Random(f"{self.seed}/{what}/{self._counts[what]}").random()  # noqa: S311 - to be drawn again

    def _wake(self) -> None:
        for end in self._ends.values():
            end.wake()
