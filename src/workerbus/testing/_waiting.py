"""What tasks wait for, in words: read off the frames in which they are suspended.

A task's coroutines are followed from the outermost to the innermost. On the way, frames of the library say what the
task is for (a job, a hook, `run()`); the innermost frame of the program's own code says where it stands; and the frames
below that, the library's or anyio's, say for what it waits. Frames of the library are recognised by their code objects,
so that a method which is renamed is noticed at import.
"""

import gc
import linecache
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from attrs import frozen

from workerbus._hooks import HookQueue
from workerbus._registry import WorkerRegistry
from workerbus._runner import WorkerRunner
from workerbus._worker_life import WorkerLife
from workerbus.bus import WorkerBus
from workerbus.bus._lanes import Lane
from workerbus.jobs._client import JobClient
from workerbus.jobs._contexts import _Context, _Events
from workerbus.jobs._group import JobGroup
from workerbus.jobs._limiter import Turn
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._server import JobServer, OpenJob

Names = dict[str, Any]
MOST: Final = 20
"""How many tasks are described."""


@frozen
class Waiter:
    """A task that waits.

    Args:
        name: Its name.
        coro: Its coroutine.
        main: Whether it is the program's main task.
    """

    name: str
    coro: Any
    main: bool = False


@frozen
class _Wait:
    rank: int
    text: str


# --- the frames of a task


def frames_of(coro: Any) -> Iterator[FrameType]:
    """The frames in which a coroutine is suspended, outermost first."""
    while coro is not None:
        frame = next(
            (getattr(coro, name) for name in ("cr_frame", "gi_frame", "ag_frame") if hasattr(coro, name)), None
        )
        if frame is not None:
            yield frame
        if hasattr(coro, "cr_await"):
            coro = coro.cr_await
        elif hasattr(coro, "gi_yieldfrom"):
            coro = coro.gi_yieldfrom
        elif hasattr(coro, "ag_await"):
            coro = coro.ag_await
        elif type(coro).__name__ in ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow"):
            # These show what they drive to nobody but the garbage collector.
            driven = [each for each in gc.get_referents(coro) if hasattr(each, "cr_frame") or hasattr(each, "ag_frame")]
            coro = driven[0] if driven else None
        else:
            return


_MACHINERY = ("workerbus", "anyio", "trio", "asyncio", "outcome", "contextlib", "functools", "concurrent", "threading")


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__", "")
    return name if isinstance(name, str) else ""


def _is_machinery(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] in _MACHINERY


_THREADS = {"run_sync_in_worker_thread", "to_thread_run_sync", "to_thread"}


def uses_thread(coro: Any) -> bool:
    """Whether a coroutine waits for a thread."""
    return any(frame.f_code.co_name in _THREADS and _is_machinery(frame) for frame in frames_of(coro))


# --- what the library's own frames mean


