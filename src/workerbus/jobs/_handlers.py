"""``@job`` and ``@worker_ready``: marks on methods, and how a class finds its own (J2, J13, W2, N7, N8).

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
    """A method of a worker class that handles the jobs of one name.

    Args:
        name: The name of the job.
        attribute: The name of the method, under which it is looked up when a job comes.
        limit: How many may run at once; None for any number.
        deferred: Whether it may return without an answer and answer later.
    """

    name: str
    attribute: str
    limit: int | None = None
    deferred: bool = False


def job(*, name: str, sequential: bool = False, limit: int | None = None, deferred: bool = False) -> Callable[[F], F]:
    """Make a method the handler of the jobs of one name. Each job runs in a task of its own.

    What the handler returns is the answer: a dict is COMPLETED with it, nothing is COMPLETED with ``{}``, an
    exception is ERROR with ``{"error": text, "type": class name}``, and `JobFailure` is FAILED::

        @job(name="add")
        async def add(self, message: BusJobRequestMessage) -> dict:
            return {"sum": sum(message.payload["numbers"])}

    Args:
        name: The name of the job, compared exactly.
        sequential: Whether jobs run one at a time, in the order in which their requests arrived.
        limit: How many may run at once; the others begin in the order of arrival. None for any number.
        deferred: Whether the handler may return without an answer and leave the job open; `send_job_response` ends it.

    Raises:
        HandlerTypeError: The method is not async, or does not take the request; a `TypeError`.
        ValueError: The name is empty or no str, the limit is less than 1 or no int, or it is given together with
            ``sequential``.

    Guarantees: J2, J13, N8.
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
    """Call a method with the `WorkerReadyData` of a worker whenever that worker gets ready.

    If it is ready already, the method is called when the worker that has it starts.

    Args:
        name: The name of the worker to watch for.

    Raises:
        HandlerTypeError: The method is not async, or does not take the data; a `TypeError`.
        ValueError: The name is empty or no str.

    Guarantees: W2, G1, N8.
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
            # What counts is what a look-up on the class gives: an override without the decorator is not marked.
            value = getattr(getattr(cls, attribute, None), mark, None)
            if value is not None:
                found[attribute] = value
    return found


def job_handlers(cls: type) -> Mapping[str, JobHandler]:
    """Return the ``@job`` methods of a class, inherited ones included, by job name.

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
    """Return the ``@worker_ready`` methods of a class, inherited ones included: worker name to method names."""
    handlers: dict[str, tuple[str, ...]] = {}
    for attribute, name in _marked(cls, _READY).items():
        handlers[name] = (*handlers.get(name, ()), attribute)
    return handlers
