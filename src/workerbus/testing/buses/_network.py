"""What the ends of one faulty network share: the draws, the splits, and the story.

What happens is decided here, and the ends act. Whether a split stops a message is decided when it arrives: the sender's
name says at which end it was sent. Each open end has a timer for each split that ends by itself, so that the split ends
whichever of the ends closes before; the first of the timers ends it.
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
        time: When it happened, in seconds, by the clock of `anyio.current_time`.
        kind: What kind of fault it was. ``"hurried"``: an end closed, and what was still delayed went out at once;
            ``"dropped"``: an end closed, and what a split had held back from it never arrived.
        text: What happened, in words.
        message: The message that it happened to; None for what happened to an end.
        seconds: How many seconds a delay lasts, or a split that ends by itself; None for all else.
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
        sides: For each side, the names of the ends on it.
        until: When the split ends by itself, by the clock of `anyio.current_time`; None if `heal` has to be called.
        loses: Whether messages that meet the split are lost.
        over: Set when the split has ended.
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
    """Return a paragraph for each network that is open: the last of what it has kept from arriving."""
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
        """The name of the end, unique in the network."""

    @property
    def is_open(self) -> bool:
        """Whether messages come and go here."""

    def watch(self, split: Split) -> None:
        """End a split when its time is over."""

    def release(self) -> int:
        """Let in what no split holds back any more; returns how many messages that were."""


class Network:
    """What the ends of one network share.

    Args:
        bus: The bus that everything goes over.
        seed: The seed that faults are drawn from.
        faults: The plan of what may happen to messages.

    Attributes:
        bus: The bus that everything goes over.
        seed: The seed that faults are drawn from.
        faults: The plan; it may be changed at any time.
        story: The faults so far, in the order in which they happened.
        teller: Finds words for messages, and numbers for made-up names.
        begun: When the first end was opened, by the clock of `anyio.current_time`; None before that.
        ends: The ends, by name.
        splits: The splits that have not ended, in the order in which they began.
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
        """Add an end to the network.

        Raises:
            NameTakenError: There is an end of that name; a `ValueError`.
        """
        if end.name in self.ends:
            raise NameTakenError(end.name, f"the network over bus {self.bus.name!r}")
        self.ends[end.name] = end

    def begin(self) -> None:
        """Note that an end has opened; the times in the story count from the first one."""
        if self.begun is None:
            self.begun = current_time()

    def note(self, kind: FaultKind, text: str, *, seconds: float | None = None) -> None:
        """Add a fault to the story."""
        self.story.append(Fault(current_time(), kind, text, seconds=seconds))

    def befalls(self, kind: FaultKind, message: BusMessage, what: str, *, seconds: float | None = None) -> None:
        """Add to the story what happens to a message."""
        self.story.append(Fault(current_time(), kind, f"{self.teller.calls(message)} {what}", message, seconds))

    # --- sending

    def fate(self, end: str, message: BusMessage) -> Fate:
        """Draw what happens to a message that is sent at an end, and begin the split that was drawn with it, if any."""
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

        Args:
            sides: See `FaultyBus.split`.
            for_seconds: How many seconds the split lasts; None until it is healed.
            loses: Whether messages that meet the split are lost; None for as the plan says.

        Raises:
            ValueError: There is no end of a name, a name comes twice, or there are no two sides.
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
        """Return the end at which a message's sender is; None for a sender on the wrapped bus itself."""
        return self._homes.get(message.source)

    def cut(self, home: str, end: str) -> Split | None:
        """Return the split that keeps messages of one end from arriving at another; of several, one that loses them."""
        cuts = [split for split in self.splits if split.parts(home, end)]
        return next((split for split in cuts if split.loses), cuts[0] if cuts else None)

    def lost_in(self, split: Split, message: BusMessage, end: str) -> None:
        """Note that a split has lost a message."""
        self._lost_in[split] += 1
        self.befalls("lost", message, f"is lost on its way to {end}: {split} are split")

    def heal(self, split: Split) -> None:
        """End a split, if it has not ended yet."""
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
        """Return the story so far, a line for each fault."""
        begun = self.begun or 0.0
        times = [f"{fault.time - begun:.2f} s" for fault in self.story]
        width = max(map(len, times), default=0)
        return "\n".join(f"{time:>{width}}  {fault.text}" for time, fault in zip(times, self.story, strict=True))
