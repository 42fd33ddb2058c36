"""What tasks wait for, in words: read off the frames in which they are suspended.

From a task's outermost frame to its innermost one:

1. Frames of the library say what the task is for: a job, a hook, a worker's `run()` (`_ROLES`).
2. The innermost frame of the program's own code says where the task stands.
3. The frames below that, the library's (`_WAITS`) or anyio's (`_primitives`), say what it waits for.

Frames of the library are recognised by their code objects, so that a method which is renamed is noticed at import. Of
their variables, names are read that no type checker sees: the tests of each sentence notice when one changes.

Some jobs wait without a task: for their turn, or, left open by their handlers, for an answer. They are found in the
tables of the workers that run.
"""

import linecache
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from attrs import frozen

from workerbus._concurrency.lane import Lane
from workerbus._concurrency.room import RoomWaiter
from workerbus._registry import WorkerRegistry
from workerbus.bus._bus import WorkerBus
from workerbus.jobs._answers import JobAnswers
from workerbus.jobs._client import JobClient
from workerbus.jobs._context import Context
from workerbus.jobs._contexts import JobGroupContext
from workerbus.jobs._group import JobGroup
from workerbus.jobs._iterators import Answers, Events, Reports
from workerbus.jobs._limiter import PacedLimiter
from workerbus.jobs._open_job import OpenJob
from workerbus.jobs._pool import TaskPool
from workerbus.jobs._server import JobServer
from workerbus.pipeline._frame_lane import FrameLane
from workerbus.pipeline._processor_inbox import ProcessorInbox
from workerbus.pool._least_loaded import LeastLoaded
from workerbus.pool._map import PoolMap
from workerbus.runner._runner import WorkerRunner
from workerbus.testing.buses._recording import RecordingBus
from workerbus.testing.buses._story import stories
from workerbus.testing.diagnosis._arrivals import RESTART, RESTART_WAITS, arrival, late, restart_keys, restart_title
from workerbus.testing.diagnosis._circles import circles_in
from workerbus.testing.diagnosis._frames import frames_of, is_machinery, module_of
from workerbus.testing.diagnosis._primitives import Key, Wait, enumerated, names_of, primitive
from workerbus.testing.workers._endings import end_of_script
from workerbus.testing.workers._news import News
from workerbus.worker._base import BaseWorker
from workerbus.worker._hooks import HookQueue
from workerbus.worker._lifecycle import WorkerLifecycle
from workerbus.worker._wind_down import WindDown

Names = dict[str, Any]
MOST: Final = 20
"""How many tasks are described at most."""
ALIKE: Final = 3
"""How many tasks are described at most of those that wait for the same thing in the same place."""
_JOB_ID: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")


@frozen
class Waiter:
    """A task that waits.

    Args:
        name: The task's name.
        coro: The task's coroutine.
        main: Whether it is the program's main task.
        id: The id by which anyio tells tasks apart; None if it is not known.
    """

    name: str
    coro: Any
    main: bool = False
    id: int | None = None


# --- what the library's own frames mean


def _job_title(job_id: str, name: str | None) -> str:
    return f"job {name!r} ({job_id})" if name else f"job {job_id}"


def _job(job: OpenJob) -> str:
    request = job.request
    title = _job_title(request.job_id, request.job_name)
    return f"worker {request.target!r}, {title}, asked for by {request.source!r}"


def _hook(frame: Names) -> str:
    queue, call = frame["self"], frame["call"]
    return f"worker {queue._owner.name!r}, hook {call.name}"


def _run_title(name: object) -> str:
    return f"worker {name!r}, its run()"


def _life(frame: Names) -> str:
    return _run_title(frame["self"]._state.name)


def _inbox(lane: FrameLane) -> ProcessorInbox:
    inbox: ProcessorInbox = getattr(lane._start, "__self__")  # noqa: B009 - a bound method
    return inbox


def _processor(frame: Names) -> str:
    lane: FrameLane = frame["self"]
    inbox = _inbox(lane)
    whose = "" if inbox.running is None else f" of worker {inbox.running.worker.name!r}"
    what = "" if lane.current is None else f", with {lane.current.name}"
    return f"processor {inbox.owner.name!r}{whose}{what}"


