"""What tasks wait for in anyio, trio and asyncio, in words: read off the frames of these libraries.

Functions are known by their qualified names, since these libraries' classes are not all public. A name that is not
known here is shown as it is.
"""

import math
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from workerbus._concurrency.waiting import Key, Wait
from workerbus.diagnosis._frames import future_of, module_of

_PRIMITIVES: Final = {
    "Event.wait": (0, "for an event"),
    "EventAdapter.wait": (0, "for an event"),
    "Lock.acquire": (0, "for a lock"),
    "_LockImpl.acquire": (0, "for a lock"),
    "LockAdapter.acquire": (0, "for a lock"),
    "Semaphore.acquire": (0, "for a semaphore"),
    "SemaphoreAdapter.acquire": (0, "for a semaphore"),
    "Condition.wait": (0, "for a condition to be notified"),
    "Barrier.wait": (0, "for others to come to a barrier"),
    "CapacityLimiter.acquire_on_behalf_of": (0, "for a place in a capacity limiter"),
    "MemoryObjectReceiveStream.receive": (0, "for an item from a stream"),
    "MemoryObjectSendStream.send": (0, "for room in a stream"),
    "MemoryReceiveChannel.receive": (0, "for an item from a channel"),
    "MemorySendChannel.send": (0, "for room in a channel"),
    "Queue.get": (0, "for an item from a queue"),
    "Queue.put": (0, "for room in a queue"),
    "Queue.join": (0, "for all items of a queue to be marked as done"),
    "TaskGroup.start": (2, "for a task to say that it has started"),
    "Nursery.start": (2, "for a task to say that it has started"),
    "TaskGroup.__aexit__": (2, "for the tasks of its task group"),
    "NurseryManager.__aexit__": (2, "for the tasks of its nursery"),
    "_AsCompletedIterator._wait_for_one": (2, "for other tasks"),
    "as_completed.<locals>._wait_for_one": (2, "for other tasks"),
    "wait": (2, "for other tasks"),
    "gather": (2, "for other tasks"),
    "AsyncIOBackend.run_sync_in_worker_thread": (1, "for a thread"),
    "to_thread_run_sync": (1, "for a thread"),
    "sleep_forever": (0, "for ever: it sleeps"),
    "sleep": (1, "for a timer"),
    "sleep_until": (1, "for a timer"),
    "ParkingLot.park": (0, "in a parking lot, from which nobody lets it go"),
}
_NOBODY: Final = {
    "for an event": "for an event that nobody sets",
    "for a future": "for a future that nobody completes",
}
"""What is said instead of a program that is known to be stuck."""
_NO_WAITS: Final = {
    "checkpoint",
    "checkpoint_if_cancelled",
    "cancel_shielded_checkpoint",
    "AsyncIOBackend.checkpoint",
    "AsyncIOBackend.cancel_shielded_checkpoint",
    "__sleep0",
}
_FOR_EVER: Final = Wait(*_PRIMITIVES["sleep_forever"])
_GOES_ON: Final = Wait(-1, "does not wait: it goes on and on, and only lets others run", verb="")


def _timer(frame: FrameType) -> Wait | None:
    # A sleep that is no wait for a timer: for ever, or for no time at all; None if it is one.
    names = frame.f_locals
    if "deadline" in names:
        return _FOR_EVER if names["deadline"] == math.inf else None
    seconds = names.get("delay", names.get("seconds"))
    if not isinstance(seconds, int | float) or 0 < seconds < math.inf:
        return None
    return _FOR_EVER if seconds > 0 else _GOES_ON


def primitive(coro: Any, below: Sequence[FrameType], titles: dict[int, str], *, live: bool = False) -> Wait:
    """Say what a task waits for.

    Args:
        coro: The task's coroutine.
        below: The frames in which it is suspended below the program's own, outermost first.
        titles: What tasks are called, by their ids.
        live: Whether the program may go on, so that nobody knows that an event is never set.
    """
    wait = _primitive(coro, below, titles)
    return wait if live or wait.text not in _NOBODY else wait._replace(text=_NOBODY[wait.text])


def _primitive(coro: Any, below: Sequence[FrameType], titles: dict[int, str]) -> Wait:
    # The outermost function that is known says most: `TaskGroup.__aexit__` waits in an event, but for its tasks. Where
    # none is known, the outermost one is named, and where there is no frame, the program awaits a future itself.
    for frame in below:
        if frame.f_code.co_qualname in _PRIMITIVES:
            rank, text = _PRIMITIVES[frame.f_code.co_qualname]
            owner = _owner(frame, titles)
            if owner:
                return Wait(1, f"{text} that {owner[0]} holds", (owner[1],))
            return (text == "for a timer" and _timer(frame)) or Wait(rank, text)
        if frame.f_code.co_qualname in _NO_WAITS:
            return _GOES_ON
    if below:
        return Wait(0, f"in {module_of(below[0]).partition('.')[0]}'s {below[0].f_code.co_qualname}")
    future = future_of(coro)
    if hasattr(future, "get_coro"):
        return Wait(2, f"for {titles.get(id(future)) or f'task {future.get_name()!r}'}")
    if type(future).__name__ == "_GatheringFuture":
        return Wait(2, "for other tasks")
    return Wait(0, "for a future")


def _owner(frame: FrameType, titles: dict[int, str]) -> tuple[str, Key] | None:
    # Who holds a lock: of what tasks wait for, locks alone have an owner in their statistics.
    statistics = getattr(frame.f_locals.get("self"), "statistics", None)
    owner = getattr(statistics(), "owner", None) if callable(statistics) else None
    if owner is None:
        return None
    task_id = getattr(owner, "id", id(owner))
    return titles.get(task_id) or f"task {owner.name!r}, which has ended,", ("task", task_id)
