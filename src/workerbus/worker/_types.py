"""What a worker runs in and is activated with, where it is in its life, and its counts (J12, N2)."""

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, Self

import attrs
from anyio.abc import TaskGroup
from attrs import define, field

from workerbus._message_base import own_fields
from workerbus._values import Value, plain_members, value


class EndSignal(Protocol):
    """Whether a worker is to end, as its `run()` sees it."""

    def is_set(self) -> bool:
        """Whether the worker is to end."""

    async def wait(self) -> None:
        """Wait until the worker is to end."""


@value
class WorkerParams(Value):
    """What a runner gives a worker to run in.

    Args:
        task_group: The worker's own task group. Tasks in it end with the worker; an exception in it ends the worker,
            like one in ``run()``.
        end: Says when `run()` should return; see `ending` and `wait_for_end`.

    Guarantees: N2, W10.
    """

    task_group: TaskGroup
    _end: EndSignal = field(repr=False, eq=False)

    @property
    def ending(self) -> bool:
        """Whether `run()` should return: the worker's hooks have run, its children have finished, its jobs are done.

        A `run()` that has read this is given the grace period to return.
        """
        return self._end.is_set()

    async def wait_for_end(self) -> None:
        """Wait until `run()` should return; the default `run()` does this after `start()`."""
        await self._end.wait()


@plain_members
class Phase(Enum):
    """Where a worker is in its life."""

    NEW = "not running yet: give it to a runner, and start that"
    ATTACHED = "not running yet: its runner has not started it"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "not running any more: a worker runs once"


@define(slots=False)  # both, so that both kinds of subclasses take the field over
@dataclass
class WorkerActivationArgs:
    """The arguments of an activation.

    Subclass it for your own fields, as a dataclass or with attrs. Creating an instance of a subclass with fields but
    without a decorator is a `TypeError`.

    Args:
        metadata: A dict of whatever the two workers have agreed on.

    Guarantees: N1.
    """

    metadata: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse fields that nothing has set."""
        for kind in type(self).__mro__:
            if not _is_decorated(kind) and issubclass(kind, WorkerActivationArgs) and own_fields(kind):
                raise TypeError(
                    f"{kind.__name__} has fields, and nothing sets them: put @dataclass over it, or attrs' decorator"
                )

    __attrs_post_init__ = __post_init__

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build the arguments from a dict, as `on_activated` gets it; keys that are not fields are ignored."""
        names = _field_names(cls)
        return cls(**{key: value for key, value in data.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, as a dict."""
        return {name: value for name in _field_names(type(self)) if (value := getattr(self, name)) is not None}


def _field_names(cls: type[Any]) -> list[str]:
    """The names of the fields, as whichever decorator knows them."""
    names = [its.name for its in (*dataclasses.fields(cls), *attrs.fields(cls))]
    return list(dict.fromkeys(names))


def _is_decorated(cls: type) -> bool:
    return "__attrs_attrs__" in vars(cls) or "__dataclass_fields__" in vars(cls)


@value
class WorkerStatistics(Value):
    """A snapshot of a worker's counts.

    Args:
        active_jobs: How many jobs the worker was asked for and has not answered.
        job_groups: How many job groups it has asked for that are not over.
        ignored: How many messages it has ignored: answers, updates and stream messages from workers that it had not
            asked, or after the answer that counted, and requests that came twice.
        failed_hooks: How many times a hook has raised.

    Guarantees: J12.
    """

    active_jobs: int
    job_groups: int
    ignored: int
    failed_hooks: int


class WindingDown(Protocol):
    """A `WindDown`, as the lifecycle sees it."""

    async def run(self) -> None:
        """Wind down."""

    async def call_stop(self) -> None:
        """Call the user's `stop()`, if it is due."""

    def end_after_jobs(self) -> None:
        """Have the worker take no more jobs, and end gracefully when those that it has are done."""

    async def jobs_done(self) -> None:
        """Wait until the worker has no job under way, and has run the hooks of the answers."""

    async def end_children(self, reason: str | None) -> None:
        """Have the children end, and wait for them."""

    async def of_unstarted(self) -> None:
        """Clean up and leave, for a worker whose task has never begun."""
