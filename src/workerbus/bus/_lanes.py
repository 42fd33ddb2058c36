"""One lane: a queue, and the task that takes from it and handles one item at a time (B1, B2).

A lane knows nothing of messages. It is given a coroutine function to call with each item, and a `TaskHost` when there
is something to run in; the task exists from the first item on that finds something to run in.

The queue is a deque, and the task parks on an event while there is nothing in it. A memory object stream would be both,
but its ``receive()`` lets the whole loop pass before it looks, which makes a subscriber that waits three times as slow,
and a send and a receive for each item made a flood twice as slow.

The rules of order, where they matter:

* A lane with lanes in ``first`` (a data lane, its system lane) begins nothing while one of those has items waiting and
  is not itself suspended in a handler. It steps aside with checkpoints, which end as soon as the other has begun.
* With every 64th item the dispatcher yields once, so that a flood starves nobody.
* A handler that gets its own task cancelled natively ends that task, not the lane: another one goes on.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from anyio import CancelScope, Event, get_cancelled_exc_class, get_current_task
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from workerbus._lifetime import TaskHost, cancelled_from_outside, event_class, without_cancellation
from workerbus._vocabulary import BATCH

T = TypeVar("T")


class _Counted(Generic[T]):
    """An item that takes a place in a bounded lane."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item = item


class Place:
    """A sender's place in the queue for a full lane."""

    __slots__ = ("_put", "free")

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self.free: Event = Event()

    def take(self) -> None:
        """Put what waits into the lane, and let its sender go on."""
        self._put()
        self.free.set()


def _nothing() -> int:
    return 0


