"""``@job``, ``@worker_ready`` and ``@every``: marks on methods, and how a class finds its own (J2, J13, W2, N7, N8).

The marks are collected once per class, so that a worker costs nothing for having handlers. They say which attributes
are handlers; what an attribute is at the moment is looked up when a job comes.

A decorator returns a copy of the function, with its mark. So a function may be a handler in several classes and under
several names, and marks that are stacked on one method all count.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any, Final, ParamSpec, TypeVar

from workerbus._values import Value, plain_name, value
from workerbus.errors import HandlerTypeError
from workerbus.jobs._decorated import check_decorated, check_undecorated
from workerbus.jobs._limiter import Rate

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Callable[..., Awaitable[Any] | AsyncIterator[Any]])

_JOBS: Final = "__workerbus_jobs__"
_READY: Final = "__workerbus_worker_ready__"
_EVERY: Final = "__workerbus_every__"


@value
class JobHandler(Value):
    """A method of a worker class that handles the jobs of one name.

    Args:
        name: The name of the job.
        attribute: The name of the method, under which it is looked up when a job comes.
        limit: How many may run at once; None for any number.
        deferred: Whether it may return without an answer and answer later.
        rate: How many may begin in a time; None for any number.
    """

    name: str
    attribute: str
    limit: int | None = None
    deferred: bool = False
    rate: Rate | None = None


@value
class Periodic(Value):
    """A method of a worker class that is called again and again.

    Args:
        seconds: How long it is from one call to the next.
        overlapping: Whether a call may begin while an earlier one still runs.
        at_once: Whether the first call is when the worker starts.
    """

    seconds: float
    overlapping: bool = False
    at_once: bool = False


def _with_parentheses(decorator: Callable[P, R]) -> Callable[P, R]:
    """Refuse a decorator that is written without its parentheses, or gets the name without saying so."""

    @wraps(decorator)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if args:
            what = getattr(decorator, "__name__", "")
            name = repr(args[0]) if isinstance(args[0], str) else '"…"'
            raise HandlerTypeError(f"@{what} is written @{what}(name={name}), with parentheses and a name")
        return decorator(*args, **kwargs)

    return checked


@_with_parentheses
def job(
    *,
    name: str,
    sequential: bool = False,
    limit: int | None = None,
    deferred: bool = False,
    rate: Rate | float | None = None,
) -> Callable[[H], H]:
    """Make a method the handler of jobs with one name. Each job runs in its own task.

    What the handler returns is the answer: a dict is COMPLETED with it, None is COMPLETED with ``{}``, an exception is
    ERROR with ``{"error": text, "type": class name}``, and `JobFailure` is FAILED::

        @job(name="add")
        async def add(self, message: BusJobRequestMessage) -> dict:
            return {"sum": sum(message.payload["numbers"])}

    An async generator streams what it yields, dict by dict::

        @job(name="search")
        async def search(self, message: BusJobRequestMessage) -> AsyncIterator[dict]:
            async for hit in find(message.payload["query"]):
                yield {"hit": hit}

    Its end is the end of the job, COMPLETED with ``{}``. If the job is cancelled, the generator is closed.

    If stacked, the method is the handler of all the names. A subclass that overrides the method need not repeat the
    decorator.

    Args:
        name: The name of the job, compared exactly.
        sequential: Whether jobs run one at a time, in the order in which their requests arrived.
        limit: How many may run at once; the others begin in the order of arrival. None for any number.
        deferred: Whether the handler may return without an answer and leave the job open, for `send_job_response` to
            answer later.
        rate: How many may begin in a second, or a `Rate`; the others begin later, in the order of arrival. None for any
            number. Together with ``sequential`` or ``limit``, both apply.

    Raises:
        HandlerTypeError: The method is not async, or does not take the request, or the decorator was written without
            parentheses; a `TypeError`.
        ValueError: The name is empty or not a str, the limit is less than 1 or not an int, or given together with
            ``sequential``; the rate is not above 0. A `TypeError` if the rate is not a number.

    Guarantees: J2, J13, J18, N7, N8.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"@job needs a name, a str that is not empty, not {name!r}")
    name = plain_name(name)
    if sequential and limit not in (None, 1):
        raise ValueError(f"@job(name={name!r}): sequential means limit=1; give one of the two")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ValueError(f"@job(name={name!r}): limit is a whole number of at least 1, not {limit!r}")

    pace = rate if rate is None or isinstance(rate, Rate) else Rate(rate)

    def mark(method: H) -> H:
        check_decorated(method, f"@job(name={name!r})", "message", streams=True)
        return _marked(method, _JOBS, JobHandler(name, "", 1 if sequential else limit, deferred, pace))

    return mark


