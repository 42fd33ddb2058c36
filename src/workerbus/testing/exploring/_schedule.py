"""Schedules as texts: the backend, and the switches, that is the choices that are not the default.

A switch says that a step ran before another one, whose turn it was. With all switches of a run, the run comes again as
it was: each choice is decided by the switches over its default, in their order. With some of them left out, those that
are left are still about the same steps, which is what shrinking needs.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from workerbus.testing.clock._run import BACKENDS
from workerbus.testing.clock._steering import Switch, TaskStep

_SWITCH: Final = re.compile(r"([0-9.]+)@([0-9]+)-([0-9.]+)@([0-9]+)")


@frozen
class Schedule:
    """An order of tasks on a backend.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        switches: The choices that are not the default, in order.
    """

    backend: str
    switches: tuple[Switch, ...]

    def __str__(self) -> str:
        texts = (f"{ran.task}@{ran.number}-{before.task}@{before.number}" for ran, before in self.switches)
        return "/".join([self.backend, *texts])


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
    backend, *parts = text.strip().split("/")
    matches = [_SWITCH.fullmatch(part) for part in parts]
    if backend not in BACKENDS or None in matches:
        raise ValueError(f"a schedule is a text as 'asyncio/0.2@1-0.1@1', as explore prints it, not {text!r}")
    found = [match.groups() for match in matches if match is not None]
    return Schedule(backend, tuple(Switch(TaskStep(a, int(b)), TaskStep(c, int(d))) for a, b, c, d in found))


class Following:
    """Chooses as the switches of a schedule say, and the default where they say nothing.

    Args:
        switches: The switches, in order.
    """

    def __init__(self, switches: Sequence[Switch]) -> None:
        self._before: dict[TaskStep, list[TaskStep]] = defaultdict(list)
        for ran, before in switches:
            self._before[before].append(ran)

    def choose(self, ready: Sequence[TaskStep]) -> int:
        """Return the index of the step that is next."""
        return next((ready.index(step) for step in self._before.get(ready[0], ()) if step in ready), 0)
