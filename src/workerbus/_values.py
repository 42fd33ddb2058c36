"""What every other module uses: values, statuses, and what is told of a worker or a peer (B2, G1, N5, W7, X4).

Knows nothing of the rest of the library.
"""

from enum import StrEnum
from typing import Any, Final, TypeVar, dataclass_transform

from attrs import field, frozen

T = TypeVar("T")

BATCH: Final = 64
"""After so many items, sends or frames other tasks get a turn; a power of two."""

IF_SET: Final = "shown if set"
"""In the metadata of a field: it is shown only where it is not the default."""


def plain_name(name: str) -> str:
    """Return a name as a plain str: in other names and in sentences, a member of an enum looks otherwise."""
    return name if type(name) is str else str.__str__(name)


def name_of(what: str, name: object) -> str:
    """Return a name as a plain str; raise `ValueError` where it is not a str, or empty."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} is a str that is not empty, not {name!r}")
    return plain_name(name)


def check_worker_name(name: object) -> None:
    """Raise `TypeError` for what is not the name of a worker, such as the worker itself."""
    if not isinstance(name, str):
        raise TypeError(f"workers are named by a str, not by {name!r}")


def check_number(what: str, number: object, kind: str = "a number of seconds") -> None:
    """Raise `TypeError` for what is no number: a str that was read from the environment, for example."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"{what} is {kind}, not {number!r}")


def check_seconds(what: str, seconds: float) -> None:
    """Raise `TypeError` for what is no number, and `ValueError` for one less than 0."""
    check_number(what, seconds)
    if not seconds >= 0:
        raise ValueError(f"{what} is a number of seconds, not less than 0, not {seconds!r}")


class Value:
    """An object that is compared, hashed and shown by its fields: a message, a snapshot, an event.

    Its subclasses are frozen attrs classes with slots, made with `value`: built as fast as without slots, read faster,
    and half as large. The three methods stand here once instead of being generated for each class, which took a quarter
    of the time to import.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_key(self, its) == _key(other, its) for its in _fields(self) if its.eq)

    def __hash__(self) -> int:
        hashed = (_key(self, its) for its in _fields(self) if (its.eq if its.hash is None else its.hash))
        return hash((type(self), *hashed))

    def __repr__(self) -> str:
        shown = ((its, getattr(self, its.name)) for its in _fields(self) if its.repr)
        shown = ((its, value) for its, value in shown if value is not its.default or IF_SET not in its.metadata)
        fields = [f"{its.name}={its.repr(value) if callable(its.repr) else repr(value)}" for its, value in shown]
        return f"{type(self).__name__}({', '.join(fields)})"


def _fields(value: Value) -> tuple[Any, ...]:
    return value.__attrs_attrs__  # type: ignore[attr-defined,no-any-return]  # `value` makes attrs classes


def _key(value: object, its: Any) -> Any:
    held = getattr(value, its.name)
    return held if its.eq_key is None else its.eq_key(held)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T], *, kw_only: bool = False) -> type[T]:
    """Make a subclass of `Value` a frozen attrs class with slots."""
    return frozen(cls, eq=False, repr=False, kw_only=kw_only)


def plain_members(kind: type[T]) -> type[T]:
    """Let the members of an enum be read as fast as any other attribute of a class.

    On Python 3.11 they are descriptors, and reading one takes 84 ns instead of 18: a twentieth of a job.
    """
    for name, member in getattr(kind, "__members__", {}).items():
        type.__setattr__(kind, name, member)  # an enum lets nobody else do so
    return kind


@plain_members
class JobStatus(StrEnum):
    """How a job ended, in one word: a `str`, which compares and serializes as one."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


@value
class WorkerReadyData(Value):
    """A worker that is ready to receive messages.

    Args:
        worker_name: The name of the worker.
        runner: The name of the runner that hosts it.
        pool: The name that it shares with pools in other processes; None if it shares none.
        places: How many jobs such a pool does at once.
    """

    worker_name: str
    runner: str
    pool: str | None = field(default=None, metadata={IF_SET: True})
    places: int | None = field(default=None, metadata={IF_SET: True})


@value
class WorkerGoneData(Value):
    """A worker that is gone.

    Args:
        worker_name: The name of the worker.
        runner: The name of the runner that hosted it.
        error: Why it failed, in words, cut after a thousand characters; None if it ended without an error.

    Guarantees: J4, W9.
    """

    worker_name: str
    runner: str
    error: str | None = None


@value
class WorkerRestartedData(Value):
    """A supervised worker that was restarted.

    Args:
        worker_name: The name of the worker.
        runner: The name of the runner that hosts it.
        error: Why the previous one failed, in words; None if it ended without an error.
        restarts: How many times the worker of this name was restarted, this one included.

    Guarantees: S1.
    """

    worker_name: str
    runner: str
    error: str | None
    restarts: int


@value
class WorkerErrorData(Value):
    """An error that a worker has reported, or that has ended it.

    Args:
        worker_name: The name of the worker.
        error: What happened, in words.
        exception: The exception, if there was one and it is of this process.
        origin: The name of the hook or handler that raised it, or ``"run"``, ``"stop"`` or ``"cleanup"``; None if
            nothing was raised.
        fatal: Whether it ended the worker.

    Only the worker's name and the text count in comparisons.

    Guarantees: W9.
    """

    worker_name: str
    error: str
    exception: BaseException | None = field(default=None, eq=False, repr=False)
    origin: str | None = field(default=None, eq=False, metadata={IF_SET: True})
    fatal: bool = field(default=False, eq=False)


@value
class Peer(Value):
    """Another process on a bus, in one of its lives.

    Args:
        name: The name of the runner that opened the bus there, or of the bus if the program opened it.
        incarnation: The id of the life, which is different after every restart.

    Guarantees: X3, X4.
    """

    name: str
    incarnation: str

    def __str__(self) -> str:
        return self.name