def _names(names: Sequence[str] | set[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _job_title(job_id: str, name: str | None) -> str:
    return f"job {name!r} ({job_id})" if name else f"job {job_id}"


def _handler(frame: Names) -> str:
    job: OpenJob = frame["job"]
    request = job.request
    title = _job_title(request.job_id, request.job_name)
    return f"worker {request.target!r}, {title}, asked for by {request.source!r}"


def _hook(frame: Names) -> str:
    queue, call = frame["self"], frame["call"]
    return f"worker {queue._owner.name!r}, hook {call.name}"


def _life(frame: Names) -> str:
    return f"worker {frame['self']._worker.name!r}, its run()"


_ROLES: dict[CodeType, Callable[[Names], str]] = {
    JobServer._perform.__code__: _handler,
    HookQueue.run.__code__: _hook,
    WorkerLife._run.__code__: _life,
}


def _answers(group: JobGroup, name: str | None) -> _Wait:
    title = _job_title(group.job_id, name)
    whom = _names(group.missing)
    if group.is_done:
        return _Wait(2, f"until {whom} have stopped working on {title}, which is over: {group.reason}")
    return _Wait(1, f"for the answer of {whom} to {title}")


def _context(frame: Names) -> _Wait:
    context: _Context = frame["self"]
    return _answers(context._entered, context._name)


def _events(frame: Names) -> _Wait:
    events: _Events[Any] = frame["self"]
    return _answers(events._group, getattr(events._change, "__self__")._name)  # noqa: B009 - a bound method


def _arrival(frame: Names) -> _Wait:
    return _Wait(0, f"for worker {frame['worker_name']!r} to come; {frame['self'].near(frame['worker_name'])}")


def _workers_of(runner: WorkerRunner) -> _Wait:
    left = _names(list(runner._hosting.roots))
    return _Wait(3, f"for the end of runner {runner.name!r}" + (f", whose workers are {left}" if left else ""))


_WAITS: dict[CodeType, Callable[[Names], _Wait]] = {
    _Context._outcome.__code__: _context,
    _Events.__anext__.__code__: _events,
    JobClient._wait_for_answers.__code__: lambda frame: _answers(frame["group"], None),
    JobGroup.wait.__code__: lambda frame: _answers(frame["self"], None),
    WorkerRegistry.wait_for.__code__: _arrival,
    Turn.come.__code__: lambda _: _Wait(1, "for its turn: the limit of such jobs is reached"),
    WorkerBus._deliver.__code__: lambda frame: _Wait(
        1, f"for room in {_names([lane._name for lane, _ in frame['places']])}, which is full"
    ),
    WorkerLife.stop.__code__: lambda frame: _Wait(2, f"for worker {frame['self']._worker.name!r} to finish"),
    WorkerLife._wind_down.__code__: lambda frame: _Wait(
        2, f"for what worker {frame['self']._worker.name!r} has cancelled to unwind"
    ),
    WorkerLife._cancel_children.__code__: lambda frame: _Wait(2, f"for child {frame['child'].name!r} to finish"),
    Lane.quiet.__code__: lambda frame: _Wait(2, f"for {frame['self']._name!r} to have nothing to do"),
    TaskPool.quiet.__code__: lambda frame: _Wait(2, f"for the job handlers of {frame['self']._name!r} to unwind"),
    WorkerRunner.run.__code__: lambda frame: _workers_of(frame["self"]),
    WorkerRunner.__aexit__.__code__: lambda frame: _workers_of(frame["self"]),
}

_HANDLER = JobServer._perform.__code__

# --- what the frames of anyio, trio and asyncio mean

_PRIMITIVES = {
    "Event.wait": "for an event that nobody sets",
    "EventAdapter.wait": "for an event that nobody sets",
    "Lock.acquire": "for a lock",
    "LockAdapter.acquire": "for a lock",
    "Semaphore.acquire": "for a semaphore",
    "SemaphoreAdapter.acquire": "for a semaphore",
    "Condition.wait": "for a condition to be notified",
    "CapacityLimiter.acquire_on_behalf_of": "for a place in a capacity limiter",
    "MemoryObjectReceiveStream.receive": "for an item from a stream",
    "MemoryObjectSendStream.send": "for room in a stream",
    "MemoryReceiveChannel.receive": "for an item from a channel",
    "MemorySendChannel.send": "for room in a channel",
    "Queue.get": "for an item from a queue",
    "Queue.put": "for room in a queue",
    "TaskGroup.__aexit__": "for the tasks of its task group",
    "NurseryManager.__aexit__": "for the tasks of its nursery",
    "sleep_forever": "for ever: it sleeps",
    "sleep": "for a timer",
    "sleep_until": "for a timer",
    "wait": "for other tasks",
    "gather": "for other tasks",
}
_ENDS = ("TaskGroup.__aexit__", "NurseryManager.__aexit__")


def _owner(frame: FrameType) -> str:
    """Say who holds a lock."""
    statistics = getattr(frame.f_locals.get("self"), "statistics", None)
    owner = getattr(statistics(), "owner", None) if callable(statistics) else None
    return f" that task {owner.name!r} holds" if owner is not None else ""


def _primitive(below: Sequence[FrameType]) -> _Wait:
    for frame in below:
        name = frame.f_code.co_qualname
        if name in _PRIMITIVES:
            return _Wait(2 if name in _ENDS else 0, _PRIMITIVES[name] + _owner(frame))
    if below:
        return _Wait(0, f"in {_module(below[0]).partition('.')[0]}'s {below[0].f_code.co_qualname}")
    return _Wait(0, "for a future that nobody completes")


# --- all together


def _wait(frames: Sequence[FrameType], own: int | None) -> _Wait | None:
    below = frames if own is None else frames[own + 1 :]
    for frame in reversed(below):
        if frame.f_code in _WAITS:
            return _WAITS[frame.f_code](frame.f_locals)
    job = next((frame.f_locals["job"] for frame in below if frame.f_code is _HANDLER), None)
    if job is not None and job.deferred:
        return _Wait(0, "for somebody to answer it: its handler has returned, and left it open")
    if own is None and any(_module(frame).startswith("workerbus") for frame in frames):
        return None  # one of the library's own, which waits for something to do
    return _primitive(below)


def _place(frame: FrameType) -> str:
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno).strip()
    place = f"at {Path(code.co_filename).name}:{frame.f_lineno}, in {code.co_qualname}"
    return f"{place}:\n        {line}" if line else place


def _describe(waiter: Waiter) -> tuple[int, str] | None:
    """Describe one task; None for one of the library that is idle."""
    frames = list(frames_of(waiter.coro))
    own = max((index for index, frame in enumerate(frames) if not _is_machinery(frame)), default=None)
    wait = _wait(frames, own)
    if wait is None:
        return None
    role = next((_ROLES[frame.f_code](frame.f_locals) for frame in frames if frame.f_code in _ROLES), None)
    title = "the main task" if waiter.main else role or f"task {waiter.name!r}"
    place = "" if own is None else f"\n    {_place(frames[own])}"
    return (3 if waiter.main and wait.rank > 1 else wait.rank), f"{title}\n    waits {wait.text}{place}"


def describe(waiters: Sequence[Waiter]) -> tuple[str, ...]:
    """Describe the tasks that wait, those first that keep the others waiting; one paragraph for each."""
    found: list[tuple[int, int, str]] = []
    idle: list[str] = []
    for number, waiter in enumerate(waiters):
        described = _describe(waiter)
        if described is None:
            idle.append(waiter.name)
        else:
            found.append((described[0], number, described[1]))
    paragraphs = [text for _, _, text in sorted(found)]
    if len(paragraphs) > MOST:
        paragraphs[MOST:] = [f"and {len(paragraphs) - MOST} more tasks wait"]
    if idle:
        more = f", and {len(idle) - MOST} more" if len(idle) > MOST else ""
        paragraphs.append(f"idle, as they should be, are: {', '.join(idle[:MOST])}{more}")
    return tuple(paragraphs)
