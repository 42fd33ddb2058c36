"""The story of a network: what has happened on it, a line for each fault, and when."""

from collections.abc import Callable, Iterable
from typing import Final, Literal
from weakref import WeakSet

from anyio import current_time
from attrs import frozen

from workerbus.messages import BusMessage
from workerbus.testing.buses._telling import Teller, in_seconds, listed

FaultKind = Literal[
    "delayed",
    "duplicated",
    "lost",
    "held back",
    "split",
    "healed",
    "hurried",
    "dropped",
    "late",
    "unconfirmed",
    "joined",
    "left",
    "killed",
    "restarted",
    "lease over",
    "fenced",
    "gap",
]


@frozen
class Fault:
    """An event on a `FaultyBus` or a `PeerNetwork`.

    Args:
        time: When it happened, in seconds, by the clock of `anyio.current_time`.
        kind: What kind of fault it was. ``"hurried"``: an end closed, and what was still delayed went out at once;
            ``"dropped"``: an end closed, and what a split had held back from it never arrived. From ``"late"`` on, of
            a `PeerNetwork` alone, where those that join and leave are told of, too.
        text: What happened, in words.
        message: The message that it happened to; None if it happened to an end.
        seconds: How many seconds a delay, or a split that ends by itself, lasts; None for anything else.
    """

    time: float
    kind: FaultKind
    text: str
    message: BusMessage | None = None
    seconds: float | None = None


_stories: "WeakSet[Story]" = WeakSet()
_UNTOLD: Final[tuple[FaultKind, ...]] = ("delayed", "duplicated", "hurried", "joined", "left")
_LAST: Final = 5


class Story:
    """What has happened on a network.

    Args:
        open_ends: Returns the names of the ends that are open.

    Attributes:
        records: The faults so far, in the order in which they happened.
        teller: Finds words for messages, and numbers for made-up names.
        begun: When the first end was opened, by the clock of `anyio.current_time`; None before that.
    """

    def __init__(self, open_ends: Callable[[], Iterable[str]]) -> None:
        self.records: list[Fault] = []
        self.teller: Teller = Teller()
        self.begun: float | None = None
        self._open_ends = open_ends
        _stories.add(self)

    def begin(self) -> None:
        """Note that an end has opened; the times in the story count from the first one."""
        if self.begun is None:
            self.begun = current_time()

    def note(self, kind: FaultKind, text: str, *, seconds: float | None = None) -> None:
        """Add a fault to the story."""
        self.records.append(Fault(current_time(), kind, text, seconds=seconds))

    def befalls(self, kind: FaultKind, message: BusMessage, what: str, *, seconds: float | None = None) -> None:
        """Add to the story what happens to a message."""
        self.records.append(Fault(current_time(), kind, f"{self.teller.calls(message)} {what}", message, seconds))

    def tell(self) -> str:
        """Return the story so far, a line for each fault."""
        begun = self.begun or 0.0
        times = [f"{fault.time - begun:.2f} s" for fault in self.records]
        width = max(map(len, times), default=0)
        return "\n".join(f"{time:>{width}}  {fault.text}" for time, fault in zip(times, self.records, strict=True))

    def ending(self) -> str | None:
        """Return a paragraph of the last that was kept from arriving; None where nothing was, or no end is open."""
        faults = [fault for fault in self.records if fault.kind not in _UNTOLD]
        names = list(self._open_ends())
        if not names or not faults:
            return None
        earlier = f"\n    {len(faults) - _LAST} more, and then" if len(faults) > _LAST else ""
        lines = "".join(f"\n    at {in_seconds(fault.time)}: {fault.text}" for fault in faults[-_LAST:])
        return f"on the network of {listed(names)}{earlier}{lines}"


def stories() -> list[str]:
    """Return a paragraph for each network that is open: the last of what it has kept from arriving."""
    return sorted(ending for story in list(_stories) if (ending := story.ending()) is not None)
