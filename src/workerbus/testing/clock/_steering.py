"""Who decides in which order the tasks of a batch run, and what is kept of it.

A batch is what both backends run in one turn of the loop: each task that is ready, once. What becomes ready meanwhile
is of the next batch. So an order is a row of choices among those that are left, and the last one is none.

A task is named by its place in the tree of who started whom, ``0.2`` for the second that ``0`` has started. Such a name
stays the same when others run earlier or later, other than a number in the order of starts.

It knows neither backend.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from attrs import define, field

FAULTS: Final = {
    "lost": "is lost",
    "twice": "arrives twice",
    "delayed": "is delayed",
    "split": "is sent, and a split begins with it",
    "stored-late": "is stored late",
    "unconfirmed": "is stored, and its sender does not learn that",
    "fenced": "is sent, and its sender is declared lost",
    "killed": "is sent, and its sender's process is gone then",
    "once-more": "arrives once more when its sender's life is over",
}
"""What may befall a message: what it is called in a schedule, and in words."""

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


class ChosenFault(NamedTuple):
    """What befell a message: which one, and what."""

    point: str
    kind: str


class Told(NamedTuple):
    """A step that has run, for words: where its task stood, and which step it went before, if it was a switch."""

    step: TaskStep
    place: str
    before: TaskStep | None


class Unordered(tuple[Any, ...]):
    """Things whose order says nothing, in what a program holds."""

    __slots__ = ()


class Chooser(Protocol):
    """Decides which step is next."""

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return the index of the step that is next.

        Args:
            ready: At least two steps, in the default order: the first is the default choice.
        """
        ...

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        """Return what befalls a message, as an index from 1; 0 for nothing, the default choice.

        Args:
            point: Which message it is.
            kinds: What may befall it.
        """
        ...


class TurnWatcher(Protocol):
    """Looks at a program before each turn of the loop."""

    def look(self, position: int, state: Callable[[], Iterable[object]]) -> None:
        """Look at the program.

        Args:
            position: How many choices there were so far.
            state: Returns all that the program holds.
        """
        ...


@define(eq=False)
class _Known:
    name: str
    by: "_Known | None"
    number: int
    started: int = 0
    steps: int = 0
    rank: int = -1


@define(eq=False)
class Steering:
    """The order of tasks in one run.

    Args:
        chooser: Decides.
        look: Says where a coroutine is suspended; None if nobody wants to know.
        watcher: Looks at the program before each turn; None if nobody does.
        most_faults: How many messages something may befall; None if their buses draw that.

    Attributes:
        choices: What was chosen, as indices, choice by choice.
        ready: Among how many.
        points: Which of the choices, by their positions, were about what befalls a message.
        switches: The orders that were not the default, in order.
        faults: What befell messages, in order.
        fault_words: The same, in words.
        overtaken: For each switch, the steps that the chosen one went before, in the default order.
        titles: If there is a ``look``: by its name, what each task is called, and the how many-th of those it is.
        told: Each step that has run, if there is a ``look``.
    """

    chooser: Chooser
    look: Callable[[Any], str] | None = None
    watcher: TurnWatcher | None = None
    most_faults: float | None = None
    choices: list[int] = field(factory=list, init=False)
    ready: list[int] = field(factory=list, init=False)
    points: list[int] = field(factory=list, init=False)
    faults: list[ChosenFault] = field(factory=list, init=False)
    fault_words: list[str] = field(factory=list, init=False)
    switches: list[Switch] = field(factory=list, init=False)
    overtaken: list[Sequence[TaskStep]] = field(factory=list, init=False)
    titles: dict[str, tuple[str, int]] = field(factory=dict, init=False)
    told: list[Told] = field(factory=list, init=False)
    _known: WeakKeyDictionary[Any, _Known] = field(factory=WeakKeyDictionary, init=False)
    _new: list[_Known] = field(factory=list, init=False)
    _roots: int = field(default=0, init=False)
    _ranks: int = field(default=0, init=False)
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
            number, name = self._roots, str(self._roots)
            self._roots += 1
        else:
            starter.started += 1
            number, name = starter.started, f"{starter.name}.{starter.started}"
        self._new.append(known := _Known(name, starter, number))
        self._known[task] = known

    def in_order(self, tasks: Iterable[Any]) -> list[Any]:
        """Return tasks in the default order: the one that was started first is first.

        Of those that were started in the same turn, by several tasks, those of the task come first which itself is
        first in that order: whoever of them ran first.
        """
        for known in sorted(self._new, key=lambda each: (-1 if each.by is None else each.by.rank, each.number)):
            known.rank = self._ranks
            self._ranks += 1
        self._new.clear()
        return sorted(tasks, key=lambda task: self._known[task].rank)

    def title(self, task: str) -> str:
        """Return what a task is called, with a number if there are several.

        Args:
            task: The task's name.
        """
        title, number = self.titles[task]
        return f"{title!r} {number}" if self._called[title] > 1 else f"{title!r}"

    def running(self, task: Any) -> TaskStep:
        """Return the step that a task runs now.

        Args:
            task: The task, of either backend, of the batch that runs.
        """
        known = self._known[task]
        return TaskStep(known.name, known.steps - 1)

    def order(
        self,
        batch: Sequence[Any],
        about: Callable[[Any], tuple[str, Any]],
        state: Callable[[], Iterable[object]],
    ) -> list[Any]:
        """Return the tasks of a batch in the order in which they run.

        Args:
            batch: The tasks.
            about: Returns what a task is called, and its coroutine.
            state: Returns all that the program holds.
        """
        tasks = self.in_order(batch)
        if self.watcher is not None:
            self.watcher.look(len(self.choices), state)
        left = list(range(len(tasks)))
        known = [self._known[task] for task in tasks]
        places: list[str] = []
        if self.look is not None:
            places = [self._place(each.name, *about(task)) for task, each in zip(tasks, known, strict=True)]
        steps = [TaskStep(each.name, each.steps) for each in known]
        order: list[Any] = []
        while left:
            ready = [steps[index] for index in left]
            choice = self._chosen(ready) if len(left) > 1 else 0
            index = left.pop(choice)
            if places:
                self.told.append(Told(steps[index], places[index], ready[0] if choice else None))
            order.append(tasks[index])
        for each in known:
            each.steps += 1
        return order

    def _place(self, task: str, title: str, coroutine: Any) -> str:
        if task not in self.titles:
            title = MAIN if task == "0" and not title.startswith("<") else title.rpartition(".")[2]
            self._called[title] += 1
            self.titles[task] = title, self._called[title]
        assert self.look is not None
        return self.look(coroutine)

    def fault(self, point: str, kinds: Sequence[str], words: Callable[[], str]) -> str | None:
        """Return what befalls a message; None for nothing.

        Args:
            point: Which message it is.
            kinds: What may befall it.
            words: Returns what the message is called.
        """
        if not kinds or len(self.faults) >= (self.most_faults or 0):
            return None
        choice = self.chooser.fault(point, kinds)
        self.points.append(len(self.choices))
        self.choices.append(choice)
        self.ready.append(len(kinds) + 1)
        if not choice:
            return None
        kind = kinds[choice - 1]
        self.faults.append(ChosenFault(point, kind))
        self.fault_words.append(f"{words()} {FAULTS[kind]}")
        return kind

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

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        """Return 0."""
        return 0


DEFAULT: Final = Default()
