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

T = TypeVar("T")


def _nothing() -> int:
    return 0


class RoomWaiter(Generic[T]):
    """Somebody's place in the line for room.

    Attributes:
        item: What shall be put in.
        free: Set when it has been, or when nobody need wait any more.
    """

    __slots__ = ("_enter", "_room", "free", "item")

    def __init__(self, room: "Room[T]", item: T, enter: Callable[[T], None]) -> None:
        self._room = room
        self._enter = enter
        self.item: T = item
        self.free: Event = Event()

    async def wait(self) -> None:
        """Wait for room; who is cancelled leaves the line, and the item with it."""
        try:
            await self.free.wait()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Leave the line, if there has been no room yet."""
        self._room.remove(self)

    def enter(self) -> None:
        """Put the item in, and let its owner go on."""
        self._enter(self.item)
        self.free.set()


class Room(Generic[T]):
    """Room for items, and the line of those who wait for it.

    Args:
        limit: How many items may be in it.

    Attributes:
        taken: How many are.
        coming: Returns how many more are on their way in.
    """

    __slots__ = ("_line", "coming", "limit", "taken")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit: float = limit
        self.taken: int = 0
        self.coming: Callable[[], int] = _nothing
        self._line: OrderedDict[RoomWaiter[T], None] | None = None  # most places never have one

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
        """Who waits, the first first."""
        return list(self._line or ())

    @property
    def has_line(self) -> bool:
        """Whether somebody waits."""
        return bool(self._line)

    def leave(self) -> None:
        """One item less is in it."""
        self.taken -= 1
        self.admit()

    def stand(self, item: T, enter: Callable[[T], None]) -> RoomWaiter[T]:
        """Stand in line; ``enter`` is called with the item when there is room, and counts it if it is to count."""
        if self._line is None:
            self._line = OrderedDict()
        waiter = RoomWaiter(self, item, enter)
        self._line[waiter] = None
        return waiter

    def remove(self, waiter: RoomWaiter[T]) -> None:
        """Take somebody out of the line, if he still stands there."""
        if self._line is not None:
            self._line.pop(waiter, None)

    def admit(self) -> None:
        """Let in who waits, in order, as far as there is room."""
        while self._line and self.taken + self.coming() < self.limit:
            self._line.popitem(last=False)[0].enter()

    def release(self, *, but: Callable[[T], bool] | None = None) -> None:
        """Let those in line go on without having put in their items.

        Args:
            but: Says of an item whether its owner stays in line.
        """
        for waiter in self.line:
            if but is None or not but(waiter.item):
                self.remove(waiter)
                waiter.free.set()