_ROLES: dict[CodeType, Callable[[Names], str]] = {
    JobServer._perform.__code__: lambda frame: _job(frame["job"]),
    HookQueue.run.__code__: _hook,
    WorkerLifecycle._run.__code__: _life,
    FrameLane._take_all.__code__: _processor,
    RESTART: restart_title,
}


def _call(call: Any) -> str:
    what = f" ({type(call.args[0]).__name__})" if call.name == "on_bus_message" else ""
    return f"hook {call.name}{what}" if call.name else ""


def _behind(frames: Sequence[FrameType]) -> str:
    # What cannot begin before a hook, or the processing of a frame, is over.
    texts: list[str] = []
    for frame in frames:
        if frame.f_code is Lane._take_all.__code__ and any(each.f_code is HookQueue.run.__code__ for each in frames):
            texts = [text for item in frame.f_locals["self"].look() if (text := _call(item))]
        elif frame.f_code is FrameLane._take_all.__code__:
            texts = [each.name for each, _ in frame.f_locals["self"].entries]
    return f"\n    and keeps waiting, behind it: {enumerated(texts)}" if texts else ""


def _answers(group: JobGroup, name: str | None) -> Wait:
    title = _job_title(group.job_id, name)
    whom = names_of(group.pending)
    if group.is_done:
        return Wait(2, f"until {whom} have stopped working on {title}, which is over: {group.reason}", _jobs(group))
    return Wait(1, f"for the answer of {whom} to {title}", _jobs(group))


def _jobs(group: JobGroup) -> tuple[Key, ...]:
    return tuple(("job", group.job_id, name) for name in sorted(group.pending))


def _context(frame: Names) -> Wait:
    context: Context = frame["self"]
    return _answers(context._entered, context._name)


def _events(frame: Names) -> Wait:
    events: Events[Any] = frame["self"]
    return _answers(events._group, events.name)


def _message(frame: Names) -> Wait:
    source, target, job_id = frame["source"], frame["target"], frame["job_id"]
    way = "".join(
        f" {preposition} {value!r}"
        for preposition, value in (("from", source), ("to", target), ("about job", job_id))
        if value is not None
    )
    which = "" if frame["matching"] is None else " that matches"
    return Wait(0, f"for a {frame['kind'].__name__}{way}{which} to be sent over bus {frame['self'].name!r}")


def _full_lanes(frame: Names) -> Wait:
    lanes: list[Lane[Any]] = frame["full"]
    whose = names_of([lane.name.removesuffix(" data") for lane in lanes])
    return Wait(1, f"for room in the data lane of {whose}, which is full", tuple(("lane", id(lane)) for lane in lanes))


def _finish(name: str) -> Wait:
    return Wait(2, f"for worker {name!r} to finish")


def _turn(job: OpenJob) -> Wait:
    limiter = job.route.limiter
    if job.timer is not None:
        return Wait(1, "for its delay to pass")
    if isinstance(limiter, PacedLimiter) and limiter.due_at is not None:
        return Wait(1, f"for its turn: its handler's rate lets the next one begin at {limiter.due_at:g} s")
    if isinstance(limiter, LeastLoaded) and not limiter.members:
        return Wait(1, "for a member of the pool: none has started, or all are inactive or have gone")
    requests = [] if limiter is None else [holder.request for holder in limiter.holders]
    others = [_job_title(request.job_id, request.job_name) for request in requests]
    keys = tuple(("job", request.job_id, request.target) for request in requests[:1])
    have = "has" if len(others) == 1 else "have"
    # Of several jobs that have their turn, the first one to end is enough. A `Wait` is for all that it names: so it
    # names the job if it is the only one, and otherwise none, lest a circle be found where there is none.
    what = "a member of the pool, which" if isinstance(limiter, LeastLoaded) else "its turn, which"
    return Wait(1, f"for {what} {', '.join(others)} {have}", keys if len(requests) == 1 else ())


def _stream_window(frame: Names) -> Wait:
    request = frame["server"].jobs[frame["job_id"]].request
    title = _job_title(request.job_id, request.job_name)
    return Wait(1, f"for {request.source!r} to read the stream of {title}: its window is full")


