"""One lane: a memory object stream, and the task that takes from it and handles one item at a time (B1, B2, B5, B9).

A lane knows nothing of messages. It is given a coroutine function to call with each item, and a `TaskHost` when there
is something to run in. Stream and task exist from the first item on that finds something to run in; what comes before
waits in a list, so that a lane that is never run has no stream to close.

Items are put in with ``send_nowait`` and taken out with ``receive_nowait``. Between two batches the task parks on an
event, and not in ``receive()``: that lets the whole loop pass before it looks, which makes a broadcast to subscribers
that wait two to three times as slow, and an item that is handed to a parked ``receive()`` is in neither the stream nor
the handler, so that a lane that is closed at that moment would lose it.

The rules of order, where they matter:

1. A lane with lanes in ``first`` (a data lane, its system lane) begins nothing while one of those has items waiting and
   is not itself suspended in a handler. It steps aside with checkpoints, which end as soon as the other has begun.
2. With every 64th item the dispatcher yields once, so that a flood starves nobody. Where it shares `Turns` with many
   that have much to do, it stands in line instead, and handles up to 256 items when its turn comes.
3. A handler that gets its own task cancelled natively ends that task, not the lane: another one goes on.

Who closes the stream: `close`, which whoever owns the lane calls at its end. A dispatcher that is cancelled together
with its host does it too, and keeps what waited; a lane that is forgotten does it when it is collected.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from anyio import (
    CancelScope,
    Event,
    WouldBlock,
    create_memory_object_stream,
    get_cancelled_exc_class,
    get_current_task,
)
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from workerbus._concurrency.backend import event_class
from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import Kind, cancelled_from_outside, sort_failure
from workerbus._concurrency.left_open import LEFT_OPEN, close_left_open
from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.room import Room
from workerbus._concurrency.turns import AT_ONCE, TAKES, Turns
from workerbus._concurrency.waiting import Role, Wait, item_in_words, serves, waits
from workerbus._values import BATCH

T = TypeVar("T")

_NOTHING: Final = object()


class _Counted(Generic[T]):
    """An item that takes room in a bounded lane."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item = item


