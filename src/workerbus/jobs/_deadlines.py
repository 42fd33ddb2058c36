"""The deadlines of jobs that have no scope of their own to see to them: one heap and one task for all of a worker (J6).

The task sleeps in a scope whose deadline is that of the first item. An item with an earlier deadline moves it. The task
exists from the first item on, and nothing wakes it while there is none. An item that is dropped leaves its time in the
heap, since nothing can be taken out of the middle of one cheaply; when most of the heap is such times, they are thrown
out.

Knows nothing of jobs.
"""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from anyio import CancelScope, current_time, get_cancelled_exc_class, sleep_forever

from workerbus._concurrency.failures import cancelled_from_outside
from workerbus._concurrency.lifetime import TaskHost

T = TypeVar("T")

SPARE: Final = 64
"""A heap is cleared of times without an item when it has more of them than items, and this many beside."""


class Deadlines(Generic[T]):
    """Items, each with a time, and what is done with those whose time has come.

    Args:
        name: The owner's name, from which the task gets its own.
        host: Returns where the task runs.
        expire: Called with all items whose time has come, the earliest deadline first.

    Attributes:
        _heap: Deadline and number of each item, and of those that were dropped lately.
        _items: Number to item, of those that are looked after.
        _number: The number of the last item.
        _runs: Whether there is a task.
        _scope: What the task sleeps in; None where it does not sleep.
    """

    __slots__ = ("_expire", "_heap", "_host", "_items", "_name", "_number", "_runs", "_scope")

    def __init__(self, name: str, host: Callable[[], TaskHost], expire: Callable[[list[T]], None]) -> None:
        self._name = name
        self._host = host
        self._expire = expire
        self._heap: list[tuple[float, int]] = []
        self._items: dict[int, T] = {}
        self._number = 0
        self._runs = False
        self._scope: CancelScope | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, at: float, item: T) -> int:
        """Look after an item until its deadline; returns the number to `drop` it by."""
        self._number += 1
        self._items[self._number] = item
        heappush(self._heap, (at, self._number))
        if not self._runs:
            self._start()
        elif self._heap[0][1] == self._number:
            self._wake_at(at)
        return self._number

    def drop(self, number: int) -> None:
        """Look after an item no more; nothing happens where its time has come, or it was dropped before."""
        self._items.pop(number, None)
        if not self._items:
            self._heap.clear()
            self._wake_at(math.inf)
        elif len(self._heap) > 2 * len(self._items) + SPARE:
            self._heap = [entry for entry in self._heap if entry[1] in self._items]
            heapify(self._heap)

    def _wake_at(self, at: float) -> None:
        if self._scope is not None and self._scope.deadline != at:
            self._scope.deadline = at

    def _start(self) -> None:
        self._host().start(self._watch, name=f"{self._name} deadlines")
        self._runs = True

    async def _watch(self) -> None:
        # `add` and `drop` move the deadline of the scope that is there, wherever this task is:
        #
        # 1. It sleeps: it wakes at the new deadline.
        # 2. It has not begun, or is in `expire`: there is no scope, or one that was left, and moving that does nothing.
        #    The next scope gets its deadline from the heap.
        # 3. The item that it would have woken for was dropped: it wakes for nothing, drops the time, and sleeps on.
        try:
            while True:
                with CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._scope:
                    await sleep_forever()
                due = self._take_due()
                if due:
                    self._expire(due)
        except get_cancelled_exc_class():
            self._runs = False
            if self._items and not cancelled_from_outside():
                self._start()  # only this task was cancelled, natively: without another one, jobs would wait for ever
            raise
        finally:
            self._scope = None

    def _take_due(self) -> list[T]:
        due: list[T] = []
        now = current_time()
        while self._heap and (self._heap[0][1] not in self._items or self._heap[0][0] <= now):
            item = self._items.pop(heappop(self._heap)[1], None)
            if item is not None:
                due.append(item)
        return due
