"""What the decorators of handlers may stand over; and of all else, what it is and what to do about it (N8)."""

import inspect
from functools import cached_property, partial, partialmethod, singledispatchmethod
from types import FunctionType, MethodType
from typing import Final

from workerbus._methods import is_sync, takes, yields
from workerbus.errors import HandlerTypeError

_OTHERS: Final = (classmethod, staticmethod, property, cached_property)
"""What a decorator makes of a method that stands below it."""


def check_decorated(method: object, where: str, parameter: str | None, *, streams: bool = False) -> None:
    """Refuse what cannot be called as a handler.

    Args:
        method: What the decorator is put over.
        where: How the decorator is written.
        parameter: What a handler gets beside ``self``; None for nothing.
        streams: Whether it may be an async generator.

    Raises:
        HandlerTypeError: It is not a method, is not async, or does not take what it gets; a `TypeError`.
    """
    head = "self" if parameter is None else f"self, {parameter}"
    wrong = _wrong_kind(method, head) or (_sync(method, head) if not (streams and yields(method)) else None)
    if wrong is not None:
        raise HandlerTypeError(f"{where} goes over an async method, not over {wrong}")
    binds = hasattr(type(method), "__get__")  # else it gets no `self`
    if not takes(method, *[None] * (binds + (parameter is not None))):
        shown = inspect.signature(method, follow_wrapped=False)  # type: ignore[arg-type]  # it is callable, as was just seen
        if binds:
            raise HandlerTypeError(f"{where} goes over a method ({head}), not {shown}")
        gets = "nothing" if parameter is None else f"({parameter}) alone"
        raise HandlerTypeError(
            f"{where} goes over a method ({head}), not over {method!r}, which is no function: "
            f"it gets {gets}, no self, and takes {shown}"
        )


def check_undecorated(owner: str, attribute: str, value: object, marks: str) -> None:
    """Refuse what hides a handler from its class: one of a property is never called.

    Args:
        owner: The name of the class.
        attribute: The name in the class.
        value: What is there.
        marks: The attribute that says what a function was marked with.

    Raises:
        HandlerTypeError: It is a property with a handler in it; a `TypeError`.
    """
    if isinstance(value, property | cached_property):
        function = value.fget if isinstance(value, property) else value.func
        if getattr(function, marks, None):
            kind = type(value).__name__
            raise HandlerTypeError(f"{owner}.{attribute} is a handler, and is called: take @{kind} away")


def _wrong_kind(method: object, head: str) -> str | None:
    """Say what something is, and what to do, if it is no method."""
    if isinstance(method, _OTHERS):
        function = method.fget if isinstance(method, property) else getattr(method, "__func__", None)
        name = getattr(function or getattr(method, "func", None), "__name__", "…")
        kind = type(method).__name__
        return f"a {kind}: take @{kind} away, and write 'async def {name}({head})'"
    if isinstance(method, MethodType):
        return f"{method.__qualname__}, which has its self already: put it over the function, in the class"
    if isinstance(method, partial | partialmethod | singledispatchmethod):
        kind = type(method).__name__
        return f"a functools.{kind}: write 'async def …({head})' in the class, and call that in it"
    if inspect.isclass(method):
        return f"the class {method.__name__}: write 'async def …({head})' in the worker's class, and use that in it"
    return None if callable(method) else repr(method)


def _sync(method: object, head: str) -> str | None:
    if not is_sync(method):
        return None
    if isinstance(method, FunctionType) and method.__name__ == "<lambda>":
        return f"a lambda, which cannot be async: write 'async def …({head})'"
    shown = method.__qualname__ if isinstance(method, FunctionType) else repr(method)
    return f"{shown}, which is not async: write 'async def'"
