"""What a package shows of its modules is its own: users find it there, and so does pickle."""

from types import FunctionType
from typing import Any


def own(package: dict[str, Any]) -> list[Any]:
    """Have classes and functions that a package has from its own modules name the package as theirs.

    Args:
        package: All that is in the package, by name.

    Returns:
        These classes and functions.
    """
    name: str = package["__name__"]
    owned = [
        each
        for each in package.values()
        if isinstance(each, type | FunctionType) and each.__module__.startswith(f"{name}.")
    ]
    for each in owned:
        each.__module__ = name
    return owned