def _room(waiter: RoomWaiter[Any], inboxes: Sequence[ProcessorInbox]) -> Wait:
    for inbox in inboxes:
        if waiter in inbox._room.line:
            return Wait(
                1, f"for room before processor {inbox.owner.name!r}, which is full", (("lane", id(inbox._data)),)
            )
    return Wait(1, "for room before a processor, which is full")


def _workers_of(runner: WorkerRunner) -> Wait:
    left = names_of(list(runner._hosted.roots))
    return Wait(3, f"for the end of runner {runner.name!r}" + (f", whose workers are {left}" if left else ""))


_WAITS: dict[CodeType, Callable[[Names], Wait]] = {
    Context._outcome.__code__: _context,
    Events.__anext__.__code__: _events,
    JobClient._wait_for_answers.__code__: lambda frame: _answers(frame["group"], None),
    JobGroupContext._quorum.__code__: lambda frame: _answers(frame["group"], frame["self"]._name),
    Answers.__anext__.__code__: lambda frame: _answers(frame["group"], None),
    Reports.__anext__.__code__: lambda frame: _answers(frame["group"], frame["group"].job_name),
    PoolMap.__anext__.__code__: lambda frame: Wait(1, f"for an answer to {frame['self']._title}"),
    PoolMap._has_room.__code__: lambda frame: Wait(1, f"for an answer to {frame['self']._title} to be read"),
    JobAnswers.send_job_stream_data.__code__: _stream_window,
    JobGroup.wait.__code__: lambda frame: _answers(frame["self"], None),
    WorkerRegistry.wait_for_news.__code__: arrival,
    **RESTART_WAITS,
    WorkerBus._hand_out_in_line.__code__: _full_lanes,
    RecordingBus.wait_for.__code__: _message,
    News.until.__code__: lambda frame: Wait(0, f"until at {frame['self'].name!r} {frame['what']}"),
    end_of_script.__code__: lambda frame: Wait(0, f"for ever: it is scripted to {frame['behaviour'].end}"),
    BaseWorker.wait.__code__: lambda frame: _finish(frame["self"].name),
    WorkerLifecycle.stop.__code__: lambda frame: _finish(frame["self"]._state.name),
    WindDown.run.__code__: lambda frame: Wait(
        2, f"for what worker {frame['self']._state.name!r} has cancelled to unwind"
    ),
    WindDown._cancel_children.__code__: lambda frame: Wait(2, f"for child {frame['child'].name!r} to finish"),
    Lane.quiet.__code__: lambda frame: Wait(2, f"for {frame['self'].name!r} to have nothing to do"),
    TaskPool.quiet.__code__: lambda frame: Wait(2, f"for the job handlers of {frame['self']._name!r} to unwind"),
    WorkerRunner.run.__code__: lambda frame: _workers_of(frame["self"]),
    WorkerRunner.__aexit__.__code__: lambda frame: _workers_of(frame["self"]),
}


def _worker(frame: Names) -> str:
    state = frame["self"]._state
    return f"worker {state.name!r}{'' if state.active or not state.has_started else ' (inactive)'}"


_WHOSE: dict[CodeType, Callable[[Names], str]] = {
    WorkerLifecycle.live.__code__: _worker,
    WorkerRunner._serve.__code__: lambda frame: f"runner {frame['self'].name!r}",
}
"""Of the library's own tasks, those that stand for somebody."""

_LIFE: Final = WorkerLifecycle.live.__code__
_HANDLER: Final = JobServer._perform.__code__
_DELIVERY: Final = WorkerBus._hand_out_in_line.__code__
_LANES: Final = (Lane._take_all.__code__, FrameLane._take_all.__code__)

# --- all together


