"""What a worker runs in and is activated with, where it is in its life, its counts, and the names that it keeps."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, Self

import attrs
from anyio.abc import TaskGroup
from attrs import frozen

from workerbus._vocabulary import Value, plain_members, value
from workerbus.errors import ReservedNameError

INTERNAL: Final = frozenset(
    [
        "active_changed",
        "asking",
        "became_ready",
        "check_running",
        "clean_up",
        "cleans_up_by_default",
        "could_not_be_added",
        "depart",
        "family",
        "finished",
        "graces",
        "handled_at_once",
        "handled_events",
        "hooks",
        "inbox",
        "job_client",
        "job_server",
        "life",
        "make_inbox",
        "report_error",
        "report_failure",
        "runner",
        "runs_by_default",
        "tasks",
        "tell_ready",
        "watch",
        "will_be_active",
    ]
)
"""Attributes of a worker by which the library's parts know each other. No underscore tells them from a user's own."""

PARTS: Final = ("clean_up", "family", "hooks", "job_client", "job_server")
"""Those that an assignment would replace; the others are methods and properties without a setter."""


def _is_own(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "workerbus"


def check_names(cls: type, names: Iterable[str]) -> None:
    """Refuse a class of the user's that has something of its own where the library has its own.

    Raises:
        ReservedNameError: There is one; a `TypeError`.
    """
    if not _is_own(cls):
        for name in sorted(INTERNAL.intersection(names)):
            raise ReservedNameError(cls.__name__, name)


def check_handlers(cls: type, names: Iterable[str]) -> None:
    """Refuse a handler of the user's under the name of a method that the library calls, or that he inherits from it.

    Raises:
        ReservedNameError: There is one; a `TypeError`.
    """
    for name in names:
        if any(name in vars(base) for base in cls.__mro__ if _is_own(base)):
            raise ReservedNameError(cls.__name__, name)


def check_parts(worker: object) -> None:
    """Refuse a worker that has assigned something of its own where the library keeps a part.

    Raises:
        ReservedNameError: It has; a `TypeError`.
    """
    for name in PARTS:
        if not _is_own(type(getattr(worker, name))):
            raise ReservedNameError(type(worker).__name__, name)


@value
class WorkerParams(Value):
    """What a runner gives a worker to run in (N2).

    Args:
        task_group: The worker's own task group. What is started in it ends with the worker; an exception in it ends the
            worker as one of ``run()`` does.
    """

    task_group: TaskGroup


@plain_members
class Phase(Enum):
    """Where a worker is in its life."""

    NEW = "not running yet: give it to a runner, and start that"
    ATTACHED = "not running yet: its runner has not started it"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "not running any more: a worker runs once"


@frozen
class WorkerActivationArgs:
    """What a worker is told when it is activated. Subclass it, with ``attrs.frozen``, for fields of your own.

    Args:
        metadata: Whatever the two workers agree on.
    """

    metadata: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from a dict; keys that are no fields are ignored."""
        names = {field.name for field in attrs.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, as a dict."""
        return {
            field.name: value for field in attrs.fields(type(self)) if (value := getattr(self, field.name)) is not None
        }


@value
class WorkerStatistics(Value):
    """A snapshot of a worker (J12).

    Args:
        active_jobs: Jobs that it was asked for and has not answered.
        job_groups: Job groups that it has asked for and that are not over.
        ignored: Answers, updates and stream messages from strangers or after the answer that counted, and requests that
            came twice.
        failed_hooks: How many times a hook raised.
    """

    active_jobs: int
    job_groups: int
    ignored: int
    failed_hooks: int
