"""What the ends of one faulty network share: the draws, the splits, and the story.

What happens is decided here, and the ends act. Whether a split stops a message is decided when it arrives: the sender's
name says at which end it was sent. Each open end has a timer for each split that ends by itself, so that the split ends
whichever of the ends closes before; the first of the timers ends it.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

from anyio import Event, current_time, move_on_at
from attrs import field, frozen

from workerbus.bus._bus import WorkerBus
from workerbus.errors import NameTakenError, near_names
from workerbus.messages import BusMessage
from workerbus.testing.buses._deciding import current_decider
from workerbus.testing.buses._faults import Fate, Faults
from workerbus.testing.buses._story import Story
from workerbus.testing.buses._telling import counted, in_seconds, listed


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


def sides_of(sides: Sequence[str | Collection[str]], ends: Collection[str]) -> tuple[frozenset[str], ...]:
    """Return the names of the ends on each side of a split; see `FaultyBus.split`.

    Raises:
        ValueError: There is no end of a name, a name comes twice, or there are no two sides.
    """
    named = [frozenset([side] if isinstance(side, str) else side) for side in sides]
    named = [side for side in named if side] or [frozenset([name]) for name in ends]
    everybody = Counter(name for side in named for name in side)
    for name, times in everybody.items():
        if name not in ends:
            raise ValueError(f"the network has no end {name!r}; {near_names(name, ends)}")
        if times > 1:
            raise ValueError(f"an end is on one side of a split, but {name!r} is on {times}")
    if len(named) == 1:
        named.append(frozenset(ends) - named[0])
    if len(named) < 2 or not all(named):
        raise ValueError(f"a split needs two sides, but the network's ends are {listed(sorted(ends))}")
    return tuple(named)


class Network(Story):
    """What the ends of one network share.

    Args:
        bus: The bus that everything goes over.
        seed: The seed that faults are drawn from.
        faults: The plan of what may happen to messages.

    Attributes:
        bus: The bus that everything goes over.
        seed: The seed that faults are drawn from.
        faults: The plan; it may be changed at any time.
        ends: The ends, by name.
        splits: The splits that have not ended, in the order in which they began.
    """

    def __init__(self, bus: WorkerBus, seed: int | str, faults: Faults) -> None:
        super().__init__(lambda: [end.name for end in self.ends.values() if end.is_open])
        self.bus: WorkerBus = bus
        self.seed: int | str = seed
        self.faults: Faults = faults
        self.ends: dict[str, End] = {}
        self.splits: list[Split] = []
        self._homes: dict[str, str] = {}
        self._sent: Counter[tuple[str, str]] = Counter()
        self._lost_in: Counter[Split] = Counter()

    def add(self, end: End) -> None:
        """Add an end to the network.

        Raises:
            NameTakenError: There is an end of that name; a `ValueError`.
        """
        if end.name in self.ends:
            raise NameTakenError(end.name, f"the network over bus {self.bus.name!r}")
        self.ends[end.name] = end

    # --- sending

    def fate(self, end: str, message: BusMessage) -> Fate:
        """Draw what happens to a message that is sent at an end, and begin the split that was drawn with it, if any."""
        source = self.teller.name(message.source)
        self.teller.job(message)  # so that jobs are numbered as they are asked for, faults or not
        self._homes[message.source] = end
        self._sent[end, source] += 1
        sender, number, decider = f"{end}/{source}", self._sent[end, source], current_decider()
        if decider is None:
            fate = self.faults.draw(message, self.seed, sender, number)
        else:
            fate = self.faults.decide(message, decider, f"{sender}/{number}", lambda: self.teller.calls(message))
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
        named = sides_of(sides, self.ends)
        until = None if for_seconds is None else current_time() + for_seconds
        split = Split(named, until, self.faults.split_loses if loses is None else loses)
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
