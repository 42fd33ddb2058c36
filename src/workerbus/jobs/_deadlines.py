"""The deadlines of jobs that have no scope of their own to see to them: one heap and one task for all of a worker (J6).

The task sleeps in a scope whose deadline is that of the first item, and is moved when an earlier one comes. It exists
from the first item on, and nothing wakes it while there is none. An item that need not be looked after any more leaves
its time in the heap, and nothing else; when most of the heap is such times, they are thrown out.

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
"""How many times without an item a heap may have beside as many as it has items."""


class Deadlines(Generic[T]):
    """Items, each with a time, and what is done with those whose time has come.

    Args:
        name: For the task's name.
        host: Returns where the task runs.
        expire: Called with all items whose time has come, those that have waited for longest first.
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
        """Look after an item; returns what to `drop` it by."""
        self._number += 1
        self._items[self._number] = item
        heappush(self._heap, (at, self._number))
        if not self._runs:
            self._start()
        elif self._heap[0][1] == self._number:
            self._wake_at(at)
        return self._number

    def drop(self, number: int) -> None:
        """Look after an item no more; again is a no-op."""
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
                self._start()  # natively, this very task: that is no reason to let jobs wait for ever
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
