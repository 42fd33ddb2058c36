"""A file from which an exploration goes on where an earlier one has stopped."""

import json
import os
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1


def load(path: Path, what: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was saved; None if there is no such file.

    Args:
        path: The file.
        what: What is explored, and how; it has to be the same.

    Raises:
        ValueError: The file is of something else, or none of these.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        saved: dict[str, Any] = json.loads(text)
        earlier = dict(saved["what"])
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path} is no file of an exploration") from None
    for name, value in {**what, "version": VERSION}.items():
        if earlier.get(name) != value:
            raise ValueError(
                f"{path} is of an exploration with {name} {earlier.get(name)!r}, and not {value!r}: remove it, or take "
                "another one"
            )
    return saved


def save(path: Path, what: dict[str, Any], how_far: dict[str, Any]) -> None:
    """Write how far an exploration is: the whole file, or nothing.

    Args:
        path: The file.
        what: What is explored, and how.
        how_far: How far it is.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps({"what": {**what, "version": VERSION}, **how_far}))
    new.replace(path)
