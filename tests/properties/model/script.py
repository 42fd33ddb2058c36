"""Scripts: steps, when each is done, and what the model says can be seen after it."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import permutations, product
from math import inf
from typing import Any, Final, Self

import attrs
from attrs import frozen

from properties.model.model import BOUND, Model
from properties.model.steps import Advance, Ask, Step
from properties.model.world import At, Snapshot

TICK: Final = 1 / 64
"""Seconds between two steps. All times are binary fractions, so that sums are exact."""


@frozen
class Scene:
    """One step, or several at once, and what may be seen afterwards."""

    at: float
    number: int
    steps: tuple[Step, ...]
    snapshots: tuple[Snapshot, ...]


@frozen
class Burst:
    """Steps that are done at once."""

    steps: tuple[Step, ...]
    at_deadline: bool = False


@frozen
class Setting:
    """What a script is played in."""

    workers: int = 3
    raising: frozenset[str] = frozenset()
    """The hooks that raise when they have noted that they run."""
    finale: str = "end"
    """How the runner ends: ``end``, ``cancel``, or the body ``fails``; ``late`` where slow handlers are kept."""


class Script:
    """Steps that are given one by one; the model goes with them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.names = tuple(f"w{number}" for number in range(setting.workers))
        self.model = Model(self.names)
        self.given: list[Step | Burst] = []
        self.scenes: list[Scene] = []
        self._taken: set[float] = set()
        self._next = 1.0
        self.over = False

    def add(self, step: Step) -> None:
        """Do a step when nothing moves. Where more than one thing can come of it, it is the last of all."""
        if self.over:
            return
        if isinstance(step, Advance):
            self._next += step.seconds
        at = self._a_free_time()
        if isinstance(step, Ask) and not self._can_be_asked(step, at):
            return
        self.given.append(step)
        step, number, other = self._settled(step), self.model.step, deepcopy(self.model)
        other.backwards = True
        snapshots = []
        for model in (self.model, other):
            model.pass_time(at)
            model.apply(step)
            snapshots.append(model.snapshot())
        self.over = snapshots[0] != snapshots[1]
        self.scenes.append(Scene(at, number, (step,), tuple(snapshots[: 1 + self.over])))

    def _can_be_asked(self, step: Ask, at: float) -> bool:
        """Whether the handler that is to ask will still run: its time may be up by then."""
        if step.inside is None:
            return True
        later = deepcopy(self.model)
        later.pass_time(at)
        return later.jobs[step.inside, step.by].at is At.RUNNING

    def add_burst(self, *steps: Step, at_deadline: bool = False) -> None:
        """Do several steps with nothing between them, at the next deadline perhaps, as the last of all.

        They may take effect in any order.
        """
        if self.over:
            return
        self.over = True
        self.given.append(Burst(steps, at_deadline))
        instant = self.model.next_instant()
        at = instant if at_deadline and instant < inf else self._a_free_time()
        self.model.pass_time(at - TICK / 4)
        settled = tuple(self._settled(step) for step in steps)
        snapshots: list[Snapshot] = []
        for order, at_once, backwards in product(
            permutations([None, *enumerate(settled)]), (False, True), (False, True)
        ):
            model = deepcopy(self.model)
            model.backwards = backwards
            model.burst(at, order, at_once=at_once)
            if (snapshot := model.snapshot()) not in snapshots:
                snapshots.append(snapshot)
        self.scenes.append(Scene(at, self.model.step, settled, tuple(snapshots)))

    def _a_free_time(self) -> float:
        """The bound of what begins at one time never coincides with another time."""
        self._next += TICK
        while self._next % BOUND in self._taken:
            self._next += TICK
        self._taken.add(self._next % BOUND)
        return self._next

    def _settled(self, step: Step) -> Step:
        if isinstance(step, Ask):
            return attrs.evolve(
                step, timeout=self._a_free_timeout(step.timeout), within=self._a_free_timeout(step.within)
            )
        return step

    def _a_free_timeout(self, seconds: float | None) -> float | None:
        if seconds is None:
            return None
        end = self._next + seconds + TICK / 2
        while end % BOUND in self._taken:
            end += TICK
        self._taken.add(end % BOUND)
        return end - self._next

    @classmethod
    def of(cls, setting: Setting, steps: Sequence[Step | Burst]) -> Self:
        """Return the script with these steps."""
        script = cls(setting)
        for step in steps:
            if isinstance(step, Burst):
                script.add_burst(*step.steps, at_deadline=step.at_deadline)
            else:
                script.add(step)
        return script

    def __str__(self) -> str:
        steps = "".join(f"    {as_written(step)},\n" for step in self.given)
        return f"play_steps({as_written(self.setting)}, [\n{steps}]"


def as_written(thing: Any) -> str:
    """Write a step as in a program, without what is the default anyway."""
    if isinstance(thing, tuple):
        return f"({''.join(f'{as_written(each)}, ' for each in thing)})"
    if not attrs.has(type(thing)):
        return repr(thing)
    parts = []
    for field in attrs.fields(type(thing)):
        value = as_written(getattr(thing, field.name))
        if field.default is attrs.NOTHING:
            parts.append(value)
        elif value != as_written(field.default):
            parts.append(f"{field.name}={value}")
    return f"{type(thing).__name__}({', '.join(parts)})"
