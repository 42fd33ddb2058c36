"""The one attribute that the library has on an object of its user's (N6, N8).

A class that users subclass belongs to them: any name that is not documented is theirs to take. So what the library
keeps of such an object is behind one attribute, whose name nobody takes by accident, and is read with `core_of`.
"""

from typing import Any

from workerbus.errors._base import NotInitializedError


class HasCore:
    """The base of all classes that users subclass and of whose objects the library keeps something."""

    __core: Any


def set_core(owner: HasCore, core: Any) -> None:
    """Let the library keep something of an object: its core."""
    object.__setattr__(owner, "_HasCore__core", core)  # past a class that is frozen, or has a __setattr__ of its own


def core_of(owner: HasCore) -> Any:
    """Return what the library keeps of an object: its core.

    Raises:
        NotInitializedError: Its class has an ``__init__`` that does not call that of its base class.
    """
    try:
        return owner._HasCore__core  # type: ignore[attr-defined]  # noqa: SLF001 - this module's own
    except AttributeError:
        raise NotInitializedError(type(owner).__name__) from None
