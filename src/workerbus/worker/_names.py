"""Which names of a worker are taken, and what a class may do with them (N6, N8).

Documented names are taken: the public methods, properties and hooks of `BaseWorker` and of what it derives from. They
can be overridden, by what can take their place. All others are the user's, in the class, in a mixin, on the object. But
for one kind: an async ``on_…`` method that is nearly called as a hook is taken for a hook that is misspelt.
"""

import inspect
import warnings
from collections.abc import Container, Iterable, Mapping
from difflib import SequenceMatcher
from functools import cache, cached_property
from types import FunctionType
from typing import Any, Final

from workerbus._methods import arguments_of, check_arguments, check_methods, is_sync, takes
from workerbus._values import plain_name
from workerbus.errors import MisspeltHookError, ReservedNameError

_LIFE: Final = frozenset({"run", "start", "stop", "cleanup"})
"""What the library calls of a worker beside its hooks and handlers."""


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


@cache
def _called(base: type) -> Mapping[str, int]:
    """Return how many arguments each method gets that the library calls of a worker, by name."""
    documented = _documented(base).items()
    return arguments_of(
        {
            name: value
            for name, value in documented
            if isinstance(value, FunctionType) and (name in _LIFE or name.startswith("on_"))
        }
    )


def check_class(cls: type) -> None:
    """Refuse a class in which a documented name stands for something else, be it from the class or from a mixin.

    Raises:
        ReservedNameError: There is such a name; a `TypeError`.
    """
    for name, original in _documented(_own_base(cls)).items():
        value = inspect.getattr_static(cls, name)
        if value is not original and not _can_replace(name, original, value):
            raise ReservedNameError(cls.__name__, name, _what(original))


def check_called(cls: type) -> None:
    """Refuse a class with a hook, or another method that the library calls, that cannot be called or not awaited.

    Raises:
        HandlerTypeError: One is not async, or does not take what it gets; a `TypeError`.
    """
    check_methods(cls, _called(_own_base(cls)))


def check_object(worker: object, handlers: Mapping[str, int]) -> None:
    """Refuse an object on which a documented name has been set to something that cannot take its place.

    Args:
        worker: The object.
        handlers: The names of its handlers, and how many arguments each gets.

    Raises:
        ReservedNameError: There is such a name; a `TypeError`.
        HandlerTypeError: A hook or a handler that has been put on the object does not take what it gets; a `TypeError`.
    """
    base, kind = _own_base(type(worker)), type(worker).__name__
    documented, called = _documented(base), {**_called(base), **handlers}
    for name, value in vars(worker).items():
        if name in documented and not _can_replace(name, documented[name], value):
            raise ReservedNameError(kind, name, _what(documented[name]))
        if name in called:
            check_arguments(f"{kind}.{name}", value, called[name])


def check_handlers(cls: type, handlers: Mapping[str, int], generators: Container[str]) -> None:
    """Refuse handlers under a documented name, which is called for something else.

    Args:
        cls: The class.
        handlers: The names of its handlers, and how many arguments each gets.
        generators: The names of those that may be async generators.

    Raises:
        ReservedNameError: There is such a handler; a `TypeError`.
        HandlerTypeError: The override of one is not async, or does not take what it gets; a `TypeError`.
    """
    documented = _documented(_own_base(cls))
    for name in handlers:
        if name in documented:
            raise ReservedNameError(cls.__name__, name, _what(documented[name]))
    check_methods(cls, handlers, generators)


def check_spelling(cls: type, handlers: Iterable[str]) -> None:
    """Refuse ``on_…`` methods of a class, and warn of those of its mixins, that are nearly called as a hook.

    What is certain is refused: the class itself has such a method, which is async, and overrides none of another class.
    A method that is not async may be one of the user's own, as may be what a mixin has that is made for other things.

    Args:
        cls: The class.
        handlers: The names of its job and watch handlers, which are called in any case.

    Raises:
        MisspeltHookError: There is such a method; a `TypeError`.
    """
    base = _own_base(cls)
    hooks = {name: count for name, count in _called(base).items() if name.startswith("on_")}
    for each in cls.__mro__:
        if each is not cls and (each is object or issubclass(each, _root(base)) or is_own(each)):
            continue  # looked at when it was made
        for name, value in vars(each).items():
            near = _near(name, hooks) if name.startswith("on_") and name not in handlers else []
            if not near or not isinstance(value, FunctionType):
                continue
            certain = not is_sync(value)
            if each is cls and certain and not any(name in vars(other) for other in cls.__mro__[1:]):
                raise MisspeltHookError(cls.__name__, name, near)
            if each is cls or (certain and takes(value, None, *[None] * hooks[near[0]])):
                text = f"{each.__name__}.{name} is no hook of {cls.__name__}; did you mean {' or '.join(near)}?"
                warnings.warn(text, RuntimeWarning, stacklevel=4)


def _root(base: type) -> type:
    return [each for each in base.__mro__ if is_own(each)][-1]


def _near(name: str, hooks: Iterable[str]) -> list[str]:
    # Word by word: names of the user's own that have another word, or one more, are as legitimate as any.
    words = name.split("_")
    near = []
    for hook in hooks:
        others = hook.split("_")
        same_words = len(words) == len(others) and all(map(_alike, words, others))
        if name != hook and (same_words or "".join(words) == "".join(others)):
            near.append(hook)
    return [] if name in hooks else sorted(near, key=lambda hook: -SequenceMatcher(None, name, hook).ratio())


def _alike(word: str, other: str) -> bool:
    if word == other:
        return True
    if not word or word[0] != other[0]:
        return False
    short, long = sorted((word, other), key=len)
    if long.startswith(short):
        return len(short) >= 0.6 * len(long)  # "cancel" for "cancelled"
    return SequenceMatcher(None, word, other).ratio() > 0.72  # "activation" for "activated"


def class_name_of(cls: type) -> str | None:
    """Return the name that a class body gives to its workers; None if it gives none."""
    name = inspect.getattr_static(cls, "name")
    return plain_name(name) if isinstance(name, str) else None


def _can_replace(name: str, original: object, value: object) -> bool:
    if name == "name":
        return isinstance(value, str) and bool(value)  # the worker's name; one that is computed could change
    if isinstance(original, property):
        return hasattr(type(value), "__get__") and not callable(value)  # a property, or something of its kind
    if callable(original) or isinstance(original, classmethod | staticmethod):
        if isinstance(value, property | cached_property):
            return False
        return callable(value) or hasattr(type(value), "__get__")  # that of `functools.partialmethod`, for instance
    return True  # a plain attribute, as `receives`


def _what(original: object) -> str:
    return "property" if isinstance(original, property) else "method"
