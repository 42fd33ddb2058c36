"""Who decides in which order the tasks of a batch run, and what is kept of it.

A batch is what both backends run in one turn of the loop: each task that is ready, once. What becomes ready meanwhile
is of the next batch. So an order is a row of choices among those that are left, and the last one is none.

A task is named by its place in the tree of who started whom, ``0.2`` for the second that ``0`` has started. Such a name
stays the same when others run earlier or later, other than a number in the order of starts.

It knows neither backend.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from attrs import define, field

MAIN: Final = "main"
"""What the first task is called."""


class TaskStep(NamedTuple):
    """A step of a task that can run now: the task's name, and how many steps it has run."""

    task: str
    number: int


class Switch(NamedTuple):
    """A choice that is not the default: the step that ran, and the one whose turn it was."""

    ran: TaskStep
    before: TaskStep


class Told(NamedTuple):
    """A step that has run, for words: where its task stood, and which step it went before, if it was a switch."""

    step: TaskStep
    place: str
    before: TaskStep | None


class Chooser(Protocol):
    """Decides which step is next."""

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return the index of the step that is next.

        Args:
            ready: At least two steps, in the default order: the first is the default choice.
        """
        ...


@define
class _Known:
    name: str
    started: int = 0
    steps: int = 0


@define(eq=False)
class Steering:
    """The order of tasks in one run.

    Args:
        chooser: Decides.
        look: Says where a coroutine is suspended; None if nobody wants to know.

    Attributes:
        choices: What was chosen, as indices, choice by choice.
        ready: Among how many.
        switches: The choices that were not the default, in order.
        overtaken: For each switch, the steps that the chosen one went before, in the default order.
        titles: If there is a ``look``: by its name, what each task is called, and the how many-th of those it is.
        told: Each step that has run, if there is a ``look``.
    """

    chooser: Chooser
    look: Callable[[Any], str] | None = None
    choices: list[int] = field(factory=list, init=False)
    ready: list[int] = field(factory=list, init=False)
    switches: list[Switch] = field(factory=list, init=False)
    overtaken: list[Sequence[TaskStep]] = field(factory=list, init=False)
    titles: dict[str, tuple[str, int]] = field(factory=dict, init=False)
    told: list[Told] = field(factory=list, init=False)
    _known: WeakKeyDictionary[Any, _Known] = field(factory=WeakKeyDictionary, init=False)
    _roots: int = field(default=0, init=False)
    _called: Counter[str] = field(factory=Counter, init=False)

    def started(self, task: Any, by: Any) -> None:
        """Note that a task was started, unless that is known.

        Args:
            task: The task, of either backend.
            by: The task that has started it; None if it was none.
        """
        if task in self._known:
            return
        starter = self._known.get(by) if by is not None else None
        if starter is None:
            name = str(self._roots)
            self._roots += 1
        else:
            starter.started += 1
            name = f"{starter.name}.{starter.started}"
        self._known[task] = _Known(name)

    def title(self, task: str) -> str:
        """Return what a task is called, with a number if there are several.

        Args:
            task: The task's name.
        """
        title, number = self.titles[task]
        return f"{title!r} {number}" if self._called[title] > 1 else f"{title!r}"

    def order(self, tasks: Sequence[Any], about: Callable[[Any], tuple[str, Any]]) -> list[int]:
        """Return in which order the tasks of a batch run, as indices.

        Args:
            tasks: The tasks, in the default order.
            about: Returns what a task is called, and its coroutine.
        """
        left = list(range(len(tasks)))
        known = [self._known[task] for task in tasks]
        places: list[str] = []
        if self.look is not None:
            places = [self._place(each.name, *about(task)) for task, each in zip(tasks, known, strict=True)]
        steps = [TaskStep(each.name, each.steps) for each in known]
        order: list[int] = []
        while left:
            ready = [steps[index] for index in left]
            choice = self._chosen(ready) if len(left) > 1 else 0
            index = left.pop(choice)
            if places:
                self.told.append(Told(steps[index], places[index], ready[0] if choice else None))
            order.append(index)
        for each in known:
            each.steps += 1
        return order

    def _place(self, task: str, title: str, coroutine: Any) -> str:
        if task not in self.titles:
            title = MAIN if task == "0" else title.rpartition(".")[2]
            self._called[title] += 1
            self.titles[task] = title, self._called[title]
        assert self.look is not None
        return self.look(coroutine)

    def _chosen(self, ready: Sequence[TaskStep]) -> int:
        choice = self.chooser.choose(ready)
        self.choices.append(choice)
        self.ready.append(len(ready))
        if choice:
            self.switches.append(Switch(ready[choice], ready[0]))
            self.overtaken.append(ready[:choice])
        return choice


class Default:
    """Chooses what the default is: the task that was started first."""

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return 0."""
        return 0


DEFAULT: Final = Default()