class _Task:
    """A task, taken apart: what it is for, and where it stands.

    Attributes:
        waiter: The task.
        frames: The frames in which it is suspended, outermost first.
        own: The innermost frame of the program's own code; None if there is none.
        below: The frames below that; all of them if there is none.
        title: What the task is called.
        of_whom: The worker or the runner whose own task it is; None for any other.
        servers: The job servers of the workers that live in it.
        inboxes: The inboxes of the processors whose lanes it runs.
        keys: What it can be found by, when others wait for it.
    """

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.frames = list(frames_of(waiter.coro))
        own = max((index for index, frame in enumerate(self.frames) if not is_machinery(frame)), default=None)
        self.below = self.frames if own is None else self.frames[own + 1 :]
        self.own: FrameType | None = None if own is None else self.frames[own]
        role = next((_ROLES[frame.f_code](frame.f_locals) for frame in self.frames if frame.f_code in _ROLES), None)
        self.title: str = "the main task" if waiter.main else role or f"task {waiter.name!r}"
        requests = [frame.f_locals["job"].request for frame in self.frames if frame.f_code is _HANDLER]
        lanes = [frame.f_locals["self"] for frame in self.frames if frame.f_code in _LANES]
        self.of_whom: str | None = next((_WHOSE[f.f_code](f.f_locals) for f in self.frames if f.f_code in _WHOSE), None)
        self.servers: list[JobServer] = [f.f_locals["self"]._state.job_server for f in self.frames if f.f_code is _LIFE]
        self.inboxes: list[ProcessorInbox] = [_inbox(lane) for lane in lanes if isinstance(lane, FrameLane)]
        self.keys: list[Key] = [
            ("task", waiter.id),
            *(("job", each.job_id, each.target) for each in requests),
            *(("lane", id(lane)) for lane in lanes),
            *(key for frame in self.frames if frame.f_code is RESTART for key in restart_keys(frame.f_locals["unit"])),
        ]

    def wait(self, titles: dict[int, str], inboxes: Sequence[ProcessorInbox]) -> Wait | None:
        """Return what the task waits for; None for one of the library's own that waits for something to do.

        Args:
            titles: What tasks are called, by their ids.
            inboxes: The inboxes of all processors, to find the one whose line somebody stands in.
        """
        # Innermost first, as a wait of the library may contain others, and the innermost one knows best. Pipelines and
        # bounded lanes of the bus have the same line for room: in a delivery, the frame around it knows whose lane it
        # is. A task without a frame of the program's own, and without a known wait, is idle if it is the library's.
        for frame in reversed(self.below):
            if frame.f_code is RoomWaiter.wait.__code__ and _DELIVERY not in {each.f_code for each in self.below}:
                return _room(frame.f_locals["self"], inboxes)
            if frame.f_code in _WAITS:
                return self._unready(_WAITS[frame.f_code](frame.f_locals), frame, titles)
        if (
            self.own is None
            and not self.waiter.main
            and any(module_of(frame).startswith("workerbus") for frame in self.frames)
        ):
            return None
        return primitive(self.waiter.coro, self.below, titles)

    @staticmethod
    def _unready(wait: Wait, frame: FrameType, titles: dict[int, str]) -> Wait:
        if frame.f_code is not WorkerRegistry.wait_for_news.__code__:
            return wait
        name, registry = frame.f_locals["worker_name"], frame.f_locals["self"]
        if _run_title(name) in titles.values() and name not in registry.restarting:
            return Wait(1, f"for worker {name!r} to be ready: {late(registry, name)}")
        return wait

    def place(self) -> str:
        """Return where the task stands in the program's own code; empty if there is none in it."""
        if self.own is None:
            return ""
        code = self.own.f_code
        line = linecache.getline(code.co_filename, self.own.f_lineno).strip()
        place = f"\n    at {Path(code.co_filename).name}:{self.own.f_lineno}, in {code.co_qualname}"
        return f"{place}:\n        {line}" if line else place


class _JobWithoutTask:
    """A job that waits for its turn, or for somebody to answer it; it looks like a `_Task`, and stands nowhere."""

    def __init__(self, job: OpenJob) -> None:
        self._job = job
        self.title: str = _job(job)
        self.waiter = Waiter(self.title, None)
        self.frames: list[FrameType] = []
        self.of_whom: str | None = None
        self.inboxes: list[ProcessorInbox] = []
        self.keys: list[Key] = [("job", job.request.job_id, job.request.target)]

    def wait(self, _titles: dict[int, str], _inboxes: Sequence[ProcessorInbox]) -> Wait:
        if self._job.deferred:
            return Wait(0, "for somebody to answer it: its handler has returned, and left it open")
        return _turn(self._job)

    def place(self) -> str:
        return ""


def _jobs_of(tasks: list[_Task]) -> list[_JobWithoutTask]:
    jobs = [job for task in tasks for server in task.servers for job in server.jobs.values()]
    return [_JobWithoutTask(job) for job in jobs if job.waits or job.deferred or job.timer is not None]


