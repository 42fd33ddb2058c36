"""Schedules as texts: the backend, and the switches and faults, that is the choices that are not the default.

A switch says that a step ran before another one, whose turn it was. With all switches of a run, the run comes again as
it was: each choice is decided by the switches over its default, in their order. With some of them left out, those that
are left are still about the same steps, which is what shrinking needs.

A fault says what befell which message. Where faults were chosen, and not drawn by their buses, the backend has a ``!``.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

from attrs import frozen

from workerbus.testing.clock._run import BACKENDS
from workerbus.testing.clock._steering import FAULTS, ChosenFault, Switch, TaskStep

Choice = Switch | ChosenFault
"""A choice that is not the default."""

_FAULT: Final = re.compile(rf"!([^=]+)=({'|'.join(FAULTS)})")
_SWITCH: Final = re.compile(r"([0-9.]+)@([0-9]+)-([0-9.]+)@([0-9]+)")


@frozen
class Schedule:
    """An order of tasks on a backend.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        switches: The choices that are not the default, in order; switches first.
        with_faults: Whether it was chosen what befalls messages.
    """

    backend: str
    switches: tuple[Choice, ...]
    with_faults: bool = False

    def __str__(self) -> str:
        return "/".join([f"{self.backend}{'!' if self.with_faults else ''}", *map(_text_of, self.switches)])


def _text_of(choice: Choice) -> str:
    if isinstance(choice, ChosenFault):
        return f"!{quote(choice.point, safe='')}={choice.kind}"
    ran, before = choice
    return f"{ran.task}@{ran.number}-{before.task}@{before.number}"


def parse(text: str) -> Schedule:
    """Return the schedule that a text stands for.

    Args:
        text: As `Schedule` is written.

    Raises:
        TypeError: It is no text.
        ValueError: It is no schedule.
    """
    if not isinstance(text, str):
        raise TypeError(f"a schedule is a text, as explore prints it, not {text!r}")
    head, *parts = text.strip().split("/")
    choices = [_parsed(part) for part in parts]
    if head.removesuffix("!") not in BACKENDS or None in choices:
        raise ValueError(f"a schedule is a text as 'asyncio/0.2@1-0.1@1', as explore prints it, not {text!r}")
    return Schedule(
        head.removesuffix("!"), tuple(choice for choice in choices if choice is not None), head.endswith("!")
    )


def _parsed(part: str) -> Choice | None:
    if (fault := _FAULT.fullmatch(part)) is not None:
        return ChosenFault(unquote(fault[1]), fault[2])
    if (switch := _SWITCH.fullmatch(part)) is not None:
        ran, step, before, other = switch.groups()
        return Switch(TaskStep(ran, int(step)), TaskStep(before, int(other)))
    return None


class Following:
    """Chooses as the switches and faults of a schedule say, and the default where they say nothing.

    Args:
        choices: Those that are not the default, in order.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._before: dict[TaskStep, list[TaskStep]] = defaultdict(list)
        self._kinds: dict[str, str] = {}
        for choice in choices:
            if isinstance(choice, ChosenFault):
                self._kinds[choice.point] = choice.kind
            else:
                self._before[choice.before].append(choice.ran)

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return the index of the step that is next."""
        return next((ready.index(step) for step in self._before.get(ready[0], ()) if step in ready), 0)

    def fault(self, point: str, kinds: Sequence[str]) -> int:
        """Return what befalls a message."""
        kind = self._kinds.get(point)
        return kinds.index(kind) + 1 if kind in kinds else 0
