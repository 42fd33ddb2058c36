"""One lane: a memory object stream, and the task that takes from it and handles one item at a time (B1, B2).

A lane knows nothing of messages. It is given a coroutine function to call with each item, and a `TaskHost` when there
is something to run in. The stream and the task exist from the first item on that finds something to run in, so that a
lane that was never run leaves no unclosed stream.

What goes through the stream is not single items but the queue that holds them, each time that the first one comes into
it: with a ``send_nowait`` and a ``receive_nowait`` for each item, a flood took three times as long.

The rules of order, where they matter:

* ``waiting`` counts the items that were put and whose handling has not begun; the handler in hand is not among them.
* A lane with lanes in ``first`` (a data lane, its system lane) begins nothing while one of those has items waiting and
  is not itself suspended in a handler. It steps aside with checkpoints, which end as soon as the other has begun.
* After 64 items without a pause the dispatcher yields once, so that a flood starves nobody.
* A handler that gets its own task cancelled natively ends that task, not the lane: another one goes on.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from anyio import (
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    Event,
    create_memory_object_stream,
    get_cancelled_exc_class,
    get_current_task,
)
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from workerbus._lifetime import TaskHost, cancelled_from_outside

T = TypeVar("T")

BATCH: Final = 64


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
        handle: Called with each item; it does not raise, cancellation apart.
        first: The lanes whose waiting items go before this one's.
        limit: How many counted items may wait; infinite by default.

    Attributes:
        coming: Returns how many items are on their way into the lane, and need room there.
    """

    __slots__ = (
        "_awake",
        "_counted",
        "_handle",
        "_host",
        "_items",
        "_name",
        "_places",
        "_quiet",
        "_receive",
        "_scope",
        "_send",
        "busy",
        "closed",
        "coming",
        "first",
        "limit",
        "task_id",
    )

    def __init__(
        self,
        name: str,
        handle: Callable[[T], Awaitable[None]],
        *,
        first: "tuple[Lane[Any], ...]" = (),
        limit: float = math.inf,
    ) -> None:
        self._name = name
        self._handle = handle
        self.first: tuple[Lane[Any], ...] = first
        self.coming: Callable[[], int] = _nothing
        self.limit: float = limit
        self._host: TaskHost | None = None
        self._items: deque[T | _Counted[T]] | None = None
        self._awake = False
        self._send: MemoryObjectSendStream[deque[T | _Counted[T]]] | None = None
        self._receive: MemoryObjectReceiveStream[deque[T | _Counted[T]]] | None = None
        self._scope: CancelScope | None = None
        self._places: deque[Place] | None = None
        self._quiet: Event | None = None
        self._counted = 0
        self.busy: bool = False
        self.closed: bool = False
        self.task_id: int | None = None

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._items) if self._items else 0

    def open(self, host: TaskHost) -> None:
        """Give the lane something to run in, and start with what has come so far."""
        self._host = host
        if self._items and not self.closed:
            self._wake(self._items)

    def put(self, item: T) -> None:
        """Add an item, room or not; a closed lane drops it."""
        if self.closed:
            return
        items = self._items
        if items is None:
            items = self._items = deque()
        items.append(item)
        if not self._awake:
            self._wake(items)

    def put_counted(self, item: T) -> None:
        """Add an item that takes a place, if the lane is a bounded one."""
        if self.limit == math.inf or self.closed:
            self.put(item)
            return
        if self._items is None:
            self._items = deque()
        self._counted += 1
        self._items.append(_Counted(item))
        if not self._awake:
            self._wake(self._items)

    def _wake(self, items: deque[T | _Counted[T]]) -> None:
        if self._host is None:
            return
        self._awake = True
        if self._send is None:
            self._send, self._receive = create_memory_object_stream[Any](math.inf)
            self._start()
        self._send.send_nowait(items)

    def _start(self) -> None:
        assert self._host is not None
        self._host.start(self._dispatch, name=f"{self._name} dispatcher")

    @property
    def full(self) -> bool:
        """Whether a counted item would have to wait for room."""
        return not self.closed and (self._counted >= self.limit or bool(self._places))

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
        while self._items or self.busy:
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
            if self._items:
                left = [item.item if isinstance(item, _Counted) else item for item in self._items]
                self._items.clear()
            self._counted = 0
            if self._send is not None and self._receive is not None:
                self._send.close()
                self._receive.close()
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
            except (EndOfStream, ClosedResourceError):
                pass
            except get_cancelled_exc_class():
                if cancelled_from_outside():
                    raise
                if not self.closed:
                    self._start()
            finally:
                self.busy = False
                if not self._items:
                    self._tell_quiet()

    async def _take_all(self) -> None:
        assert self._receive is not None
        assert self._items is not None
        items, first, handle = self._items, self.first, self._handle
        taken = 0
        while not self.closed:
            if not items:
                self._awake = False
                self._tell_quiet()
                await self._receive.receive()
                taken = 0
                continue
            for lane in first:
                if lane._items and not lane.busy:  # noqa: SLF001 - of its own kind; a property takes a message's time
                    await checkpoint()
                    break
            else:
                item = items.popleft()
                if isinstance(item, _Counted):
                    item = item.item
                    self._counted -= 1
                    self.admit()
                self.busy = True
                await handle(item)
                self.busy = False
                taken += 1
                if taken == BATCH:
                    taken = 0
                    await checkpoint()
