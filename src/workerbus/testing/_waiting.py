"""What tasks wait for, in words: read off the frames in which they are suspended.

On the way from a task's outermost frame to its innermost, frames of the library say what the task is for (a job, a
hook, `run()`); the innermost frame of the program's own code says where it stands; and the frames below that, the
library's or anyio's, say for what it waits. Frames of the library are recognised by their code objects, so that a
method which is renamed is noticed at import.
"""

import linecache
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from attrs import frozen

from workerbus._hooks import HookQueue
from workerbus._registry import WorkerRegistry
from workerbus._runner import WorkerRunner
from workerbus._worker import BaseWorker
from workerbus._worker_life import WorkerLife
from workerbus.bus import WorkerBus
from workerbus.bus._lanes import Lane
from workerbus.jobs._client import JobClient
from workerbus.jobs._contexts import _Context, _Events
from workerbus.jobs._group import JobGroup
from workerbus.jobs._limiter import Turn
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._server import JobServer, OpenJob
from workerbus.testing._circles import circles_in
from workerbus.testing._frames import frames_of, future_of, is_machinery, module_of

Names = dict[str, Any]
MOST: Final = 20
"""How many tasks are described."""
ALIKE: Final = 3
"""How many of those that wait for the same in the same place."""
_JOB_ID: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")


@frozen
class Waiter:
    """A task that waits.

    Args:
        name: Its name.
        coro: Its coroutine.
        main: Whether it is the program's main task.
        id: By which anyio tells tasks apart.
    """

    name: str
    coro: Any
    main: bool = False
    id: int | None = None


Key = tuple[str, object] | tuple[str, object, object]
"""What a task can be known by: a job at a worker, or its id."""


@frozen
class _Wait:
    rank: int
    text: str
    on: tuple[Key, ...] = ()
    """All of these, where they are known."""


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


def _run_title(name: object) -> str:
    return f"worker {name!r}, its run()"


def _life(frame: Names) -> str:
    return _run_title(frame["self"]._worker.name)


_ROLES: dict[CodeType, Callable[[Names], str]] = {
    JobServer._perform.__code__: _handler,
    HookQueue.run.__code__: _hook,
    WorkerLife._run.__code__: _life,
}


def _answers(group: JobGroup, name: str | None) -> _Wait:
    title = _job_title(group.job_id, name)
    whom = _names(group.missing)
    if group.is_done:
        return _Wait(2, f"until {whom} have stopped working on {title}, which is over: {group.reason}", _jobs(group))
    return _Wait(1, f"for the answer of {whom} to {title}", _jobs(group))


def _jobs(group: JobGroup) -> tuple[Key, ...]:
    return tuple(("job", group.job_id, name) for name in sorted(group.missing))


def _context(frame: Names) -> _Wait:
    context: _Context = frame["self"]
    return _answers(context._entered, context._name)


def _events(frame: Names) -> _Wait:
    events: _Events[Any] = frame["self"]
    return _answers(events._group, getattr(events._change, "__self__")._name)  # noqa: B009 - a bound method


def _arrival(frame: Names) -> _Wait:
    name, registry = frame["worker_name"], frame["self"]
    return _Wait(0, f"for worker {name!r} to come; {registry.near(name)}")


def _turn(frames: Sequence[FrameType]) -> _Wait:
    here = next(frame.f_locals for frame in frames if frame.f_code is _HANDLER)
    job: OpenJob = here["job"]
    requests = [
        other.request
        for other in here["self"].pool.busy.values()
        if other.turn is not None and other.turn.taken and other.route.limiter is job.route.limiter
    ]
    others = [_job_title(request.job_id, request.job_name) for request in requests]
    keys = tuple(("job", request.job_id, request.target) for request in requests[:1])  # one place free is enough
    have = "has" if len(others) == 1 else "have"
    return _Wait(1, f"for its turn, which {', '.join(others)} {have}", keys if len(requests) == 1 else ())


def _workers_of(runner: WorkerRunner) -> _Wait:
    left = _names(list(runner._hosting.roots))
    return _Wait(3, f"for the end of runner {runner.name!r}" + (f", whose workers are {left}" if left else ""))


