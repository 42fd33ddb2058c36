"""How many items may wait in a place, and who stands in line for room in it (B9, P1).

A bounded place cannot leave this to the bound of a memory object stream: some items go past the bound, a broadcast
takes its room in several places at once, and a pipeline drops items that wait. So the items that count are counted
here, by those who put them in and take them out. A `Room` knows nothing of what the items are.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from anyio import Event

from workerbus._concurrency.handling import Handling, current, held_up_by
from workerbus._concurrency.waiting import Wait, waits

T = TypeVar("T")


def _nothing() -> int:
    return 0


class RoomWaiter(Generic[T]):
    """The place of one who waits in the line for room.

    Attributes:
        item: What is to be put in.
        free: Set when it has been put in, or when nobody need wait any more.
        handling: The call that waits, if it is one of a subscriber's own code.
    """

    __slots__ = ("_enter", "_room", "free", "handling", "item")

    def __init__(self, room: "Room[T]", item: T, enter: Callable[[T], None]) -> None:
        self._room = room
        self._enter = enter
        self.item: T = item
        self.free: Event = Event()
        self.handling: Handling | None = current()

    async def wait(self) -> None:
        """Wait for room; one who is cancelled leaves the line, and the item is not put in."""
        try:
            await self.free.wait()
        finally:
            self.give_up()

    waits(wait, lambda its: its["self"].in_words())

    def in_words(self) -> Wait | None:
        """Return what is waited for; None where the room does not know."""
        return None if self._room.words is None else self._room.words()

    def give_up(self) -> None:
        """Leave the line; nothing happens where the item has been put in."""
        self._room.remove(self)

    def enter(self) -> None:
        """Put the item in, and let the one who waits go on."""
        self._enter(self.item)
        self.free.set()


class Room(Generic[T]):
    """Room for items, and the line of those who wait for it.

    Args:
        limit: How many items may be in it; infinite by default.

    Attributes:
        limit: How many items may be in it.
        taken: How many items are in it.
        coming: Returns how many items are on their way in, and not counted in ``taken`` yet.
        words: Returns what those in line wait for; None where whoever lets them stand there says so.
        _line: Those who wait, in order; None until somebody does.
    """

    __slots__ = ("_line", "coming", "limit", "taken", "words")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit: float = limit
        self.taken: int = 0
        self.coming: Callable[[], int] = _nothing
        self.words: Callable[[], Wait] | None = None
        self._line: OrderedDict[RoomWaiter[T], None] | None = None  # it is large, and most rooms never need one

    @property
    def bounded(self) -> bool:
        """Whether there is a limit."""
        return self.limit != math.inf

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return self.taken >= self.limit

    @property
    def line(self) -> list[RoomWaiter[T]]:
        """Those who wait, in order."""
        return list(self._line or ())

    @property
    def has_line(self) -> bool:
        """Whether somebody waits."""
        return bool(self._line)

    def leave(self) -> None:
        """Note that an item was taken out, and let in who waits for room."""
        self.taken -= 1
        self.admit()

    def stand(self, item: T, enter: Callable[[T], None]) -> RoomWaiter[T]:
        """Stand in line; ``enter`` is called with the item when there is room, and has to count it in ``taken``."""
        if self._line is None:
            self._line = OrderedDict()
        waiter = RoomWaiter(self, item, enter)
        self._line[waiter] = None
        return waiter

    def remove(self, waiter: RoomWaiter[T]) -> None:
        """Take somebody out of the line; nothing happens where he does not stand there."""
        if self._line is not None:
            self._line.pop(waiter, None)

    def admit(self) -> None:
        """Let in those who wait, in order, as far as there is room."""
        while self._line and self.taken + self.coming() < self.limit:
            self._line.popitem(last=False)[0].enter()

    def admit_its_own(self) -> None:
        """Let in, past the limit, those who would wait for themselves: the room is held up while they wait."""
        for waiter in self.line:
            if self in held_up_by(waiter.handling):
                self.remove(waiter)
                waiter.enter()

    def release(self, *, but: Callable[[T], bool] | None = None) -> None:
        """Let those in line go on, without putting in their items.

        Args:
            but: Says of an item whether its owner stays in line.
        """
        for waiter in self.line:
            if but is None or not but(waiter.item):
                self.remove(waiter)
                waiter.free.set()
