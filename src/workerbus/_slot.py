"""The one attribute that the library has on an object of its user's (N6).

A class that users subclass belongs to them: any name that is not documented is theirs to take. So what the library
needs to keep stands behind one attribute, whose name nobody takes by accident, and its parts get at it through
`core_of`.
"""

from typing import Any

from workerbus.errors import NotInitializedError


class HasCore:
    """Something that users subclass, and of which the library keeps something."""

    __core: Any


def set_core(owner: HasCore, core: Any) -> None:
    """Keep something of an object."""
    owner._HasCore__core = core  # type: ignore[attr-defined]  # noqa: SLF001 - this module's own


def core_of(owner: HasCore) -> Any:
    """Return what the library keeps of an object.

    Raises:
        NotInitializedError: Its class has an ``__init__`` that does not call that of its base class.
    """
    try:
        return owner._HasCore__core  # type: ignore[attr-defined]  # noqa: SLF001 - this module's own
    except AttributeError:
        raise NotInitializedError(type(owner).__name__) from None
