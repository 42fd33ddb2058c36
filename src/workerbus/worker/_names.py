"""Which names of a worker are taken, and what a class may do with them (N6).

Documented names are taken: the public methods, properties and hooks of `BaseWorker` and of what it derives from. They
can be overridden, by what can take their place. All others are the user's, in the class, in a mixin, on the object.
"""

import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any

from workerbus.errors import ReservedNameError


def is_own(cls: type) -> bool:
    """Whether a class is part of the library."""
    return cls.__module__.partition(".")[0] == "workerbus"


@cache
def _documented(base: type) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for each in reversed(base.__mro__):
        names.update((name, value) for name, value in vars(each).items() if is_own(each) and not name.startswith("_"))
    return names


def _own_base(cls: type) -> type:
    return next(base for base in cls.__mro__ if is_own(base))


def check_class(cls: type) -> None:
    """Refuse a class in which a documented name stands for something else, be it from the class or from a mixin.

    Raises:
        ReservedNameError: There is such a name; a `TypeError`.
    """
    for name, original in _documented(_own_base(cls)).items():
        value = inspect.getattr_static(cls, name)
        if value is not original and not _can_replace(name, original, value):
            raise ReservedNameError(cls.__name__, name, _what(original))


def check_object(worker: object) -> None:
    """Refuse an object on which a documented name has been set to something that cannot take its place.

    Raises:
        ReservedNameError: There is such a name; a `TypeError`.
    """
    documented = _documented(_own_base(type(worker)))
    for name, value in vars(worker).items():
        if name in documented and not _can_replace(name, documented[name], value):
            raise ReservedNameError(type(worker).__name__, name, _what(documented[name]))


def check_handlers(cls: type, names: Iterable[str]) -> None:
    """Refuse job and watch handlers under a documented name, which is called for something else.

    Raises:
        ReservedNameError: There is such a handler; a `TypeError`.
    """
    documented = _documented(_own_base(cls))
    for name in names:
        if name in documented:
            raise ReservedNameError(cls.__name__, name, _what(documented[name]))


def class_name_of(cls: type) -> str | None:
    """Return the name that a class body gives to its workers; None if it gives none."""
    name = inspect.getattr_static(cls, "name")
    return name if isinstance(name, str) else None


def _can_replace(name: str, original: object, value: object) -> bool:
    if name == "name":
        return isinstance(value, str) and bool(value)  # the worker's name; one that is computed could change
    if isinstance(original, property):
        return hasattr(type(value), "__get__") and not callable(value)  # a property, or something of its kind
    if callable(original) or isinstance(original, classmethod | staticmethod):
        return callable(value) or isinstance(value, classmethod | staticmethod)
    return True  # a plain attribute, as `receives`


def _what(original: object) -> str:
    return "property" if isinstance(original, property) else "method"
