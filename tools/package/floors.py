"""Prints the lowest versions that pyproject.toml allows of what an extra needs, as constraints for pip.

``python tools/package/floors.py test > floors.txt``, then ``pip install --constraint floors.txt '.[test]'``.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def floors(extra: str) -> Iterator[str]:
    """Return a constraint for each dependency of an extra, those of the extras in it, and those of the core."""
    for requirement in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]):
        needed, _, marker = requirement.partition(";")
        found = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:[>=]=([\w.*]+))?", needed)
        assert found is not None, requirement
        name, inner, lowest = found.groups()
        if name == PROJECT["name"]:
            for each in inner.split(","):
                yield from floors(each)
        else:
            yield f"{name}=={lowest}{marker and '; '}{marker.strip()}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in sorted(set(floors(sys.argv[1]))))
