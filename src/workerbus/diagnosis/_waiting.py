"""What tasks wait for, in words: read off the frames in which they are suspended (O6).

From a task's outermost frame to its innermost one:

1. Frames of the library say what the task is for: a job, a hook, a worker's `run()` (`serves`).
2. The innermost frame of the program's own code says where the task stands.
3. The frames below that, the library's (`waits`) or anyio's (`_primitives`), say what it waits for.

What these frames mean is said where their functions are, see `_concurrency.waiting`. Some things wait without a task,
a job for its turn for instance: the frames of the worker that they are at say so.
"""

import linecache
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from workerbus._concurrency.waiting import Held, Key, Role, Wait, enumerated, role_of, wait_of
from workerbus.diagnosis._circles import circles_in
from workerbus.diagnosis._frames import frames_of, has_not_begun, is_machinery, module_of
from workerbus.diagnosis._primitives import primitive

MOST: Final = 20
"""How many tasks are described at most of a program that is stuck, and how many idle ones are named."""
ALIKE: Final = 3
"""How many tasks are described at most of those that wait for the same thing in the same place."""
_JOB_ID: Final = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")
_AGE: Final = re.compile(r" [0-9.]+ s (ago|left)")


class Waiter(NamedTuple):
    """A task that waits.

    Attributes:
        name: The task's name.
        coro: The task's coroutine.
        main: Whether it is the program's main task.
        id: The id by which anyio tells tasks apart; None if it is not known.
    """

    name: str
    coro: Any
    main: bool = False
    id: int | None = None


class Live(NamedTuple):
    """A program that is looked at while it runs.

    Attributes:
        now: The time on the event loop's clock; None where that cannot be asked.
        running: The frames of the task that runs at this moment, outermost first; empty where none does.
    """

    now: float | None = None
    running: Sequence[FrameType] = ()


def seconds(number: float) -> str:
    """Return a number of seconds, in words, to a thousandth."""
    rounded = round(max(0.0, number), 3)
    return f"{rounded:.3g} s" if rounded < 1000 else f"{rounded:.0f} s"


def ages(since: float | None, deadline: float, live: Live | None) -> str:
    """Return for how long something has been there, and how long it has left, as the end of a sentence."""
    now = None if live is None else live.now
    if now is None:
        return ""
    ago = "" if since is None else f" {seconds(now - since)} ago"
    return ago if deadline == math.inf else f"{ago}, {seconds(deadline - now)} left"


class _Task:
    """A task, taken apart: what it is for, and where it stands.

    Attributes:
        waiter: The task.
        frames: The frames in which it is suspended, outermost first.
        own: The innermost frame of the program's own code; None if there is none.
        below: The frames below that; all of them if there is none.
        title: What the task is called.
        whose: The worker or the runner whose own task it is; empty for any other.
        held: What waits there and has no task.
        keys: What it can be found by, when others wait for it.
    """

    def __init__(self, waiter: Waiter, live: Live | None) -> None:
        self.waiter = waiter
        self.frames = list(frames_of(waiter.coro))
        self.runs: bool = live is not None and bool(self.frames) and self.frames[0] in live.running
        if self.runs and live is not None:
            self.frames = list(live.running[live.running.index(self.frames[0]) :])
        own = max((index for index, frame in enumerate(self.frames) if not is_machinery(frame)), default=None)
        self.below = self.frames if own is None else self.frames[own + 1 :]
        self.own: FrameType | None = None if own is None else self.frames[own]
        self.roles: list[Role] = [role for frame in self.frames if (role := role_of(frame)) is not None]
        titles = [each.title + ages(each.since, each.deadline, live) for each in self.roles if each.title]
        innermost = titles[-1] if titles else f"task {waiter.name!r}"
        self.title: str = "the main task" if waiter.main else innermost
        self.whose: str = next((role.whose for role in self.roles if role.whose), "")
        self.held: list[Held] = [each for role in self.roles if role.held is not None for each in role.held()]
        self.keys: list[Key] = [("task", waiter.id), *(key for role in self.roles for key in role.keys)]

    def wait(self, titles: dict[int, str], *, live: bool) -> Wait | None:
        """Return what the task waits for; None for one of the library's own that waits for something to do.

        Args:
            titles: What tasks are called, by their ids.
            live: Whether the program may go on.
        """
        # Innermost first, as a wait of the library may contain others, and the innermost one knows best. A task without
        # a frame of the program's own, and without a known wait, is idle if it is the library's.
        if self.runs:
            return Wait(-1, "runs at this moment", verb="")
        if live and has_not_begun(self.waiter.coro):
            return Wait(1, "has not begun", verb="")
        for frame in reversed(self.below):
            wait = wait_of(frame)
            if wait is not None:
                return wait
        if (
            self.own is None
            and not self.waiter.main
            and not any(role.works for role in self.roles)
            and any(module_of(frame).startswith("workerbus") for frame in self.frames)
        ):
            return None
        return primitive(self.waiter.coro, self.below, titles, live=live)

    def place(self) -> str:
        """Return where the task stands in the program's own code; empty if there is none in it."""
        if self.own is None:
            return ""
        code = self.own.f_code
        line = linecache.getline(code.co_filename, self.own.f_lineno).strip()
        place = f"\n    at {Path(code.co_filename).name}:{self.own.f_lineno}, in {code.co_qualname}"
        return f"{place}:\n        {line}" if line else place

    def behind(self) -> str:
        """Return what cannot begin before the task goes on; empty if that is nothing."""
        texts = [text for role in self.roles if role.behind is not None for text in role.behind() if text]
        return f"\n    and keeps waiting, behind it: {enumerated(texts)}" if texts else ""


