"""What is said of a job beside its workers, in one object: today's spelling upstream (N1)."""

from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from attrs import fields, frozen

from workerbus._backoff import Backoff
from workerbus.jobs._attempts import RetryOn


@frozen(kw_only=True)
class JobParams:
    """How one worker is to do a job: ``job("w", params=JobParams(…))`` is ``job("w", …)``.

    Args:
        name: The name of the `@job` handler; without a name, `on_job_request` gets the job.
        payload: What the handler needs.
        timeout: Seconds for everything, including the wait for the worker; None for no limit.
        label: A title for people.
        cancellable: Whether `request_cancel_job_group` may cancel it.

    Guarantees: N1.
    """

    name: str | None = None
    payload: Mapping[str, Any] | None = None
    timeout: float | None = None
    label: str | None = None
    cancellable: bool = True


@frozen(kw_only=True)
class JobGroupParams(JobParams):
    """How several workers are to do a job: ``job_group("a", "b", params=JobGroupParams(…))``.

    The arguments of `JobParams` are those of the whole group.

    Args:
        cancel_on_error: Whether the first answer that is not COMPLETED cancels the others.

    Guarantees: N1.
    """

    cancel_on_error: bool = True


def unpacked(params: JobParams, given: JobParams) -> tuple[Any, ...]:
    """Return the parameters in the order of their class, if they are all that was given.

    Args:
        params: What was passed as ``params``.
        given: What was passed beside it, by default nothing: of the class that is wanted.

    Raises:
        TypeError: They are of another kind, or some of them were given beside them.
    """
    kind = type(given)
    if not isinstance(params, kind):
        raise TypeError(f"params is a {kind.__name__}, not {params!r}")
    twice = [its.name for its in fields(kind) if getattr(given, its.name) is not its.default]
    if twice:
        raise TypeError(f"pass either params or {', '.join(twice)}, not both")
    return tuple(getattr(params, its.name) for its in fields(kind))


class JobGroupOptions(TypedDict, total=False):
    """What else may be said of a job group, by keyword; `job_group` says what it means."""

    timeout: float | None
    cancel_on_error: bool
    label: str | None
    cancellable: bool
    headers: Mapping[str, str] | None
    delay: float | None
    priority: int
    max_buffered_events: int


class JobOptions(TypedDict, total=False):
    """What else may be said of a job, by keyword; `job` says what it means."""

    timeout: float | None
    label: str | None
    cancellable: bool
    headers: Mapping[str, str] | None
    delay: float | None
    priority: int
    max_buffered_events: int
    attempts: int
    backoff: Backoff | None
    retry_on: RetryOn | Collection[RetryOn] | None
    attempt_timeout: float | None