def describe(waiters: Sequence[Waiter], *, jobs: bool = True) -> tuple[str, ...]:
    """Describe the tasks that wait, those first that keep the others waiting; one paragraph for each.

    Args:
        waiters: The tasks.
        jobs: Whether to describe the jobs that wait without a task, too.

    Returns:
        Circles, then tasks, then how many more there are, who is idle, and what faulty buses have kept from arriving.
    """
    # 1. Each task says what it waits for. Those of the library's own that have nothing to do are only named.
    # 2. Of tasks that wait for the same thing in the same place, whatever the job's id, the first few are described and
    #    the rest counted.
    # 3. They are sorted by rank, and then so that no task comes before those that it waits for: causes come first. The
    #    list is cut after that, so that consequences are left out, and not causes.
    every = [_Task(waiter) for waiter in waiters]
    tasks: list[_Task | _JobWithoutTask] = [*every, *(_jobs_of(every) if jobs else [])]
    titles = {task.waiter.id: task.title for task in tasks if task.waiter.id is not None}
    found: list[tuple[int, bool, int, str]] = []
    alike: dict[str, int] = {}
    idle: list[str] = []
    inboxes = [inbox for task in tasks for inbox in task.inboxes]
    waits = [task.wait(titles, inboxes) for task in tasks]
    for number, (task, wait) in enumerate(zip(tasks, waits, strict=True)):
        if wait is None:
            if task.of_whom is not None:
                idle.append(task.of_whom)
            continue
        place = task.place()
        pattern = _JOB_ID.sub("", f"{wait.text}{place}")
        alike[pattern] = alike.get(pattern, 0) + 1
        if alike[pattern] <= ALIKE or task.waiter.main:
            text = f"{task.title}\n    {wait.verb}{wait.text}{place}{_behind(task.frames)}"
            found.append((wait.rank, task.waiter.main, number, text))
    edges = _edges(tasks, waits)
    circles = circles_in(edges)
    paragraphs = _causes_first([(number, text) for _, _, number, text in sorted(found)], edges, circles)
    more = sum(count - ALIKE for count in alike.values() if count > ALIKE)
    if len(paragraphs) > MOST:
        more += len(paragraphs) - MOST
        del paragraphs[MOST:]
    if more:
        paragraphs.append(f"and {more} more tasks wait, most of them as those above do")
    if idle:
        rest = f", and {len(idle) - MOST} more" if len(idle) > MOST else ""
        paragraphs.append(f"idle, as they should be, are: {', '.join(idle[:MOST])}{rest}")
    return (*_told(circles, tasks), *paragraphs, *stories())


def _edges(tasks: Sequence[_Task | _JobWithoutTask], waits: "Sequence[Wait | None]") -> dict[int, list[int]]:
    known = {key: number for number, task in enumerate(tasks) for key in task.keys}
    return {
        number: [known[key] for key in wait.on if key in known] for number, wait in enumerate(waits) if wait is not None
    }


def _causes_first(found: list[tuple[int, str]], edges: dict[int, list[int]], circles: list[list[int]]) -> list[str]:
    # In the same order, but no task before those that it is known to wait for, unless it is in a circle with them. The
    # way leads through tasks that are not described, too: `edges` has all of them, `texts` only some.
    circle_of = {number: index for index, circle in enumerate(circles) for number in circle}
    texts, seen = dict(found), set[int]()
    order: list[str] = []
    for first, _ in found:
        ahead = [first]
        while ahead:
            number = ahead[-1]
            if number not in seen:
                seen.add(number)
                alone = number not in circle_of
                causes = [each for each in edges[number] if alone or circle_of.get(each) != circle_of[number]]
                ahead += [each for each in reversed(causes) if each not in seen]
            if number == ahead[-1]:
                ahead.pop()
                if number in texts:
                    order.append(texts.pop(number))
    return order


def _told(circles: list[list[int]], tasks: Sequence[_Task | _JobWithoutTask]) -> list[str]:
    return [
        f"waiting for itself is\n    {tasks[circle[0]].title}"
        if len(circle) == 1
        else "in a circle, each for the next, and the last for the first, wait\n"
        + "\n".join(f"    {tasks[number].title}" for number in circle)
        for circle in circles
    ]