class _WithoutTask:
    """Something that waits and has no task; it looks like a `_Task`, and stands nowhere."""

    def __init__(self, held: Held, live: Live | None) -> None:
        self._wait = held.wait
        self.title: str = held.title + ages(held.since, held.deadline, live)
        self.waiter = Waiter(self.title, None)
        self.whose: str = ""
        self.keys: list[Key] = list(held.keys)

    def wait(self, _titles: dict[int, str], *, live: bool) -> Wait:
        return self._wait

    def place(self) -> str:
        return ""

    def behind(self) -> str:
        return ""


_Any = _Task | _WithoutTask


def describe(
    waiters: Sequence[Waiter], *, jobs: bool = True, live: Live | None = None, most: int = MOST
) -> tuple[str, ...]:
    """Describe the tasks that wait, those first that keep the others waiting; one paragraph for each.

    Args:
        waiters: The tasks.
        jobs: Whether to describe the jobs that wait without a task, too.
        live: How a program is looked at that may go on; None for one that is stuck. In a live one nothing is said of
            what waits behind a task, since to look at that would change it, and nobody is called idle.
        most: How many tasks are described at most.

    Returns:
        Circles, then tasks, then how many more there are, and who is idle.
    """
    # 1. Each task says what it waits for. Those of the library's own that have nothing to do are only named.
    # 2. Of tasks that wait for the same thing in the same place, whatever the job's id, the first few are described and
    #    the rest counted.
    # 3. They are sorted by rank, and then so that no task comes before those that it waits for: causes come first. The
    #    list is cut after that, so that consequences are left out, and not causes.
    every = [_Task(waiter, live) for waiter in waiters]
    tasks: list[_Any] = [*every]
    if jobs:
        tasks += [_WithoutTask(held, live) for task in every for held in task.held]
    titles = {task.waiter.id: task.title for task in tasks if task.waiter.id is not None}
    waits = [task.wait(titles, live=live is not None) for task in tasks]
    found: list[tuple[int, bool, int, str]] = []
    alike: dict[str, int] = {}
    for number, (task, wait) in enumerate(zip(tasks, waits, strict=True)):
        if wait is None:
            continue
        place = task.place()
        pattern = _AGE.sub("", _JOB_ID.sub("", f"{wait.text}{place}"))
        alike[pattern] = alike.get(pattern, 0) + 1
        if alike[pattern] <= ALIKE or task.waiter.main:
            behind = task.behind() if live is None else ""
            found.append(
                (wait.rank, task.waiter.main, number, f"{task.title}\n    {wait.verb}{wait.text}{place}{behind}")
            )
    edges = _edges(tasks, waits)
    circles = circles_in(edges)
    paragraphs = _causes_first([(number, text) for _, _, number, text in sorted(found)], edges, circles)
    more = sum(count - ALIKE for count in alike.values() if count > ALIKE)
    if len(paragraphs) > most:
        more += len(paragraphs) - most
        del paragraphs[most:]
    if more:
        paragraphs.append(f"and {more} more tasks wait, most of them as those above do")
    if live is None:
        paragraphs += _idle(tasks, waits)
    return (*_told(circles, tasks), *paragraphs)


def _idle(tasks: Sequence[_Any], waits: "Sequence[Wait | None]") -> list[str]:
    idle = [task.whose for task, wait in zip(tasks, waits, strict=True) if wait is None and task.whose]
    rest = f", and {len(idle) - MOST} more" if len(idle) > MOST else ""
    return [f"idle, as they should be, are: {', '.join(idle[:MOST])}{rest}"] if idle else []


def _edges(tasks: Sequence[_Any], waits: "Sequence[Wait | None]") -> dict[int, list[int]]:
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


def _told(circles: list[list[int]], tasks: Sequence[_Any]) -> list[str]:
    return [
        f"waiting for itself is\n    {tasks[circle[0]].title}"
        if len(circle) == 1
        else "in a circle, each for the next, and the last for the first, wait\n"
        + "\n".join(f"    {tasks[number].title}" for number in circle)
        for circle in circles
    ]
