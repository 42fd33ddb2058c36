"""What a worker is activated with, and the snapshot of its counts."""

from typing import Any, Self

import attrs
from attrs import frozen


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


@frozen
class WorkerStatistics:
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
