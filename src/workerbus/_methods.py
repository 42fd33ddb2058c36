"""The methods that users put in place of the library's own: whether they did, and whether that can be called (N7, N8).

What counts is what attribute lookup gives at the moment: a method may be overridden in a subclass, put on the object,
or patched on the class while the object is in use.
"""

import inspect
from collections.abc import Awaitable, Container, Mapping
from functools import partial, partialmethod, singledispatchmethod
from types import CoroutineType, FunctionType, MethodType
from typing import Any

from workerbus.errors import HandlerTypeError


def is_default(owner: object, name: str, default: object) -> bool:
    """Whether the method of that name is the library's own function ``default``."""
    return getattr(getattr(owner, name), "__func__", None) is default


def is_sync(function: object) -> bool:
    """Whether a function is certainly not async: neither it, nor what it wraps, nor a callable of an unknown kind."""
    function = _plain(function)
    if not isinstance(function, FunctionType):
        return False
    while function is not None:
        function = _plain(function)
        code = getattr(function, "__code__", None)
        flags = 0 if code is None else code.co_flags
        if inspect.iscoroutinefunction(function) or flags & inspect.CO_ITERABLE_COROUTINE:
            return False
        function = getattr(function, "__wrapped__", None)
    return True


def yields(function: object) -> bool:
    """Whether a function is an async generator's, or wraps one, which it may return."""
    while function is not None:
        function = _plain(function)
        if inspect.isasyncgenfunction(function):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def takes(function: Any, *args: object, **kwargs: object) -> bool:
    """Whether a function can be called with such arguments, as far as that can be seen.

    A decorator's function counts, and not the one that it wraps: it may pass on other arguments than it gets.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def awaitable(returned: object, owner: object, name: str) -> Awaitable[Any]:
    """Return what a method has returned, to be awaited.

    Raises:
        HandlerTypeError: It cannot be awaited; a `TypeError`.
    """
    if type(returned) is CoroutineType or inspect.isawaitable(returned):  # nearly always the first, which is faster
        return returned
    what = f"{type(owner).__name__}.{name}"
    raise HandlerTypeError(
        f"{what} has to be async, and has returned {returned!r}: write 'async def', or use an AsyncMock"
    )


def arguments_of(methods: Mapping[str, Any]) -> dict[str, int]:
    """Return how many arguments each of the library's own methods gets, by name."""
    return {name: len(inspect.signature(method).parameters) - 1 for name, method in methods.items()}


def check_methods(cls: type, arguments: Mapping[str, int], generators: Container[str] = ()) -> None:
    """Refuse a class with a method that the library cannot await, or cannot call with what it has for it.

    Args:
        cls: The class.
        arguments: The names of the methods, and how many arguments the library has for each.
        generators: The names of those that may be async generators.

    Raises:
        HandlerTypeError: There is such a method; a `TypeError`.
    """
    for name, count in arguments.items():
        method, what = inspect.getattr_static(cls, name, None), f"{cls.__name__}.{name}"
        if _is_written_as(method, name) and is_sync(method) and not (name in generators and yields(method)):
            raise HandlerTypeError(f"{what} has to be async: write 'async def'")
        if isinstance(method, staticmethod):
            check_arguments(f"the staticmethod {what}", method.__func__, count)
        elif isinstance(method, FunctionType | classmethod):
            check_arguments(what, getattr(method, "__func__", method), count, bound=False)


def _is_written_as(method: object, name: str) -> bool:
    # A method that stands in a class under its own name. What else is there, a decorator's function or one that was
    # put there, may return what an async function has returned: that is seen when it is called.
    function = _plain(method)
    if not isinstance(function, FunctionType) or function.__name__ != name:
        return False
    where = function.__qualname__.rpartition(".")[0]
    return bool(where) and not where.endswith("<locals>")


def check_arguments(what: str, function: Any, count: int, *, bound: bool = True) -> None:
    """Refuse a function that does not take so many arguments.

    Args:
        what: What it is called in the error.
        function: The function.
        count: How many arguments it gets.
        bound: Whether it gets those alone, and no ``self``.

    Raises:
        HandlerTypeError: It does not take them; a `TypeError`.
    """
    if callable(function) and not takes(function, *[None] * (count if bound else count + 1)):
        shown = inspect.signature(function, follow_wrapped=False)
        gets = "one argument" if count == 1 else f"{count or 'no'} arguments"
        raise HandlerTypeError(f"{what}{shown} cannot be called: it gets {gets}{'' if bound else ' after self'}")


def _plain(function: Any) -> Any:
    while True:
        if isinstance(function, partial | partialmethod | singledispatchmethod):
            function = function.func
        elif isinstance(function, staticmethod | classmethod | MethodType):
            function = function.__func__
        else:
            return function
