"""The examples in docstrings, to be run."""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import anyio
import hypothesis
import pytest

import workerbus
import workerbus.testing
from workerbus.testing import strategies


def blocks(documented: object) -> list[str]:
    """The blocks of code in a docstring: what is indented after a line that ends in ``::``."""
    found = re.findall(r"::\n\n((?:(?:    .*)?\n)+)", f"{inspect.getdoc(documented)}\n")
    return [textwrap.dedent(block) for block in found]


def names_for_examples() -> dict[str, Any]:
    """What an example may use without importing it."""
    public = {name: getattr(module, name) for module in (workerbus, workerbus.testing) for name in module.__all__}
    drawn = {name: value for name, value in vars(strategies).items() if not name.startswith("_")}
    return {"anyio": anyio, "pytest": pytest, "given": hypothesis.given, **drawn, **public}


def examples(*documented: object, sync: bool = False) -> list[Any]:
    """The ``async def test_…`` functions in docstrings, as parameters; whatever else stands there is executed, too.

    With ``sync``, the functions that are not async.
    """
    found: list[Any] = []
    for thing in documented:
        for block in blocks(thing):
            names = names_for_examples()
            exec(block, names)
            tests: list[Callable[..., Any]] = [value for name, value in names.items() if name.startswith("test_")]
            found += [
                pytest.param(test, id=test.__name__) for test in tests if inspect.iscoroutinefunction(test) is not sync
            ]
    return found
