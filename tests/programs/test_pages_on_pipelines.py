"""The pages on pipelines and bridging say what is so: their snippets are run, and print what stands below them."""

import contextlib
import inspect
import io
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import workerbus.pipeline
from workerbus.testing import run

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("pipelines", "bridging")


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content."""
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


def printing(page: str) -> list[tuple[str, str]]:
    """The function with which each snippet ends that has its output below it, and that output."""
    found = []
    all_blocks = blocks(page)
    for (language, code), (below, output) in pairwise(all_blocks):
        names = re.findall(r"^async def (\w+)\(\)", code, re.MULTILINE)
        if (language, below) == ("python", "text") and names:
            found.append((names[-1], output))
    return found


def played(page: str) -> ModuleType:
    """The snippets of a page, one after the other, as a module."""
    module = ModuleType(page)
    exec("\n\n".join(code for language, code in blocks(page) if language == "python"), vars(module))
    return module


def printed(function: Any, backend: str, seed: int) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run(function, backend=backend, seed=seed)
    return output.getvalue()


CASES = [pytest.param(page, name, output, id=f"{page}-{name}") for page in PAGES for name, output in printing(page)]


@pytest.mark.parametrize(("page", "name", "output"), CASES)
def test_a_snippet_prints_what_stands_below_it(backend: str, page: str, name: str, output: str) -> None:
    module = played(page)
    for seed in range(5):
        assert printed(getattr(module, name), backend, seed) == output


@pytest.mark.parametrize("page", PAGES)
def test_the_other_snippets_run(backend: str, page: str) -> None:
    module = played(page)
    shown = {name for name, _ in printing(page)}
    own = [
        value
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value) and value.__code__.co_argcount == 0 and name not in shown
    ]
    for function in own:
        printed(function, backend, seed=0)
    assert len(shown) >= 3


def test_every_public_name_of_the_pipeline_package_is_on_one_of_the_pages() -> None:
    text = "".join((DOCS / f"{page}.md").read_text() for page in PAGES)
    unnamed = {name for name in workerbus.pipeline.__all__ if not re.search(rf"\b{name}\b", text)}
    assert unnamed == set()


def test_the_pages_are_linked_and_cite_promises_that_there_are() -> None:
    promises = set(re.findall(r"^- \*\*(\w\d+)\*\*", (DOCS / "guarantees.md").read_text(), re.MULTILINE))
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text()
        assert set(re.findall(r"\b[NLBGWJRP]\d+\b", text)) <= promises
        assert all((DOCS / target).is_file() for target in re.findall(r"\]\(([\w./]+)\)", text))
        assert all((DOCS.parent / target).is_file() for target in re.findall(r"`(examples/\w+\.py)`", text))
