"""What a subject is: its name, what it gives, at which sizes it is measured, and what every side does."""

from collections.abc import Awaitable, Callable, Mapping
from inspect import getdoc
from typing import Literal, TypeVar

from attrs import field, frozen

Kind = Literal["time", "bytes", "count", "ratio", "flag"]


@frozen
class Value:
    """One number that a subject gives, and a row in a table.

    Args:
        key: What the measurement calls it.
        title: What the row says.
        what: Of what it is, in words.
        kind: Its unit.
        compares: Whether it makes sense to divide it by another contender's.
    """

    key: str
    title: str
    what: str
    kind: Kind = "time"
    compares: bool = True


@frozen
class Subject:
    """Something to measure.

    Args:
        name: What ``--only`` takes.
        group: The table in which it stands.
        values: What it gives.
        full: Each size with how often it is done in one measurement.
        quick: The same for ``--quick``.
        fresh: Whether each measurement has a process of its own.
        collector: Whether the garbage collector is on.
        counted: Whether the passes of the event loop are counted.
        power: There are ``size ** power`` items, over which its growth is judged.
        about: What every side does.
    """

    name: str
    group: str
    values: tuple[Value, ...]
    full: Mapping[int, int]
    quick: Mapping[int, int]
    fresh: bool = False
    collector: bool = True
    counted: bool = False
    power: int = 1
    about: str = field(default="", repr=False)

    @property
    def sized(self) -> bool:
        """Whether it is measured at several sizes."""
        return len(self.full) > 1


Method = TypeVar("Method", bound=Callable[..., Awaitable[None]])


def subject(
    group: str,
    *values: Value,
    full: Mapping[int, int],
    quick: Mapping[int, int],
    fresh: bool = False,
    collector: bool = True,
    counted: bool = False,
    power: int = 1,
) -> Callable[[Method], Method]:
    """Mark a method of `Subjects` as one."""

    def mark(method: Method) -> Method:
        about = getdoc(method) or ""
        vars(method)["subject"] = Subject(
            method.__name__, group, values, full, quick, fresh, collector, counted, power, about
        )
        return method

    return mark


def seconds(title: str, per: str) -> Value:
    """Return the value of a subject that is measured with the clock."""
    return Value("seconds", title, f"per {per}")


class MissingError(NotImplementedError):
    """A contender does not have what is to be measured."""


TIMEOUT = 10.0
"""Seconds, for jobs that have a timeout: nobody reaches it."""
ASKING = 100
"""How many tasks ask a pool."""

MESSAGES, JOBS, WORKERS, PIPELINES, GROWTH = "Messages", "Jobs", "Workers", "Pipelines", "Growth"