class Lane(Generic[T]):
    """Items, handled one at a time in the order in which they were put.

    Args:
        name: The name of the lane, from which its task gets its own.
        handle: Called with each item, and awaited.
        failed: Called with an item and what ``handle`` raised for it; by default that ends the lane.
        first: The lanes whose waiting items go before this one's.
        room: Where the items that count are counted; None for a lane without a bound.

    Attributes:
        first: The lanes whose waiting items go before this one's.
        room: Where the items that count are counted; None for a lane without a bound.
        awake: Whether its dispatcher will look into the stream by itself.
        ready: Puts an item into the stream, where that is all that `put` would do; None until a second one has come.
        begun: How many items have been taken.
        busy: Whether an item is being handled.
        called: The pass in which its turn was called, while it has not begun; else 0.
        closed: Whether the lane takes and begins nothing more.
        task_id: The id of the dispatcher's task, as anyio has it; None until there is one.
        _early: What has come while there is nothing to run in; None where nothing has.
        _host: What the dispatcher runs in, once the lane was opened.
        _send: The end of the stream that items are put into; None before the first.
        _receive: The other end, which the dispatcher takes from.
        _parked: What the dispatcher waits for between two batches.
        _quiet: Set when nothing waits and nothing is handled; made by who waits for that.
        _scope: The scope of the dispatcher.
        _turns: The lanes with which this one takes turns; None for one that never stands in line.
    """

    __slots__ = (
        "_early",
        "_failed",
        "_handle",
        "_host",
        "_parked",
        "_quiet",
        "_receive",
        "_scope",
        "_send",
        "_turns",
        "awake",
        "begun",
        "busy",
        "called",
        "closed",
        "first",
        "name",
        "ready",
        "room",
        "task_id",
    )

    def __init__(
        self,
        name: str,
        handle: Callable[[T], Awaitable[None]],
        *,
        failed: Callable[[T, BaseException], None] | None = None,
        first: "tuple[Lane[Any], ...]" = (),
        room: Room[Any] | None = None,
    ) -> None:
        self.name: str = name
        self._handle = handle
        self._failed = failed
        self.first: tuple[Lane[Any], ...] = first
        self.room: Room[Any] | None = room
        self._turns: Turns | None = None
        self.called: int = 0
        self._host: TaskHost | None = None
        self._early: list[Any] | None = None
        self._send: MemoryObjectSendStream[Any] | None = None
        self._receive: MemoryObjectReceiveStream[Any] | None = None
        self._parked: Event | None = None
        self._scope: CancelScope | None = None
        self._quiet: Event | None = None
        self.awake: bool = False
        self.ready: Callable[[Any], None] | None = None
        self.begun: int = 0
        self.busy: bool = False
        self.closed: bool = False
        self.task_id: int | None = None

    def __del__(self) -> None:
        self._close_stream()

    # --- items come

    def open(self, host: TaskHost, turns: Turns | None = None) -> None:
        """Give the lane something to run in, and start with what has come so far; with others, it may take turns."""
        self._host, self._turns = host, turns
        early, self._early, self.awake = self._early, None, False
        for item in early or ():
            self.put(item)

    def put(self, item: Any) -> None:
        """Add an item, room or not; a closed lane drops it."""
        if self.closed:
            return
        if self._send is not None:
            self._send.send_nowait(item)
        elif self._host is not None:
            self._send, self._receive = create_memory_object_stream[Any](math.inf)
            self._send.send_nowait(item)
            self._start()
        elif self._early is not None:
            self._early.append(item)
        else:
            self._early = [item]
        if not self.awake:
            self.awake = True
            if self._parked is not None:
                self._parked.set()
        elif self.ready is None and self._send is not None:
            self.ready = self._send.send_nowait

    def put_counted(self, item: T) -> None:
        """Add an item that takes room in a bounded lane, whether there is room or not."""
        if self.room is None or self.closed:
            self.put(item)
        else:
            self.room.taken += 1
            self.put(_Counted(item))

    @property
    def full(self) -> bool:
        """Whether an item that counts would have to wait for room."""
        return self.room is not None and not self.closed and self.room.full

    def wake(self) -> int:
        """Let the dispatcher go on, which stands in line, and return how many items wait; with none, it sleeps on."""
        if self._parked is None or self._parked.is_set():
            return 0  # it was closed or cancelled meanwhile
        # One that was cancelled in line may sleep by now. It must not be called: it would not begin, nor call others.
        items = self.waiting if self.awake else 0
        if items:
            self._parked.set()
        else:
            self.awake, self.ready = False, None  # it stays parked, as in case 1
            self._tell_quiet()
        return items

    # --- what waits

    @property
    def waiting(self) -> int:
        """How many items wait."""
        if self._receive is not None:
            return self._receive.statistics().current_buffer_used
        return len(self._early or ())

    def look(self) -> list[T]:
        """Return the items that wait, without taking them."""
        waiting = self._drain()
        if self._send is not None:
            for item in waiting:
                self._send.send_nowait(item)
        return _unwrapped(waiting)

    def take_all(self) -> list[T]:
        """Take out the items that wait, for somebody else to handle."""
        return _unwrapped(self._drain())

    async def quiet(self) -> None:
        """Wait until nothing waits and nothing is being handled."""
        while self.busy or self.waiting:
            if self._quiet is None:
                self._quiet = Event()
            await self._quiet.wait()

    waits(quiet, lambda its: Wait(2, f"for {its['self'].name!r} to have nothing to do"))

    def _tell_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    # --- the end

    def close(self, *, cancel: bool = False) -> list[T]:
        """Begin nothing more, and release whoever waits for room.

        Args:
            cancel: Whether to cancel the handling of an item that was begun; otherwise it goes on to its end.

        Returns:
            The items that were waiting, and will not be handled.
        """
        left: list[T] = []
        if not self.closed:
            self.closed, self.awake = True, False
            left, self._early = _unwrapped(self._drain()), None
            self._close_stream()
            if self._parked is not None:
                self._parked.set()
            if self.room is not None:
                self.room.taken = 0
                self.room.release()
            self._tell_quiet()
        if cancel and self._scope is not None:
            self._scope.cancel()
        return left

    def _drain(self) -> Sequence[Any]:
        if self._receive is None:
            return self._early or ()
        return [self._receive.receive_nowait() for _ in range(self.waiting)]

    def _close_stream(self) -> None:
        if self._send is not None and self._receive is not None:
            self._send.close()
            self._receive.close()
        self._send = self._receive = self.ready = None

    # --- the dispatcher

    def _start(self) -> None:
        assert self._host is not None
        self._host.start(self._dispatch, name=f"{self.name} dispatcher")

    async def _dispatch(self) -> None:
        self.task_id = get_current_task().id
        with CancelScope() as self._scope:
            try:
                await self._take_all()
            except get_cancelled_exc_class():
                if cancelled_from_outside():
                    self._lose_host()
                    raise
                if not self.closed:
                    self._start()  # rule 3
            finally:
                self.busy = False
                self._parked = None
                if self._turns is not None and self.called:
                    self._turns.begin(self)
                if not self.waiting:
                    self._tell_quiet()
                if LEFT_OPEN:
                    await close_left_open()

    def _lose_host(self) -> None:
        # Nobody closes a lane whose host has gone. So what waits goes back into a list, and the stream is closed here.
        self._host = None
        self._early = [*self._drain()]
        self._close_stream()

    async def _take_all(self) -> None:
        # `awake` says what the dispatcher does next, and whoever puts an item in has to know only that:
        #
        # 1. Not awake: it parks, or is about to. The next `put` wakes it, and leaves `ready` alone.
        # 2. Awake, and ``ready`` is None: one item has come since it was woken. When that has been handled there is
        #    nothing else, and it parks without asking the stream: a `WouldBlock` costs half of what the item did.
        # 3. Awake and ``ready``: more have come. It takes until the stream raises `WouldBlock`, yields once or stands
        #    in line for its next turn, and parks only if nothing has come meanwhile. To park and be woken costs several
        #    times what a yield does. Broadcasts to 1,000 are 1.6 times as fast for it.
        #
        # No await stands inside ``except WouldBlock``: that would keep the exception with its traceback alive for as
        # long as the lane is idle (630 bytes each). And `try` is only around the take: a handler may raise it, too.
        if self._receive is None:
            return  # closed before this began
        take = self._receive.receive_nowait if self.room is None else self._take_counted
        first, handle, new_event = self.first, self._handle, event_class()
        left = most = BATCH
        while self.awake or await self._park(new_event):
            for lane in first:
                if lane.awake and not lane.busy and self.waiting:
                    await checkpoint()  # rule 1
                    break
            else:
                try:
                    item = take()
                except WouldBlock:
                    item = _NOTHING
                if item is _NOTHING:
                    if left != most:
                        left = most = await self._turn(new_event)  # case 3
                    else:
                        self.awake, self.ready = False, None
                    continue
                self.begun += 1
                self.busy = True
                try:
                    await handle(item)
                except BaseException as exc:  # noqa: BLE001 - sorted there
                    await self._caught(item, exc)
                self.busy = False
                if self.ready is None:
                    self.awake = False
                left -= 1
                if not left:
                    left = most = await self._turn(new_event)  # rule 2

    tells(_take_all, lambda its: Doing(f"lane {its['self'].name!r}, which handles {type(its['item']).__name__}"))
    serves(_take_all, lambda its: its["self"].role())

    def role(self) -> Role:
        """Return what the task of the lane is for, for who looks at its frames."""
        return Role(keys=(("lane", id(self)),), behind=lambda: [item_in_words(item) for item in self.look()])

    async def _park(self, new_event: type[Event]) -> bool:
        if not (self.awake or self.closed):
            self._tell_quiet()
            self._parked = new_event()
            await self._parked.wait()
        return not self.closed

    async def _turn(self, new_event: type[Event]) -> int:
        # Let others run, and return how many items may be handled before that is due again.
        turns = self._turns
        if turns is None:
            await checkpoint()
            return BATCH
        if not turns.line and turns.called < AT_ONCE:
            turns.call(self)
            await checkpoint()
            turns.begin(self)
            return BATCH
        self._parked = new_event()
        turns.line.append(self)
        await self._parked.wait()
        if self.called:
            turns.begin(self)
        return TAKES

    def _take_counted(self) -> Any:
        assert self._receive is not None
        assert self.room is not None
        item = self._receive.receive_nowait()
        if isinstance(item, _Counted):
            item = item.item
            self.room.leave()
        return item

    async def _caught(self, item: T, exc: BaseException) -> None:
        if self._failed is None:
            raise exc
        failure = sort_failure(exc)
        await failure.pass_on()
        self._failed(item, failure.cause)
        if failure.kind is Kind.NATIVE:
            raise exc  # rule 3
        await failure.let_cancel()


def _unwrapped(items: Sequence[Any]) -> list[Any]:
    return [item.item if isinstance(item, _Counted) else item for item in items]
