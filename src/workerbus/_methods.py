"""The methods that users put in place of the library's own: whether they did, and whether that can be called (N7, N8).

What counts is what attribute lookup gives at the moment: a method may be overridden in a subclass, put on the object,
or patched on the class while the object is in use.
"""

import inspect
from functools import partial, partialmethod, singledispatchmethod
from types import FunctionType, MethodType
from typing import Any


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


def _plain(function: Any) -> Any:
    while True:
        if isinstance(function, partial | partialmethod | singledispatchmethod):
            function = function.func
        elif isinstance(function, staticmethod | classmethod | MethodType):
            function = function.__func__
        else:
            return function