@_with_parentheses
def worker_ready(*, name: str) -> Callable[[F], F]:
    """Call a method with the `WorkerReadyData` of a worker whenever that worker becomes ready.

    If it is already ready, the method is called when its own worker starts. If stacked, the method watches for all the
    names.

    Args:
        name: The name of the worker to watch for.

    Raises:
        HandlerTypeError: The method is not async, or does not take the data, or the decorator was written without
            parentheses; a `TypeError`.
        ValueError: The name is empty or not a str.

    Guarantees: W2, G1, N7, N8.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"@worker_ready needs the name of a worker, a str that is not empty, not {name!r}")
    name = plain_name(name)

    def mark(method: F) -> F:
        check_decorated(method, f"@worker_ready(name={name!r})", "data")
        return _marked(method, _READY, name)

    return mark


def every(seconds: float, *, overlapping: bool = False, at_once: bool = False) -> Callable[[F], F]:
    """Call a method of a worker every so many seconds, from its start to its end.

    ::

        @every(60)
        async def refresh(self): ...

    The clock is the event loop's. Calls are due at regular intervals, however long each takes; while one is still
    running, the next ones are skipped, and are not made up for. An exception is logged and reported like that of a
    hook, and the next call still comes. Calls are also made while the worker is inactive. When the worker ends, it
    cancels them and does not wait.

    Args:
        seconds: Seconds from one call to the next; more than 0.
        overlapping: Whether a call begins even if an earlier one is still running.
        at_once: Whether the first call is made when the worker has started, instead of ``seconds`` later.

    Raises:
        HandlerTypeError: The method is not async, or takes anything beside ``self``, or the decorator was written
            without parentheses; a `TypeError`.
        ValueError: ``seconds`` is not greater than 0, or not finite.

    Guarantees: N7, N8, W7, W10.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise HandlerTypeError(f"@every is written @every(seconds), with parentheses and a number, not {seconds!r}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"@every({seconds!r}): seconds is a finite number above 0")

    def mark(method: F) -> F:
        check_decorated(method, f"@every({seconds:g})", None)
        return _marked(method, _EVERY, Periodic(seconds, overlapping, at_once))

    return mark


def _marked(method: H, mark: str, what: object) -> H:
    marks = (what, *getattr(method, mark, ()))
    if isinstance(method, FunctionType):
        method = _copy(method)
    try:
        setattr(method, mark, marks)
    except AttributeError:
        raise HandlerTypeError(f"{method!r} cannot be made a handler: write a method that calls it") from None
    return method


def _copy(function: Any) -> Any:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    for attribute in ("__kwdefaults__", "__annotations__", "__qualname__", "__module__", "__doc__", "__type_params__"):
        if hasattr(function, attribute):
            setattr(copy, attribute, getattr(function, attribute))
    copy.__dict__.update(function.__dict__)
    return copy


def _attributes(cls: type, mark: str) -> dict[str, tuple[Any, ...]]:
    """Return the marks on the methods of a class, by attribute; the nearest class that has marks on it decides."""
    found: dict[str, tuple[Any, ...]] = {}
    for base in reversed(cls.__mro__):
        for attribute, raw in list(vars(base).items()):
            marks = _own_marks(raw, mark) or _own_marks(getattr(cls, attribute, None), mark)
            if marks is not None:
                found[attribute] = marks
            else:
                check_undecorated(cls.__name__, attribute, raw, mark)
    return {attribute: marks for attribute, marks in found.items() if callable(getattr(cls, attribute, None))}


def _own_marks(value: object, mark: str) -> tuple[Any, ...] | None:
    try:
        # Not by getattr: a stand-in for something else would be asked for what it stands for.
        marks = object.__getattribute__(value, "__dict__").get(mark)
    except AttributeError:
        return None
    return marks if type(marks) is tuple else None


def job_handlers(cls: type, earlier: Iterable[JobHandler] = ()) -> Mapping[str, JobHandler]:
    """Return the ``@job`` methods of a class, inherited ones included, by job name.

    Args:
        cls: The class.
        earlier: Its handlers when it was made. A decorator of the class may have replaced the functions since.

    Raises:
        ValueError: Two methods handle the same name.
    """
    marked = _attributes(cls, _JOBS)
    found = [
        JobHandler(declared.name, attribute, declared.limit, declared.deferred, declared.rate)
        for attribute, marks in marked.items()
        for declared in marks
    ]
    found += [each for each in earlier if each.attribute not in marked and callable(getattr(cls, each.attribute, None))]
    handlers: dict[str, JobHandler] = {}
    for handler in found:
        other = handlers.setdefault(handler.name, handler)
        if other is not handler:
            raise ValueError(
                f"{cls.__name__} has two handlers of job {handler.name!r}: {other.attribute} and {handler.attribute}"
            )
    return handlers


def ready_handlers(cls: type, earlier: Mapping[str, tuple[str, ...]] | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return the ``@worker_ready`` methods of a class, inherited ones included: worker name to method names.

    Args:
        cls: The class.
        earlier: Those that it had when it was made, or None. A decorator of the class may have replaced them since.
    """
    marked = _attributes(cls, _READY)
    handlers: dict[str, tuple[str, ...]] = {}
    for attribute, names in marked.items():
        for name in dict.fromkeys(names):
            handlers[name] = (*handlers.get(name, ()), attribute)
    for name, attributes in (earlier or {}).items():
        lost = [each for each in attributes if each not in marked and callable(getattr(cls, each, None))]
        if lost:
            handlers[name] = (*handlers.get(name, ()), *lost)
    return handlers


def periodic_methods(cls: type, earlier: Iterable[tuple[str, Periodic]] = ()) -> list[tuple[str, Periodic]]:
    """Return the ``@every`` methods of a class, inherited ones included: name of the method, and when it is called.

    Args:
        cls: The class.
        earlier: Those that it had when it was made. A decorator of the class may have replaced them since.
    """
    marked = _attributes(cls, _EVERY)
    found = [(attribute, each) for attribute, marks in marked.items() for each in marks]
    return found + [each for each in earlier if each[0] not in marked and callable(getattr(cls, each[0], None))]


def name_of_handler(handler: Any) -> str:
    """Return the name of the job that a handler does.

    Raises:
        TypeError: It is not a handler, or one of several jobs.
    """
    marks = _own_marks(getattr(handler, "__func__", handler), _JOBS)
    shown = getattr(handler, "__qualname__", repr(handler))
    if not marks:
        raise TypeError(f"a job is named by its handler, a method with @job over it, or by name=, not by {shown}")
    if len(marks) > 1:
        names = ", ".join(repr(each.name) for each in marks)
        raise TypeError(f"{shown} does several jobs, {names}: say which by name=")
    return marks[0].name  # type: ignore[no-any-return]  # of a `JobHandler`