class Lane(Generic[T]):
    """Items, handled one at a time in the order in which they were put.

    Args:
        name: For the task's name.
        handle: Called with each item.
        failed: Called with an item and what ``handle`` raised for it; by default that ends the lane.
        first: The lanes whose waiting items go before this one's.
        limit: How many counted items may wait; infinite by default.

    Attributes:
        items: What waits; None before the first item and after the end.
        ready: The items, while its dispatcher will look at them by itself: then appending one is all there is to `put`.
        begun: How many items have been taken.
        coming: Returns how many items are on their way into the lane, and need room there.
    """

    __slots__ = (
        "_counted",
        "_failed",
        "_handle",
        "_host",
        "_name",
        "_parked",
        "_places",
        "_quiet",
        "_scope",
        "begun",
        "busy",
        "closed",
        "coming",
        "first",
        "items",
        "limit",
        "ready",
        "task_id",
    )

    def __init__(
        self,
        name: str,
        handle: Callable[[T], Awaitable[None]],
        *,
        failed: Callable[[T, BaseException], None] | None = None,
        first: "tuple[Lane[Any], ...]" = (),
        limit: float = math.inf,
    ) -> None:
        self._name = name
        self._handle = handle
        self._failed = failed
        self.first: tuple[Lane[Any], ...] = first
        self.coming: Callable[[], int] = _nothing
        self.limit: float = limit
        self._host: TaskHost | None = None
        self.items: deque[T | _Counted[T]] | None = None
        self.ready: deque[T | _Counted[T]] | None = None
        self._parked: Event | None = None
        self._scope: CancelScope | None = None
        self._places: deque[Place] | None = None
        self._quiet: Event | None = None
        self._counted = 0
        self.begun: int = 0
        self.busy: bool = False
        self.closed: bool = False
        self.task_id: int | None = None

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self.items) if self.items else 0

    def open(self, host: TaskHost) -> None:
        """Give the lane something to run in, and start with what has come so far."""
        self._host = host
        if self.items and not self.closed:
            self._wake()

    def put(self, item: T) -> None:
        """Add an item, room or not; a closed lane drops it."""
        items = self.items
        if items is None:
            if self.closed:
                return
            items = self.items = deque()
        items.append(item)
        if self.ready is None:
            self._wake()

    def put_counted(self, item: T) -> None:
        """Add an item that takes a place, if the lane is a bounded one."""
        if self.limit == math.inf or self.closed:
            self.put(item)
            return
        if self.items is None:
            self.items = deque()
        self._counted += 1
        self.items.append(_Counted(item))
        if self.ready is None:
            self._wake()

    def _wake(self) -> None:
        if self._host is None:
            return
        self.ready = self.items
        if self._parked is None:
            self._start()
        else:
            self._parked.set()

    def _start(self) -> None:
        assert self._host is not None
        self._host.start(self._dispatch, name=f"{self._name} dispatcher")

    @property
    def full(self) -> bool:
        """Whether a counted item would have to wait for room."""
        return not self.closed and self._counted >= self.limit

    def queue_for_room(self, put: Callable[[], None]) -> Place:
        """Stand in line for room; ``put`` is called, in the order of standing, when there is some."""
        if self._places is None:
            self._places = deque()
        place = Place(put)
        self._places.append(place)
        return place

    def leave_queue(self, place: Place) -> None:
        """Give up a place, if it was not taken yet."""
        if self._places is not None and place in self._places:
            self._places.remove(place)

    @property
    def counted(self) -> int:
        """How many counted items wait."""
        return self._counted

    def admit(self) -> None:
        """Let in who waits for room, as far as there is some."""
        while self._places and self._counted + self.coming() < self.limit:
            self._places.popleft().take()

    async def quiet(self) -> None:
        """Wait until nothing waits and nothing is being handled."""
        while self.items or self.busy:
            if self._quiet is None:
                self._quiet = Event()
            await self._quiet.wait()

    def close(self, *, cancel: bool = False) -> list[T]:
        """Begin nothing more, and release whoever waits for room (B5).

        Args:
            cancel: Whether to cancel what is being handled; otherwise it is let finish.

        Returns:
            What was waiting, and will not be handled.
        """
        left: list[T] = []
        if not self.closed:
            self.closed = True
            if self.items:
                left = [item.item if isinstance(item, _Counted) else item for item in self.items]
                self.items.clear()  # which its dispatcher holds
            self.items = self.ready = None
            self._counted = 0
            if self._parked is not None:
                self._parked.set()
            places, self._places = self._places, None
            for place in places or ():
                place.free.set()
            self._tell_quiet()
        if cancel and self._scope is not None:
            self._scope.cancel()
        return left

    def _tell_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    async def _dispatch(self) -> None:
        self.task_id = get_current_task().id
        with CancelScope() as self._scope:
            try:
                await self._take_all()
            except get_cancelled_exc_class():
                if cancelled_from_outside():
                    raise
                if not self.closed:
                    self._parked, self.ready = None, self.items
                    self._start()
            finally:
                self.busy = False
                if not self.items:
                    self._tell_quiet()

    async def _take_all(self) -> None:
        items, first, handle, new_event = self.items, self.first, self._handle, event_class()
        while items is not None and not self.closed:  # closed before this began, and since
            while items:  # which is emptied when the lane is closed
                for lane in first:
                    if lane.items and not lane.busy:
                        await checkpoint()
                        break
                else:
                    item = items.popleft()
                    if isinstance(item, _Counted):
                        item = item.item
                        self._counted -= 1
                        self.admit()
                    self.begun += 1
                    self.busy = True
                    try:
                        await handle(item)
                    except BaseException as exc:  # noqa: BLE001 - sorted there
                        await self._caught(item, exc)
                    self.busy = False
                    if not self.begun & (BATCH - 1):
                        await checkpoint()
            self._tell_quiet()
            if not self.closed:
                self.ready, self._parked = None, new_event()
                await self._parked.wait()

    async def _caught(self, item: T, exc: BaseException) -> None:
        failed = self._failed
        if failed is None:
            raise exc
        if isinstance(exc, get_cancelled_exc_class()) and not cancelled_from_outside():
            failed(item, exc)
        if isinstance(exc, BaseExceptionGroup):
            error = without_cancellation(exc)
            if error is not None:
                failed(item, error)
            await checkpoint_if_cancelled()
        elif isinstance(exc, Exception):
            failed(item, exc)
        else:
            raise exc
