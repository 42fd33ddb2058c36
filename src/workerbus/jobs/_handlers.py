"""``@job`` and ``@worker_ready``: marks on methods, and how a class finds its own.

The marks are collected once per class, so that a worker costs nothing for having handlers.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from workerbus._values import Value, value
from workerbus.errors import HandlerTypeError

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_JOB: Final = "__workerbus_job__"
_READY: Final = "__workerbus_worker_ready__"


@value
class JobHandler(Value):
    """A method that handles jobs of a name.

    Args:
        name: The job name.
        attribute: The method's name.
        limit: How many may run at once; None for any number.
        deferred: Whether it may return and answer later.
    """

    name: str
    attribute: str
    limit: int | None = None
    deferred: bool = False


def job(*, name: str, sequential: bool = False, limit: int | None = None, deferred: bool = False) -> Callable[[F], F]:
    """Make a method the handler of jobs of a name. It runs in a task of its own.

    What the handler returns is the answer (J2): a dict is COMPLETED with it, nothing is COMPLETED with ``{}``, an
    exception is ERROR with ``{"error": text, "type": class name}``, and `JobFailure` is FAILED::

        @job(name="add")
        async def add(self, message: BusJobRequestMessage) -> dict:
            return {"sum": sum(message.payload["numbers"])}

    Args:
        name: The job name; exact.
        sequential: One at a time, in the order in which the requests arrived (J13).
        limit: At most so many at a time, begun in the order of arrival (J13).
        deferred: The handler may return without an answer and leave the job open; `send_job_response` ends it (J2).

    Raises:
        HandlerTypeError: The method is not async, or does not take the request; a `TypeError`.
        ValueError: The limit is less than 1, or given together with ``sequential``.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"@job needs a name, a str that is not empty, not {name!r}")
    if sequential and limit not in (None, 1):
        raise ValueError(f"@job(name={name!r}): sequential means limit=1; give one of the two")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ValueError(f"@job(name={name!r}): limit is a whole number of at least 1, not {limit!r}")

    def mark(method: F) -> F:
        _check(method, f"@job(name={name!r})", "message")
        attribute = getattr(method, "__name__", "")
        handler = JobHandler(name, attribute, 1 if sequential else limit, deferred)
        setattr(method, _JOB, handler)
        return method

    return mark


def worker_ready(*, name: str) -> Callable[[F], F]:
    """Call a method with the `WorkerReadyData` of a worker whenever it gets ready, and at the start if it is (W2, G1).

    Args:
        name: The worker to watch for.

    Raises:
        HandlerTypeError: The method is not async, or does not take the data; a `TypeError`.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"@worker_ready needs the name of a worker, a str that is not empty, not {name!r}")

    def mark(method: F) -> F:
        _check(method, f"@worker_ready(name={name!r})", "data")
        setattr(method, _READY, name)
        return method

    return mark


def _check(method: object, where: str, parameter: str) -> None:
    if not inspect.iscoroutinefunction(method):
        raise HandlerTypeError(f"{where} goes over an async method, not over {method!r}")
    try:
        inspect.signature(method).bind(object(), object())
    except TypeError:
        raise HandlerTypeError(
            f"{where} goes over a method (self, {parameter}), not {inspect.signature(method)}"
        ) from None


def _marked(cls: type, mark: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for attribute in vars(base):
            value = getattr(getattr(cls, attribute, None), mark, None)
            if value is not None:
                found[attribute] = value
    return found


def job_handlers(cls: type) -> Mapping[str, JobHandler]:
    """Collect the ``@job`` methods of a class, by job name.

    Raises:
        ValueError: Two methods handle the same name.
    """
    handlers: dict[str, JobHandler] = {}
    for attribute, declared in _marked(cls, _JOB).items():
        handler = JobHandler(declared.name, attribute, declared.limit, declared.deferred)
        other = handlers.setdefault(handler.name, handler)
        if other is not handler:
            raise ValueError(
                f"{cls.__name__} has two handlers of job {handler.name!r}: {other.attribute} and {handler.attribute}"
            )
    return handlers


def ready_handlers(cls: type) -> Mapping[str, tuple[str, ...]]:
    """Collect the ``@worker_ready`` methods of a class: worker name to method names."""
    handlers: dict[str, tuple[str, ...]] = {}
    for attribute, name in _marked(cls, _READY).items():
        handlers[name] = (*handlers.get(name, ()), attribute)
    return handlers