_WAITS: dict[CodeType, Callable[[Names], _Wait]] = {
    _Context._outcome.__code__: _context,
    _Events.__anext__.__code__: _events,
    JobClient._wait_for_answers.__code__: lambda frame: _answers(frame["group"], None),
    JobGroup.wait.__code__: lambda frame: _answers(frame["self"], None),
    WorkerRegistry.wait_for.__code__: _arrival,
    WorkerBus._deliver.__code__: lambda frame: _Wait(
        1, f"for room in {_names([lane._name for lane, _ in frame['places']])}, which is full"
    ),
    BaseWorker.wait.__code__: lambda frame: _Wait(2, f"for worker {frame['self'].name!r} to finish"),
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

_PRIMITIVES: Final = {
    "Event.wait": (0, "for an event that nobody sets"),
    "EventAdapter.wait": (0, "for an event that nobody sets"),
    "Lock.acquire": (0, "for a lock"),
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
}


def _primitive(coro: Any, below: Sequence[FrameType], titles: dict[int, str]) -> _Wait:
    for frame in below:
        if frame.f_code.co_qualname in _PRIMITIVES:
            rank, text = _PRIMITIVES[frame.f_code.co_qualname]
            owner = _owner(frame, titles)
            return _Wait(1, f"{text} that {owner[0]} holds", (owner[1],)) if owner else _Wait(rank, text)
    if below:
        return _Wait(0, f"in {module_of(below[0]).partition('.')[0]}'s {below[0].f_code.co_qualname}")
    future = future_of(coro)
    if hasattr(future, "get_coro"):
        return _Wait(2, f"for {titles.get(id(future)) or f'task {future.get_name()!r}'}")
    if type(future).__name__ == "_GatheringFuture":
        return _Wait(2, "for other tasks")
    return _Wait(0, "for a future that nobody completes")


def _owner(frame: FrameType, titles: dict[int, str]) -> tuple[str, Key] | None:
    """Say who holds a lock."""
    statistics = getattr(frame.f_locals.get("self"), "statistics", None)
    owner = getattr(statistics(), "owner", None) if callable(statistics) else None
    if owner is None:
        return None
    task_id = getattr(owner, "id", id(owner))
    return titles.get(task_id) or f"task {owner.name!r}", ("task", task_id)


# --- all together


class _Task:
    """A task, taken apart: what it is for, and where it stands."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.frames = list(frames_of(waiter.coro))
        own = max((index for index, frame in enumerate(self.frames) if not is_machinery(frame)), default=None)
        self.below = self.frames if own is None else self.frames[own + 1 :]
        self.own: FrameType | None = None if own is None else self.frames[own]
        role = next((_ROLES[frame.f_code](frame.f_locals) for frame in self.frames if frame.f_code in _ROLES), None)
        self.title: str = "the main task" if waiter.main else role or f"task {waiter.name!r}"
        requests = [frame.f_locals["job"].request for frame in self.frames if frame.f_code is _HANDLER]
        self.keys: list[Key] = [("task", waiter.id), *(("job", each.job_id, each.target) for each in requests)]

    def wait(self, titles: dict[int, str]) -> _Wait | None:
        """For what it waits; None if it is one of the library's own, which waits for something to do."""
        for frame in reversed(self.below):
            if frame.f_code is Turn.come.__code__:
                return _turn(self.frames)
            if frame.f_code in _WAITS:
                return self._unready(_WAITS[frame.f_code](frame.f_locals), frame, titles)
        job = next((frame.f_locals["job"] for frame in self.below if frame.f_code is _HANDLER), None)
        if job is not None and job.deferred:
            return _Wait(0, "for somebody to answer it: its handler has returned, and left it open")
        if self.own is None and any(module_of(frame).startswith("workerbus") for frame in self.frames):
            return None
        return _primitive(self.waiter.coro, self.below, titles)

    @staticmethod
    def _unready(wait: _Wait, frame: FrameType, titles: dict[int, str]) -> _Wait:
        name = frame.f_locals.get("worker_name")
        if frame.f_code is WorkerRegistry.wait_for.__code__ and _run_title(name) in titles.values():
            return _Wait(1, f"for worker {name!r} to be ready: its run() has begun, and has not called start()")
        return wait

    def place(self) -> str:
        """Where it stands in the program's own code."""
        if self.own is None:
            return ""
        code = self.own.f_code
        line = linecache.getline(code.co_filename, self.own.f_lineno).strip()
        place = f"\n    at {Path(code.co_filename).name}:{self.own.f_lineno}, in {code.co_qualname}"
        return f"{place}:\n        {line}" if line else place


def describe(waiters: Sequence[Waiter]) -> tuple[str, ...]:
    """Describe the tasks that wait, those first that keep the others waiting; one paragraph for each."""
    tasks = [_Task(waiter) for waiter in waiters]
    titles = {task.waiter.id: task.title for task in tasks if task.waiter.id is not None}
    found: list[tuple[int, bool, int, str]] = []
    alike: dict[str, int] = {}
    idle: list[str] = []
    waits = [task.wait(titles) for task in tasks]
    for number, (task, wait) in enumerate(zip(tasks, waits, strict=True)):
        if wait is None:
            idle.append(task.waiter.name)
            continue
        place = task.place()
        pattern = _JOB_ID.sub("", f"{wait.text}{place}")
        alike[pattern] = alike.get(pattern, 0) + 1
        if alike[pattern] <= ALIKE or task.waiter.main:
            text = f"{task.title}\n    waits {wait.text}{place}"
            found.append((wait.rank, task.waiter.main, number, text))
    paragraphs = [text for _, _, _, text in sorted(found)]
    more = sum(count - ALIKE for count in alike.values() if count > ALIKE)
    if len(paragraphs) > MOST:
        more += len(paragraphs) - MOST
        del paragraphs[MOST:]
    if more:
        paragraphs.append(f"and {more} more tasks wait, most of them as those above do")
    if idle:
        rest = f", and {len(idle) - MOST} more" if len(idle) > MOST else ""
        paragraphs.append(f"idle, as they should be, are: {', '.join(idle[:MOST])}{rest}")
    return (*_circles(tasks, waits), *paragraphs)


def _circles(tasks: "Sequence[_Task]", waits: "Sequence[_Wait | None]") -> list[str]:
    known = {key: number for number, task in enumerate(tasks) for key in task.keys}
    edges = {
        number: [known[key] for key in wait.on if key in known] for number, wait in enumerate(waits) if wait is not None
    }
    return [
        "in a circle, each for the next, and the last for the first, wait\n"
        + "\n".join(f"    {tasks[number].title}" for number in circle)
        for circle in circles_in(edges)
    ]
