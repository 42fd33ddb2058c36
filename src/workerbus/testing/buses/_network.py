"""What the ends of one faulty network share: the draws, the splits, and the story.

Everything here is synchronous and decides; the ends act. Who is cut off from whom is asked when a message arrives: an
end knows from the sender's name at which end it was sent. Each open end has a timer for each split that ends by itself,
so that it ends whichever of them closes first; the first of the timers does it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, Literal, Protocol
from weakref import WeakSet

from anyio import Event, current_time, move_on_at
from attrs import field, frozen

from workerbus.bus._bus import WorkerBus
from workerbus.errors import NameTakenError, near_names
from workerbus.messages import BusMessage
from workerbus.testing.buses._faults import Fate, Faults
from workerbus.testing.buses._telling import Teller, counted, in_seconds, listed

FaultKind = Literal["delayed", "duplicated", "lost", "held back", "split", "healed", "hurried", "dropped"]


@frozen
class Fault:
    """Something that a `FaultyBus` did.

    Args:
        time: When, in seconds, as `anyio.current_time` has it.
        kind: What it was. ``"hurried"``: an end closed, and what was still delayed went out at once; ``"dropped"``: it
            closed, and what a split had held back from it never arrived.
        text: What it was, in words.
        message: The message that it befell, where it was one.
        seconds: For how long, of a delay, and of a split that ends by itself.
    """

    time: float
    kind: FaultKind
    text: str
    message: BusMessage | None = None
    seconds: float | None = None


@frozen(eq=False)
class Split:
    """Sides that hear nothing of each other.

    Args:
        sides: The names of the ends on each.
        until: When it ends by itself, as `anyio.current_time` has it; None for when `heal` is called.
        loses: Whether what meets it is lost.
        over: Set when it has ended.
    """

    sides: tuple[frozenset[str], ...]
    until: float | None
    loses: bool
    over: Event = field(factory=Event)

    def parts(self, one: str, other: str) -> bool:
        """Whether two ends are on different sides."""
        side = next((side for side in self.sides if one in side), None)
        return side is not None and other not in side and any(other in each for each in self.sides)

    def __str__(self) -> str:
        alone = all(len(side) == 1 for side in self.sides)
        sides = [listed(sorted(side)) for side in self.sides]
        return listed(sides) if alone else " | ".join(sides)


_networks: "WeakSet[Network]" = WeakSet()
_KEPT_BACK: Final[tuple[FaultKind, ...]] = ("lost", "held back", "dropped", "split", "healed")
_LAST: Final = 5


def stories() -> list[str]:
    """Tell of the networks that are open what they have kept from arriving, the last of it; a paragraph for each."""
    told: list[str] = []
    for network in list(_networks):
        faults = [fault for fault in network.story if fault.kind in _KEPT_BACK]
        names = [end.name for end in network.ends.values() if end.is_open]
        if names and faults:
            earlier = f"\n    {len(faults) - _LAST} more, and then" if len(faults) > _LAST else ""
            lines = "".join(f"\n    at {in_seconds(fault.time)}: {fault.text}" for fault in faults[-_LAST:])
            told.append(f"on the network of {listed(names)}{earlier}{lines}")
    return sorted(told)


class End(Protocol):
    """An end, as the network sees it."""

    @property
    def name(self) -> str:
        """Its name, unique in the network."""

    @property
    def is_open(self) -> bool:
        """Whether messages come and go."""

    def watch(self, split: Split) -> None:
        """End a split when its time is over."""

    def release(self) -> int:
        """Let in what no split holds back any more. Returns how many messages that were."""


class Network:
    """What the ends of one network share.

    Args:
        bus: What everything goes over.
        seed: What is drawn from.
        faults: The plan.
    """

    def __init__(self, bus: WorkerBus, seed: int | str, faults: Faults) -> None:
        self.bus: WorkerBus = bus
        self.seed: int | str = seed
        self.faults: Faults = faults
        self.story: list[Fault] = []
        self.teller: Teller = Teller()
        self.begun: float | None = None
        self.ends: dict[str, End] = {}
        self.splits: list[Split] = []
        self._homes: dict[str, str] = {}
        self._sent: Counter[tuple[str, str]] = Counter()
        self._lost_in: Counter[Split] = Counter()
        _networks.add(self)

    def add(self, end: End) -> None:
        """Take in an end.

        Raises:
            NameTakenError: There is one of that name; a `ValueError`.
        """
        if end.name in self.ends:
            raise NameTakenError(end.name, f"the network over bus {self.bus.name!r}")
        self.ends[end.name] = end

    def begin(self) -> None:
        """An end has opened: the story counts from the first."""
        if self.begun is None:
            self.begun = current_time()

    def note(self, kind: FaultKind, text: str, *, seconds: float | None = None) -> None:
        """Go on with the story."""
        self.story.append(Fault(current_time(), kind, text, seconds=seconds))

    def befalls(self, kind: FaultKind, message: BusMessage, what: str, *, seconds: float | None = None) -> None:
        """Go on with the story, with what befalls a message."""
        self.story.append(Fault(current_time(), kind, f"{self.teller.calls(message)} {what}", message, seconds))

    # --- sending

    def fate(self, end: str, message: BusMessage) -> Fate:
        """Draw what becomes of a message that is sent at an end, and see to the split that it begins."""
        source = self.teller.name(message.source)
        self.teller.job(message)  # so that jobs are numbered as they are asked for, faults or not
        self._homes[message.source] = end
        self._sent[end, source] += 1
        fate = self.faults.draw(message, self.seed, f"{end}/{source}", self._sent[end, source])
        alone = len(self.ends) == 1 or any(end in side for split in self.splits for side in split.sides)
        if fate.split and not alone:
            self.split((end,), for_seconds=fate.split, loses=None)
        return fate

    # --- splits

    def split(self, sides: Sequence[str | Collection[str]], *, for_seconds: float | None, loses: bool | None) -> None:
        """Cut sides off from each other.

        Raises:
            ValueError: A name is that of no end, or comes twice, or there is nothing to split.
        """
        named = [frozenset([side] if isinstance(side, str) else side) for side in sides]
        named = [side for side in named if side] or [frozenset([name]) for name in self.ends]
        everybody = Counter(name for side in named for name in side)
        for name, times in everybody.items():
            if name not in self.ends:
                raise ValueError(f"the network has no end {name!r}; {near_names(name, self.ends)}")
            if times > 1:
                raise ValueError(f"an end is on one side of a split, but {name!r} is on {times}")
        if len(named) == 1:
            named.append(frozenset(self.ends) - named[0])
        if len(named) < 2 or not all(named):
            raise ValueError(f"a split needs two sides, but the network's ends are {listed(sorted(self.ends))}")
        until = None if for_seconds is None else current_time() + for_seconds
        split = Split(tuple(named), until, self.faults.split_loses if loses is None else loses)
        self.splits.append(split)
        lasting = "" if for_seconds is None else f" for {in_seconds(for_seconds)}"
        self.note("split", f"{split} are split{lasting}", seconds=for_seconds)
        for end in self.ends.values():
            if end.is_open:
                end.watch(split)

    def home(self, message: BusMessage) -> str | None:
        """Return the end at which a message's sender is; None for one that sends past the ends."""
        return self._homes.get(message.source)

    def cut(self, home: str, end: str) -> Split | None:
        """Return what keeps messages of one end from arriving at another, if anything does."""
        cuts = [split for split in self.splits if split.parts(home, end)]
        return next((split for split in cuts if split.loses), cuts[0] if cuts else None)

    def lost_in(self, split: Split, message: BusMessage, end: str) -> None:
        """Note that a split has lost a message."""
        self._lost_in[split] += 1
        self.befalls("lost", message, f"is lost on its way to {end}: {split} are split")

    def heal(self, split: Split) -> None:
        """End a split; again is a no-op."""
        if split not in self.splits:
            return
        self.splits.remove(split)
        split.over.set()
        late = sum(end.release() for end in self.ends.values())
        lost = self._lost_in.pop(split, 0)
        texts = [f"{split} are together again"]
        if late:
            texts.append(f"{counted(late, 'message arrives', 'messages arrive')} late")
        if lost:
            texts.append(f"{counted(lost, 'message was', 'messages were')} lost")
        self.note("healed", "; ".join(texts))

    async def heal_in_time(self, split: Split) -> None:
        """End a split when its time is over."""
        assert split.until is not None
        with move_on_at(split.until):
            await split.over.wait()
        self.heal(split)

    # --- telling

    def tell(self) -> str:
        """Return the story so far."""
        begun = self.begun or 0.0
        times = [f"{fault.time - begun:.2f} s" for fault in self.story]
        width = max(map(len, times), default=0)
        return "\n".join(f"{time:>{width}}  {fault.text}" for time, fault in zip(times, self.story, strict=True))
